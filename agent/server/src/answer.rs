//! Responses: credentials, or why there are none, in words that SDKs pass on to people.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use podcreds_types::CredentialError;
use podcreds_types::Refusal;
use serde::Serialize;

/// A response to a pod.
pub(super) type Answer = Response<Full<Bytes>>;

/// The media ranges that JSON is in.
const JSON_RANGES: [&str; 3] = ["application/json", "application/*", "*/*"];

/// So much of what a client accepts is looked at, in bytes.
const ACCEPT_READ: usize = 256;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Others are answered as well; this is the one to use.
const GET: HeaderValue = HeaderValue::from_static("GET");

/// Why a request gets no credentials.
pub(super) enum NoCredentials {
    /// The agent refuses it.
    Refused(Refusal),
    /// EKS Auth refuses its token, or has not yet said anything.
    NotFetched(CredentialError),
}

impl From<Refusal> for NoCredentials {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<CredentialError> for NoCredentials {
    fn from(error: CredentialError) -> Self {
        Self::NotFetched(error)
    }
}

impl NoCredentials {
    /// How to count it; what is only late is not counted among refusals.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::NotFetched(CredentialError::Refused(_)) => Some(Refusal::EksAuth),
            Self::NotFetched(CredentialError::NotReady { .. }) => None,
        }
    }

    /// Whether the client or its owner is to blame, and not podcreds or what it depends on.
    pub(super) fn is_clients_fault(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_clients_fault(),
            Self::NotFetched(CredentialError::Refused(_)) => true,
            Self::NotFetched(CredentialError::NotReady {
                is_clients_fault, ..
            }) => *is_clients_fault,
        }
    }

    /// The response that says so.
    pub(super) fn response(&self, format: Format) -> Answer {
        match self {
            Self::Refused(refusal) => refused(*refusal, format),
            Self::NotFetched(error) => not_fetched(error, format),
        }
    }
}

fn refused(refusal: Refusal, format: Format) -> Answer {
    let Some(words) = refusal.words() else {
        // The connection is closed without a word where it is refused for such a reason.
        return answer(StatusCode::FORBIDDEN, Bytes::new(), TEXT);
    };
    let (text, content_type) = match format {
        Format::Json => (words.json, JSON),
        Format::Text => (words.text, TEXT),
    };
    let mut answer = answer(
        words.status,
        Bytes::from_static(text.as_bytes()),
        content_type,
    );
    let headers = answer.headers_mut();
    if words.is_worth_a_retry() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
    }
    match refusal {
        Refusal::Method => drop(headers.insert(header::ALLOW, GET)),
        // The next attempt may be redirected, but only if it connects again.
        Refusal::Detour => {
            let close = HeaderValue::from_static("close");
            headers.insert(header::CONNECTION, close);
        }
        _ => {}
    }
    answer
}

fn not_fetched(error: &CredentialError, format: Format) -> Answer {
    let status = match error {
        CredentialError::Refused(refusal) => refusal.status(),
        // The one status on which every SDK asks again.
        CredentialError::NotReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut answer = match format {
        Format::Json => answer(status, json(error), JSON),
        Format::Text => answer(status, text(error), TEXT),
    };
    if let CredentialError::NotReady { retry_after, .. } = error {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1) as u64;
        let seconds = HeaderValue::from(seconds);
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

fn answer(status: StatusCode, body: Bytes, content_type: HeaderValue) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    response
}

/// One line, with the code where it is EKS Auth's.
fn text(error: &CredentialError) -> Bytes {
    let line = match error {
        CredentialError::Refused(refusal) => format!("({}): {}\n", refusal.code, refusal.message),
        CredentialError::NotReady { .. } => format!("{error}\n"),
    };
    line.into()
}

fn json(error: &CredentialError) -> Bytes {
    let words;
    let (code, message) = match error {
        // The code has a field of its own.
        CredentialError::Refused(refusal) => (refusal.code.as_str(), &refusal.message),
        CredentialError::NotReady { .. } => {
            words = error.to_string();
            ("CredentialsNotReady", &words)
        }
    };
    let body = ErrorBody {
        code,
        message,
        code_for_js: code,
        message_for_js: message,
    };
    // Strings can always be written; an empty body would still carry its status.
    serde_json::to_vec(&body).unwrap_or_default().into()
}

/// How a refusal is written down. Credentials are always JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// An object with a code and a message.
    Json,
    /// A line of text, for those who accept no JSON.
    Text,
}

impl Format {
    /// JSON unless the client says what it accepts, and that is something else. Of the SDKs some
    /// say JSON and some nothing, and all can read it. A client with a long list can as well: its
    /// end is not looked at.
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
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(rename = "Code")]
    code_for_js: &'a str,
    #[serde(rename = "Message")]
    message_for_js: &'a str,
}

/// Credentials, in a body that is ready to be sent.
pub(super) fn credentials(body: Bytes) -> Answer {
    answer(StatusCode::OK, body, JSON)
}
