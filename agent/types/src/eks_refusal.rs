//! EKS Auth's last word about a token.

use http::StatusCode;

/// What EKS Auth has refused a token with: asking again gives the same answer until somebody
/// changes something.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{code}: {message}")]
pub struct EksRefusal {
    /// What there is to be changed.
    pub kind: RefusalKind,
    /// EKS Auth's error code, such as `ResourceNotFoundException`.
    pub code: String,
    /// EKS Auth's own words, fit to be shown to the pod.
    pub message: String,
}

/// What the owner of a refused pod has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The token is expired, or is not one of this cluster's.
    BadToken,
    /// No association names the pod's service account, or the cluster is unknown.
    NotFound,
    /// The association's role may not be assumed.
    Denied,
}

impl EksRefusal {
    /// The status that EKS Auth itself gives such an answer.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::BadToken | RefusalKind::Denied => StatusCode::BAD_REQUEST,
        }
    }
}
