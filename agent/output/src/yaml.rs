//! JSON values as YAML.

use serde_json::Value;

use crate::text::escaped;

/// A value in block style. Texts are quoted as in JSON, which YAML understands.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    escaped(&text, escape)
}

/// A character as YAML escapes it, which does not put two halves together as JSON does.
fn escape(c: char) -> String {
    let code = u32::from(c);
    match code {
        0..=0xffff => format!("\\u{code:04x}"),
        _ => format!("\\U{code:08x}"),
    }
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                text.push_str(&format!("{indent}{name}:"));
                below(value, depth + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                write(item, depth + 1, &mut inner);
                // The first line begins where the dash has left off.
                text.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        other => text.push_str(&format!("{indent}{other}\n")),
    }
}

/// What stands behind a name: on the same line if it is but one value.
fn below(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            write(value, depth, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            write(value, depth, text);
        }
        other => text.push_str(&format!(" {other}\n")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_in_blocks() {
        let value = json!({
            "agents": [{ "pods": [{ "name": "a: \"b\"", "role": null }, { "name": "c" }], "up": 1.5 }],
            "none": [],
        });
        let expected = "\
agents:
  - pods:
      - name: \"a: \\\"b\\\"\"
        role: null
      - name: \"c\"
    up: 1.5
none: []
";
        assert_eq!(yaml(&value), expected);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let value = json!({ "name": "\u{9b}2J\u{202e}\u{e0041}ä" });
        assert_eq!(yaml(&value), "name: \"\\u009b2J\\u202e\\U000e0041ä\"\n");
    }
}
