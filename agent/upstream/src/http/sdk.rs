//! The client as the AWS SDK wants it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use rustls::ClientConfig;

use super::{Outbound, SendError, is_local};

/// How long a service has for an answer where the SDK does not say it.
const ANSWER: Duration = Duration::from_secs(15);
/// What is near has at least this: the SDK gives the instance metadata a second, and then asks
/// again.
const NEAR_ANSWER: Duration = Duration::from_millis(2500);

/// The AWS SDK's HTTP client.
#[derive(Debug)]
pub(in super::super) struct SdkClient {
    outbound: Outbound,
    tls: Arc<ClientConfig>,
    connectors: Mutex<HashMap<Timeouts, SharedHttpConnector>>,
}

/// What the SDK asks of a connector: the times for connecting and for an answer.
type Timeouts = (Option<Duration>, Option<Duration>);

impl SdkClient {
    pub(super) fn new(outbound: Outbound, tls: Arc<ClientConfig>) -> Self {
        Self {
            outbound,
            tls,
            connectors: Mutex::default(),
        }
    }
}

impl HttpClient for SdkClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let timeouts = (settings.connect_timeout(), settings.read_timeout());
        let connectors = self.connectors.lock();
        let mut connectors = connectors.unwrap_or_else(PoisonError::into_inner);
        let connector = connectors.entry(timeouts).or_insert_with(|| {
            SharedHttpConnector::new(Connector {
                client: self.outbound.client(Arc::clone(&self.tls), timeouts.0),
                answer: timeouts.1.unwrap_or(ANSWER),
            })
        });
        connector.clone()
    }
}

/// A client with the SDK's limits.
#[derive(Debug)]
struct Connector {
    client: super::Client,
    answer: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => {
                return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
            }
        };
        let limit = match is_local(request.uri()) {
            true => self.answer.max(NEAR_ANSWER),
            false => self.answer,
        };
        let client = self.client.clone();
        HttpConnectorFuture::new(async move {
            let answer = client.send(request, limit).await.map_err(sorted)?;
            HttpResponse::try_from(answer.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn sorted(error: SendError) -> ConnectorError {
    match error {
        error if error.is_timeout() => ConnectorError::timeout(error.into()),
        SendError::Broken(error) if error.is::<super::body::TooLarge>() => {
            ConnectorError::other(error, None)
        }
        error => ConnectorError::io(error.into()),
    }
}
