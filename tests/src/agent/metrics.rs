//! Prometheus' text format, as far as the agent writes it.

use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_bucket`, `_sum` or `_count` for a histogram's parts.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// Whether it has this name and at least these labels.
    pub fn matches(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name
            && labels
                .iter()
                .all(|(label, value)| self.labels.get(*label).is_some_and(|held| held == value))
    }
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads the text format.
    ///
    /// # Panics
    ///
    /// When a line is malformed.
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parse = |line| parse_sample(line).unwrap_or_else(|| panic!("malformed sample: {line}"));
        Self(samples.map(parse).collect())
    }

    /// Every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The sum of the samples with this name and at least these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matching = self.0.iter().filter(|sample| sample.matches(name, labels));
        matching.map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// Whether there is any sample with this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Reads `a="b",c="d"}` and returns what follows.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(label.to_owned(), value);
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a Some help.\n# TYPE a counter\na{code=\"200\",path=\"x \\\"}\\\\\"} 3\n\
                        a{code=\"503\"} 4\nb 1.5e-3\nc_bucket{le=\"+Inf\"} 7\n";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("a", &[]), 7.0);
        assert_eq!(metrics.sum("a", &[("code", "503")]), 4.0);
        assert_eq!(metrics.sum("a", &[("path", "x \"}\\")]), 3.0);
        assert_eq!(metrics.sum("b", &[]), 0.0015);
        assert_eq!(metrics.sum("c_bucket", &[("le", "+Inf")]), 7.0);
        assert_eq!(metrics.sum("d", &[]), 0.0);
        assert!(metrics.has("b") && !metrics.has("d"));
    }
}
