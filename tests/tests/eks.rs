//! The stand-in for the EKS API against the AWS SDK.

use std::collections::BTreeSet;

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_eks::{
    Client,
    config::{BehaviorVersion, Region, retry::RetryConfig},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};
use podcreds_tests::{
    associations::{Association, role_arn},
    aws::{ACCOUNT, REGION, http_client},
    eks::{Eks, operator},
    eks_auth::{CLUSTER, EksAuth},
};

fn client(eks: &Eks, signer: Credentials, retry: RetryConfig) -> Client {
    let config = aws_sdk_eks::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(eks.url())
        .http_client(http_client())
        .credentials_provider(SharedCredentialsProvider::new(signer))
        .retry_config(retry)
        .build();
    Client::from_conf(config)
}

/// A stand-in, and somebody who may call it and does not try twice.
fn start() -> (EksAuth, Eks, Client) {
    let eks_auth = EksAuth::start();
    let eks = Eks::beside(&eks_auth);
    let client = client(&eks, operator(), RetryConfig::disabled());
    (eks_auth, eks, client)
}

/// The name of an error, or what else went wrong.
fn code<E>(error: SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.as_service_error().and_then(|error| error.code()) {
        Some(code) => code.to_owned(),
        None => DisplayErrorContext(&error).to_string(),
    }
}

#[tokio::test]
async fn pages_of_any_size_hold_each_association_once() {
    let (_eks_auth, eks, client) = start();
    for number in 0..250 {
        let (namespace, account) = (format!("team-{}", number % 3), format!("app-{number}"));
        let association = Association::new(&namespace, &account, "role");
        eks.associations().put(association);
    }
    for (size, pages) in [(None, 3), (Some(100), 3), (Some(50), 5), (Some(99), 3)] {
        let before = eks.calls().len();
        let list = client
            .list_pod_identity_associations()
            .cluster_name(CLUSTER);
        let list = list.set_max_results(size).into_paginator().items();
        let found = list.send().collect::<Result<Vec<_>, _>>().await.unwrap();
        let arns = found.iter().map(|held| held.association_arn().unwrap());
        assert_eq!(
            (found.len(), arns.collect::<BTreeSet<_>>().len()),
            (250, 250)
        );
        assert_eq!(eks.calls().len() - before, pages, "{size:?}");
    }
    for (namespace, account, count) in [
        (Some("team-1"), None, 83),
        (Some("team-1"), Some("app-4"), 1),
        (None, Some("app-4"), 1),
        (Some("team-2"), Some("app-4"), 0),
        (Some("team"), None, 0),
    ] {
        let list = client
            .list_pod_identity_associations()
            .cluster_name(CLUSTER);
        let list = list.set_namespace(namespace.map(str::to_owned));
        let list = list.set_service_account(account.map(str::to_owned));
        let found = list.send().await.unwrap();
        assert_eq!(
            found.associations().len(),
            count,
            "{namespace:?} {account:?}"
        );
        assert_eq!(found.next_token(), None);
    }
}

#[tokio::test]
async fn what_is_created_is_described_with_every_field_and_eks_auth_knows_it() {
    let (eks_auth, _eks, client) = start();
    let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
    let created = client
        .create_pod_identity_association()
        .cluster_name(CLUSTER)
        .namespace("shop")
        .service_account("reader")
        .role_arn(role_arn("path/first"))
        .target_role_arn(role_arn("second"))
        .disable_session_tags(true)
        .policy(policy)
        .tags("team", "shop");
    let created = created.send().await.unwrap().association.unwrap();
    let id = created.association_id().unwrap();
    assert_eq!(
        created.association_arn().unwrap(),
        format!("arn:aws:eks:{REGION}:{ACCOUNT}:podidentityassociation/{CLUSTER}/{id}")
    );
    let describe = client.describe_pod_identity_association();
    let describe = describe.cluster_name(CLUSTER).association_id(id);
    let described = describe.send().await.unwrap().association.unwrap();
    assert_eq!(described, created);
    assert_eq!(described.role_arn(), Some(&*role_arn("path/first")));
    assert_eq!(described.target_role_arn(), Some(&*role_arn("second")));
    assert!(described.external_id().is_some());
    assert_eq!(described.disable_session_tags(), Some(true));
    assert_eq!(described.policy(), Some(policy));
    assert_eq!(described.tags().unwrap()["team"], "shop");
    assert_eq!(described.owner_arn(), None);
    assert!(described.created_at() <= described.modified_at());

    let held = eks_auth.associations().of("shop", "reader").unwrap();
    assert_eq!((held.id.as_str(), held.role_name()), (id, "second"));
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_a_delete_takes_all_away() {
    let (eks_auth, _eks, client) = start();
    eks_auth.associate("shop", "reader", "first");
    let id = eks_auth.associations().of("shop", "reader").unwrap().id;
    let update = client.update_pod_identity_association();
    let update = update.cluster_name(CLUSTER).association_id(&id);
    let updated = update.role_arn(role_arn("second")).send().await.unwrap();
    let updated = updated.association.unwrap();
    assert_eq!(updated.role_arn(), Some(&*role_arn("second")));
    assert_eq!(updated.service_account(), Some("reader"));
    let held = eks_auth.associations().of("shop", "reader").unwrap();
    assert_eq!((&held.id, held.role_name()), (&id, "second"));

    let delete = || {
        let delete = client.delete_pod_identity_association();
        delete.cluster_name(CLUSTER).association_id(&id).send()
    };
    delete().await.unwrap();
    assert_eq!(eks_auth.associations().of("shop", "reader"), None);
    let error = delete().await.unwrap_err();
    assert_eq!(code(error), "ResourceNotFoundException");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (eks_auth, _eks, client) = start();
    eks_auth.associate("shop", "reader", "first");
    let create = |account: &str, role: &str| {
        let create = client.create_pod_identity_association();
        let create = create.cluster_name(CLUSTER).namespace("shop");
        create.service_account(account).role_arn(role)
    };
    let good = role_arn("second");
    let refused = create("reader", &good).send().await.unwrap_err();
    assert_eq!(code(refused), "ResourceInUseException");
    let refused = create("writer", "second").send().await.unwrap_err();
    assert_eq!(code(refused), "InvalidParameterException");
    let refused = create("writer", &good)
        .policy("{}")
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(refused), "InvalidParameterException");
    let list = client
        .list_pod_identity_associations()
        .cluster_name(CLUSTER);
    let refused = list.clone().max_results(101).send().await.unwrap_err();
    assert_eq!(code(refused), "InvalidParameterException");
    let refused = list.next_token("mine").send().await.unwrap_err();
    assert_eq!(code(refused), "InvalidParameterException");
    let refused = client.describe_cluster().name("another").send().await;
    assert_eq!(code(refused.unwrap_err()), "ResourceNotFoundException");
}

#[tokio::test]
async fn the_cluster_is_described_to_those_whose_signature_is_good() {
    let (_eks_auth, eks, good) = start();
    let described = good.describe_cluster().name(CLUSTER).send().await.unwrap();
    let arn = format!("arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}");
    assert_eq!(described.cluster().unwrap().arn(), Some(&*arn));
    let keys = |id: &str, secret: &str| Credentials::new(id, secret, None, None, "test");
    let key = operator().access_key_id().to_owned();
    for (signer, expected) in [
        (keys("AKIASTRANGER", "any"), "UnrecognizedClientException"),
        (keys(&key, "wrong"), "InvalidSignatureException"),
    ] {
        let bad = client(&eks, signer, RetryConfig::disabled());
        let refused = bad.describe_cluster().name(CLUSTER).send().await;
        assert_eq!(code(refused.unwrap_err()), expected);
    }
    eks.accept_signer(keys("AKIASTRANGER", "any"));
    let known = client(&eks, keys("AKIASTRANGER", "any"), RetryConfig::disabled());
    known.describe_cluster().name(CLUSTER).send().await.unwrap();
}

#[tokio::test]
async fn throttling_and_denial_look_to_the_client_as_they_should() {
    let (_eks_auth, eks, client_once) = start();
    let list = |client: &Client| {
        client
            .list_pod_identity_associations()
            .cluster_name(CLUSTER)
    };
    eks.throttle_next(1);
    let refused = list(&client_once).send().await.unwrap_err();
    assert_eq!(code(refused), "TooManyRequestsException");
    // The SDK knows that for what it is, and asks again.
    eks.throttle_next(1);
    let patient = client(&eks, operator(), RetryConfig::standard());
    list(&patient).send().await.unwrap();

    eks.deny("ListPodIdentityAssociations");
    let refused = list(&client_once).send().await.unwrap_err();
    let words = refused.as_service_error().unwrap().message().unwrap();
    assert!(
        words.contains("eks:ListPodIdentityAssociations on"),
        "{words}"
    );
    assert_eq!(code(refused), "AccessDeniedException");
    client_once
        .describe_cluster()
        .name(CLUSTER)
        .send()
        .await
        .unwrap();
    eks.heal();
    list(&client_once).send().await.unwrap();
    let errors: Vec<_> = eks.calls().into_iter().map(|call| call.error).collect();
    let throttled = Some("TooManyRequestsException");
    let denied = Some("AccessDeniedException");
    assert_eq!(errors, [throttled, throttled, None, denied, None, None]);
}

#[tokio::test]
async fn what_goes_beyond_the_rate_is_throttled() {
    let (_eks_auth, eks, client) = start();
    eks.throttle_above(1);
    let mut codes = BTreeSet::new();
    for _ in 0..20 {
        if let Err(refused) = client.describe_cluster().name(CLUSTER).send().await {
            codes.insert(code(refused));
        }
    }
    assert_eq!(
        codes,
        BTreeSet::from(["TooManyRequestsException".to_owned()])
    );
}
