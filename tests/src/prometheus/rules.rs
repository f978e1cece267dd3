//! The rules, as they are and for impatient tests.

use std::fs;

use crate::checkout;

use super::FOLDER;

/// What stands in front of a duration in a file of rules.
const MARKS: [&str; 4] = ["[", "for: ", "interval: ", "offset "];

/// A file of rules.
pub struct RuleFile {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl RuleFile {
    /// The same with all windows and waiting times divided by `haste`.
    #[must_use]
    pub fn hurried(&self, haste: u64) -> Self {
        let mut text = self.text.clone();
        for mark in MARKS {
            let mut parts = text.split(mark);
            let first = parts.next().unwrap_or_default().to_owned();
            text = parts.fold(first, |text, part| text + mark + &hurry(part, haste));
        }
        Self {
            name: self.name.clone(),
            text,
        }
    }
}

/// Shortens the duration that a text begins with, if it does.
fn hurry(text: &str, haste: u64) -> String {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let unit = match rest.chars().next() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => return text.to_owned(),
    };
    match number.parse::<u64>() {
        Ok(number) => format!("{}ms{}", number * unit * 1000 / haste, &rest[1..]),
        Err(_) => text.to_owned(),
    }
}

/// The YAML files of a folder of the checkout, by name.
///
/// # Panics
///
/// When there are none.
pub fn files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(checkout::file(folder)).expect("a folder of rules");
    let names = entries.flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut files: Vec<_> = names.filter(|name| name.ends_with(".yaml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

/// All rules.
///
/// # Panics
///
/// When they cannot be read.
pub fn all() -> Vec<RuleFile> {
    let read = |name: String| {
        let path = checkout::file(format!("{FOLDER}/{name}"));
        let text = fs::read_to_string(path).expect("a file of rules");
        RuleFile { name, text }
    };
    files(FOLDER).into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shortened_and_names_are_not() {
        let rule = RuleFile {
            name: "a.yaml".to_owned(),
            text: "interval: 30s\n  a:ratio5m{x=~\"[.]0\"}[5m] offset 15m\n for: 1h\n b[1d]"
                .to_owned(),
        };
        let expected = "interval: 300ms\n  a:ratio5m{x=~\"[.]0\"}[3000ms] offset 9000ms\n \
                        for: 36000ms\n b[864000ms]";
        assert_eq!(rule.hurried(100).text, expected);
    }
}
