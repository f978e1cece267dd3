//! EKS Auth through the AWS SDK.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use aws_config::{
    BehaviorVersion, SdkConfig, identity::IdentityCache,
    stalled_stream_protection::StalledStreamProtectionConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_eksauth::{Client, config::retry::RetryConfig, config::timeout::TimeoutConfig};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::app_name::AppName;
use futures_util::future::BoxFuture;
use podcreds_types::{Credentials, Token};

use super::{
    AssumeRole, CertificateError, CertificateProblem, Metrics, Outbound, UpstreamError, answer,
    failure, region, rotating::RotatingFile,
};

/// How this node tells EKS Auth from other clients.
const APP_NAME: &str = concat!("podcreds-", env!("CARGO_PKG_VERSION"));
/// The longest that finding the node's own credentials may take: a program that a profile names may
/// be slow.
const CREDENTIALS: Duration = Duration::from_secs(25);

/// Where EKS Auth is, and how long it is waited for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster that the pods' tokens belong to.
    pub cluster_name: String,
    /// A URL in place of the region's EKS Auth endpoint.
    pub endpoint: Option<String>,
    /// The node's shared credentials file, where something replaces its content.
    pub rotating_file: Option<PathBuf>,
    /// The longest that TCP may take to connect. Looking the name up, the proxy's tunnel and TLS
    /// have limits of their own.
    pub connect_timeout: Duration,
    /// The longest that EKS Auth may take to answer, once there is a connection.
    pub read_timeout: Duration,
}

impl Config {
    /// The region's own endpoint, and time limits that fit it.
    pub fn new(cluster_name: impl Into<String>) -> Self {
        Self {
            cluster_name: cluster_name.into(),
            endpoint: None,
            rotating_file: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(10),
        }
    }
}

/// Why EKS Auth cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Neither the environment nor the profile nor IMDS names a region.
    #[error(
        "no AWS region: set AWS_REGION, or let the agent reach the instance metadata service \
         (hop limit 2 where it has a network namespace of its own)"
    )]
    NoRegion,
    /// What one of them names cannot be a region.
    #[error(
        "{0:?} is no AWS region: correct AWS_REGION, or the region of the AWS profile, to a name \
         such as eu-central-1"
    )]
    Region(String),
    /// There is nobody to trust.
    #[error(
        "no certificate authorities to trust AWS by: install ca-certificates, or name a bundle \
         with AWS_CA_BUNDLE or SSL_CERT_FILE{0}"
    )]
    NoAuthorities(String),
    /// The authorities to trust are of no use.
    #[error("the certificate authorities to trust AWS by: {0}")]
    Certificates(#[source] CertificateProblem),
    /// The certificates that a variable of the environment, or a setting of the AWS profile, names
    /// to trust for AWS cannot be used.
    #[error("{name}: {source}")]
    Bundle {
        /// The variable or the setting.
        name: &'static str,
        /// What is wrong with what it names.
        source: CertificateError,
    },
    /// A variable of the environment cannot be used.
    #[error("{name}: {reason}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong with its value, which may hold a password.
        reason: &'static str,
    },
}

/// The client of EKS Auth. Clones share its connections.
#[derive(Clone, Debug)]
pub struct EksAuth {
    pub(super) client: Client,
    pub(super) cluster_name: String,
    /// What the client signs with.
    pub(super) signer: Option<SharedCredentialsProvider>,
    metrics: Metrics,
}

impl EksAuth {
    /// Finds the region and the node's credentials the way that every AWS SDK does (environment,
    /// profile, IMDS). Nothing is asked of EKS Auth yet. It is called by way of `outbound`.
    ///
    /// # Errors
    ///
    /// Any [`SetupError`].
    pub async fn new(
        config: Config,
        outbound: &Outbound,
        metrics: Metrics,
    ) -> Result<Self, SetupError> {
        let http = SharedHttpClient::new(outbound.sdk_client()?);
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.clone())
            .region(region::provider(http.clone()))
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let loader = match &config.rotating_file {
            Some(file) => loader
                .credentials_provider(RotatingFile::new(file.clone(), http))
                .identity_cache(IdentityCache::no_cache()),
            None => {
                let cache = IdentityCache::lazy().load_timeout(CREDENTIALS);
                loader.identity_cache(cache.build())
            }
        };
        let environment = loader.load().await;
        Self::with_environment(&environment, config, metrics)
    }

    /// Does the same where region and credentials are already known.
    fn with_environment(
        environment: &SdkConfig,
        config: Config,
        metrics: Metrics,
    ) -> Result<Self, SetupError> {
        region::check(environment)?;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.read_timeout)
            .build();
        let mut service = aws_sdk_eksauth::config::Builder::from(environment);
        service.set_app_name(AppName::new(APP_NAME).ok());
        service.set_timeout_config(Some(timeouts));
        // A request that waits for a slow connection is not stalled: each step has its own limit.
        let stalled = StalledStreamProtectionConfig::disabled();
        service.set_stalled_stream_protection(Some(stalled));
        // The caller decides when to try again: it knows which other requests wait.
        service.set_retry_config(Some(RetryConfig::disabled()));
        if config.endpoint.is_some() {
            service.set_endpoint_url(config.endpoint);
        }
        Ok(Self {
            client: Client::from_conf(service.build()),
            cluster_name: config.cluster_name,
            signer: environment.credentials_provider(),
            metrics,
        })
    }

    async fn exchange(self, token: Token) -> Result<Credentials, UpstreamError> {
        let started = Instant::now();
        let answer = self
            .client
            .assume_role_for_pod_identity()
            .cluster_name(&self.cluster_name)
            .token(token.expose())
            .send()
            .await;
        let outcome = match answer {
            Ok(answer) => answer::is_for(&answer, &token)
                .and_then(|()| answer::credentials(answer, SystemTime::now())),
            Err(error) => Err(failure::classify(&error)),
        };
        self.metrics.called(started.elapsed(), &outcome);
        outcome
    }
}

impl AssumeRole for EksAuth {
    fn assume_role(&self, token: Token) -> BoxFuture<'static, Result<Credentials, UpstreamError>> {
        Box::pin(self.clone().exchange(token))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_eksauth::config::{Credentials as NodeCredentials, Region};
    use prometheus::Registry;

    use super::*;

    fn environment(region: Option<Region>) -> SdkConfig {
        let node = NodeCredentials::new("AKIA", "secret", None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(SharedCredentialsProvider::new(node))
            .build()
    }

    fn metrics(registry: &Registry) -> Metrics {
        Metrics::register(registry).unwrap()
    }

    #[test]
    fn a_region_is_needed() {
        for region in [None, Some(Region::new("eu west 1"))] {
            let metrics = metrics(&Registry::new());
            let made = EksAuth::with_environment(&environment(region), Config::new("c"), metrics);
            let error = made.expect_err("no region").to_string();
            assert!(error.contains("AWS_REGION"), "{error}");
        }
    }

    #[test]
    fn the_user_agent_says_who_calls() {
        assert!(AppName::new(APP_NAME).is_ok());
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_unavailable_and_counted() {
        let registry = Registry::new();
        let mut config = Config::new("c");
        // Bound and closed again: nobody listens.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        config.endpoint = Some(format!("http://{}", closed.local_addr().unwrap()));
        drop(closed);
        let region = Some(Region::new("eu-central-1"));
        let outbound = Outbound::direct();
        let environment = environment(region).into_builder();
        let environment = environment.http_client(outbound.sdk_client().unwrap());
        let metrics = metrics(&registry);
        let upstream = EksAuth::with_environment(&environment.build(), config, metrics).unwrap();

        let error = upstream.assume_role(Token::new("eyJ.secret")).await;
        let Err(UpstreamError::Unavailable { reason, .. }) = error else {
            panic!("{error:?}");
        };
        assert!(reason.contains("not reachable"), "{reason}");
        assert!(!reason.contains("secret"), "{reason}");
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        assert!(
            text.contains("seconds_count{outcome=\"unavailable\"} 1"),
            "{text}"
        );
    }
}
