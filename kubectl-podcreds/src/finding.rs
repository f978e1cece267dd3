//! What a check has found, and the report of all of them.

use std::collections::BTreeMap;

pub(crate) use podcreds_output::Status;
use podcreds_output::{finding_lines, harmless, tally};
use serde::Serialize;

use crate::{checks::PERMISSIONS, show::Shown};

/// So many subjects of one finding are named.
const NAMED: usize = 3;

/// What one check has seen of one subject, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The check's name, which does not change from version to version.
    pub(crate) check: &'static str,
    pub(crate) status: Status,
    /// What was looked at, such as `pod shop/web`.
    pub(crate) subject: String,
    /// What was seen, in a sentence.
    pub(crate) seen: String,
    /// What to do: the command that mends it, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
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

    /// Says what was looked at.
    pub(crate) fn of(mut self, subject: &str) -> Self {
        self.subject = harmless(subject);
        self
    }

    /// Names and messages come from elsewhere: what is in a finding, a terminal only shows.
    fn new(check: &'static str, status: Status, seen: String, remedy: Option<String>) -> Self {
        Self {
            check,
            status,
            subject: String::new(),
            seen: harmless(&seen),
            remedy: remedy.as_deref().map(harmless),
        }
    }
}

/// All findings: the gravest first, and among those the first on the road to credentials.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What was looked at: `cluster NAME`, or `pod NAMESPACE/NAME`.
    pub(crate) subject: String,
    /// The gravest status.
    pub(crate) worst: Status,
    /// The check to look at first, unless nothing is wrong.
    pub(crate) first_cause: Option<&'static str>,
    pub(crate) checks: Vec<Finding>,
}

impl Report {
    /// Findings are expected in the order of the road.
    pub(crate) fn new(subject: &str, mut checks: Vec<Finding>) -> Self {
        checks.sort_by_key(|finding| std::cmp::Reverse(finding.status));
        let worst = checks.first().map_or(Status::Pass, |it| it.status);
        let mut causes = checks
            .iter()
            .filter(|it| it.status > Status::Pass && it.check != PERMISSIONS);
        Self {
            subject: harmless(subject),
            worst,
            first_cause: causes.next().map(|first| first.check),
            checks,
        }
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        let mut places = BTreeMap::new();
        for finding in &self.checks {
            let is_passed = finding.status == Status::Pass;
            // Of what has passed, only how many subjects is worth a line.
            let seen = match is_passed && finding.subject != self.subject {
                true => "",
                false => finding.seen.as_str(),
            };
            // Others may need another remedy.
            let remedy = finding.remedy.as_deref();
            let key = (finding.status, finding.check, seen, remedy);
            let place = *places.entry(key).or_insert_with(|| {
                groups.push(Group {
                    first: finding,
                    subjects: Vec::new(),
                });
                groups.len() - 1
            });
            if let Some(group) = groups.get_mut(place) {
                group.subjects.push(&finding.subject);
            }
        }
        groups
    }
}

impl Shown for Report {
    /// What is the same of many subjects is said once.
    fn text(&self, width: Option<usize>) -> String {
        let mut text = format!("{}\n", self.subject);
        for group in self.groups() {
            text.push_str(&group.text(&self.subject, width));
        }
        text.push_str(&tally(self.checks.iter().map(|it| it.status)));
        if let Some(cause) = self.first_cause {
            text.push_str(&format!("first cause: {cause}\n"));
        }
        text
    }
}

/// Findings that are the same of several subjects.
struct Group<'a> {
    first: &'a Finding,
    subjects: Vec<&'a str>,
}

impl Group<'_> {
    fn text(&self, of: &str, width: Option<usize>) -> String {
        let Finding {
            check,
            status,
            seen,
            remedy,
            ..
        } = self.first;
        let is_of_all = self.subjects.iter().all(|subject| *subject == of);
        let line = match status {
            Status::Pass if is_of_all => seen.clone(),
            Status::Pass => format!("{} looked at", self.subjects.len()),
            Status::Warn | Status::Fail => self.named(seen, is_of_all),
        };
        finding_lines(*status, check, &line, remedy.as_deref(), width)
    }

    fn named(&self, seen: &str, is_of_all: bool) -> String {
        if is_of_all {
            return seen.to_owned();
        }
        let mut named = self
            .subjects
            .iter()
            .take(NAMED)
            .copied()
            .collect::<Vec<_>>();
        let more = self.subjects.len().saturating_sub(NAMED);
        let rest = format!("{more} more");
        if more > 0 {
            named.push(&rest);
        }
        format!("{}: {seen}", named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_comes_first_and_among_those_the_first_on_the_road() {
        let report = Report::new(
            "pod shop/web",
            vec![
                Finding::pass("account", "it is there").of("pod shop/web"),
                Finding::warn("proxy", "set", "except it").of("pod shop/web"),
                Finding::fail("trust", "not trusted", "trust it").of("pod shop/web"),
                Finding::fail("agent", "none", "start one").of("pod shop/web"),
            ],
        );
        assert_eq!(report.first_cause, Some("trust"));
        let expected = "\
pod shop/web
  FAIL  trust           not trusted
                        -> trust it
  FAIL  agent           none
                        -> start one
  warn  proxy           set
                        -> except it
  pass  account         it is there
1 passed, 1 with warnings, 2 failed
first cause: trust
";
        assert_eq!(report.text(None), expected);
    }

    #[test]
    fn what_is_the_same_of_many_is_said_once() {
        let of = |name: &str| Finding::fail("agent", "none on this node", "start one").of(name);
        let mut checks: Vec<_> = ["a", "b", "c", "d", "e"].map(of).into();
        checks.push(Finding::pass("trust", "x").of("pod a"));
        checks.push(Finding::pass("trust", "y").of("pod b"));
        let text = Report::new("cluster c", checks).text(None);
        assert!(
            text.contains("a, b, c, 2 more: none on this node\n"),
            "{text}"
        );
        assert_eq!(text.matches("start one").count(), 1, "{text}");
        assert!(
            text.contains("  pass  trust           2 looked at\n"),
            "{text}"
        );
    }

    #[test]
    fn a_healthy_report_has_no_cause_and_obeys_nobody() {
        let report = Report::new(
            "cluster c",
            vec![Finding::pass("a", "x\u{1b}[2J").of("p\n")],
        );
        assert_eq!((report.worst, report.first_cause), (Status::Pass, None));
        assert_eq!(report.checks[0].seen, "x?[2J");
        assert_eq!(report.checks[0].subject, "p?");
    }
}
