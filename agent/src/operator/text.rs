//! Short texts for people.

use std::time::Duration;

/// A duration in its two largest units: `2h05m`, `9m59s` or `12s`.
pub(super) fn seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        (_, _, _) => format!("{days}d{:02}h", hours % 24),
    }
}

/// The same, of a duration.
pub(super) fn duration(duration: Duration) -> String {
    seconds(duration.as_secs())
}

/// A role as `ACCOUNT/NAME`, out of an assumed role's ARN.
pub(super) fn role(arn: &str) -> String {
    let account = arn.split(':').nth(4);
    let name = arn.split_once('/').map(|(_, name)| name);
    match (account, name) {
        (Some(account), Some(name)) => format!("{account}/{name}"),
        _ => arn.to_owned(),
    }
}

/// A text that a terminal shows and does not obey: names and messages come from elsewhere.
pub(super) fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let shown = [0, 59, 60, 3599, 3600, 7500, 90_000].map(seconds);
        assert_eq!(
            shown,
            ["0s", "59s", "1m00s", "59m59s", "1h00m", "2h05m", "1d01h"]
        );
    }

    #[test]
    fn a_role_is_its_account_and_its_name() {
        let arn = "arn:aws:sts::123456789012:assumed-role/app";
        assert_eq!(role(arn), "123456789012/app");
        assert_eq!(role("odd"), "odd");
    }

    #[test]
    fn what_would_move_the_cursor_is_not_shown() {
        assert_eq!(harmless("a\x1b[2Jb\n"), "a?[2Jb?");
    }
}
