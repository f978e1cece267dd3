//! EKS Auth's answer, checked before anybody relies on it.

use std::time::SystemTime;

use aws_sdk_eksauth::operation::assume_role_for_pod_identity::AssumeRoleForPodIdentityOutput;
use podcreds_types::Credentials;
use zeroize::Zeroizing;

use super::UpstreamError;

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
    let account_id = answer
        .assumed_role_user
        .as_ref()
        .and_then(|user| account_of(&user.arn))
        .ok_or_else(|| UpstreamError::unavailable("the answer has no assumed role's ARN"))?
        .to_owned();
    let found = answer
        .credentials
        .ok_or_else(|| UpstreamError::unavailable("the answer has no credentials"))?;
    let credentials = Credentials {
        access_key_id: found.access_key_id,
        secret_access_key: Zeroizing::new(found.secret_access_key),
        session_token: Zeroizing::new(found.session_token),
        account_id,
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_sdk_eksauth::types::{self, AssumedRoleUser};
    use aws_smithy_types::DateTime;

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
        assert_eq!(credentials.secret_access_key.as_str(), "secret");
        assert_eq!(
            credentials.expiration,
            UNIX_EPOCH + Duration::from_secs(NOW + 3540)
        );
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
