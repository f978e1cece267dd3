//! The road to AWS and to the cluster: through the environment's proxy, where it names one.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` mean what they mean to curl. Only what is on
//! this machine or link never goes through a proxy, whatever `NO_PROXY` says: the instance metadata
//! would be another machine's, and the node's credentials in the proxy's hands.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};
use http::Uri;

/// A connector that goes through the proxy, if there is one for `url`.
pub(super) fn connector(url: &str, tls: TlsContext) -> Connector {
    let proxy = match is_local(url) {
        true => ProxyConfig::disabled(),
        false => ProxyConfig::from_env(),
    };
    builder(tls, proxy, None)
}

fn builder(
    tls: TlsContext,
    proxy: ProxyConfig,
    settings: Option<HttpConnectorSettings>,
) -> Connector {
    let mut builder = Connector::builder();
    builder.set_connector_settings(settings);
    builder
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .proxy_config(proxy)
        .build()
}

/// Whether a URL is on this machine, on its link, or one of EC2's local services.
fn is_local(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            let is_of_ec2 = address.segments()[..2] == [0xfd00, 0xec2];
            address.is_loopback() || address.is_unicast_link_local() || is_of_ec2
        }
        Err(_) => host == "localhost",
    }
}

/// The AWS SDK's HTTP client.
#[derive(Debug, Default)]
pub(super) struct Client {
    connectors: Mutex<HashMap<Timeouts, SharedHttpConnector>>,
}

/// What the SDK asks of a connector: the times for connecting and for an answer.
type Timeouts = (Option<Duration>, Option<Duration>);

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let timeouts = (settings.connect_timeout(), settings.read_timeout());
        let connectors = self.connectors.lock();
        let mut connectors = connectors.unwrap_or_else(PoisonError::into_inner);
        let connector = connectors.entry(timeouts).or_insert_with(|| {
            let settings = Some(settings.clone());
            SharedHttpConnector::new(Roads {
                direct: builder(
                    TlsContext::default(),
                    ProxyConfig::disabled(),
                    settings.clone(),
                ),
                proxied: builder(TlsContext::default(), ProxyConfig::from_env(), settings),
            })
        });
        connector.clone()
    }
}

/// The two ways that a request can take.
#[derive(Debug)]
struct Roads {
    direct: Connector,
    proxied: Connector,
}

impl HttpConnector for Roads {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match is_local(request.uri()) {
            true => self.direct.call(request),
            false => self.proxied.call(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_needs_no_proxy() {
        for url in [
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::254]/latest/api/token",
            "http://[fe80::1]/",
            "http://127.0.0.1:8080/",
            "http://[::1]:8080/",
            "http://localhost/",
        ] {
            assert!(is_local(url), "{url}");
        }
        for url in [
            "https://eks-auth.eu-central-1.api.aws/",
            "https://10.100.0.1:443/openid/v1/jwks",
            "https://[fd00:ec3::1]/",
            "http://localhost.example/",
            "http://169.254.169.254.example/",
            "nonsense",
        ] {
            assert!(!is_local(url), "{url}");
        }
    }
}
