//! Guides in `docs`: the commands that they show, so that tests can run them.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::checkout;

/// A guide.
#[derive(Clone, Debug)]
pub struct Guide {
    sections: Vec<Section>,
}

/// What is below one heading, up to the next of any level.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// The commands of its blocks of type `console`, in order, each with its further lines.
    pub commands: Vec<String>,
    /// Its blocks of type `yaml`.
    pub yaml: Vec<String>,
}

impl Guide {
    /// Reads a guide of this checkout.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or a block in it does not end.
    pub fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(checkout::file(path));
        Self::parse(&text.with_context(|| format!("cannot read {path}"))?)
            .with_context(|| path.to_owned())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut sections = vec![Section::default()];
        let mut block: Option<(String, String)> = None;
        for line in text.lines() {
            let fence = line.trim_start().strip_prefix("```");
            block = match (block, fence) {
                (None, Some(kind)) => Some((kind.to_owned(), String::new())),
                (None, None) => {
                    if let Some(heading) = line.strip_prefix('#') {
                        let title = heading.trim_start_matches('#').trim().to_owned();
                        sections.push(Section {
                            title,
                            ..Section::default()
                        });
                    }
                    None
                }
                (Some((kind, content)), Some(_)) => {
                    if let Some(section) = sections.last_mut() {
                        section.add(&kind, content);
                    }
                    None
                }
                (Some((kind, content)), None) => Some((kind, content + line + "\n")),
            };
        }
        ensure!(block.is_none(), "a block does not end");
        Ok(Self { sections })
    }

    /// All sections.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section of this heading.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn section(&self, title: &str) -> Result<&Section> {
        let found = self.sections.iter().find(|section| section.title == title);
        found.with_context(|| format!("no section {title:?}"))
    }
}

impl Section {
    fn add(&mut self, kind: &str, content: String) {
        match kind {
            "yaml" => self.yaml.push(content),
            "console" => {
                for line in content.lines().map(str::trim_start) {
                    match (line.strip_prefix("$ "), self.commands.last_mut()) {
                        (Some(command), _) => self.commands.push(command.to_owned()),
                        (None, Some(last)) if last.ends_with('\\') => {
                            last.push('\n');
                            last.push_str(line);
                        }
                        // What a command prints.
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Puts a word in the place of another one. A word has letters, digits and underscores.
pub fn replace_word(text: &str, word: &str, by: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let is_whole = !replaced_ends(&replaced, before, is_part) && !after.starts_with(is_part);
        replaced.push_str(before);
        replaced.push_str(if is_whole { by } else { word });
        rest = after;
    }
    replaced + rest
}

/// Whether what precedes a place ends with a part of a word.
fn replaced_ends(replaced: &str, before: &str, is_part: impl Fn(char) -> bool) -> bool {
    let last = before.chars().next_back();
    last.or_else(|| replaced.chars().next_back())
        .is_some_and(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_with_their_further_lines() {
        let text = "# Title\n```sh\nno command\n```\n## One\n- indented:\n\n  ```console\n  $ a \\\n      b\n  \
                    printed\n  $ c\n  ```\n```yaml\nx: 1\n```\n### Two\n```console\n$ d\n```\n";
        let guide = Guide::parse(text).unwrap();
        let one = guide.section("One").unwrap();
        assert_eq!(one.commands, ["a \\\nb", "c"]);
        assert_eq!(one.yaml, ["x: 1\n"]);
        assert_eq!(guide.section("Two").unwrap().commands, ["d"]);
        assert!(guide.section("Three").is_err());
        assert!(Guide::parse("```console\n$ a\n").is_err());
    }

    #[test]
    fn only_whole_words_are_replaced() {
        let text = "NODE NODES,x=NODE;NODE_ROLE ANODE NODE";
        assert_eq!(
            replace_word(text, "NODE", "n"),
            "n NODES,x=n;NODE_ROLE ANODE n"
        );
    }
}
