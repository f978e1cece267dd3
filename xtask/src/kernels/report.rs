//! What came of the checks.

use std::{path::Path, time::Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::folder;

/// What a machine is at before its first check.
const BOOT: &str = "boot";

/// One line of the table.
struct Row {
    kernel: String,
    check: String,
    tests: String,
    ok: bool,
    seconds: f64,
}

/// What has been heard from all machines.
#[derive(Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

/// What has been heard from one machine.
pub(super) struct Run<'a> {
    report: &'a mut Report,
    version: &'static str,
    /// What it is at.
    at: String,
    /// Since when. Its own clock may be another.
    since: Instant,
    /// Whether it has come to its end.
    ended: bool,
}

impl Report {
    /// Begins with a machine that is being switched on.
    pub(super) fn begin(&mut self, version: &'static str) -> Run<'_> {
        Run {
            report: self,
            version,
            at: BOOT.to_owned(),
            since: Instant::now(),
            ended: false,
        }
    }

    /// Notes that a machine has not come to its end, and says why.
    pub(super) fn failure(&mut self, version: &str, error: &anyhow::Error) {
        eprintln!("    {error:#}");
        self.rows.push(Row {
            kernel: version.to_owned(),
            check: "comes to its end".to_owned(),
            tests: String::new(),
            ok: false,
            seconds: 0.0,
        });
    }

    /// Prints the table.
    ///
    /// # Errors
    ///
    /// When something has failed.
    pub(super) fn finish(&self) -> Result<()> {
        let width = |cell: fn(&Row) -> &str| {
            let widths = self.rows.iter().map(|row| cell(row).chars().count());
            widths.max().unwrap_or_default().max("KERNEL".len())
        };
        let (kernel, check) = (width(|row| &row.kernel), width(|row| &row.check));
        println!(
            "\n{:kernel$}  {:check$}  TESTS  RESULT  SECONDS",
            "KERNEL", "CHECK"
        );
        for row in &self.rows {
            println!(
                "{:kernel$}  {:check$}  {:>5}  {:6}  {:>7.1}",
                row.kernel,
                row.check,
                row.tests,
                if row.ok { "ok" } else { "FAILED" },
                row.seconds
            );
        }
        let failed = self.rows.iter().filter(|row| !row.ok).count();
        ensure!(
            failed == 0,
            "{failed} checks failed: what they have printed is in {}/*.log",
            folder().display()
        );
        Ok(())
    }
}

impl Run<'_> {
    /// Takes a line of the machine's.
    ///
    /// # Errors
    ///
    /// When it says that it cannot go on, or something that is not understood.
    pub(super) fn take(&mut self, line: &str) -> Result<()> {
        let Ok(told) = serde_json::from_str::<Value>(line) else {
            bail!("the machine said {line:?}");
        };
        if let Some(error) = told["error"].as_str() {
            bail!("{error}");
        }
        if let Some(check) = told["begins"].as_str() {
            if self.at == BOOT {
                self.row(BOOT, "", true);
            }
            self.at = check.to_owned();
        } else if let Some(check) = told["title"].as_str() {
            let tests = format!("{}/{}", told["passed"], told["tests"]);
            self.row(check, &tests, told["ok"] == true);
        } else {
            self.ended = told["kernel"].is_string();
        }
        Ok(())
    }

    /// What is known of a machine that has not come to its end.
    pub(super) fn unfinished(&self, console: &Path) -> String {
        format!("in \"{}\", see {}", self.at, console.display())
    }

    /// Checks that the machine has come to its end.
    ///
    /// # Errors
    ///
    /// When it has not.
    pub(super) fn end(&self) -> Result<()> {
        ensure!(self.ended, "the machine has ended too early");
        Ok(())
    }

    fn row(&mut self, check: &str, tests: &str, ok: bool) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let verdict = if ok { "ok" } else { "FAILED" };
        eprintln!("    {check}: {verdict} ({seconds:.1} s)");
        self.report.rows.push(Row {
            kernel: self.version.to_owned(),
            check: check.to_owned(),
            tests: tests.to_owned(),
            ok,
            seconds,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> (Report, Result<()>) {
        let mut report = Report::default();
        let mut run = report.begin("6.1");
        let taken: Result<()> = lines.iter().try_for_each(|line| run.take(line));
        let done = taken.and_then(|()| run.end());
        (report, done)
    }

    #[test]
    fn a_machine_that_says_all_is_well_to_its_end_passes() {
        let (report, done) = told(&[
            r#"{"begins":"smoke"}"#,
            r#"{"title":"smoke","passed":2,"tests":2,"ok":true}"#,
            r#"{"kernel":"6.1.0"}"#,
        ]);
        assert!(done.is_ok() && report.finish().is_ok());
        assert_eq!(report.rows.len(), 2);
    }

    #[test]
    fn a_check_that_fails_fails_the_whole() {
        let (report, done) = told(&[
            r#"{"begins":"smoke"}"#,
            r#"{"title":"smoke","passed":1,"tests":2,"ok":false}"#,
            r#"{"kernel":"6.1.0"}"#,
        ]);
        assert!(done.is_ok() && report.finish().is_err());
    }

    #[test]
    fn a_machine_that_ends_early_fails() {
        let begins = r#"{"begins":"smoke"}"#;
        assert!(told(&[begins]).1.is_err());
        assert!(told(&[begins, r#"{"error":"no room"}"#]).1.is_err());
        assert!(told(&["Kernel panic"]).1.is_err());
    }
}
