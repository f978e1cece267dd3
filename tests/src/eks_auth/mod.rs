//! A stand-in for EKS Auth.
//!
//! It speaks the wire protocol of `AssumeRoleForPodIdentity` and believes nothing: the SigV4
//! signature, the token and the cluster's name are checked as the real service does,
//! and what was refused is kept with the reason. Faults are set while it runs ([`Fault`]).
//!
//! Faults hit only calls that would have succeeded otherwise.

mod answer;
mod authority;
mod faults;
mod handler;
pub(crate) mod quota;
mod state;
mod sts;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use authority::{Authority, Rejected};
pub use faults::Fault;
pub use state::{Call, Outcome};
pub use sts::Sts;

pub use crate::associations::{ROLE_LIFETIME, TARGET_ROLE_LIFETIME};
use crate::{
    associations::{Association, Associations},
    aws::NodeCredentials,
    http::server::Server,
    token::Issuer,
};
use handler::Service;
use quota::Quota;
use state::State;

/// The cluster whose pods it serves, unless told otherwise.
pub const CLUSTER: &str = "test";

/// A running stand-in, on a thread of its own. It stops when it is dropped.
pub struct EksAuth {
    server: Server,
    state: Arc<Mutex<State>>,
    issuer: Issuer,
}

impl EksAuth {
    /// Starts one for the cluster named [`CLUSTER`], which trusts [`Issuer::cluster`] and accepts
    /// calls that are signed with the default [`NodeCredentials`]. No pod has a role yet.
    pub fn start() -> Self {
        Self::with_issuer(Issuer::cluster())
    }

    /// The same with another token issuer.
    pub fn with_issuer(issuer: Issuer) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let service = Service {
            state: Arc::clone(&state),
            authority: Arc::new(issuer.clone()),
        };
        let server = Server::start("eks-auth", Arc::new(service));
        let eks_auth = Self {
            server,
            state,
            issuer,
        };
        eks_auth.accept_signer(&NodeCredentials::default());
        eks_auth
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Its base URL: the agent's `--endpoint`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Who signs the tokens that it accepts.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Accepts calls that are signed with these credentials too.
    pub fn accept_signer(&self, credentials: &NodeCredentials) {
        self.state().signers.accept(credentials.into());
    }

    /// Which service account has which role.
    pub fn associations(&self) -> Associations {
        self.state().associations.clone()
    }

    /// Gives a service account a role, or another one. Credentials live [`ROLE_LIFETIME`].
    pub fn associate(&self, namespace: &str, service_account: &str, role: &str) {
        self.associate_for(namespace, service_account, role, ROLE_LIFETIME);
    }

    /// Gives a service account a role whose credentials live for `lifetime`.
    pub fn associate_for(
        &self,
        namespace: &str,
        service_account: &str,
        role: &str,
        lifetime: Duration,
    ) {
        self.associations().put(Association {
            lifetime: Some(lifetime),
            ..Association::new(namespace, service_account, role)
        });
    }

    /// Takes a service account's role away.
    pub fn dissociate(&self, namespace: &str, service_account: &str) {
        self.associations().remove_of(namespace, service_account);
    }

    /// Answers from now on with credentials that an STS has made, and session tags as EKS sets
    /// them. Who they are for cannot be read from their session tokens. Calls that meet a fault
    /// never get that far.
    pub fn take_credentials_from(&self, sts: Sts) {
        self.state().sts = Some(sts);
    }

    /// Has every call meet this fault, once the faults set before are used up, until
    /// [`heal`](Self::heal).
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault, None);
    }

    /// Has the next `calls` calls meet this fault, once those set before are used up.
    pub fn fail_next(&self, calls: usize, fault: Fault) {
        self.state().faults.push(fault, Some(calls));
    }

    /// Has the next `calls` calls for one pod meet this fault, before any that was set for all.
    pub fn fail_pod(&self, uid: &str, calls: usize, fault: Fault) {
        let mut state = self.state();
        let faults = state.pod_faults.entry(uid.to_owned()).or_default();
        faults.push(fault, Some(calls));
    }

    /// Throttles what goes beyond so many good calls in a second, until [`heal`](Self::heal).
    pub fn throttle_above(&self, calls_per_second: usize) {
        self.state().quota = Some(Quota::new(calls_per_second, Instant::now()));
    }

    /// Puts the clock of its answers' `Date` ahead by so many seconds, or back.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.state().clock = seconds;
    }

    /// Forgets all faults. Calls that are hanging go on hanging.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.pod_faults.clear();
        state.quota = None;
    }

    /// How many calls came in, good and bad.
    pub fn call_count(&self) -> usize {
        self.state().calls.len()
    }

    /// Every call that came in, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The calls for one pod.
    pub fn calls_for_pod(&self, uid: &str) -> Vec<Call> {
        self.calls_where(|call| call.pod_uid == uid)
    }

    /// The calls with one token.
    pub fn calls_with_token(&self, token: &str) -> Vec<Call> {
        self.calls_where(|call| call.token == token)
    }

    /// The calls that were refused because something about them was wrong: not those that met a
    /// fault.
    pub fn refused(&self) -> Vec<Call> {
        self.calls_where(|call| matches!(call.outcome, Outcome::Refused { .. }))
    }

    /// The calls that have not been answered yet.
    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// The most calls that were ever in flight at once.
    pub fn most_in_flight(&self) -> usize {
        self.state().most_in_flight
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.state().calls.clear();
    }

    fn calls_where(&self, wanted: impl Fn(&Call) -> bool) -> Vec<Call> {
        let state = self.state();
        state
            .calls
            .iter()
            .filter(|call| wanted(call))
            .cloned()
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Serves the cluster named [`CLUSTER`] at an address, on the word of `authority`, until the server
/// is dropped. Calls are to be signed with the default [`NodeCredentials`].
pub fn serve(address: SocketAddr, authority: Arc<dyn Authority>) -> Server {
    let mut state = State::default();
    state.signers.accept((&NodeCredentials::default()).into());
    let service = Service {
        state: Arc::new(Mutex::new(state)),
        authority,
    };
    Server::start_at(address, "eks-auth", Arc::new(service))
}

/// A test that panicked while it held the lock must not hide its reason behind a second panic.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
