//! The service-account token, kept from every place where it could leak.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Claims, Unreadable};

/// A projected service-account token as the pod sent it: unverified, and secret.
///
/// Clones share one buffer, which is wiped when the last of them goes, and what was read in it.
/// `Debug` never shows it.
#[derive(Clone)]
pub struct Token(Arc<Inner>);

struct Inner {
    raw: Zeroizing<Box<str>>,
    /// Boxed, since most tokens are kept without.
    claims: OnceLock<Result<Box<Claims>, Unreadable>>,
}

impl Token {
    /// Takes the value of an `Authorization` header.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            raw: Zeroizing::new(raw.into().into_boxed_str()),
            claims: OnceLock::new(),
        }))
    }

    /// The secret itself, for the two places that need it: reading the claims, and EKS Auth.
    pub fn expose(&self) -> &str {
        &self.0.raw
    }

    /// What the token says of itself, unverified. It is decoded once.
    ///
    /// # Errors
    ///
    /// When it is no service-account token.
    pub fn claims(&self) -> Result<&Claims, Unreadable> {
        let read = || Claims::read(&self.0.raw).map(Box::new);
        let claims = self.0.claims.get_or_init(read).as_ref();
        claims.map(AsRef::as_ref).map_err(|unreadable| *unreadable)
    }

    /// A copy in a buffer of its own, without what was read in the token: to be kept for hours.
    pub fn without_claims(&self) -> Self {
        Self::new(self.expose())
    }

    /// The SHA-256 of the token, which stands for it wherever tokens are compared.
    pub fn digest(&self) -> TokenDigest {
        let digest = digest::digest(&digest::SHA256, self.0.raw.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        TokenDigest(bytes)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// The SHA-256 of a [`Token`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenDigest([u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(redacted)")
    }
}

/// What stands where a token was.
pub const CUT_TOKEN: &str = "(token)";

/// Every JWT begins with `{"` in base64.
const JWT: &str = "eyJ";

/// A text without anything that looks like a token: what others say may repeat one.
pub fn without_tokens(text: &str) -> String {
    let mut clean = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(JWT) {
        clean.push_str(&rest[..at]);
        clean.push_str(CUT_TOKEN);
        let secret = &rest[at..];
        let end = secret.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.=+/".contains(c)));
        rest = &secret[end.unwrap_or(secret.len())..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_token() {
        let token = Token::new("very-secret");
        assert!(!format!("{token:?} {:?}", token.digest()).contains("very"));
    }

    #[test]
    fn tokens_are_cut_out_of_texts() {
        for (text, clean) in [
            ("plain ä words", "plain ä words"),
            (
                "'eyJhbGciOi.eyJhdWQ_-.c2ln' is bad, eyJ too",
                "'(token)' is bad, (token) too",
            ),
        ] {
            assert_eq!(without_tokens(text), clean);
        }
    }

    #[test]
    fn the_claims_of_a_token_are_decoded_once() {
        let token = Token::new("a.b.c");
        assert!(token.0.claims.get().is_none());
        assert_eq!(token.clone().claims(), Err(Unreadable::NoToken));
        assert!(token.0.claims.get().is_some());
    }

    #[test]
    fn digests_tell_tokens_apart() {
        assert_eq!(Token::new("a").digest(), Token::new("a").digest());
        assert_ne!(Token::new("a").digest(), Token::new("b").digest());
    }
}
