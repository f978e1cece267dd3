//! The roads from the pods to the server: eBPF's, the node path, or both at once.

use std::{net::SocketAddr, sync::Arc};

use prometheus::Registry;
use tokio::runtime::Handle;

use super::AppError;
use crate::{
    config::Paths as Config,
    credentials::Store,
    datapath::{self, Accepted, Datapath, Hooks, Metrics, NodePath, OnAccept},
    identity::Identity,
    server::{Server, Times},
};

/// What the roads lead to.
pub(super) struct Stages {
    /// Answers the requests.
    pub(super) server: Arc<Server>,
    /// Says who is calling.
    pub(super) identity: Arc<Identity>,
    /// Must be told of pods that are gone.
    pub(super) store: Store,
}

/// The roads that are open.
pub(super) struct Paths {
    ebpf: Option<Datapath>,
    node: Option<NodePath>,
}

impl Paths {
    /// Opens the roads. Connections are accepted on `serving`.
    pub(super) fn start(
        config: &Config,
        stages: &Stages,
        serving: &Handle,
        registry: &Registry,
    ) -> Result<Self, AppError> {
        let metrics = Metrics::register(registry)?;
        let ebpf = match &config.ebpf {
            Some(config) => Some(ebpf(config.clone(), stages, serving, &metrics, registry)?),
            None => None,
        };
        let node = match &config.node {
            Some(addresses) => Some(node(addresses, stages, serving, &metrics)?),
            None => None,
        };
        Ok(Self { ebpf, node })
    }

    /// Closes the roads in such an order that no connect meets a closed listener. What has been
    /// accepted is not touched.
    pub(super) async fn stop(self) {
        if let Some(ebpf) = &self.ebpf {
            ebpf.stop().await;
        }
        // Last, since who is not redirected any more comes here.
        if let Some(node) = self.node {
            node.stop().await;
        }
    }
}

fn ebpf(
    config: datapath::Config,
    stages: &Stages,
    serving: &Handle,
    metrics: &Metrics,
    registry: &Registry,
) -> Result<Datapath, AppError> {
    let (met, gone) = (Arc::clone(&stages.identity), Arc::clone(&stages.identity));
    let store = stages.store.clone();
    let hooks = Hooks {
        on_accept: on_accept(stages),
        on_pod_started: Box::new(move |pod| met.meet(pod)),
        on_pod_gone: Box::new(move |pod| {
            store.forget(pod);
            gone.forget(pod);
        }),
    };
    let (serving, metrics) = (serving.clone(), metrics.clone());
    Ok(Datapath::start(config, hooks, serving, metrics, registry)?)
}

fn node(
    addresses: &[SocketAddr],
    stages: &Stages,
    serving: &Handle,
    metrics: &Metrics,
) -> Result<NodePath, AppError> {
    let path = NodePath::start(addresses, &on_accept(stages), serving, metrics)?;
    for address in path.addresses() {
        tracing::info!(%address, "node path listening");
    }
    Ok(path)
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
