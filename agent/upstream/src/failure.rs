//! What the SDK's errors mean for a pod, in words without secrets.
//!
//! Never print an SDK error with `{:?}` or `DisplayErrorContext`: both show the raw answer, which
//! may hold credentials, and the request's token.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};
use aws_sdk_eksauth::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::assume_role_for_pod_identity::AssumeRoleForPodIdentityError as ServiceError,
};
use aws_smithy_types::date_time::{DateTime, Format};
use podcreds_types::{EksRefusal, RefusalKind};

use super::{
    UpstreamError,
    words::{chain, code, fit},
};

/// The longest that EKS Auth is left alone because it says so. The limiter waits less.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What an AWS service says where the signature or the node's credentials are at fault, whatever
/// the status.
const ABOUT_NODE: [&str; 14] = [
    "AuthFailure",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "SubscriptionRequiredException",
    "UnrecognizedClientException",
];
/// What it says where the endpoint is not EKS Auth's, or not of this version: true of all tokens.
const NO_SUCH_OPERATION: &str = "UnknownOperationException";
/// The action that a node must be allowed: `is not authorized to perform: eks-auth:Assume...`.
const OWN_ACTION: &str = "eks-auth:";
/// How the codes of the errors begin that say so. The words of others may be a token's.
const DENIED: &str = "AccessDenied";

/// Sorts a failed call.
pub(super) fn classify(error: &SdkError<ServiceError, HttpResponse>) -> UpstreamError {
    let reason = match error {
        SdkError::ServiceError(failed) => return answered(failed.err(), failed.raw()),
        SdkError::TimeoutError(_) => "timed out".to_owned(),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(cause) => {
                let words = cause.source().map_or_else(String::new, chain);
                match (cause.is_timeout(), cause.is_io()) {
                    (true, _) => format!("timed out: {words}"),
                    (_, true) => format!("not reachable: {words}"),
                    _ => words,
                }
            }
            None => "not reachable".to_owned(),
        },
        SdkError::ConstructionFailure(_) => {
            format!("the call could not be made: {}", chain(error))
        }
        SdkError::ResponseError(failed) => format!(
            "the answer (HTTP {}) could not be read",
            failed.raw().status().as_u16()
        ),
        _ => "the call failed".to_owned(),
    };
    UpstreamError::unavailable(reason)
}

/// Sorts an error that EKS Auth itself has answered with.
fn answered(error: &ServiceError, raw: &HttpResponse) -> UpstreamError {
    let status = raw.status().as_u16();
    let retry_after = retry_after(raw, SystemTime::now());
    let throttles = |code| THROTTLING_ERRORS.contains(&code);
    if status == 429 || error.code().is_some_and(throttles) || error.is_throttling_exception() {
        return UpstreamError::Throttled { retry_after };
    }
    let code = code(error.code());
    let message = fit(error.message().unwrap_or("no message"));
    // EKS Auth's own refusals are 400 and 404. A 403 comes from the check of the signature before
    // it, and a denial that speaks of EKS Auth's own action is about this node's role: no pod can
    // do anything about either.
    let refusal = refusal(error);
    let denies_action = code.starts_with(DENIED) && message.contains(OWN_ACTION);
    let refuses = matches!(status, 401 | 403);
    if refuses && error.code().is_none() && refusal.is_none() {
        return UpstreamError::unavailable(format!(
            "HTTP {status} without an error code of AWS's: something on the way to EKS Auth, such \
             as a proxy, refuses the call"
        ));
    }
    let is_about_node = refuses || denies_action || ABOUT_NODE.contains(&&*code);
    match refusal {
        Some(kind) if !is_about_node => UpstreamError::Refused(EksRefusal {
            kind,
            code,
            message,
        }),
        _ if is_about_node => UpstreamError::Unavailable {
            reason: format!("it refuses this node's own credentials: {code}: {message}"),
            retry_after,
        },
        _ if is_about_request(status, error.code()) => UpstreamError::Rejected {
            code,
            message: format!("{message} (HTTP {status})"),
        },
        _ => UpstreamError::Unavailable {
            reason: format!("HTTP {status}: {code}: {message}"),
            retry_after,
        },
    }
}

/// Whether an error is about what is in this one request, of which a pod chooses the token. Others
/// than EKS Auth, on the way there, may reject it too: for its size, or for what is in it.
fn is_about_request(status: u16, code: Option<&str>) -> bool {
    match code {
        Some(code) if TRANSIENT_ERRORS.contains(&code) || code == NO_SUCH_OPERATION => false,
        Some(_) => (400..500).contains(&status) && status != 407 && status != 408,
        None => matches!(status, 400 | 413 | 414 | 422 | 431),
    }
}

/// The errors that are the last word about a pod's token.
fn refusal(error: &ServiceError) -> Option<RefusalKind> {
    match error {
        ServiceError::AccessDeniedException(_) => Some(RefusalKind::Denied),
        ServiceError::ResourceNotFoundException(_) => Some(RefusalKind::NotFound),
        ServiceError::ExpiredTokenException(_) | ServiceError::InvalidTokenException(_) => {
            Some(RefusalKind::BadToken)
        }
        _ => None,
    }
}

/// When EKS Auth wants to be asked again: seconds, a date, or AWS's own milliseconds.
fn retry_after(raw: &HttpResponse, now: SystemTime) -> Option<Duration> {
    let headers = raw.headers();
    if let Some(millis) = headers.get("x-amz-retry-after") {
        let millis = millis.parse().ok().map(Duration::from_millis);
        return millis.map(|wait| wait.min(LONGEST_PAUSE));
    }
    let value = headers.get("retry-after")?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds).min(LONGEST_PAUSE));
    }
    let date = DateTime::from_str(value, Format::HttpDate).ok()?;
    let wait = SystemTime::try_from(date).ok()?.duration_since(now).ok()?;
    Some(wait.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests;
