//! A stand-in for the EKS API, as far as associations go.
//!
//! It lists, describes, creates, updates and deletes Pod Identity associations, and describes the
//! cluster. It checks signatures, and takes no field on trust. What it changes, EKS Auth's stand-in
//! knows at once: they share one table. The real one takes seconds.

mod answer;
mod fields;
mod handler;
mod operation;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aws_credential_types::Credentials;

use crate::{
    associations::Associations,
    eks_auth::{EksAuth, quota::Quota},
    http::server::Server,
    signature::Signers,
};
use handler::Service;

/// The most associations of one page, and how many a page has unless the caller says otherwise.
pub const PAGE: usize = 100;

/// A running stand-in, on a thread of its own. It stops when it is dropped.
pub struct Eks {
    server: Server,
    state: Arc<Mutex<State>>,
}

/// A call that was signed well, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operation's name, such as `ListPodIdentityAssociations`.
    pub operation: &'static str,
    /// The error that it met.
    pub error: Option<&'static str>,
}

/// Everything behind the stand-in's lock.
#[derive(Default)]
struct State {
    signers: Signers,
    associations: Associations,
    /// Operations that nobody may call.
    denied: HashSet<&'static str>,
    /// How many calls more are throttled.
    throttled: usize,
    quota: Option<Quota>,
    calls: Vec<Call>,
}

impl Eks {
    /// The API of the cluster that `eks_auth` serves, with the same associations. It accepts
    /// calls that are signed with [`operator`].
    pub fn beside(eks_auth: &EksAuth) -> Self {
        let mut state = State {
            associations: eks_auth.associations(),
            ..State::default()
        };
        state.signers.accept(operator());
        let state = Arc::new(Mutex::new(state));
        let service = Service(Arc::clone(&state));
        Self {
            server: Server::start("eks", Arc::new(service)),
            state,
        }
    }

    /// Its base URL: `AWS_ENDPOINT_URL_EKS`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Accepts calls that are signed with these credentials too.
    pub fn accept_signer(&self, credentials: Credentials) {
        self.state().signers.accept(credentials);
    }

    /// Which service account has which role.
    pub fn associations(&self) -> Associations {
        self.state().associations.clone()
    }

    /// Lets nobody call this operation, until [`heal`](Self::heal).
    pub fn deny(&self, operation: &'static str) {
        self.state().denied.insert(operation);
    }

    /// Throttles the next `calls` calls.
    pub fn throttle_next(&self, calls: usize) {
        self.state().throttled = calls;
    }

    /// Throttles what goes beyond so many calls in a second, until [`heal`](Self::heal).
    pub fn throttle_above(&self, calls_per_second: usize) {
        self.state().quota = Some(Quota::new(calls_per_second, Instant::now()));
    }

    /// Throttles and denies nothing any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.denied.clear();
        state.throttled = 0;
        state.quota = None;
    }

    /// Every call that was signed well, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The keys of somebody who may do everything.
pub fn operator() -> Credentials {
    Credentials::new(
        "AKIAOPERATOR",
        "secret-of-the-operator",
        None,
        None,
        "podcreds-tests",
    )
}

/// A test that panicked while it held the lock must not hide its reason behind a second panic.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
