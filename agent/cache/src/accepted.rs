//! The tokens of one pod that its credentials may be given to.

use std::{mem, time::SystemTime};

use podcreds_types::{Token, TokenDigest};

/// Older tokens that are good beside the latest one: a process may be slow to read a rotated token.
const OLDER: usize = 3;

/// What another agent is told of them: the latest, the older ones, the one that got the
/// credentials, and the one that renews them.
type Parts = (
    Option<TokenDigest>,
    Vec<TokenDigest>,
    Option<TokenDigest>,
    Option<Token>,
);

/// Tokens that EKS Auth has accepted, or that a key has verified.
#[derive(Clone, Default)]
pub(crate) struct AcceptedTokens {
    /// The last one, in place: it is the one that nearly every request shows.
    latest: Option<TokenDigest>,
    /// Those that it replaced, the youngest first.
    older: Vec<TokenDigest>,
    /// The one that EKS Auth has exchanged for the credentials, if that is known.
    exchanged: Exchanged,
    /// The one that renews the credentials.
    renewing: Option<Renewing>,
}

/// Which token EKS Auth has exchanged. Nearly always that is the latest: only a key can have
/// verified others since.
#[derive(Clone, Default)]
enum Exchanged {
    #[default]
    Unknown,
    Latest,
    Another(Box<TokenDigest>),
}

/// The token that is good for longest: a process may still show one that is about to expire.
#[derive(Clone)]
struct Renewing {
    token: Token,
    digest: TokenDigest,
    expires_at: Option<SystemTime>,
}

impl AcceptedTokens {
    /// The last token that was accepted, those before it, the one that got the credentials, and the
    /// one that renews them.
    pub(crate) fn parts(&self) -> Parts {
        let older = self.older.clone();
        (self.latest, older, self.exchanged(), self.token().cloned())
    }

    /// Puts together what [`Self::parts`] has taken apart.
    pub(crate) fn from_parts((latest, mut older, exchanged, renewing): Parts) -> Self {
        older.truncate(OLDER);
        let renewing = renewing.map(|token| Renewing {
            digest: token.digest(),
            expires_at: expiry(&token),
            token,
        });
        let exchanged = match exchanged {
            None => Exchanged::Unknown,
            Some(digest) if latest == Some(digest) => Exchanged::Latest,
            Some(digest) => Exchanged::Another(Box::new(digest)),
        };
        Self {
            latest,
            older,
            exchanged,
            renewing,
        }
    }

    /// Whether a token is one of them.
    pub(crate) fn contains(&self, digest: &TokenDigest) -> bool {
        self.latest.as_ref() == Some(digest) || self.older.contains(digest) || self.renews(digest)
    }

    /// The token to renew the credentials with, unless it has been revoked.
    pub(crate) fn token(&self) -> Option<&Token> {
        self.renewing.as_ref().map(|renewing| &renewing.token)
    }

    /// Adds the token that has got the credentials, as the latest.
    pub(crate) fn add_exchanged(&mut self, token: Token, digest: TokenDigest) {
        self.add(token, digest);
        self.exchanged = Exchanged::Latest;
    }

    /// Adds a token, as the latest.
    pub(crate) fn add(&mut self, token: Token, digest: TokenDigest) {
        self.older.retain(|older| *older != digest);
        if let Some(before) = self.latest.replace(digest)
            && before != digest
        {
            if matches!(self.exchanged, Exchanged::Latest) {
                self.exchanged = Exchanged::Another(Box::new(before));
            }
            self.older.insert(0, before);
            self.older.truncate(OLDER);
        }
        let expires_at = expiry(&token);
        let before = self.renewing.as_ref();
        if before.is_none_or(|before| before.expires_at <= expires_at) {
            self.renewing = Some(Renewing {
                token: token.without_claims(),
                digest,
                expires_at,
            });
        }
    }

    /// Adds what others hold, as far as there is room for more. True if that changed anything.
    pub(crate) fn merge(&mut self, others: Self) -> bool {
        let mut has_changed = false;
        for digest in others.latest.into_iter().chain(others.older) {
            if self.contains(&digest) {
                continue;
            }
            if self.latest.is_none() {
                self.latest = Some(digest);
            } else if self.older.len() < OLDER {
                self.older.push(digest);
            } else {
                continue;
            }
            has_changed = true;
        }
        let expires_at = |renewing: &Renewing| renewing.expires_at;
        if let Some(other) = others.renewing
            && self
                .renewing
                .as_ref()
                .is_none_or(|own| expires_at(own) < expires_at(&other))
        {
            self.renewing = Some(other);
            has_changed = true;
        }
        has_changed
    }

    /// Whether each of these is one of the others.
    pub(crate) fn are_among(&self, others: &Self) -> bool {
        let renewing = self.renewing.as_ref().map(|renewing| &renewing.digest);
        let mut all = self.latest.iter().chain(&self.older).chain(renewing);
        all.all(|digest| others.contains(digest))
    }

    /// Removes a token. Without the one that renews the credentials, they cannot be renewed.
    pub(crate) fn revoke(&mut self, digest: &TokenDigest) {
        self.older.retain(|older| older != digest);
        if self.exchanged() == Some(*digest) {
            self.exchanged = Exchanged::Unknown;
        }
        self.latest.take_if(|latest| latest == digest);
        if self.renews(digest) {
            self.renewing = None;
        }
    }

    /// Removes tokens that were refused. Not the one that got the credentials if that `stays`. True
    /// if there were any.
    pub(crate) fn revoke_all(&mut self, refused: &[TokenDigest], stays: bool) -> bool {
        let exchanged = self.exchanged().filter(|_| stays);
        let mut has_changed = false;
        for digest in refused.iter().filter(|digest| exchanged != Some(**digest)) {
            has_changed |= self.contains(digest);
            self.revoke(digest);
        }
        has_changed
    }

    /// What it takes beyond its own size.
    pub(crate) fn heap_bytes(&self) -> usize {
        let token = self.token().map_or(0, |token| token.expose().len());
        let another = matches!(self.exchanged, Exchanged::Another(_));
        let digests = self.older.capacity() + usize::from(another);
        token + digests * mem::size_of::<TokenDigest>()
    }

    fn exchanged(&self) -> Option<TokenDigest> {
        match &self.exchanged {
            Exchanged::Unknown => None,
            Exchanged::Latest => self.latest,
            Exchanged::Another(digest) => Some(**digest),
        }
    }

    fn renews(&self, digest: &TokenDigest) -> bool {
        let renewing = self.renewing.as_ref();
        renewing.is_some_and(|renewing| renewing.digest == *digest)
    }
}

/// When an accepted token says that it expires.
pub(crate) fn expiry(token: &Token) -> Option<SystemTime> {
    token.claims().ok().map(|claims| claims.expires_at)
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

    fn add(accepted: &mut AcceptedTokens, exp: u64) {
        let token = token(exp);
        let digest = token.digest();
        accepted.add(token, digest);
    }

    fn renews(accepted: &AcceptedTokens) -> Option<u64> {
        let expiry = accepted.token().and_then(expiry)?;
        Some(
            expiry
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
        )
    }

    #[test]
    fn the_exchanged_token_is_known_however_many_come_after_it() {
        let mut accepted = AcceptedTokens::default();
        assert_eq!(accepted.exchanged(), None);
        let digest = token(100).digest();
        accepted.add_exchanged(token(100), digest);
        for exp in 100..110 {
            add(&mut accepted, exp);
            assert_eq!(accepted.exchanged(), Some(digest), "{exp}");
            let copy = AcceptedTokens::from_parts(accepted.parts());
            assert_eq!(copy.exchanged(), Some(digest), "{exp}");
        }
        // Shown again, it is the latest.
        add(&mut accepted, 100);
        assert!(!accepted.revoke_all(&[digest], true));
        assert!(accepted.contains(&digest));
        assert!(accepted.revoke_all(&[digest], false));
        assert_eq!(accepted.exchanged(), None);
    }

    #[test]
    fn revoking_the_latest_token_leaves_the_exchanged_one() {
        let mut accepted = AcceptedTokens::default();
        let digest = token(100).digest();
        accepted.add_exchanged(token(100), digest);
        add(&mut accepted, 200);
        accepted.revoke(&token(200).digest());
        assert_eq!(accepted.exchanged(), Some(digest));
        add(&mut accepted, 300);
        assert_eq!(accepted.exchanged(), Some(digest));
        accepted.revoke(&digest);
        assert_eq!(accepted.exchanged(), None);
    }

    #[test]
    fn the_token_that_is_good_for_longest_renews() {
        let mut accepted = AcceptedTokens::default();
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
