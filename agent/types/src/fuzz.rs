//! What a pod shows as its token, and what a token says, damaged.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use podcreds_fuzz::Fuzz;
use serde_json::Value;

use super::*;

const FUZZ: Fuzz = Fuzz {
    manifest: env!("CARGO_MANIFEST_DIR"),
    words: &[
        "eyJ",
        ".",
        "\"exp\"",
        "\"kubernetes.io\":",
        "\"pod\":",
        "\"uid\":",
        "\"namespace\":",
        "null",
        "{}",
        "0f0e0d0c-0b0a-0908-0706-050403020100",
        "\\u0000",
        "[[[[",
    ],
};

/// What can be told apart in claims.
fn shape(claims: Result<&Claims, Unreadable>) -> String {
    let claims = claims.map(|claims| {
        let names = [&claims.pod_name, &claims.namespace, &claims.service_account];
        (claims.pod.is_some(), names.map(Option::is_some))
    });
    format!("{claims:?}")
}

#[test]
fn fuzz_token() {
    FUZZ.feed("token", |input| {
        let could_be = Claims::could_be_in(input);
        let token = Token::new(String::from_utf8_lossy(input));
        let claims = token.claims();
        assert!(
            claims.is_err() || could_be.is_ok(),
            "more was read than could be in it"
        );
        assert_eq!(format!("{token:?}"), "Token(redacted)");
        (could_be.err().map(|why| format!("{why:?}")), shape(claims))
    });
}

#[test]
fn fuzz_claims() {
    FUZZ.feed("claims", |payload| {
        let payload_text = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let token = Token::new(format!(
            "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.{payload_text}.c2ln"
        ));
        // A stricter reader refuses bad escapes also in what is passed over.
        let said = serde_json::from_slice::<Value>(payload);
        if let (Ok(claims), Ok(said)) = (token.claims(), said) {
            let uid = said["kubernetes.io"]["pod"]["uid"].as_str();
            assert_eq!(claims.pod, uid.map(|uid| uid.parse().unwrap()));
            let namespace = said["kubernetes.io"]["namespace"].as_str();
            assert_eq!(claims.namespace.as_deref(), namespace);
            assert!(said["exp"].as_u64().is_some());
        }
        shape(token.claims())
    });
}

#[test]
fn fuzz_pod_uid() {
    FUZZ.feed("pod_uid", |input| {
        let text = String::from_utf8_lossy(input);
        let uid = text.parse::<PodUid>();
        if let Ok(uid) = uid {
            let digits = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
            assert_eq!(digits(&uid.to_string()), digits(&text));
        }
        (uid.is_ok(), text.len().min(40))
    });
}
