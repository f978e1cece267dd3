//! The paths from the pods to the server: the in-pod path, the node path, or both at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use podcreds_credentials::Store;
use podcreds_datapath as datapath;
use podcreds_datapath::{
    Accepted, Datapath, DatapathError, Hooks, Lending, Metrics, Need, NodePath, OnAccept, Reaching,
};
use podcreds_identity::Identity;
use podcreds_keys::ClusterKeys;
use podcreds_ops::probes::Readiness;
use podcreds_server::{Server, Times};
use podcreds_types::{PodRecords, ReachedListeners, RefusedCallers, Vitals};
use prometheus::Registry;
use tokio::runtime::Handle;

use super::{AppError, privileges};
use crate::config::PathsConfig as Config;

/// What the paths lead to.
pub(super) struct Stages {
    /// Answers the requests.
    pub(super) server: Arc<Server>,
    /// Says who is calling.
    pub(super) identity: Arc<Identity>,
    /// Drops the credentials of pods that are gone.
    pub(super) store: Store,
    /// Has a record of each pod on the node.
    pub(super) pods: PodRecords,
    /// Remembers who was refused.
    pub(super) refused: RefusedCallers,
    /// Say what the cluster has signed, where they can be had.
    pub(super) keys: Option<ClusterKeys>,
}

/// The paths that are open.
pub(super) struct Paths {
    ebpf: Option<Datapath>,
    node: Option<NodePath>,
    metrics: Metrics,
    /// Whether another agent redirects pods when this one does no longer.
    is_succeeded: Arc<AtomicBool>,
}

impl Paths {
    /// Opens the paths that are configured. Where both are, the node path makes up for an eBPF that
    /// cannot be had. Connections are accepted on `serving`.
    pub(super) fn start(
        config: &Config,
        stages: &Stages,
        serving: &Handle,
        registry: &Registry,
        readiness: &Readiness,
        vitals: &Vitals,
        lending: &Arc<Lending>,
    ) -> Result<Self, AppError> {
        let metrics = Metrics::register(registry)?;
        let is_succeeded = Arc::new(AtomicBool::new(false));
        let (ebpf, lacking) = match &config.ebpf {
            None => (None, None),
            Some(ebpf) => {
                let succeeded = &is_succeeded;
                match start_ebpf(
                    ebpf.clone(),
                    stages,
                    serving,
                    &metrics,
                    registry,
                    vitals,
                    succeeded,
                ) {
                    Ok(ebpf) => (Some(ebpf), None),
                    Err(error) if !error.is_about_ebpf() => return Err(error.into()),
                    Err(error) if config.node.is_none() => return Err(AppError::Ebpf(error)),
                    Err(error) => (None, Some(error)),
                }
            }
        };
        let need = match &ebpf {
            Some(_) => Need::Whenever,
            None => Need::Now,
        };
        let on_accept = on_accept(stages);
        let node = match &config.node {
            None => None,
            Some(addresses) => {
                match NodePath::start(
                    addresses, need, lending, &on_accept, serving, vitals, &metrics,
                ) {
                    Ok(node) => Some(node),
                    Err(node) => {
                        // The datapath that has started ends with this.
                        vitals.close();
                        return Err(nowhere(lacking, node));
                    }
                }
            }
        };
        if let Some(error) = lacking {
            say_degraded(&error, readiness);
        }
        Ok(Self {
            ebpf,
            node,
            metrics,
            is_succeeded,
        })
    }

    /// How the paths are.
    pub(super) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The in-pod listeners that pods are sent to and reach.
    pub(super) async fn reached(&self) -> Vec<ReachedListeners> {
        match &self.ebpf {
            Some(ebpf) => ebpf.reached().await,
            None => Vec::new(),
        }
    }

    /// Goes to in-pod listeners that another agent reaches, if there are any on these paths.
    pub(super) fn reaching(&self) -> Option<Reaching> {
        self.ebpf.as_ref().map(Datapath::reaching)
    }

    /// Closes the paths in such an order that no connect meets a closed listener. What has been
    /// accepted is not touched.
    ///
    /// An agent that has another one beside it leaves the node path first: the other accepts from
    /// the same listeners, and knows which pods it redirects. One that is alone leaves it last:
    /// pods that are no longer redirected connect there, and are expected there.
    pub(super) async fn stop(self, has_other_agent: bool) {
        self.is_succeeded.store(has_other_agent, Ordering::Relaxed);
        let (ebpf, node) = (self.ebpf, self.node);
        let stop_node = async {
            if let Some(node) = node {
                node.stop(has_other_agent).await;
            }
        };
        let stop_ebpf = async {
            if let Some(ebpf) = &ebpf {
                ebpf.stop().await;
            }
        };
        if has_other_agent {
            stop_node.await;
            stop_ebpf.await;
        } else {
            stop_ebpf.await;
            stop_node.await;
        }
    }
}

fn start_ebpf(
    config: datapath::Config,
    stages: &Stages,
    serving: &Handle,
    metrics: &Metrics,
    registry: &Registry,
    vitals: &Vitals,
    is_succeeded: &Arc<AtomicBool>,
) -> Result<Datapath, DatapathError> {
    let (left, is_succeeded) = (Arc::clone(&stages.identity), Arc::clone(is_succeeded));
    let [started, gone, reachable, left_alone] = [(); 4].map(|()| Arc::clone(&stages.identity));
    let (store, pods) = (stages.store.clone(), stages.pods.clone());
    let [refused, forgetting] = [(); 2].map(|()| stages.refused.clone());
    let started_pods = pods.clone();
    let hooks = Hooks {
        on_accept: on_accept(stages),
        on_pod_started: Box::new(move |pod| {
            started_pods.found(pod);
            started.pod_found(pod);
        }),
        on_pod_gone: Box::new(move |pod| {
            pods.gone(pod);
            store.forget(pod);
            gone.pod_gone(pod);
            forgetting.forget(pod);
        }),
        on_pod_reachable: Box::new(move |pod, is_reachable| {
            reachable.set_reachable(pod, is_reachable)
        }),
        on_left_alone: Box::new(move |pod, addresses| left_alone.left_alone(pod, addresses)),
        on_not_redirected: Box::new(move |it| {
            refused.note_unseen(it.caller, it.outcome, it.about);
        }),
        on_attached: Box::new(privileges::keep_for_datapath),
        on_detached: Box::new(move || {
            if !is_succeeded.load(Ordering::Relaxed) {
                left.redirects_ended();
            }
        }),
        vitals: vitals.clone(),
    };
    let (serving, metrics) = (serving.clone(), metrics.clone());
    let datapath = Datapath::start(config, hooks, serving, metrics, registry)?;
    stages.store.cache().keep_only_pods(datapath.knows_pod());
    Ok(datapath)
}

/// There is no way for pods to come.
fn nowhere(lacking: Option<DatapathError>, node: DatapathError) -> AppError {
    match lacking {
        Some(ebpf) => AppError::NoPath { ebpf, node },
        None => node.into(),
    }
}

/// Says in the log and to the readiness probe that the kernel does not identify callers.
fn say_degraded(error: &DatapathError, readiness: &Readiness) {
    tracing::warn!(
        reason = %error,
        "eBPF cannot be had: pods are served at addresses of the host, and known by their tokens \
         alone"
    );
    readiness.remark(format!("without eBPF, on the node path only: {error}"));
}

/// Brings the stages together for one connection: what the kernel saw, under the node's policy, to
/// the server.
fn on_accept(stages: &Stages) -> OnAccept {
    let (server, identity) = (Arc::clone(&stages.server), Arc::clone(&stages.identity));
    Arc::new(move |connection: Accepted| {
        let times = Times {
            accepted: connection.accepted,
            connected: connection.connected,
        };
        let caller = identity.caller(connection.evidence);
        server.serve(connection.stream, caller, times);
    })
}
