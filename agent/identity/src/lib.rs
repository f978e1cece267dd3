//! Compares a token with the pod that the kernel has identified.
//!
//! 1. [`Identity::caller`] takes the datapath's evidence of a connection's caller: the kernel's
//!    record and the listener agree already.
//! 2. The server hands the caller each request's token ([`Identify::identify`]).
//! 3. The token's claims must name the caller's pod, unless the caller is a delegate.
//! 4. On the node path, only a token of a pod that is not redirected counts.
//! 5. The claims are not verified here: credentials are given only to a token that EKS Auth has
//!    accepted, or that one of the cluster's keys has signed for that pod.

mod delegates;
mod left_alone;
mod metrics;
mod suspicions;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::runtime::Handle;

pub use metrics::Metrics;

use podcreds_keys::ClusterKeys;
use podcreds_server::Identify;
use podcreds_types::{
    Claimant, Claims, Evidence, PodRecords, PodUid, Refusal, Route, ServiceAccount, SharedMap,
    Token, sdk::EXCEPTIONS,
};

use delegates::{DelegateStatus, Delegates};
use left_alone::LeftAlone;
use suspicions::{Suspicion, Suspicions};

/// How far the node's clock may be ahead of the API server's before a token counts as expired here.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// What is done when the witnesses disagree (`--identity`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Refuse.
    Enforce,
    /// Log and count, then trust the token alone.
    Audit,
    /// Trust the token alone.
    Off,
}

/// What identity needs to know from the command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is done when the witnesses disagree.
    pub mode: Mode,
    /// Pods of these service accounts may use other pods' tokens.
    pub delegates: Vec<ServiceAccount>,
    /// Where kubelet keeps its pods' volumes.
    pub kubelet_root: PathBuf,
}

/// Holds tokens to the pods that they were issued to.
pub struct Identity {
    mode: Mode,
    delegates: Delegates,
    /// What people call the pods.
    pods: PodRecords,
    metrics: Metrics,
    /// What has been logged of tokens that came from elsewhere than their pod.
    suspicions: Suspicions,
    /// Where the kernel redirects: the pods that have come that way, and so need no other.
    redirected: SharedMap<PodUid, ()>,
    /// Those of them that cannot come that way now, since their own network does not let them.
    unreachable: SharedMap<PodUid, ()>,
    /// Whether nobody is redirected any more, so that all have to come by the node path.
    is_detached: AtomicBool,
    /// Those of them that may come by the node path all the same, for now.
    left_alone: LeftAlone,
}

/// How a pod comes, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The kernel has sent it to a listener of its own.
    Redirected,
    /// It cannot reach its own listeners now, and comes by the node path.
    Unreachable,
    /// It has not come by the in-pod path.
    NotSeen,
}

/// One connection's caller: what the datapath says about it, under this node's policy.
pub struct Caller {
    identity: Arc<Identity>,
    evidence: Evidence,
}

impl Identity {
    /// Makes the policy of this node. Delegates are told by `keys`, on `runtime`.
    pub fn new(
        config: Config,
        pods: PodRecords,
        keys: Option<ClusterKeys>,
        runtime: Handle,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            mode: config.mode,
            delegates: Delegates::new(config.delegates, config.kubelet_root, keys, runtime),
            pods,
            metrics,
            suspicions: Suspicions::default(),
            redirected: SharedMap::default(),
            is_detached: AtomicBool::new(false),
            unreachable: SharedMap::default(),
            left_alone: LeftAlone::default(),
        })
    }

    /// The caller of a new connection.
    pub fn caller(self: &Arc<Self>, evidence: Evidence) -> Caller {
        if let Evidence::Pod { uid, .. } = evidence
            && !self.redirected.contains_key(&uid)
        {
            self.redirected.insert(uid, ());
        }
        Caller {
            identity: Arc::clone(self),
            evidence,
        }
    }

    /// The datapath has found a pod. Its service account is looked up, in case it is a delegate.
    pub fn pod_found(&self, pod: PodUid) {
        self.delegates.pod_found(pod);
    }

    /// The kernel redirects nobody any more, for this agent or for another. From now on it says
    /// nothing against a token that it comes by the node path.
    pub fn redirects_ended(&self) {
        self.is_detached.store(true, Ordering::Relaxed);
    }

    /// Notes whether a pod can reach its own listeners. One that cannot comes by the node path.
    pub fn set_reachable(&self, pod: PodUid, is_reachable: bool) {
        if is_reachable {
            self.unreachable.remove(&pod);
        } else {
            self.unreachable.insert(pod, ());
        }
    }

    /// The kernel has left a connect of this pod's alone, which now comes to the node path, from
    /// one of these addresses.
    pub fn left_alone(&self, pod: PodUid, addresses: Vec<IpAddr>) {
        self.left_alone.insert(pod, addresses);
    }

    /// How a pod comes, for people to read.
    pub fn arrival(&self, pod: PodUid) -> Arrival {
        if self.unreachable.contains_key(&pod) {
            Arrival::Unreachable
        } else if self.redirected.contains_key(&pod) {
            Arrival::Redirected
        } else {
            Arrival::NotSeen
        }
    }

    /// Forgets a pod that is gone.
    pub fn pod_gone(&self, pod: PodUid) {
        self.redirected.remove(&pod);
        self.left_alone.remove(pod);
        self.suspicions.pod_gone(pod);
        self.unreachable.remove(&pod);
        self.delegates.pod_gone(pod);
    }

    fn decide(
        &self,
        evidence: Evidence,
        claims: &Claims,
        route: Route,
    ) -> Result<Claimant, Refusal> {
        let bearer = || Claimant::Bearer {
            claims: claims.pod,
            origin: evidence.origin(),
        };
        let refusal = match evidence {
            Evidence::Pod { uid, .. } if claims.pod == Some(uid) => {
                self.metrics.matched.inc();
                return Ok(Claimant::Pod(uid));
            }
            Evidence::NodePath { peer }
                if self.mode == Mode::Off || !self.is_redirected(claims, peer) =>
            {
                self.metrics.node_path.inc();
                return Ok(bearer());
            }
            Evidence::NodePath { peer } => {
                self.report_detour(peer, claims, route);
                through(route, Refusal::Detour)
            }
            _ if self.mode == Mode::Off => {
                self.metrics.unchecked.inc();
                return Ok(bearer());
            }
            Evidence::Pod { uid, .. } => match self.delegates.status(uid) {
                DelegateStatus::Delegate => {
                    self.metrics.delegated.inc();
                    return Ok(bearer());
                }
                DelegateStatus::Other => {
                    self.report_foreign_token(uid, claims, route);
                    through(route, Refusal::OtherPod)
                }
                DelegateStatus::Undecided(why) => Refusal::Undecided(why),
            },
            Evidence::Stranger { process } => {
                tracing::debug!(process, "a process of no known pod asked for credentials");
                Refusal::UnknownCaller
            }
            Evidence::Unrecorded => Refusal::NoRecord,
        };
        if self.mode == Mode::Audit {
            self.metrics.audited.inc();
            return Ok(bearer());
        }
        match refusal {
            Refusal::ThroughProxy => self.metrics.proxied.inc(),
            _ => self.metrics.refused.inc(),
        }
        Err(refusal)
    }

    /// Whether the pod that a token claims to be of is known to come by the in-pod path. Its token
    /// elsewhere is most likely stolen, or the pod has taken a way round before it was found and
    /// will not do so again. Unless the kernel has just left a connect of the pod's alone, and this
    /// is where it comes from.
    fn is_redirected(&self, claims: &Claims, peer: IpAddr) -> bool {
        let is_redirected = |uid| {
            self.redirected.contains_key(&uid)
                && !self.unreachable.contains_key(&uid)
                && !self.left_alone.contains(uid, peer)
        };
        claims.pod.is_some_and(is_redirected) && !self.is_detached.load(Ordering::Relaxed)
    }

    fn report_foreign_token(&self, pod: PodUid, claims: &Claims, route: Route) {
        let suspicion = Suspicion::ForeignToken(claims.pod, route);
        if !self.suspicions.is_due(pod, suspicion) {
            return;
        }
        let (names, claimed) = (
            self.pods.names(pod),
            claims.pod.and_then(|it| self.pods.names(it)),
        );
        let pod_name = names.as_deref().map(tracing::field::display);
        let token_pod = claimed.as_deref().map(tracing::field::display);
        let token_pod_uid = claims.pod.map(tracing::field::display);
        let refused = self.mode == Mode::Enforce;
        match route {
            Route::Direct => tracing::warn!(
                pod = pod_name,
                pod_uid = %pod,
                token_pod,
                token_pod_uid,
                refused,
                "a pod uses a token that was issued to another pod; this is logged once for the two"
            ),
            Route::Proxy => tracing::warn!(
                pod = pod_name,
                pod_uid = %pod,
                token_pod,
                token_pod_uid,
                refused,
                "a token that was issued to another pod comes from this one with the marks of an \
                 HTTP proxy: if this pod is a proxy, the other one needs {EXCEPTIONS} in its \
                 NO_PROXY; this is logged once for the two"
            ),
        }
    }

    /// Says once for each redirected pod and way that its token came here.
    fn report_detour(&self, peer: IpAddr, claims: &Claims, route: Route) {
        tracing::debug!(%peer, "a token of a pod that the kernel redirects came to the node path");
        let Some(pod) = claims.pod else {
            return;
        };
        if !self.suspicions.is_due(pod, Suspicion::Detour(route)) {
            return;
        }
        let names = self.pods.names(pod);
        let token_pod = names.as_deref().map(tracing::field::display);
        let refused = self.mode == Mode::Enforce;
        match route {
            Route::Direct => tracing::info!(
                %peer,
                token_pod,
                token_pod_uid = %pod,
                refused,
                "a pod's token came to the node path, though the pod is redirected: through NAT, \
                 from another network namespace, or by a thief; this is logged once a pod"
            ),
            Route::Proxy => tracing::warn!(
                %peer,
                token_pod,
                token_pod_uid = %pod,
                refused,
                "a pod's token came to the node path through an HTTP proxy: the pod needs \
                 {EXCEPTIONS} in its NO_PROXY; this is logged once a pod"
            ),
        }
    }
}

/// The refusal of a request that came this way.
fn through(route: Route, refusal: Refusal) -> Refusal {
    match route {
        Route::Direct => refusal,
        Route::Proxy => Refusal::ThroughProxy,
    }
}

impl Identify for Caller {
    fn identify(&self, token: &Token, route: Route) -> Result<Claimant, Refusal> {
        let claims = token.claims().map_err(Refusal::MalformedToken)?;
        if claims.expires_at <= SystemTime::now() - CLOCK_SKEW {
            return Err(Refusal::ExpiredToken);
        }
        self.identity.decide(self.evidence, claims, route)
    }

    fn evidence(&self) -> Evidence {
        self.evidence
    }
}

#[cfg(test)]
mod tests;
