//! The token that kubelet has mounted into a pod.

use std::{io, time::SystemTime};

use jsonwebtoken::dangerous::insecure_decode;
use podcreds_types::{PodUid, Token, sdk::AUDIENCE};
use serde::Deserialize;

use super::process::PodProcess;
use crate::report::Finding;

pub(super) const NAME: &str = "token";
/// A token has some 1,200 bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// Reads a token at a path as the process itself would see it.
///
/// # Errors
///
/// When there is no such file, or it is something else than a small text.
pub(super) fn read(process: &PodProcess, path: &str) -> io::Result<Token> {
    let content = process.file(path, MAX_BYTES)?;
    match str::from_utf8(&content) {
        Ok(text) => Ok(Token::new(text.trim())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no text")),
    }
}

pub(super) fn judge_missing(path: &str, error: &io::Error) -> Finding {
    const REMEDY: &str = "make the pod anew: EKS mounts the token into new pods whose service \
                          account has an association, and see the pod's events";
    let seen = format!("{path} in the pod: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => Finding::warn(
            NAME,
            seen,
            "run it with CAP_SYS_PTRACE, and CAP_DAC_READ_SEARCH where the file is another user's",
        ),
        _ => Finding::fail(NAME, seen, REMEDY),
    }
}

/// The audience of a token.
#[derive(Deserialize)]
struct For {
    #[serde(default)]
    aud: Audience,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
    #[default]
    Nobody,
}

fn audiences(token: &Token) -> Vec<String> {
    match insecure_decode::<For>(token.expose()).map(|token| token.claims.aud) {
        Ok(Audience::One(audience)) => vec![audience],
        Ok(Audience::Several(audiences)) => audiences,
        Ok(Audience::Nobody) | Err(_) => Vec::new(),
    }
}

/// Whether it may be shown to EKS Auth, and to what answers in the pod.
///
/// The doctor reads files that the pod's processes may not be allowed to read, at a path that they
/// choose. Only what says itself that it is this pod's token for EKS gives them nothing new.
pub(super) fn may_be_sent(token: &Token, pod: PodUid) -> bool {
    let is_this_pods = token.claims().is_ok_and(|claims| claims.pod == Some(pod));
    let is_for_eks = audiences(token).iter().any(|it| it == AUDIENCE);
    is_jwt(token) && is_this_pods && is_for_eks
}

/// Whether it has nothing that would end a header, or begin another one.
fn is_jwt(token: &Token) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
    token.expose().bytes().all(fits)
}

pub(super) fn judge(token: &Token, pod: PodUid, now: SystemTime) -> Finding {
    let claims = token.claims().ok().filter(|_| is_jwt(token));
    let Some(claims) = claims else {
        return Finding::fail(
            NAME,
            "what is in the token's file is no service account token",
            "see what writes to that file; EKS mounts a projected volume of kubelet's there",
        );
    };
    let account = format!(
        "{}/{}",
        claims.namespace.as_deref().unwrap_or("?"),
        claims.service_account.as_deref().unwrap_or("?")
    );
    if claims.pod != Some(pod) {
        let whose = claims
            .pod
            .map_or("no pod's".to_owned(), |uid| format!("pod {uid}'s"));
        return Finding::fail(
            NAME,
            format!("the token (of {account}) is {whose}, not this pod's"),
            "have the pod use its own token: the agent refuses another pod's",
        );
    }
    let audiences = audiences(token);
    if !audiences.iter().any(|it| it == AUDIENCE) {
        return Finding::fail(
            NAME,
            format!(
                "the token (of {account}) is for {}, not for {AUDIENCE}",
                audiences.join(", ")
            ),
            format!(
                "have the pod's token volume name the audience {AUDIENCE}, or let EKS mount it"
            ),
        );
    }
    match claims.expires_at.duration_since(now) {
        Ok(left) => Finding::pass(
            NAME,
            format!(
                "of {account}, good for {} more minutes",
                left.as_secs() / 60
            ),
        ),
        Err(since) => Finding::fail(
            NAME,
            format!(
                "the token (of {account}) expired {} minutes ago",
                since.duration().as_secs() / 60
            ),
            "see kubelet's log: it writes a new one at four fifths of the old one's life; and see \
             the node's clock (podcreds doctor)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;
    use crate::report::Status;

    const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

    fn found(audience: serde_json::Value, expires: u64, pod: &str) -> Finding {
        let token = signed(audience, expires, pod);
        judge(
            &token,
            POD.parse().unwrap(),
            UNIX_EPOCH + Duration::from_secs(1000),
        )
    }

    fn signed(audience: serde_json::Value, expires: u64, pod: &str) -> Token {
        let claims = json!({
            "aud": audience,
            "exp": expires,
            "kubernetes.io": {
                "namespace": "shop",
                "pod": {"name": "web", "uid": pod},
                "serviceaccount": {"name": "reader"},
            },
        });
        let key = EncodingKey::from_secret(b"nobody verifies this here");
        Token::new(encode(&Header::default(), &claims, &key).unwrap())
    }

    #[test]
    fn only_this_pods_token_for_eks_is_sent() {
        let pod = POD.parse().unwrap();
        let good = signed(json!([AUDIENCE]), 0, POD);
        assert!(may_be_sent(&good, pod));
        let other = POD.replace('0', "1");
        let split = Token::new(format!("{}\r\nX-Other: 1", good.expose()));
        for bad in [
            Token::new("root:$6$hash:19000:0:99999:7:::"),
            signed(json!([AUDIENCE]), 4600, &other),
            signed(json!(["https://kubernetes.default.svc"]), 4600, POD),
            signed(json!(null), 4600, POD),
            split,
        ] {
            assert!(!may_be_sent(&bad, pod), "{}", bad.expose());
            let judged = judge(&bad, pod, UNIX_EPOCH + Duration::from_secs(1000));
            assert_eq!(judged.status, Status::Fail, "{}", bad.expose());
        }
    }

    #[test]
    fn a_token_must_be_this_pods_for_eks_and_not_expired() {
        let good = found(json!([AUDIENCE]), 4600, POD);
        assert_eq!(
            (good.status, &*good.seen),
            (Status::Pass, "of shop/reader, good for 60 more minutes")
        );
        assert_eq!(found(json!(AUDIENCE), 4600, POD).status, Status::Pass);
        let other = POD.replace('0', "1");
        for (bad, word) in [
            (
                found(json!(["sts.amazonaws.com"]), 4600, POD),
                "sts.amazonaws.com",
            ),
            (found(json!(null), 4600, POD), "not for"),
            (found(json!([AUDIENCE]), 400, POD), "expired 10 minutes ago"),
            (found(json!([AUDIENCE]), 4600, &other), "not this pod's"),
        ] {
            assert_eq!(bad.status, Status::Fail);
            assert!(bad.seen.contains(word), "{}", bad.seen);
        }
        let nonsense = judge(&Token::new("x"), POD.parse().unwrap(), UNIX_EPOCH);
        assert_eq!(nonsense.status, Status::Fail);
    }
}
