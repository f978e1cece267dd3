//! What EKS Auth, or whatever answers in its place, may say.

use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_eksauth::{
    config::http::HttpResponse,
    error::{ErrorMetadata, SdkError},
    operation::assume_role_for_pod_identity::{
        AssumeRoleForPodIdentityError as ServiceError, AssumeRoleForPodIdentityOutput,
    },
    types::{self, AssumedRoleUser, error::AccessDeniedException},
};
use aws_smithy_types::{DateTime, body::SdkBody};
use podcreds_fuzz::Fuzz;

use super::{UpstreamError, answer::credentials, failure::classify};

const NOW: u64 = 1_800_000_000;
const FUZZ: Fuzz = Fuzz {
    manifest: env!("CARGO_MANIFEST_DIR"),
    words: &[
        "arn:aws:sts::123456789012:assumed-role/",
        "::::",
        "ASIA",
        "\n",
        "eyJhbGciOiJSUzI1NiJ9.eyJhdWQ",
        "eks-auth:",
        "ThrottlingException",
        "AccessDeniedException",
        "UnknownOperationException",
        "RequestExpired",
        "Fri, 31 Dec 2999 23:59:59 GMT",
        "retry-after",
        "\u{1b}[31m",
        "ä",
        "429",
        "403",
    ],
};

/// The lines of an input, as many as there are asked for.
fn lines<const COUNT: usize>(input: &[u8]) -> [String; COUNT] {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n').map(str::to_owned);
    std::array::from_fn(|_| lines.next().unwrap_or_default())
}

/// An answer as the SDK hands it on, from lines: ARN, key, secret, session, expiration.
fn answer(input: &[u8]) -> Option<AssumeRoleForPodIdentityOutput> {
    let [arn, key, secret, session, expiration] = lines(input);
    let user = AssumedRoleUser::builder().arn(arn).assume_role_id("id");
    let credentials = types::Credentials::builder()
        .access_key_id(key)
        .secret_access_key(secret)
        .session_token(session)
        .expiration(DateTime::from_secs(expiration.parse().unwrap_or_default()));
    let answer = AssumeRoleForPodIdentityOutput::builder().audience("x");
    let answer = answer.assumed_role_user(user.build().ok()?);
    answer.credentials(credentials.build().ok()?).build().ok()
}

#[test]
fn fuzz_answer() {
    FUZZ.feed("answer", |input| {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let found = credentials(answer(input)?, now);
        if let Ok(found) = &found {
            assert!(found.expiration > now, "they have expired");
            assert!(found.account_id.bytes().all(|byte| byte.is_ascii_digit()));
            assert!(!found.access_key_id.is_empty() && !found.secret_access_key.is_empty());
        }
        Some(found.is_ok())
    });
}

/// An error as the SDK hands it on, from lines: status, code, message, header, its value.
#[test]
fn fuzz_error() {
    FUZZ.feed("error", |input| {
        let [status, code, message, header, value] = lines(input);
        let status = status.parse::<u16>().ok()?.try_into().ok()?;
        let mut raw = HttpResponse::new(status, SdkBody::from("wJalrXUtnFEMI"));
        let header = match header.as_str() {
            "retry-after" => "retry-after",
            _ => "x-amz-retry-after",
        };
        // What is no header's value never gets here.
        raw.headers_mut().try_insert(header, value).ok()?;
        let meta = ErrorMetadata::builder().code(&code).message(message);
        let error = match code.as_str() {
            "AccessDeniedException" => ServiceError::AccessDeniedException(
                AccessDeniedException::builder().meta(meta.build()).build(),
            ),
            _ => ServiceError::generic(meta.build()),
        };
        let error = classify(&SdkError::service_error(error, raw));
        let told = error.to_string();
        assert!(!told.contains("eyJ"), "a token is told on");
        assert!(!told.contains("wJalr"), "the raw answer is told on");
        assert!(!told.chars().any(char::is_control) && told.len() < 2048);
        let wait = match &error {
            UpstreamError::Throttled { retry_after }
            | UpstreamError::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        };
        assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(3600)));
        Some((std::mem::discriminant(&error), wait.is_some()))
    });
}
