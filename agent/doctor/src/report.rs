//! What was found, for people and for programs.

use std::io::{self, Write};

use clap::ValueEnum;
pub use podcreds_output::Status;
use podcreds_output::{finding_lines, tally};
use serde::Serialize;

use crate::words::clean;

/// What one check has seen, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, which does not change from version to version.
    pub check: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was seen, in a sentence.
    pub seen: String,
    /// What to do, unless there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(crate) fn pass(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Status::Pass, seen.into(), None)
    }

    pub(crate) fn warn(
        check: &'static str,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Status::Warn, seen.into(), Some(remedy.into()))
    }

    pub(crate) fn fail(
        check: &'static str,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Status::Fail, seen.into(), Some(remedy.into()))
    }

    fn new(check: &'static str, status: Status, seen: String, remedy: Option<String>) -> Self {
        Self {
            check,
            status,
            seen: clean(&seen),
            remedy: remedy.as_deref().map(clean),
        }
    }
}

/// How the report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A line for each check
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// All findings, in the order of the checks.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was looked at: `node`, or a pod.
    pub subject: String,
    /// The gravest status.
    pub worst: Status,
    /// The findings.
    pub checks: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(subject: impl Into<String>, checks: Vec<Finding>) -> Self {
        let worst = checks.iter().map(|it| it.status).max();
        Self {
            subject: subject.into(),
            worst: worst.unwrap_or(Status::Pass),
            checks,
        }
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// When `to` cannot be written to.
    pub fn write(&self, output: ReportFormat, mut to: impl Write) -> io::Result<()> {
        match output {
            ReportFormat::Text => to.write_all(self.text().as_bytes()),
            ReportFormat::Json => {
                serde_json::to_writer_pretty(&mut to, self)?;
                to.write_all(b"\n")
            }
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.subject);
        for it in &self.checks {
            let remedy = it.remedy.as_deref();
            text += &finding_lines(it.status, it.check, &it.seen, remedy, None);
        }
        text += &tally(self.checks.iter().map(|it| it.status));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_and_remedies_follow_their_line() {
        let report = Report::new(
            "node",
            vec![
                Finding::pass("kernel", "6.18"),
                Finding::warn("imds", "silent", "raise the hop limit"),
                Finding::fail("region", "none", "set AWS_REGION"),
            ],
        );
        assert_eq!(report.worst, Status::Fail);
        let text = report.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "  pass  kernel          6.18");
        assert_eq!(lines[2], "  warn  imds            silent");
        assert_eq!(lines[3].trim(), "-> raise the hop limit");
        assert_eq!(lines[6], "1 passed, 1 with warnings, 1 failed");
        let mut json = Vec::new();
        report.write(ReportFormat::Json, &mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["worst"], "fail");
        assert_eq!(json["checks"][2]["remedy"], "set AWS_REGION");
        assert!(json["checks"][0].get("remedy").is_none());
    }

    #[test]
    fn what_a_pod_says_cannot_move_the_cursor() {
        let finding = Finding::warn("a", "x\u{1b}[2Jy\nz", "b\r");
        assert_eq!(finding.seen, "x [2Jy z");
        assert_eq!(finding.remedy.as_deref(), Some("b "));
    }
}
