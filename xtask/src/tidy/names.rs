//! One name, one meaning: the types that more than their own file uses.

use std::collections::BTreeMap;

use super::source::Source;

/// What nearly every crate has one of. The crate's name says which.
const ONE_PER_CRATE: [&str; 2] = ["Config", "Metrics"];

/// Complains about types of the agent whose name another one has too.
pub(super) fn repeated(files: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_of_agent()) {
        for name in file.text.lines().filter_map(shared_type) {
            places.entry(name).or_default().push(&file.path);
        }
    }
    places
        .into_iter()
        .filter(|(name, places)| places.len() > 1 && !ONE_PER_CRATE.contains(name))
        .map(|(name, places)| format!("{name} has several meanings: {}", places.join(", ")))
        .collect()
}

/// The name of the type that a line declares for others to use.
fn shared_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let declared = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let mut words = declared.split_whitespace();
    ["struct", "enum", "trait", "type", "union"]
        .contains(&words.next()?)
        .then(|| words.next())??
        .split(|c: char| !c.is_alphanumeric())
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_name_with_two_meanings_is_seen() {
        let files = [
            file("agent/cache/src/a.rs", "pub struct Limit<K> {"),
            file("agent/server/src/b.rs", "    pub(super) enum Limit {"),
        ];
        assert_eq!(repeated(&files).len(), 1);
    }

    #[test]
    fn configs_tests_and_what_a_file_keeps_to_itself_may_share_a_name() {
        let files = [
            file("agent/cache/src/a.rs", "pub struct Config;\nstruct Inner;"),
            file("agent/server/src/b.rs", "pub struct Config;\nstruct Inner;"),
            file("agent/cache/src/c.rs", "pub(crate) trait Clock {"),
            file("agent/cache/src/tests.rs", "pub(crate) struct Clock;"),
        ];
        assert_eq!(repeated(&files), Vec::<String>::new());
    }
}
