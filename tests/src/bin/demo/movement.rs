//! What moved in the agent's metrics between two scrapes.

use podcreds_tests::{
    agent::{Metrics, Sample},
    table,
};

/// By how much the samples of this name and these labels grew.
pub(crate) fn growth(
    before: &Metrics,
    after: &Metrics,
    name: &str,
    labels: &[(&str, &str)],
) -> f64 {
    after.sum(name, labels) - before.sum(name, labels)
}

/// Which values of `label` grew, in the order of their names.
pub(crate) fn grown(before: &Metrics, after: &Metrics, name: &str, label: &str) -> Vec<String> {
    let mut values: Vec<_> = after
        .samples()
        .iter()
        .filter(|sample| sample.name == name)
        .filter_map(|sample| sample.labels.get(label).cloned())
        .filter(|value| growth(before, after, name, &[(label, value)]) > 0.0)
        .collect();
    values.sort();
    values
}

/// A table of what changed, without what every process has and without histograms' buckets.
pub(crate) fn table(before: &Metrics, after: &Metrics) -> String {
    let rows: Vec<_> = after
        .samples()
        .iter()
        .filter(|sample| sample.name.starts_with("podcreds_"))
        .filter(|sample| !sample.name.ends_with("_bucket") && !sample.name.ends_with("_sum"))
        .filter_map(|sample| {
            let was = before.sum(&sample.name, &pairs(sample));
            (was != sample.value).then(|| vec![describe(sample), number(was), number(sample.value)])
        })
        .collect();
    table::layout(&["METRIC", "BEFORE", "AFTER"], &rows, &[1, 2])
}

/// Counts as they are, measures to a tenth.
fn number(value: f64) -> String {
    format!("{value:.*}", usize::from(value.fract() != 0.0))
}

fn pairs(sample: &Sample) -> Vec<(&str, &str)> {
    sample
        .labels
        .iter()
        .map(|(label, value)| (label.as_str(), value.as_str()))
        .collect()
}

fn describe(sample: &Sample) -> String {
    let labels: Vec<_> = sample
        .labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    if labels.is_empty() {
        return sample.name.clone();
    }
    format!("{}{{{}}}", sample.name, labels.join(","))
}
