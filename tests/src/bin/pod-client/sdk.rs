//! The Rust SDK, as an application uses it.

use std::time::UNIX_EPOCH;

use aws_config::BehaviorVersion;
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError};
use serde_json::{Value, json};

pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(fetch());
    Ok(crate::print(&result)?)
}

async fn fetch() -> Value {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let Some(provider) = config.credentials_provider() else {
        return json!({ "error": "no credentials provider" });
    };
    match provider.provide_credentials().await {
        Err(why) => json!({ "error": explain(&why) }),
        Ok(credentials) => json!({
            "access_key_id": credentials.access_key_id(),
            "session_token": credentials.session_token(),
            "account_id": credentials.account_id().map(|account| account.as_str()),
            "expiration": credentials
                .expiry()
                .and_then(|expiry| expiry.duration_since(UNIX_EPOCH).ok())
                .map(|since| since.as_secs()),
        }),
    }
}

fn explain(why: &CredentialsError) -> String {
    let mut words = why.to_string();
    let mut source = std::error::Error::source(why);
    while let Some(why) = source {
        words = format!("{words}: {why}");
        source = why.source();
    }
    words
}
