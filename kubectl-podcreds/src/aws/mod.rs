//! EKS and IAM: associations and roles as plain values.
//!
//! Both are asked through the AWS SDK, which signs, retries with growing pauses, and slows down
//! where a service throttles.

mod eks;
mod iam;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider, retry::RetryConfig,
};
use aws_sdk_eks::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::{
    Builder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::timeout::TimeoutConfig;

pub(crate) use eks::Eks;
pub(crate) use iam::Iam;

use crate::{kubernetes::chain, snapshot::Missing};

/// Tries of one call, with pauses of up to 20 s between them.
const TRIES: u32 = 8;
/// How long one try may take, also where nobody ever answers.
const PATIENCE: Duration = Duration::from_secs(15);
/// Calls under way at once: few enough for what EKS and IAM let an account do.
const AT_ONCE: usize = 10;

/// What both clients are made of, as the AWS CLI finds it: a profile, the environment, a login.
pub(crate) async fn config(profile: Option<&str>, region: Option<&str>) -> SdkConfig {
    // The adaptive mode keeps all calls together below the pace at which the service throttles.
    let retries = RetryConfig::adaptive().with_max_attempts(TRIES);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .retry_config(retries)
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(PATIENCE)
                .build(),
        );
    if let Some(profile) = profile {
        // The default chain would take keys from the environment first, and the AWS CLI does not
        // where a profile is named.
        let credentials = ProfileFileCredentialsProvider::builder()
            .profile_name(profile)
            .build();
        loader = loader
            .profile_name(profile)
            .credentials_provider(credentials);
    }
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    loader.load().await
}

/// A client that takes HTTPS_PROXY and NO_PROXY from the environment, as the AWS CLI does.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|it| it.sleep_impl()));
        connector
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build()
    })
}

/// Why something could not be looked at, and the action of IAM that would allow it.
fn missing<E>(what: &str, action: &str, error: &SdkError<E>) -> Missing
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error.code().unwrap_or_default();
    let is_denied = code.starts_with("AccessDenied") || code == "UnauthorizedOperation";
    let why = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => chain(error),
    };
    Missing {
        what: what.to_owned(),
        why,
        needs: is_denied.then(|| action.to_owned()),
    }
}
