//! Responses: credentials, or why there are none, in words that SDKs pass on to people.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use super::{Refusal, metrics::Reason};
use crate::credentials::{CredentialError, RefusalKind};

/// The only resource.
pub(super) const PATH: &str = "/v1/credentials";

/// The media ranges that JSON is in.
const JSON_RANGES: [&str; 3] = ["application/json", "application/*", "*/*"];

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GET: HeaderValue = HeaderValue::from_static("GET");

/// Why a request gets no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denial {
    #[error("nothing is here; credentials are at {PATH}")]
    Path,
    #[error("only GET is answered here")]
    Method,
    #[error(
        "the Host header must be one IP address; reach the agent by the address in \
         AWS_CONTAINER_CREDENTIALS_FULL_URI, not by a name"
    )]
    Host,
    #[error(
        "the Authorization header is missing or empty; send the content of the file that \
         AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names"
    )]
    NoToken,
    #[error("{0}; {advice}", advice = advice(.0))]
    Token(#[from] Refusal),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// What the pod's owner can do.
fn advice(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed(_) => {
            "send the content of the file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names as it \
             is, without \"Bearer\""
        }
        Refusal::Expired => {
            "read the token's file again for every request, since the kubelet renews it"
        }
        Refusal::OtherPod => {
            "a pod may use its own token only, unless the agent's --delegate names its service \
             account"
        }
        Refusal::UnknownCaller => {
            "call from a container of the pod; if this is one, look at the agent's log"
        }
        Refusal::Detour => "call from the pod's own network namespace, without a proxy or NAT",
    }
}

impl Denial {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host => StatusCode::FORBIDDEN,
            Self::NoToken => StatusCode::BAD_REQUEST,
            Self::Token(refusal) => match refusal {
                Refusal::Malformed(_) | Refusal::Expired => StatusCode::BAD_REQUEST,
                Refusal::OtherPod | Refusal::UnknownCaller => StatusCode::FORBIDDEN,
                Refusal::Detour => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Credentials(error) => match error {
                // The statuses that EKS Auth gives these errors itself.
                CredentialError::Refused { kind, .. } => match kind {
                    RefusalKind::NotFound => StatusCode::NOT_FOUND,
                    RefusalKind::BadToken | RefusalKind::Denied => StatusCode::BAD_REQUEST,
                },
                // The one status on which every SDK asks again.
                CredentialError::NotReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// A short name for programs. EKS Auth's own where the error is EKS Auth's.
    fn code(&self) -> &str {
        match self {
            Self::Path => "NotFound",
            Self::Method => "MethodNotAllowed",
            Self::Host => "HostNotAllowed",
            Self::NoToken => "MissingToken",
            Self::Token(refusal) => match refusal {
                Refusal::Malformed(_) => "MalformedToken",
                Refusal::Expired => "ExpiredToken",
                Refusal::OtherPod => "TokenOfAnotherPod",
                Refusal::UnknownCaller => "UnknownCaller",
                Refusal::Detour => "Detour",
            },
            Self::Credentials(error) => match error {
                CredentialError::Refused { code, .. } => code,
                CredentialError::NotReady { .. } => "CredentialsNotReady",
            },
        }
    }

    fn message(&self) -> Cow<'_, str> {
        match self {
            // The code has a field of its own.
            Self::Credentials(CredentialError::Refused { message, .. }) => message.into(),
            _ => self.to_string().into(),
        }
    }

    /// How to count it; what is only late is not counted among refusals.
    pub(super) fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Path => Reason::NotFound,
            Self::Method => Reason::Method,
            Self::Host => Reason::BadHost,
            Self::NoToken => Reason::MissingToken,
            Self::Token(refusal) => match refusal {
                Refusal::Malformed(_) => Reason::MalformedToken,
                Refusal::Expired => Reason::ExpiredToken,
                Refusal::OtherPod => Reason::OtherPod,
                Refusal::UnknownCaller => Reason::UnknownCaller,
                Refusal::Detour => Reason::Detour,
            },
            Self::Credentials(error) => match error {
                CredentialError::Refused { .. } => Reason::EksAuth,
                CredentialError::NotReady { .. } => return None,
            },
        })
    }

    /// The response that says so.
    pub(super) fn response(&self, format: Format) -> Response<Full<Bytes>> {
        let (body, content_type) = match format {
            Format::Json => (self.json(), JSON),
            Format::Text => (self.text(), TEXT),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        match self {
            Self::Method => {
                headers.insert(header::ALLOW, GET);
            }
            Self::Credentials(CredentialError::NotReady { retry_after, .. }) => {
                let seconds = retry_after.as_millis().div_ceil(1000).max(1) as u64;
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::Token(Refusal::Detour) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
            }
            _ => {}
        }
        response
    }

    /// One line, with the code where it is EKS Auth's.
    fn text(&self) -> Bytes {
        let message = self.message();
        let line = match self {
            Self::Credentials(CredentialError::Refused { code, .. }) => {
                format!("({code}): {message}\n")
            }
            _ => format!("{message}\n"),
        };
        line.into()
    }

    fn json(&self) -> Bytes {
        let (code, message) = (self.code(), &*self.message());
        let body = Body {
            code,
            message,
            code_for_js: code,
            message_for_js: message,
        };
        // Strings can always be written; an empty body would still carry its status.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }
}

/// How a denial is written down. Credentials are always JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// An object with a code and a message.
    Json,
    /// A line of text, for those who accept no JSON.
    Text,
}

impl Format {
    /// JSON unless the client says what it accepts, and that is something else. Of the SDKs some say JSON
    /// and some nothing, and all can read it.
    pub(super) fn wanted_by<B>(request: &Request<B>) -> Self {
        let mut accepted = request.headers().get_all(header::ACCEPT).iter().peekable();
        let takes_json = |value: &HeaderValue| {
            let ranges = value.to_str().unwrap_or("*/*").split(',');
            let mut types = ranges.map(|range| range.split(';').next().unwrap_or(range).trim());
            types.any(|it| JSON_RANGES.iter().any(|json| it.eq_ignore_ascii_case(json)))
        };
        match accepted.peek().is_none() || accepted.any(takes_json) {
            true => Self::Json,
            false => Self::Text,
        }
    }
}

/// The Go SDK reads the lower-case names, the JS SDK the others, and botocore shows all of it.
#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(rename = "Code")]
    code_for_js: &'a str,
    #[serde(rename = "Message")]
    message_for_js: &'a str,
}

/// Credentials, in a body that is ready to be sent.
pub(super) fn credentials(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
