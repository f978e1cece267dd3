//! Short texts for people.

use std::time::Duration;

use serde::Serialize;

/// A duration in its two largest units: `2h05m`, `9m59s` or `12s`.
pub fn seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        (_, _, _) => format!("{days}d{:02}h", hours % 24),
    }
}

/// The same, of a duration.
pub fn duration(duration: Duration) -> String {
    seconds(duration.as_secs())
}

/// A role as `ACCOUNT/NAME`, out of an assumed role's ARN.
pub fn role(arn: &str) -> String {
    let account = arn.split(':').nth(4);
    let name = arn.split_once('/').map(|(_, name)| name);
    match (account, name) {
        (Some(account), Some(name)) => format!("{account}/{name}"),
        _ => arn.to_owned(),
    }
}

/// A text that a terminal shows and does not obey: names and messages come from elsewhere.
pub fn harmless(text: &str) -> String {
    let shown = |c: char| if is_shown(c) { c } else { '?' };
    text.chars().map(shown).collect()
}

/// JSON or YAML with escapes for what a terminal would obey. Outside of its texts there is nothing
/// of that kind but line breaks.
pub(crate) fn escaped(text: &str, escape: fn(char) -> String) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            c if is_shown(c) => shown.push(c),
            c => shown.push_str(&escape(c)),
        }
    }
    shown
}

/// A value as indented JSON, with a line break at its end. What a terminal would obey is escaped.
///
/// # Errors
///
/// When the value has a map whose keys are no text.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    Ok(escaped(&text, json_escape))
}

/// A character as JSON escapes it.
fn json_escape(c: char) -> String {
    let units = c.encode_utf16(&mut [0; 2]).to_vec();
    units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Whether a character stands for itself: no control character, none that turns the direction of
/// writing, and none that cannot be seen. The standard library knows them all, for `{:?}`.
pub fn is_shown(c: char) -> bool {
    matches!(c, '\\' | '\'' | '"') || c.escape_debug().eq([c])
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
        assert_eq!(
            harmless("\u{9b}2J\u{7f} \u{202e}\u{200b}\u{feff}"),
            "?2J? ???"
        );
        let plain = "it's \"so\": C:\\ – ä…漢";
        assert_eq!(harmless(plain), plain);
    }

    #[test]
    fn json_escapes_what_a_terminal_would_obey_and_says_the_same() {
        let said = "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\u{e0041}ä\"\\\n";
        let shown = json(&[said]).unwrap();
        assert!(
            shown.contains(r"\u009b2J\u007f\u202e\udb40\udc41ä"),
            "{shown}"
        );
        assert!(shown.chars().all(|c| c == '\n' || is_shown(c)), "{shown:?}");
        let back: [String; 1] = serde_json::from_str(&shown).unwrap();
        assert_eq!(back, [said]);
    }
}
