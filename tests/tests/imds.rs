//! The IMDS stand-in against the SDK.

use aws_config::{
    imds::{self, credentials::ImdsCredentialsProvider},
    provider_config::ProviderConfig,
};
use aws_credential_types::provider::ProvideCredentials;
use podcreds_tests::{
    aws::{NodeCredentials, REGION, http_client},
    http::client,
    imds::Imds,
};

#[tokio::test]
async fn the_sdk_finds_region_and_credentials() {
    let node = NodeCredentials::named("seven");
    let imds = Imds::start(node.clone());
    let config = ProviderConfig::without_region().with_http_client(http_client());
    let client = imds::Client::builder()
        .configure(&config)
        .endpoint(imds.url())
        .unwrap()
        .build();
    let region = client
        .get("/latest/meta-data/placement/region")
        .await
        .unwrap();
    assert_eq!(region.as_ref(), REGION);
    let provider = ImdsCredentialsProvider::builder()
        .imds_client(client)
        .build();
    let credentials = provider.provide_credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), node.access_key_id);
    assert_eq!(credentials.secret_access_key(), node.secret_access_key);
    assert_eq!(
        credentials.session_token(),
        Some(node.session_token.as_str())
    );
    assert!(credentials.expiry().is_some());
    assert!(imds.paths().iter().any(|path| path == "/latest/api/token"));
}

#[test]
fn version_one_is_refused() {
    let imds = Imds::start(NodeCredentials::default());
    let address = imds.url().trim_start_matches("http://").parse().unwrap();
    let answer = client::get(address, "/latest/meta-data/placement/region").unwrap();
    assert_eq!(answer.status, 401);
}
