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
    let is_about_node =
        matches!(status, 401 | 403) || message.contains(OWN_ACTION) || ABOUT_NODE.contains(&&*code);
    match refusal(error) {
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
mod tests {
    use aws_sdk_eksauth::{
        error::ErrorMetadata,
        types::error::{
            AccessDeniedException, ExpiredTokenException, InternalServerException,
            InvalidParameterException, ResourceNotFoundException, ThrottlingException,
        },
    };
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn failed(error: ServiceError, status: u16, headers: &[(&'static str, &str)]) -> UpstreamError {
        let body = SdkBody::from("wJalrXUtnFEMI");
        let mut raw = HttpResponse::new(status.try_into().unwrap(), body);
        for (name, value) in headers {
            raw.headers_mut().insert(*name, (*value).to_owned());
        }
        classify(&SdkError::service_error(error, raw))
    }

    fn meta(code: &str, message: &str) -> ErrorMetadata {
        ErrorMetadata::builder().code(code).message(message).build()
    }

    #[test]
    fn a_refusal_keeps_its_code_and_message() {
        let error = ResourceNotFoundException::builder()
            .meta(meta("ResourceNotFoundException", "no association"))
            .message("no association")
            .build();
        let error = ServiceError::ResourceNotFoundException(error);
        let UpstreamError::Refused(EksRefusal {
            kind,
            code,
            message,
        }) = failed(error, 404, &[])
        else {
            panic!("not refused");
        };
        assert_eq!(kind, RefusalKind::NotFound);
        assert_eq!(
            (&*code, &*message),
            ("ResourceNotFoundException", "no association")
        );
    }

    #[test]
    fn each_final_error_has_its_kind() {
        let denied = ServiceError::AccessDeniedException(AccessDeniedException::builder().build());
        let expired = ServiceError::ExpiredTokenException(ExpiredTokenException::builder().build());
        for (error, expected) in [
            (denied, RefusalKind::Denied),
            (expired, RefusalKind::BadToken),
        ] {
            let error = failed(error, 400, &[]);
            assert!(
                matches!(&error, UpstreamError::Refused(refusal) if refusal.kind == expected),
                "{error:?}"
            );
        }
    }

    #[test]
    fn trouble_with_the_nodes_credentials_is_no_refusal_of_the_pod() {
        for error in [
            ServiceError::AccessDeniedException(AccessDeniedException::builder().build()),
            ServiceError::ExpiredTokenException(ExpiredTokenException::builder().build()),
            ServiceError::generic(meta("InvalidSignatureException", "clock")),
        ] {
            let error = failed(error, 403, &[]);
            let UpstreamError::Unavailable { reason, .. } = error else {
                panic!("{error:?}");
            };
            assert!(reason.contains("this node's own credentials"), "{reason}");
        }
    }

    #[test]
    fn throttling_says_when_to_come_back() {
        let throttling =
            || ServiceError::ThrottlingException(ThrottlingException::builder().build());
        let after = |headers: &[(&'static str, &str)]| {
            let error = failed(throttling(), 429, headers);
            let UpstreamError::Throttled { retry_after } = error else {
                panic!("{error:?}");
            };
            retry_after
        };
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(after(&[("retry-after", "soon")]), None);
        assert_eq!(
            after(&[("x-amz-retry-after", "1500")]),
            Some(Duration::from_millis(1500))
        );
        let date = after(&[("retry-after", "Fri, 31 Dec 2999 23:59:59 GMT")]);
        assert_eq!(date, Some(LONGEST_PAUSE));
        let absurd = u64::MAX.to_string();
        for name in ["retry-after", "x-amz-retry-after"] {
            assert_eq!(after(&[(name, &absurd)]), Some(LONGEST_PAUSE));
            assert_eq!(after(&[(name, "-1")]), None);
        }
    }

    #[test]
    fn a_token_in_the_place_of_a_code_goes_nowhere() {
        for code in [
            "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl",
            "Bad\u{1b}[31m",
        ] {
            let error = failed(ServiceError::generic(meta(code, "no")), 500, &[]);
            let error = error.to_string();
            assert!(error.contains("UnknownError: no"), "{error}");
            assert!(!error.contains(code), "{error}");
        }
    }

    #[test]
    fn each_code_for_throttling_is_throttling() {
        for code in THROTTLING_ERRORS {
            let error = failed(ServiceError::generic(meta(code, "")), 400, &[]);
            assert!(matches!(error, UpstreamError::Throttled { .. }), "{code}");
        }
    }

    #[test]
    fn a_node_that_may_not_ask_is_no_refusal_of_the_pod() {
        let message = "User: arn:aws:sts::1:assumed-role/node/i-1 is not authorized to perform: \
                       eks-auth:AssumeRoleForPodIdentity on resource: arn:aws:eks:x:1:cluster/c";
        let denied = AccessDeniedException::builder()
            .meta(meta("AccessDeniedException", message))
            .message(message)
            .build();
        let error = failed(ServiceError::AccessDeniedException(denied), 400, &[]);
        let UpstreamError::Unavailable { reason, .. } = error else {
            panic!("{error:?}");
        };
        assert!(reason.contains("this node's own credentials"), "{reason}");
    }

    #[test]
    fn a_server_in_trouble_is_worth_another_try() {
        let internal =
            ServiceError::InternalServerException(InternalServerException::builder().build());
        for (error, status) in [
            (internal, 500),
            (ServiceError::generic(meta("BadGateway", "")), 502),
            (
                ServiceError::generic(meta("UnknownOperationException", "")),
                404,
            ),
            (ServiceError::generic(meta("RequestTimeout", "")), 400),
            (ServiceError::generic(ErrorMetadata::builder().build()), 404),
            (ServiceError::generic(ErrorMetadata::builder().build()), 407),
            (ServiceError::generic(ErrorMetadata::builder().build()), 408),
        ] {
            let error = failed(error, status, &[("retry-after", "2")]);
            let UpstreamError::Unavailable {
                retry_after,
                reason,
            } = error
            else {
                panic!("{error:?}");
            };
            assert_eq!(retry_after, Some(Duration::from_secs(2)));
            assert!(reason.contains(&status.to_string()), "{reason}");
            assert!(!reason.contains("wJalr"), "the raw answer is shown");
        }
    }

    #[test]
    fn an_error_that_a_token_can_provoke_is_no_outage() {
        let odd =
            ServiceError::InvalidParameterException(InvalidParameterException::builder().build());
        let generic = |code: &str| ServiceError::generic(meta(code, "eyJhbGciOi.eyJhdWQ.c2ln"));
        let nameless = || ServiceError::generic(ErrorMetadata::builder().build());
        for (error, status) in [
            (odd, 400),
            (generic("InvalidRequestException"), 400),
            (generic("ValidationException"), 400),
            (generic("SerializationException"), 400),
            (generic("SomethingNew"), 418),
            (nameless(), 400),
            (nameless(), 413),
            (nameless(), 431),
        ] {
            // It would hold up all other pods' calls.
            let error = failed(error, status, &[("retry-after", "60")]);
            assert!(matches!(error, UpstreamError::Rejected { .. }), "{error:?}");
            let told = error.to_string();
            assert!(!told.contains("eyJ") && !told.contains("wJalr"), "{told}");
        }
    }

    #[test]
    fn an_error_about_the_nodes_credentials_is_one_whatever_its_status() {
        for (code, status) in [
            ("UnrecognizedClientException", 400),
            ("RequestExpired", 400),
            ("IncompleteSignature", 400),
            ("Whatever", 401),
        ] {
            let error = failed(ServiceError::generic(meta(code, "")), status, &[]);
            let UpstreamError::Unavailable { reason, .. } = error else {
                panic!("{error:?}");
            };
            assert!(reason.contains("this node's own credentials"), "{reason}");
        }
    }
}
