//! What the API server or the issuer may answer, and what a pod may make of a genuine token.

use podcreds_fuzz::Fuzz;
use podcreds_types::sdk::AUDIENCE;

use super::*;

const FUZZ: Fuzz = Fuzz {
    manifest: env!("CARGO_MANIFEST_DIR"),
    words: &[
        "\"keys\":[",
        "\"kty\":\"RSA\"",
        "\"kty\":\"EC\"",
        "\"kty\":\"oct\"",
        "\"kty\":\"OKP\"",
        "\"crv\":\"P-384\"",
        "\"kid\":",
        "\"n\":\"AQAB\"",
        "\"e\":\"\"",
        "\"alg\":\"none\"",
        "\"k\":\"AA\"",
        "null",
        "{}",
        "[]",
        "eyJhbGciOiJIUzI1NiIsImtpZCI6ImEifQ",
        "eyJhbGciOiJub25lIiwia2lkIjoiYSJ9",
        ".",
        "=",
        "AAAA",
        "\\u0000",
    ],
};

#[test]
fn fuzz_key_set() {
    FUZZ.feed("key_set", |input| {
        let keys = parse(input).map(|keys| keys.len().min(8));
        keys.map_err(|error| format!("{:?}", error.classify()))
    });
}

/// The corpus has one token that this key has signed. Whatever is done to it, nothing else is
/// genuine.
#[test]
fn fuzz_signed() {
    struct Nowhere;
    impl FetchKeys for Nowhere {
        fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, crate::KeysError>> {
            unreachable!("the keys are known")
        }
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let genuine = std::fs::read_to_string(format!("{folder}/signed/genuine")).unwrap();
    let genuine = genuine.trim();
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let cluster = ClusterKeys::new(Arc::new(Nowhere), AUDIENCE, metrics);
    let keys = std::fs::read(format!("{folder}/key_set/of_signed")).unwrap();
    cluster.0.know(parse(&keys).unwrap());
    FUZZ.feed("signed", |input| {
        let text = String::from_utf8_lossy(input);
        let token = Token::new(text.trim());
        let signature = Signature::of(&token)?;
        let verdict = cluster.0.judge(&token, &signature);
        let is_genuine = matches!(verdict, Verdict::Genuine { .. });
        assert!(
            !is_genuine || text.trim() == genuine,
            "a forged token passes"
        );
        Some((
            std::mem::discriminant(&verdict),
            format!("{:?}", signature.algorithm),
        ))
    });
}
