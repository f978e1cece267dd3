//! EKS Auth's answer, checked before anybody relies on it.

use std::time::SystemTime;

use aws_sdk_eksauth::operation::assume_role_for_pod_identity::AssumeRoleForPodIdentityOutput;
use podcreds_types::{Credentials, Token};
use zeroize::Zeroizing;

use super::UpstreamError;

/// Checks that an answer is about the service account that the token names. EKS Auth's always is;
/// what stands between, such as a proxy that opens TLS, may mix answers up.
///
/// A token that cannot be read, or that names no service account, is EKS Auth's to judge alone, and
/// so is an answer without a subject.
///
/// # Errors
///
/// [`UpstreamError::Unavailable`] when it is about another one.
pub(super) fn is_for(
    answer: &AssumeRoleForPodIdentityOutput,
    token: &Token,
) -> Result<(), UpstreamError> {
    let Some((subject, claims)) = answer.subject.as_ref().zip(token.claims().ok()) else {
        return Ok(());
    };
    let is_as_claimed =
        |said: &str, claimed: Option<&str>| claimed.is_none_or(|claimed| said == claimed);
    if is_as_claimed(&subject.namespace, claims.namespace.as_deref())
        && is_as_claimed(&subject.service_account, claims.service_account.as_deref())
    {
        return Ok(());
    }
    Err(UpstreamError::unavailable(format!(
        "the answer is about the service account {}/{}, which is not the token's: something \
         between this node and EKS Auth mixes answers up",
        subject.namespace, subject.service_account
    )))
}

/// Takes the credentials out of an answer that holds all that a pod needs.
///
/// The SDK fills what is missing with empty strings and the epoch, so the values are looked at.
///
/// # Errors
///
/// [`UpstreamError::Unavailable`] when something is missing, or the credentials expire before
/// `now`.
pub(super) fn credentials(
    answer: AssumeRoleForPodIdentityOutput,
    now: SystemTime,
) -> Result<Credentials, UpstreamError> {
    let arn = answer.assumed_role_user.as_ref().map(|user| &user.arn);
    let (account_id, role) = arn
        .and_then(|arn| Some((account_of(arn)?.to_owned(), role_of(arn).to_owned())))
        .ok_or_else(|| UpstreamError::unavailable("the answer has no assumed role's ARN"))?;
    let found = answer
        .credentials
        .ok_or_else(|| UpstreamError::unavailable("the answer has no credentials"))?;
    let credentials = Credentials {
        access_key_id: found.access_key_id,
        secret_access_key: Zeroizing::new(found.secret_access_key),
        session_token: Zeroizing::new(found.session_token),
        account_id,
        role,
        expiration: SystemTime::try_from(found.expiration)
            .map_err(|_| UpstreamError::unavailable("the answer's expiration is no date"))?,
    };
    let parts = [
        &credentials.access_key_id,
        &*credentials.secret_access_key,
        &*credentials.session_token,
    ];
    if parts.iter().any(|part| part.is_empty()) {
        return Err(UpstreamError::unavailable(
            "the answer's credentials are incomplete",
        ));
    }
    if credentials.expiration <= now {
        return Err(UpstreamError::unavailable(format!(
            "the answer's credentials expired at {} (is this node's clock right?)",
            found.expiration,
        )));
    }
    Ok(credentials)
}

/// The account in `arn:aws:sts::123456789012:assumed-role/...`.
fn account_of(arn: &str) -> Option<&str> {
    let account = arn.split(':').nth(4)?;
    (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())).then_some(account)
}

/// The ARN without the session's name, which is another one for each pod.
fn role_of(arn: &str) -> &str {
    match arn.split_once('/') {
        Some((kind, rest)) => {
            let name = rest.split('/').next().unwrap_or_default();
            &arn[..kind.len() + 1 + name.len()]
        }
        None => arn,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_sdk_eksauth::types::{self, AssumedRoleUser};
    use aws_smithy_types::DateTime;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn answer(arn: &str, secret: &str, expires: i64) -> AssumeRoleForPodIdentityOutput {
        let user = AssumedRoleUser::builder().arn(arn).assume_role_id("id");
        let credentials = types::Credentials::builder()
            .access_key_id("ASIA")
            .secret_access_key(secret)
            .session_token("session")
            .expiration(DateTime::from_secs(expires));
        AssumeRoleForPodIdentityOutput::builder()
            .audience("pods.eks.amazonaws.com")
            .assumed_role_user(user.build().unwrap())
            .credentials(credentials.build().unwrap())
            .build()
            .unwrap()
    }

    fn check(answer: AssumeRoleForPodIdentityOutput) -> Result<Credentials, UpstreamError> {
        credentials(answer, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn a_whole_answer_is_taken() {
        let arn = "arn:aws-cn:sts::123456789012:assumed-role/app/session";
        let credentials = check(answer(arn, "secret", 1_800_003_540)).unwrap();
        assert_eq!(credentials.account_id, "123456789012");
        let role = "arn:aws-cn:sts::123456789012:assumed-role/app";
        assert_eq!(credentials.role, role);
        assert_eq!(credentials.secret_access_key.as_str(), "secret");
        assert_eq!(
            credentials.expiration,
            UNIX_EPOCH + Duration::from_secs(NOW + 3540)
        );
    }

    #[test]
    fn an_answer_about_another_service_account_is_an_error() {
        let arn = "arn:aws:sts::123456789012:assumed-role/app/session";
        let about = |namespace: &str, account: &str| {
            let subject = types::Subject::builder().namespace(namespace);
            let subject = subject.service_account(account).build().unwrap();
            let mut answer = answer(arn, "secret", 1_800_003_540);
            answer.subject = Some(subject);
            answer
        };
        let token = |claims: serde_json::Value| {
            let key = EncodingKey::from_secret(b"nobody verifies this here");
            Token::new(encode(&Header::default(), &claims, &key).unwrap())
        };
        let reader = token(json!({
            "exp": 7,
            "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "reader" } },
        }));
        is_for(&about("shop", "reader"), &reader).unwrap();
        for (namespace, account) in [("shop", "writer"), ("bank", "reader"), ("", "")] {
            let error = is_for(&about(namespace, account), &reader).unwrap_err();
            assert!(matches!(error, UpstreamError::Unavailable { .. }));
        }
        // What the token or the answer does not say is not compared.
        is_for(&about("bank", "reader"), &token(json!({ "exp": 7 }))).unwrap();
        is_for(&about("bank", "reader"), &Token::new("opaque")).unwrap();
        is_for(&answer(arn, "secret", 1_800_003_540), &reader).unwrap();
    }

    #[test]
    fn an_answer_that_no_pod_could_use_is_an_error() {
        let arn = "arn:aws:sts::123456789012:assumed-role/app/session";
        let later = 1_800_003_540;
        for (what, nonsense) in [
            ("expired", answer(arn, "secret", 1_800_000_000)),
            ("expiration left out", answer(arn, "secret", 0)),
            ("secret left out", answer(arn, "", later)),
            ("no ARN", answer("", "secret", later)),
            ("no account", answer("arn:aws:sts::me:x/y", "secret", later)),
        ] {
            let error = check(nonsense).expect_err(what);
            assert!(matches!(error, UpstreamError::Unavailable { .. }), "{what}");
        }
    }
}
