//! What pods and servers say, made fit to be shown.

use std::collections::HashSet;

use podcreds_output::is_shown;
use podcreds_types::{CUT_TOKEN, without_tokens};

/// So many bytes in a row that are a token's too are a piece of it.
const PIECE: usize = 8;

/// A text in one line, without tokens, and without what moves the cursor or turns the order of what
/// is shown.
pub(crate) fn clean(text: &str) -> String {
    without_tokens(text).replace(|c| !is_shown(c), " ")
}

/// A text without this token and any piece of it, such as a server repeats.
pub(crate) fn without(token: &str, text: &str) -> String {
    let pieces: HashSet<&[u8]> = token.as_bytes().windows(PIECE).collect();
    let windows = text.as_bytes().windows(PIECE).enumerate();
    let found = windows.filter(|(_, window)| pieces.contains(window));
    let mut cuts: Vec<(usize, usize)> = Vec::new();
    for (at, _) in found {
        match cuts.last_mut() {
            Some((_, end)) if at <= *end => *end = at + PIECE,
            _ => cuts.push((at, at + PIECE)),
        }
    }
    let mut clean = String::new();
    let mut from = 0;
    for (start, end) in cuts {
        clean.push_str(text.get(from..start).unwrap_or_default());
        clean.push_str(CUT_TOKEN);
        from = end;
    }
    clean.push_str(text.get(from..).unwrap_or_default());
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_moves_the_cursor_or_turns_the_order() {
        for bad in [
            "\u{1b}", "\u{9b}", "\u{7f}", "\n", "\u{202e}", "\u{2066}", "\u{200b}",
        ] {
            assert_eq!(clean(&format!("a{bad}b")), "a b", "{bad:?}");
        }
        assert_eq!(clean("plain ä 漢 words"), "plain ä 漢 words");
    }

    #[test]
    fn tokens_are_cut_out() {
        assert_eq!(
            clean("'eyJhbGciOi.eyJhdWQ_-.c2ln' is bad"),
            "'(token)' is bad"
        );
        let token = "eyJhbGciOi.eyJhdWQi.c2lnbmF0dXJl";
        assert_eq!(without(token, &format!("ä {token} ä")), "ä (token) ä");
        // Without its beginning, and in two pieces.
        assert_eq!(without(token, "hdWQi.c2lnbmF0dXJl!"), "(token)!");
        assert_eq!(
            without(token, "hbGciOi.ey, WQi.c2lnb."),
            "(token), (token)."
        );
        assert_eq!(without(token, "no association"), "no association");
        assert_eq!(without("", "short"), "short");
    }
}
