//! What a check has found, as people and programs read it.

use std::fmt::Write as _;

use serde::Serialize;

/// The columns of status and of a check's name.
const INDENT: &str = "        ";
const NAME: usize = 16;

/// How a check ended. The order is that of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Pass,
    /// Something should be looked at, or could not be looked at.
    Warn,
    /// Pods do not have what they should have, or will not have it soon.
    Fail,
}

impl Status {
    /// In a line: what has failed is to be seen at once.
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// A line of a report for a check, and one for what to do, unless there is nothing to do.
pub fn finding_lines(status: Status, check: &str, seen: &str, remedy: Option<&str>) -> String {
    let mut text = format!("  {}  {check:NAME$}{seen}\n", status.word());
    if let Some(remedy) = remedy {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{INDENT}{:NAME$}-> {remedy}", "");
    }
    text
}

/// The last line of a report: how many checks have ended in which way.
pub fn tally(statuses: impl Iterator<Item = Status> + Clone) -> String {
    let count = |status| statuses.clone().filter(|it| *it == status).count();
    format!(
        "{} passed, {} with warnings, {} failed\n",
        count(Status::Pass),
        count(Status::Warn),
        count(Status::Fail)
    )
}
