//! JSON values as YAML.

use serde_json::Value;

/// A value in block style. Texts are quoted as in JSON, which YAML understands.
pub(super) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
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
}
