//! The metrics of the agent, and the table that says what they tell.

use super::source::Source;

const PAGE: &str = "docs/operations.md";
const SECTION: &str = "\n## Metrics\n";
/// What their names begin with: our own, and those of AWS's agent.
const OURS: [&str; 2] = ["podcreds_", "pod_identity_"];

/// Complains about metrics that have no row in the table, and about rows without a metric.
pub(super) fn unexplained(files: &[Source]) -> Vec<String> {
    let page = files.iter().find(|file| file.path == PAGE);
    let table = page.map_or(Vec::new(), |page| rows(&page.text));
    let code = files.iter().filter(|file| file.is_of_agent());
    let metrics: Vec<_> = code.flat_map(|file| registered(&file.text)).collect();
    let lacks_row = |metric: &&&str| !table.iter().any(|row| covers(row, metric));
    let lacks_metric = |row: &&&str| !metrics.iter().any(|metric| covers(row, metric));
    let without_row = metrics.iter().filter(lacks_row);
    let without_metric = table.iter().filter(lacks_metric);
    without_row
        .map(|metric| format!("{metric} has no row in {PAGE}"))
        .chain(without_metric.map(|row| format!("{row} of {PAGE} is no metric of the agent")))
        .collect()
}

/// The names in the first column of the table, without their labels. A star stands for the rest.
fn rows(page: &str) -> Vec<&str> {
    let section = page.split_once(SECTION).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix('|'));
    rows.filter_map(|row| row.split('|').next())
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .map(|name| name.split('{').next().unwrap_or_default())
        .filter(|name| is_ours(name))
        .collect()
}

/// The names that a file gives to metrics, in front of its tests.
fn registered(code: &str) -> impl Iterator<Item = &str> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let quoted = code.split('"').skip(1).step_by(2);
    // What ends so is a part of a name.
    quoted.filter(|text| is_ours(text) && !text.ends_with('_'))
}

fn is_ours(name: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '*';
    OURS.iter().any(|start| name.starts_with(start)) && name.chars().all(is_name)
}

fn covers(row: &str, metric: &str) -> bool {
    match row.strip_suffix('*') {
        Some(start) => metric.starts_with(start),
        None => row == metric,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(row: &str, code: &str) -> usize {
        let table = format!("# x\n\n## Metrics\n\n| metric |\n|---|\n| {row} |\n\n## y\n");
        let files = [(PAGE, &*table), ("agent/cache/src/metrics.rs", code)];
        let files = files.map(|(path, text)| Source {
            path: path.to_owned(),
            text: text.to_owned(),
        });
        unexplained(&files).len()
    }

    #[test]
    fn metrics_without_a_row_are_seen_and_rows_without_a_metric() {
        let code = r#"new("podcreds_pods", "Pods."); new("podcreds_paths", "Ways.")"#;
        assert_eq!(
            complaints("`podcreds_pods`, `podcreds_paths{path}`", code),
            0
        );
        assert_eq!(complaints("`podcreds_pods`", code), 1);
        assert_eq!(
            complaints("`podcreds_p*`, `podcreds_x_*`, `kernel`", code),
            1
        );
        assert_eq!(complaints("`podcreds_pods_total`", code), 3);
    }

    #[test]
    fn what_tests_name_is_no_metric() {
        let code = "#[cfg(test)]\nnew(\"podcreds_test_total\")";
        assert_eq!(complaints("", code), 0);
    }
}
