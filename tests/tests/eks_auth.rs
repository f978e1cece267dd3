//! The EKS Auth stand-in against the client that the agent uses.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::time::{Duration, SystemTime};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_eksauth::{
    Client,
    config::{
        BehaviorVersion, Region, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::{DisplayErrorContext, ProvideErrorMetadata},
    operation::assume_role_for_pod_identity::AssumeRoleForPodIdentityOutput,
};
use podcreds_tests::{
    aws::{NodeCredentials, Owner, REGION, http_client},
    eks_auth::{CLUSTER, EksAuth, Fault, Outcome, TARGET_ROLE_LIFETIME},
    token::{BoundObject, Claims, Issuer},
};

/// The name of the error, or what else went wrong.
type Answer = Result<AssumeRoleForPodIdentityOutput, String>;

fn client(eks_auth: &EksAuth, signer: &NodeCredentials, region: &str) -> Client {
    let credentials = Credentials::new(
        &signer.access_key_id,
        &signer.secret_access_key,
        Some(signer.session_token.clone()),
        None,
        "test",
    );
    let config = aws_sdk_eksauth::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(eks_auth.url())
        .http_client(http_client())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .read_timeout(Duration::from_secs(1))
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn ask(client: &Client, cluster: &str, token: &str) -> Answer {
    let call = client
        .assume_role_for_pod_identity()
        .cluster_name(cluster)
        .token(token);
    call.send()
        .await
        .map_err(|why| match why.as_service_error().and_then(|e| e.code()) {
            Some(code) => code.to_owned(),
            None => DisplayErrorContext(&why).to_string(),
        })
}

async fn ask_normally(eks_auth: &EksAuth, token: &str) -> Answer {
    let client = client(eks_auth, &NodeCredentials::default(), REGION);
    ask(&client, CLUSTER, token).await
}

fn claims() -> Claims {
    Claims::new("shop", "reader", BoundObject::new("reader-0"))
}

fn with_reader() -> EksAuth {
    let eks_auth = EksAuth::start();
    eks_auth.associate("shop", "reader", "shop-reader");
    eks_auth
}

fn sign(claims: &Claims) -> String {
    Issuer::cluster().sign(claims)
}

/// The code with which a bad call is refused, which must also be on record with its reason.
async fn refusal(eks_auth: &EksAuth, token: &str) -> String {
    let code = ask_normally(eks_auth, token).await.unwrap_err();
    let refused = eks_auth.refused();
    let last = refused.last().map(|call| &call.outcome);
    assert!(
        matches!(last, Some(Outcome::Refused { code: held, .. }) if *held == code),
        "{last:?}"
    );
    code
}

#[tokio::test]
async fn a_good_call_gets_credentials_that_tell_whose_they_are() {
    let eks_auth = with_reader();
    let claims = claims();
    let token = sign(&claims);
    let answer = ask_normally(&eks_auth, &token).await.unwrap();
    let credentials = answer.credentials().unwrap();
    let owner: Owner = credentials.session_token().parse().unwrap();
    assert_eq!(
        (owner.uid.as_str(), owner.role.as_str()),
        (claims.pod_uid(), "shop-reader")
    );
    assert_eq!(credentials.access_key_id(), "ASIASHOPREAD00000001");
    assert_eq!(answer.subject().unwrap().service_account(), "reader");
    let arn = answer.assumed_role_user().unwrap().arn();
    assert_eq!(
        arn,
        "arn:aws:sts::111122223333:assumed-role/shop-reader/eks-test-reader-0"
    );

    let again = ask_normally(&eks_auth, &token).await.unwrap();
    assert_eq!(
        again.credentials().unwrap().access_key_id(),
        "ASIASHOPREAD00000002"
    );
    assert_eq!(eks_auth.call_count(), 2);
    assert_eq!(eks_auth.calls_for_pod(claims.pod_uid()).len(), 2);
    assert_eq!(eks_auth.calls_with_token(&token).len(), 2);
    assert_eq!(eks_auth.refused().len(), 0);
    assert_eq!((eks_auth.in_flight(), eks_auth.most_in_flight()), (0, 1));
}

#[tokio::test]
async fn credentials_live_as_long_as_their_role_says() {
    let eks_auth = with_reader();
    eks_auth.associate_for("shop", "reader", "short", TARGET_ROLE_LIFETIME);
    let answer = ask_normally(&eks_auth, &sign(&claims())).await.unwrap();
    let expiration = SystemTime::try_from(*answer.credentials().unwrap().expiration()).unwrap();
    let left = expiration.duration_since(SystemTime::now()).unwrap();
    assert!(
        left <= TARGET_ROLE_LIFETIME && left > TARGET_ROLE_LIFETIME / 2,
        "{left:?}"
    );
}

#[tokio::test]
async fn bad_signatures_are_refused() {
    let eks_auth = with_reader();
    let token = sign(&claims());
    let known = NodeCredentials::default();
    let cases = [
        (
            NodeCredentials::named("two"),
            REGION,
            "UnrecognizedClientException",
        ),
        (
            NodeCredentials {
                secret_access_key: "wrong".to_owned(),
                ..known.clone()
            },
            REGION,
            "InvalidSignatureException",
        ),
        (
            NodeCredentials {
                session_token: "wrong".to_owned(),
                ..known.clone()
            },
            REGION,
            "UnrecognizedClientException",
        ),
        (known, "us-east-1", "InvalidSignatureException"),
    ];
    for (signer, region, expected) in cases {
        let answer = ask(&client(&eks_auth, &signer, region), CLUSTER, &token).await;
        assert_eq!(answer.unwrap_err(), expected, "{signer:?} in {region}");
    }
    eks_auth.accept_signer(&NodeCredentials::named("two"));
    let other = client(&eks_auth, &NodeCredentials::named("two"), REGION);
    ask(&other, CLUSTER, &token).await.unwrap();
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let eks_auth = with_reader();
    let stranger = Issuer::new().sign(&claims());
    assert_eq!(refusal(&eks_auth, &stranger).await, "InvalidTokenException");
    assert_eq!(
        refusal(&eks_auth, "no token at all").await,
        "InvalidTokenException"
    );
    let elsewhere = sign(&claims().audience("sts.amazonaws.com"));
    assert_eq!(
        refusal(&eks_auth, &elsewhere).await,
        "InvalidTokenException"
    );
    assert_eq!(
        refusal(&eks_auth, &sign(&claims().expired())).await,
        "ExpiredTokenException"
    );
}

#[tokio::test]
async fn only_this_cluster_and_its_associations_are_served() {
    let eks_auth = with_reader();
    let token = sign(&claims());
    let client = client(&eks_auth, &NodeCredentials::default(), REGION);
    let answer = ask(&client, "another", &token).await;
    assert_eq!(answer.unwrap_err(), "ResourceNotFoundException");
    eks_auth.dissociate("shop", "reader");
    assert_eq!(
        refusal(&eks_auth, &token).await,
        "ResourceNotFoundException"
    );
    eks_auth.associate("shop", "reader", "another");
    ask_normally(&eks_auth, &token).await.unwrap();
}

#[tokio::test]
async fn faults_come_in_order_and_end() {
    let eks_auth = with_reader();
    let token = sign(&claims());
    eks_auth.fail_next(
        2,
        Fault::Throttle {
            retry_after: Some(3),
        },
    );
    eks_auth.fail_next(1, Fault::unavailable());
    eks_auth.fail(Fault::internal());
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(ask_normally(&eks_auth, &token).await.unwrap_err());
    }
    let expected = [
        "ThrottlingException",
        "ThrottlingException",
        "ServiceUnavailableException",
        "InternalServerException",
        "InternalServerException",
    ];
    assert_eq!(codes, expected);
    eks_auth.heal();
    ask_normally(&eks_auth, &token).await.unwrap();
    assert_eq!(
        eks_auth.calls()[0].outcome,
        Outcome::Faulted(Fault::Throttle {
            retry_after: Some(3)
        })
    );
}

#[tokio::test]
async fn each_fault_looks_to_the_client_as_it_should() {
    let eks_auth = with_reader();
    let token = sign(&claims());
    for (fault, expected) in [
        (Fault::Hang, "timeout"),
        (Fault::Reset, "reset"),
        (Fault::Truncated, "IncompleteMessage"),
        (Fault::Nonsense, "DeserializeError"),
    ] {
        eks_auth.fail_next(1, fault.clone());
        let answer = ask_normally(&eks_auth, &token).await;
        let answer = answer.expect_err(&format!("{fault:?}"));
        assert!(answer.contains(expected), "{fault:?}: {answer}");
    }
    assert_eq!(
        eks_auth.in_flight(),
        0,
        "the hanging call's client has hung up"
    );
}

/// The SDK fills in a missing required field: its user must look for empty ones.
#[tokio::test]
async fn a_missing_field_is_an_empty_one_to_the_sdk() {
    let eks_auth = with_reader();
    eks_auth.fail_next(1, Fault::Missing("/credentials/accessKeyId"));
    eks_auth.fail_next(1, Fault::Missing("/credentials/expiration"));
    eks_auth.fail_next(1, Fault::Missing("/credentials"));
    let token = sign(&claims());
    let answer = ask_normally(&eks_auth, &token).await.unwrap();
    assert_eq!(answer.credentials().unwrap().access_key_id(), "");
    let answer = ask_normally(&eks_auth, &token).await.unwrap();
    assert_eq!(answer.credentials().unwrap().expiration().secs(), 0);
    let answer = ask_normally(&eks_auth, &token).await.unwrap();
    assert_eq!(
        answer.credentials().map(|held| held.access_key_id()),
        Some("")
    );
}

#[tokio::test]
async fn a_slow_answer_is_a_good_one() {
    let eks_auth = with_reader();
    let delay = Duration::from_millis(50);
    eks_auth.fail_next(1, Fault::Slow(delay));
    let asked = std::time::Instant::now();
    ask_normally(&eks_auth, &sign(&claims())).await.unwrap();
    assert!(asked.elapsed() >= delay);
}

#[tokio::test]
async fn expired_and_foreign_credentials_are_what_they_say() {
    let eks_auth = with_reader();
    let claims = claims();
    let token = sign(&claims);
    eks_auth.fail_next(1, Fault::Expired);
    let answer = ask_normally(&eks_auth, &token).await.unwrap();
    let expiration = SystemTime::try_from(*answer.credentials().unwrap().expiration()).unwrap();
    assert!(expiration < SystemTime::now());

    eks_auth.fail_next(1, Fault::Lie);
    let answer = ask_normally(&eks_auth, &token).await.unwrap();
    assert_eq!(answer.subject().unwrap().namespace(), "somebody");
    let owner: Owner = answer
        .credentials()
        .unwrap()
        .session_token()
        .parse()
        .unwrap();
    assert_ne!(owner.uid, claims.pod_uid());
}
