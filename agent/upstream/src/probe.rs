//! One call to EKS Auth for `podcreds doctor`, and what was to be seen on the way.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError};
use aws_sdk_eksauth::{
    config::{
        Intercept,
        interceptors::{
            BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
        },
    },
    error::{ProvideErrorMetadata as _, SdkError},
};
use aws_smithy_runtime_api::{box_error::BoxError, client::runtime_components::RuntimeComponents};
use aws_smithy_types::{
    config_bag::ConfigBag,
    date_time::{DateTime, Format},
};
use podcreds_types::{Credentials, Token};

use super::{ConnectPart, EksAuth, UpstreamError, answer, failure, http, words::chain};

/// What one call has shown.
#[derive(Debug)]
pub struct Probe {
    /// Where the call went, or was to go: scheme, host and port.
    pub endpoint: Option<String>,
    /// Whether an AWS service has answered. Something on the way, such as a proxy, does so without
    /// an error code of AWS's.
    pub answered: bool,
    /// What the clock said, to the second, of what has answered.
    pub date: Option<SystemTime>,
    /// The part of the way that failed, if there was no connection.
    pub failed_part: Option<ConnectPart>,
    /// What came of it.
    pub outcome: Result<Credentials, UpstreamError>,
}

/// The node's own credentials, without what is secret of them.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Where the SDK has found them, in its own words: `EnvironmentVariable`, `IMDSv2`.
    pub source: String,
    /// When they expire, if they do.
    pub expires_at: Option<SystemTime>,
}

/// Why there is nothing to sign calls with.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Not even a place to look for credentials.
    #[error("nothing provides credentials")]
    NoProvider,
    /// Where they are looked for there are none. Without secrets, as the SDK's errors are.
    #[error("{}", chain(.0))]
    Provider(CredentialsError),
}

impl EksAuth {
    /// Exchanges a token once, and notes what there is to see.
    pub async fn probe(&self, token: Token) -> Probe {
        let notes = Notes::default();
        let answer = self
            .client
            .assume_role_for_pod_identity()
            .cluster_name(&self.cluster_name)
            .token(token.expose())
            .customize()
            .interceptor(notes.clone())
            .send()
            .await;
        let answered = match &answer {
            Ok(_) => true,
            Err(SdkError::ServiceError(error)) => error.err().code().is_some(),
            Err(_) => false,
        };
        let failed_part = answer.as_ref().err().and_then(failed_part);
        let outcome = match answer {
            Ok(answer) => answer::is_for(&answer, &token)
                .and_then(|()| answer::credentials(answer, SystemTime::now())),
            Err(error) => Err(failure::classify(&error)),
        };
        let seen = notes.lock().clone();
        Probe {
            endpoint: seen.endpoint,
            answered,
            date: seen.date,
            failed_part,
            outcome,
        }
    }

    /// The region that it calls.
    pub fn region(&self) -> Option<String> {
        let region = self.client.config().region();
        region.map(|region| region.as_ref().to_owned())
    }

    /// Finds the credentials that calls are signed with.
    ///
    /// # Errors
    ///
    /// Why there are none.
    pub async fn signer(&self) -> Result<Signer, SignerError> {
        let provider = self.signer.as_ref().ok_or(SignerError::NoProvider)?;
        let found = provider.provide_credentials().await;
        let found = found.map_err(SignerError::Provider)?;
        // The SDK says the provider's name in `Debug` alone, which redacts what is secret.
        let shown = format!("{found:?}");
        let name = shown.split("provider_name: \"").nth(1);
        let name = name.and_then(|rest| rest.split('"').next());
        Ok(Signer {
            source: name.unwrap_or("unknown").to_owned(),
            expires_at: found.expiry(),
        })
    }
}

/// Where a failed call has ended, if it has not reached EKS Auth.
fn failed_part<E, R>(error: &SdkError<E, R>) -> Option<ConnectPart> {
    let SdkError::DispatchFailure(failure) = error else {
        return match error {
            SdkError::TimeoutError(_) => Some(ConnectPart::Tcp),
            _ => None,
        };
    };
    http::part_that_failed(failure.as_connector_error()?)
}

/// Notes where a request goes, and when it is answered.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Noted>>);

#[derive(Clone, Debug, Default)]
struct Noted {
    endpoint: Option<String>,
    date: Option<SystemTime>,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Notes {
    fn name(&self) -> &'static str {
        "Notes"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let uri: Option<::http::Uri> = context.request().uri().parse().ok();
        let endpoint = |uri: ::http::Uri| {
            let port = uri
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            Some(format!("{}://{}{port}", uri.scheme_str()?, uri.host()?))
        };
        self.lock().endpoint = uri.and_then(endpoint);
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        self.lock().date = date.and_then(|date| SystemTime::try_from(date).ok());
        Ok(())
    }
}
