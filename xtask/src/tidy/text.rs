//! Rules that look at lines, not at Rust.

use std::path::{Component, Path, PathBuf};

use super::{Complaint, source::Source};
use crate::workspace::root;

/// A file that needs scrolling to be understood is two files.
const LINES: usize = 400;
/// The longest line of a comment, and of prose, in characters.
const COMMENT: usize = 100;
const PROSE: usize = 120;
/// Where the kernel is talked to; everything else is safe Rust.
const UNSAFE: [&str; 3] = ["agent/datapath/", "common/", "ebpf/"];
/// The compiler denies unsafe code to those who do not name this lint. Split as below.
const UNSAFE_LINT: &str = concat!("unsafe", "_code");
/// Split, so that this file keeps its own rule.
const LEFTOVERS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimple", "mented!("),
];

/// Words of another age, or of a play: plain ones say the same.
const OLD_WORDS: [&str; 9] = [
    concat!("who", "ever"),
    concat!("who", "mever"),
    concat!("who", "m"),
    concat!("vou", "ch"),
    concat!("vou", "ched"),
    concat!("ush", "er"),
    concat!("cen", "sus"),
    concat!("nou", "ght"),
    concat!("up", "on"),
];

pub(super) fn length(file: &Source) -> Vec<Complaint> {
    let lines = file.text.lines().count();
    if lines <= LINES {
        return Vec::new();
    }
    vec![Complaint {
        line: lines,
        what: format!("{lines} lines, over {LINES}: split the file"),
    }]
}

/// Complains about long lines of comments, and of prose outside of tables and of code that is
/// shown.
pub(super) fn width(file: &Source) -> Vec<Complaint> {
    let is_rust = file.is_rust();
    let mut is_code = false;
    complain(file, move |line| {
        let start = line.trim_start();
        is_code ^= start.starts_with("```");
        let (is_prose, most) = match is_rust {
            true => (start.starts_with("//"), COMMENT),
            false => (!is_code && !start.starts_with('|'), PROSE),
        };
        let length = line.chars().count();
        let what = || format!("{length} characters, over {most}: break the line");
        (is_prose && length > most).then(what).into_iter().collect()
    })
}

pub(super) fn leftovers(file: &Source) -> Vec<Complaint> {
    complain(file, |line| {
        LEFTOVERS
            .iter()
            .filter(|leftover| line.contains(*leftover))
            .map(|leftover| format!("{leftover}: do it now, or file an issue"))
            .collect()
    })
}

/// Complains about words that a reader with little English has never met.
pub(super) fn plain_words(file: &Source) -> Vec<Complaint> {
    complain(file, |line| {
        line.split(|c: char| !c.is_alphabetic())
            .map(str::to_lowercase)
            .filter(|word| OLD_WORDS.contains(&word.as_str()))
            .map(|word| format!("{word:?}: say it in a plain word"))
            .collect()
    })
}

/// Complains where a file that has no business with the kernel asks for unsafe code.
pub(super) fn unsafety(file: &Source) -> Vec<Complaint> {
    if UNSAFE.iter().any(|folder| file.is_below(folder)) {
        return Vec::new();
    }
    complain(file, |line| {
        let asks = line.contains(UNSAFE_LINT);
        let what = || "unsafe code belongs into the datapath, `common` or `ebpf`".to_owned();
        asks.then(what).into_iter().collect()
    })
}

/// Complains about links in Markdown to files that are missing or outside.
pub(super) fn links(file: &Source) -> Vec<Complaint> {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    complain(file, |line| {
        line.split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#', ' ']).next())
            .filter(|target| !target.is_empty() && !target.contains("://"))
            .filter(|target| {
                inside(&folder.join(target)).is_none_or(|path| !root().join(path).exists())
            })
            .map(|target| format!("{target} is no file of this repository"))
            .collect()
    })
}

/// Complains about members whose dependencies have versions of their own.
pub(super) fn dependency_versions(file: &Source) -> Vec<Complaint> {
    let mut in_dependencies = false;
    complain(file, move |line| {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
            return Vec::new();
        }
        let names_one = in_dependencies && line.contains('=') && !line.starts_with('#');
        if !names_one || line.contains("workspace = true") {
            return Vec::new();
        }
        vec!["take the version from the workspace".to_owned()]
    })
}

/// The path without its detours, or `None` when it leads out of the checkout.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

fn complain(file: &Source, mut rule: impl FnMut(&str) -> Vec<String>) -> Vec<Complaint> {
    file.text
        .lines()
        .enumerate()
        .flat_map(|(at, line)| {
            rule(line)
                .into_iter()
                .map(move |what| Complaint { line: at + 1, what })
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Source {
        Source {
            path: "docs/some.md".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_long_file_is_seen() {
        assert!(length(&file(&"x\n".repeat(LINES))).is_empty());
        assert_eq!(length(&file(&"x\n".repeat(LINES + 1))).len(), 1);
    }

    #[test]
    fn a_long_line_of_prose_is_seen_and_one_of_a_table_or_of_code_is_not() {
        let long = "x".repeat(PROSE + 1);
        assert_eq!(width(&file(&long)).len(), 1);
        assert!(width(&file(&format!("| {long} |\n```text\n{long}\n```"))).is_empty());
        let rust = |line: String| Source {
            path: "agent/src/main.rs".to_owned(),
            text: line,
        };
        assert_eq!(width(&rust(format!("// {long}"))).len(), 1);
        assert!(width(&rust(format!("let x = \"{long}\";"))).is_empty());
    }

    #[test]
    fn a_leftover_is_seen_with_its_line() {
        let complaints = leftovers(&file(&format!("a\n// {}: later", LEFTOVERS[0])));
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].line, 2);
    }

    #[test]
    fn an_old_word_is_seen_also_in_a_name() {
        let old = OLD_WORDS[0];
        for text in [format!("{old} asks"), format!("fn {old}_asks_waits() {{")] {
            assert_eq!(plain_words(&file(&text)).len(), 1, "{text}");
        }
        assert!(plain_words(&file("the pod that asks")).is_empty());
    }

    #[test]
    fn unsafe_outside_the_datapath_is_seen() {
        let at = |path: &str| Source {
            path: path.to_owned(),
            text: format!("#![expect({UNSAFE_LINT}, reason = \"it is faster\")]"),
        };
        assert_eq!(unsafety(&at("agent/server/src/lib.rs")).len(), 1);
        assert!(unsafety(&at("agent/datapath/src/lib.rs")).is_empty());
    }

    #[test]
    fn links_out_of_the_repository_or_into_nothing_are_seen() {
        let good =
            "[a](../Cargo.toml) [b](https://example.com/x) [c](#here) [d](../xtask/src/main.rs#L1)";
        assert!(links(&file(good)).is_empty());
        for bad in ["[a](../../etc)", "[a](/etc/passwd)", "[a](nothing.md#x)"] {
            assert_eq!(links(&file(bad)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_version_in_a_member_is_seen() {
        let good = "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true }";
        assert!(dependency_versions(&file(good)).is_empty());
        let bad = "[dev-dependencies]\na = \"1\"";
        assert_eq!(dependency_versions(&file(bad)).len(), 1);
    }
}
