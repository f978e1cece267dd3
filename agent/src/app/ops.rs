//! What answers Prometheus and kubelet: from before the start until after the end.

use std::net::{IpAddr, Ipv4Addr};

use prometheus::Registry;
use tokio::{net::TcpListener, runtime::Runtime};

use super::AppError;
use crate::{
    config::Config,
    ops::{
        metrics::serve_metrics,
        probes::{Readiness, serve_probes},
        socket,
        turn::{self, Turn},
        watchdog::Health,
    },
};

/// Serves metrics and probes on the control runtime: at once on the socket, and on the ports when it is
/// this agent's turn.
pub(super) fn serve(
    config: &Config,
    control: &Runtime,
    health: &Health,
    registry: &Registry,
    readiness: &Readiness,
) -> Result<(), AppError> {
    let _reactor = control.enter();
    let metrics = turn::bind(
        config.metrics_address,
        config.metrics_port,
        "--metrics-port or --metrics-address",
    )?;
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let probes = turn::bind(localhost, config.probe_port, "--probe-port")?;

    let registry = registry.clone();
    control.spawn(async move {
        if let Some(listener) = listen(metrics, "metrics").await {
            serve_metrics(listener, registry).await;
        }
    });
    let (ready, health) = (readiness.clone(), health.clone());
    if let Some(path) = &config.probe_socket {
        let listener = socket::bind(path, "--probe-socket")?;
        control.spawn(serve_probes(listener, ready.clone(), health.clone()));
    }
    control.spawn(async move {
        if let Some(listener) = listen(probes, "probe").await {
            serve_probes(listener, ready, health).await;
        }
    });
    Ok(())
}

/// Listens when it is this agent's turn.
async fn listen(turn: Turn, what: &str) -> Option<TcpListener> {
    match turn.listen().await {
        Ok(listener) => {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "{what} server listening");
            }
            Some(listener)
        }
        Err(error) => {
            tracing::error!(%error, "cannot listen: there will be no {what} server");
            None
        }
    }
}
