//! What each of the SDK's errors means.

use aws_sdk_eksauth::{
    error::ErrorMetadata,
    types::error::{
        AccessDeniedException, ExpiredTokenException, InternalServerException,
        InvalidParameterException, InvalidTokenException, ResourceNotFoundException,
        ThrottlingException,
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
    let throttling = || ServiceError::ThrottlingException(ThrottlingException::builder().build());
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
fn what_refuses_in_the_place_of_eks_auth_says_nothing_about_the_node() {
    for status in [401, 403] {
        let nameless = ServiceError::generic(ErrorMetadata::builder().build());
        let error = failed(nameless, status, &[("retry-after", "60")]);
        let UpstreamError::Unavailable {
            reason,
            retry_after: None,
        } = error
        else {
            panic!("{error:?}");
        };
        assert!(
            reason.contains("proxy") && !reason.contains("node"),
            "{reason}"
        );
    }
    // Nor does a token whose issuer is called like an action.
    let words = "the token's issuer eks-auth:x is not known";
    let bad = InvalidTokenException::builder()
        .meta(meta("InvalidTokenException", words))
        .message(words)
        .build();
    let error = failed(ServiceError::InvalidTokenException(bad), 400, &[]);
    assert!(matches!(error, UpstreamError::Refused(_)), "{error:?}");
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
    let odd = ServiceError::InvalidParameterException(InvalidParameterException::builder().build());
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
