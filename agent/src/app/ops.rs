//! What answers Prometheus and kubelet: from before the start until after the end.

use std::net::{IpAddr, Ipv4Addr};

use prometheus::Registry;
use tokio::runtime::Runtime;

use super::AppError;
use crate::{
    config::Config,
    ops::{
        http::{self, BindError},
        metrics::serve_metrics,
        probes::{Readiness, serve_probes},
    },
};

/// Serves metrics and probes on the control runtime.
pub(super) fn serve(
    config: &Config,
    control: &Runtime,
    serving: &Runtime,
    registry: &Registry,
    readiness: &Readiness,
) -> Result<(), AppError> {
    let (metrics, probes) = control.block_on(async {
        let metrics = http::bind(
            config.metrics_address,
            config.metrics_port,
            "--metrics-port or --metrics-address",
        );
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let probes = http::bind(localhost, config.probe_port, "--probe-port");
        Ok::<_, BindError>((metrics.await?, probes.await?))
    })?;
    control.spawn(serve_metrics(metrics, registry.clone()));
    control.spawn(serve_probes(
        probes,
        readiness.clone(),
        serving.handle().clone(),
    ));
    Ok(())
}
