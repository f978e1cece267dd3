//! What others say, made fit for logs and for pods: without tokens, and of a length that fits.

use std::error::Error;

use podcreds_types::without_tokens;

/// EKS Auth's messages are a line or two; nothing longer is worth keeping.
const MAX_MESSAGE: usize = 1024;
/// The longest code of an error is half as long.
const MAX_CODE: usize = 64;

/// The messages of an error and of what caused it, as far as they say something new.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    fit(&text)
}

/// A message without the token that AWS's validation errors like to repeat, and in one line.
pub(super) fn fit(message: &str) -> String {
    let mut clean = without_tokens(message);
    clean.truncate(clean.floor_char_boundary(MAX_MESSAGE));
    clean.replace(char::is_control, " ")
}

/// An error's code, which goes to logs, pods and metrics: a word, or else `UnknownError`.
pub(super) fn code(said: Option<&str>) -> String {
    let is_word = |code: &&str| {
        let has_form = code.starts_with(|c: char| c.is_ascii_uppercase())
            && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        has_form && code.len() <= MAX_CODE && without_tokens(code) == **code
    };
    said.filter(is_word).unwrap_or("UnknownError").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_out_of_messages() {
        assert_eq!(
            fit("Value 'eyJhbGciOi.eyJhdWQ_-.c2ln' at 'token' is bad, eyJ too"),
            "Value '(token)' at 'token' is bad, (token) too"
        );
        assert_eq!(fit("plain words"), "plain words");
        assert_eq!(fit(&"ä".repeat(2000)).len(), MAX_MESSAGE);
        assert_eq!(fit("two\nlines\u{1b}[31m"), "two lines [31m");
    }

    #[test]
    fn a_code_is_a_word() {
        for good in ["ThrottlingException", "SlowDown", "EC2ThrottledException"] {
            assert_eq!(code(Some(good)), good);
        }
        for bad in [
            "",
            "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln",
            "XeyJhbGciOiJSUzI1NiJ9",
            "Two words",
            "Line\nbreak",
            &"A".repeat(MAX_CODE + 1),
            "lower",
        ] {
            assert_eq!(code(Some(bad)), "UnknownError", "{bad:?}");
        }
        assert_eq!(code(None), "UnknownError");
    }
}
