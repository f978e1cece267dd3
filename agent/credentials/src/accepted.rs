//! The tokens of one pod that its credentials may be given to.

use std::{mem, time::UNIX_EPOCH};

use podcreds_types::{Token, TokenDigest};

/// Older tokens that are good beside the latest one: processes read a rotated token at their leisure.
const OLDER: usize = 3;

/// Tokens that EKS Auth has accepted, or that somebody has verified.
#[derive(Clone, Default)]
pub(super) struct Accepted {
    /// The last one, in place: it is the one that nearly every request shows.
    latest: Option<TokenDigest>,
    /// Those that it replaced, the youngest first.
    older: Vec<TokenDigest>,
    /// The one that renews the credentials.
    renewing: Option<Renewing>,
}

/// The token that is good for longest: a process may still show one that is about to expire.
#[derive(Clone)]
struct Renewing {
    token: Token,
    digest: TokenDigest,
    /// Seconds since 1970, as the token has it.
    expires_at: Option<u64>,
}

/// What another agent must know to accept the same tokens.
pub(super) struct Parts<'a> {
    pub(super) latest: Option<TokenDigest>,
    pub(super) older: &'a [TokenDigest],
    pub(super) renewing: Option<&'a Token>,
}

impl Accepted {
    /// What they are made of.
    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            latest: self.latest,
            older: &self.older,
            renewing: self.token(),
        }
    }

    /// Puts together what [`Self::parts`] has taken apart.
    pub(super) fn from_parts(
        latest: Option<TokenDigest>,
        mut older: Vec<TokenDigest>,
        renewing: Option<Token>,
    ) -> Self {
        older.truncate(OLDER);
        let renewing = renewing.map(|token| Renewing {
            digest: token.digest(),
            expires_at: expiry(&token),
            token,
        });
        Self {
            latest,
            older,
            renewing,
        }
    }

    /// Whether a token is one of them.
    pub(super) fn contains(&self, digest: &TokenDigest) -> bool {
        self.latest.as_ref() == Some(digest) || self.older.contains(digest) || self.renews(digest)
    }

    /// The token to renew the credentials with, unless it has been revoked.
    pub(super) fn token(&self) -> Option<&Token> {
        self.renewing.as_ref().map(|renewing| &renewing.token)
    }

    /// Adds a token, as the latest.
    pub(super) fn add(&mut self, token: Token, digest: TokenDigest) {
        self.older.retain(|older| *older != digest);
        if let Some(before) = self.latest.replace(digest)
            && before != digest
        {
            self.older.insert(0, before);
            self.older.truncate(OLDER);
        }
        let expires_at = expiry(&token);
        let before = self.renewing.as_ref();
        if before.is_none_or(|before| before.expires_at <= expires_at) {
            self.renewing = Some(Renewing {
                token,
                digest,
                expires_at,
            });
        }
    }

    /// Removes a token. Without the one that renews the credentials, they cannot be renewed.
    pub(super) fn revoke(&mut self, digest: &TokenDigest) {
        self.older.retain(|older| older != digest);
        if self.latest.as_ref() == Some(digest) {
            self.latest = None;
        }
        if self.renews(digest) {
            self.renewing = None;
        }
    }

    /// What it takes beyond its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        let token = self.token().map_or(0, |token| token.expose().len());
        token + self.older.capacity() * mem::size_of::<TokenDigest>()
    }

    fn renews(&self, digest: &TokenDigest) -> bool {
        let renewing = self.renewing.as_ref();
        renewing.is_some_and(|renewing| renewing.digest == *digest)
    }
}

/// When an accepted token says that it expires, in seconds since 1970.
pub(super) fn expiry(token: &Token) -> Option<u64> {
    let expires_at = token.claims().ok()?.expires_at;
    let since_1970 = expires_at.duration_since(UNIX_EPOCH).ok()?;
    Some(since_1970.as_secs())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    fn token(exp: u64) -> Token {
        let key = EncodingKey::from_secret(b"nobody verifies this here");
        let claims = json!({ "exp": exp, "kubernetes.io": {} });
        Token::new(encode(&Header::default(), &claims, &key).unwrap())
    }

    fn add(accepted: &mut Accepted, exp: u64) {
        let token = token(exp);
        let digest = token.digest();
        accepted.add(token, digest);
    }

    fn renews(accepted: &Accepted) -> Option<u64> {
        accepted.token().and_then(expiry)
    }

    #[test]
    fn the_token_that_is_good_for_longest_renews() {
        let mut accepted = Accepted::default();
        add(&mut accepted, 100);
        add(&mut accepted, 200);
        assert_eq!(renews(&accepted), Some(200));
        // A process that has not seen the rotation yet.
        add(&mut accepted, 100);
        assert_eq!(renews(&accepted), Some(200));
        accepted.revoke(&token(100).digest());
        assert!(!accepted.contains(&token(100).digest()));
        assert_eq!(renews(&accepted), Some(200));
        accepted.revoke(&token(200).digest());
        assert!(!accepted.contains(&token(200).digest()));
        assert_eq!(renews(&accepted), None);
    }
}
