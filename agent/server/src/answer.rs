//! Responses: credentials, or why there are none, in words that SDKs pass on to people.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use podcreds_credentials::{CredentialError, RefusalKind};
use serde::Serialize;

use super::{
    Refusal,
    fixed::{self, Fixed},
    metrics::Reason,
};

/// The media ranges that JSON is in.
const JSON_RANGES: [&str; 3] = ["application/json", "application/*", "*/*"];

/// So much of what a client accepts is looked at, in bytes.
const ACCEPT_READ: usize = 256;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Others are answered as well; this is the one to use.
const GET: HeaderValue = HeaderValue::from_static("GET");

/// Why a request gets no credentials.
pub(super) enum Denial {
    /// It is none for credentials, or has no token that is taken.
    Fixed(&'static Fixed),
    /// EKS Auth says no, or has not yet said anything.
    Credentials(CredentialError),
}

impl From<&'static Fixed> for Denial {
    fn from(fixed: &'static Fixed) -> Self {
        Self::Fixed(fixed)
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self::Fixed(fixed::token(refusal))
    }
}

impl From<CredentialError> for Denial {
    fn from(error: CredentialError) -> Self {
        Self::Credentials(error)
    }
}

impl Denial {
    fn status(&self) -> StatusCode {
        match self {
            Self::Fixed(fixed) => fixed.status,
            // The statuses that EKS Auth gives these errors itself.
            Self::Credentials(CredentialError::Refused { kind, .. }) => match kind {
                RefusalKind::NotFound => StatusCode::NOT_FOUND,
                RefusalKind::BadToken | RefusalKind::Denied => StatusCode::BAD_REQUEST,
            },
            // The one status on which every SDK asks again.
            Self::Credentials(CredentialError::NotReady { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How to count it; what is only late is not counted among refusals.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Fixed(fixed) => Some(fixed.reason),
            Self::Credentials(CredentialError::Refused { .. }) => Some(Reason::EksAuth),
            Self::Credentials(CredentialError::NotReady { .. }) => None,
        }
    }

    /// The response that says so.
    pub(super) fn response(&self, format: Format) -> Response<Full<Bytes>> {
        let (body, content_type) = match (self, format) {
            (Self::Fixed(fixed), Format::Json) => (Bytes::from_static(fixed.json.as_bytes()), JSON),
            (Self::Fixed(fixed), Format::Text) => (Bytes::from_static(fixed.text.as_bytes()), TEXT),
            (Self::Credentials(error), Format::Json) => (json(error), JSON),
            (Self::Credentials(error), Format::Text) => (text(error), TEXT),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        match self {
            Self::Fixed(fixed) if fixed.reason == Reason::Method => {
                headers.insert(header::ALLOW, GET);
            }
            Self::Fixed(fixed) if fixed.is_worth_a_retry => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
                if fixed.reason == Reason::Detour {
                    // The next attempt may be redirected, but only if it connects anew.
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
            }
            Self::Credentials(CredentialError::NotReady { retry_after, .. }) => {
                let seconds = retry_after.as_millis().div_ceil(1000).max(1) as u64;
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::Fixed(_) | Self::Credentials(CredentialError::Refused { .. }) => {}
        }
        response
    }
}

/// One line, with the code where it is EKS Auth's.
fn text(error: &CredentialError) -> Bytes {
    let line = match error {
        CredentialError::Refused { code, message, .. } => format!("({code}): {message}\n"),
        CredentialError::NotReady { .. } => format!("{error}\n"),
    };
    line.into()
}

fn json(error: &CredentialError) -> Bytes {
    let words;
    let (code, message) = match error {
        // The code has a field of its own.
        CredentialError::Refused { code, message, .. } => (code.as_str(), message),
        CredentialError::NotReady { .. } => {
            words = error.to_string();
            ("CredentialsNotReady", &words)
        }
    };
    let body = Body {
        code,
        message,
        code_for_js: code,
        message_for_js: message,
    };
    // Strings can always be written; an empty body would still carry its status.
    serde_json::to_vec(&body).unwrap_or_default().into()
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
    /// and some nothing, and all can read it. So can whoever has a long list: its end is not looked at.
    pub(super) fn wanted_by<B>(request: &Request<B>) -> Self {
        let mut accepted = request.headers().get_all(header::ACCEPT).iter().peekable();
        if accepted.peek().is_none() {
            return Self::Json;
        }
        let mut left = ACCEPT_READ;
        for value in accepted {
            let Some(rest) = left.checked_sub(value.len()) else {
                return Self::Json;
            };
            left = rest;
            if takes_json(value) {
                return Self::Json;
            }
        }
        Self::Text
    }
}

fn takes_json(accepted: &HeaderValue) -> bool {
    let ranges = accepted.to_str().unwrap_or("*/*").split(',');
    let mut types = ranges.map(|range| range.split(';').next().unwrap_or(range).trim());
    types.any(|it| JSON_RANGES.iter().any(|json| it.eq_ignore_ascii_case(json)))
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
