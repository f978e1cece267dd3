//! What a check has found, as people and programs read it.

use std::fmt::Write as _;

use serde::Serialize;

/// The columns of status and of a check's name.
const INDENT: &str = "        ";
const NAME: usize = 16;
/// A sentence is not broken into lines of less than this.
const NARROWEST: usize = 20;

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

/// A line of a report for a check, and one for what to do, unless there is nothing to do. What was
/// seen goes on below itself where it is wider than `width`. A remedy never does: it is there to be
/// copied.
pub fn finding_lines(
    status: Status,
    check: &str,
    seen: &str,
    remedy: Option<&str>,
    width: Option<usize>,
) -> String {
    let below = format!("\n{INDENT}{:NAME$}", "");
    let room = width.map(|width| width.saturating_sub(INDENT.len() + NAME));
    let seen = match room.filter(|room| *room >= NARROWEST) {
        Some(room) => broken(seen, room).join(&below),
        None => seen.to_owned(),
    };
    let mut text = format!("  {}  {check:NAME$}{seen}", status.word());
    if let Some(remedy) = remedy {
        // Writing to a string does not fail.
        let _ = write!(text, "{below}-> {remedy}");
    }
    text + "\n"
}

/// A text in lines of no more than `room` characters, but for words that are longer.
fn broken(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "the role arn:aws:iam::111122223333:role/reader is gone";
    const REMEDY: &str = "aws iam create-role --role-name reader";

    #[test]
    fn what_was_seen_goes_on_below_itself_where_a_terminal_is_narrow() {
        let shown = finding_lines(Status::Fail, "role", SEEN, Some(REMEDY), Some(60));
        let expected = "  FAIL  role            the role
                        arn:aws:iam::111122223333:role/reader
                        is gone
                        -> aws iam create-role --role-name reader
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_line_is_broken_that_fits_or_is_for_no_terminal() {
        let expected = format!("  pass  role            {SEEN}\n");
        for width in [None, Some(24 + SEEN.len()), Some(40), Some(0)] {
            let shown = finding_lines(Status::Pass, "role", SEEN, None, width);
            assert_eq!(shown, expected, "{width:?}");
        }
    }
}
