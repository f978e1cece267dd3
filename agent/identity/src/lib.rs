//! Who is calling, and whether the token is theirs to use.
//!
//! Three witnesses must agree: the kernel's record of the caller, the listener that accepted the
//! connection (the datapath has compared these two), and the claims in the token. The claims are not
//! verified here: the credentials stage gives nothing to a token that neither EKS Auth has accepted
//! nor one of the cluster's keys has signed for that pod.

mod delegates;
mod expected;
mod metrics;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use dashmap::DashSet;
use tokio::runtime::Handle;

pub use metrics::Metrics;

use podcreds_keys::ClusterKeys;
use podcreds_server::Identify;
use podcreds_types::{
    Claimant, Claims, Evidence, Origin, PodUid, Refusal, Route, ServiceAccount, Token,
};

use delegates::{Delegates, Standing};
use expected::Expected;

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
    metrics: Metrics,
    /// The pods whose foreign tokens have been logged, once each for each route: a proxy must not hide a thief.
    reported: DashSet<(PodUid, Route)>,
    /// Where the kernel redirects: the pods that have come that way, and so need no other.
    redirected: DashSet<PodUid>,
    /// Those of them that cannot come that way now, since their own network does not let them.
    unreachable: DashSet<PodUid>,
    /// Whether nobody is redirected any more, so that all have to come by the node path.
    is_detached: AtomicBool,
    /// Those of them that need another all the same, for now.
    expected: Expected,
}

/// One connection's caller: what the kernel said of it, under this node's policy.
pub struct Caller {
    identity: Arc<Identity>,
    evidence: Evidence,
}

impl Identity {
    /// Makes the policy of this node. Delegates are told by `keys`, on `runtime`.
    pub fn new(
        config: Config,
        keys: Option<ClusterKeys>,
        runtime: Handle,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            mode: config.mode,
            delegates: Delegates::new(config.delegates, config.kubelet_root, keys, runtime),
            metrics,
            reported: DashSet::new(),
            redirected: DashSet::new(),
            is_detached: AtomicBool::new(false),
            unreachable: DashSet::new(),
            expected: Expected::default(),
        })
    }

    /// Takes a connection in.
    pub fn caller(self: &Arc<Self>, evidence: Evidence) -> Caller {
        if let Evidence::Pod { uid, .. } = evidence
            && !self.redirected.contains(&uid)
        {
            self.redirected.insert(uid);
        }
        Caller {
            identity: Arc::clone(self),
            evidence,
        }
    }

    /// Learns of a pod that has started.
    pub fn meet(&self, pod: PodUid) {
        self.delegates.meet(pod);
    }

    /// The kernel redirects nobody any more, and no other agent has it done. So it says nothing against a token
    /// that it comes by the node path.
    pub fn expect_all_on_the_node_path(&self) {
        self.is_detached.store(true, Ordering::Relaxed);
    }

    /// Learns whether a pod can reach its own listeners. One that cannot comes by the node path.
    pub fn set_reachable(&self, pod: PodUid, is_reachable: bool) {
        if is_reachable {
            self.unreachable.remove(&pod);
        } else {
            self.unreachable.insert(pod);
        }
    }

    /// Expects a pod on the node path: the kernel has left a connect of its alone. It will come
    /// from one of these addresses.
    pub fn expect(&self, pod: PodUid, addresses: Vec<IpAddr>) {
        self.expected.insert(pod, addresses);
    }

    /// Forgets what was remembered of a pod that is gone.
    pub fn forget(&self, pod: PodUid) {
        self.redirected.remove(&pod);
        self.expected.remove(pod);
        for route in [Route::Direct, Route::Proxy] {
            self.reported.remove(&(pod, route));
        }
        self.unreachable.remove(&pod);
        self.delegates.forget(pod);
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
            Evidence::Pod { uid, .. } => match self.delegates.standing(uid) {
                Standing::Delegate => {
                    self.metrics.delegated.inc();
                    return Ok(bearer());
                }
                Standing::Other => {
                    self.report_foreign_token(uid, claims, route);
                    through(route, Refusal::OtherPod)
                }
                Standing::Unknown(reason) => Refusal::Undecided(reason),
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
            self.redirected.contains(&uid)
                && !self.unreachable.contains(&uid)
                && !self.expected.contains(uid, peer)
        };
        claims.pod.is_some_and(is_redirected) && !self.is_detached.load(Ordering::Relaxed)
    }

    fn report_foreign_token(&self, pod: PodUid, claims: &Claims, route: Route) {
        if !self.reported.insert((pod, route)) {
            return;
        }
        let token_pod_uid = claims.pod.map(tracing::field::display);
        let refused = self.mode == Mode::Enforce;
        match route {
            Route::Direct => tracing::warn!(
                pod_uid = %pod,
                token_pod_uid,
                refused,
                "a pod uses a token that was issued to another pod; this is logged once a pod"
            ),
            Route::Proxy => tracing::warn!(
                pod_uid = %pod,
                token_pod_uid,
                refused,
                "a token that was issued to another pod comes from this one with the marks of an \
                 HTTP proxy: if this pod is a proxy, the other one needs 169.254.170.23 and \
                 fd00:ec2::23 in its NO_PROXY; this is logged once a pod"
            ),
        }
    }

    /// Says once for each redirected pod that its token came here through a proxy.
    fn report_detour(&self, peer: IpAddr, claims: &Claims, route: Route) {
        tracing::debug!(%peer, "a token of a pod that the kernel redirects came to the node path");
        if let (Route::Proxy, Some(pod)) = (route, claims.pod)
            && self.reported.insert((pod, route))
        {
            tracing::warn!(
                %peer,
                token_pod_uid = %pod,
                refused = self.mode == Mode::Enforce,
                "a pod's token came to the node path through an HTTP proxy: the pod needs \
                 169.254.170.23 and fd00:ec2::23 in its NO_PROXY; this is logged once a pod"
            );
        }
    }
}

/// How a refusal is told to whoever came this way.
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

    fn pod(&self) -> Option<PodUid> {
        match self.evidence {
            Evidence::Pod { uid, .. } => Some(uid),
            _ => None,
        }
    }

    fn origin(&self) -> Origin {
        self.evidence.origin()
    }
}

#[cfg(test)]
mod tests;
