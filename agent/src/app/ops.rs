//! What answers Prometheus, kubelet and operators: from before the start until after the end.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use podcreds_admin::{FolderError, Socket};

use podcreds_ops::{
    metrics::serve_metrics,
    port::{self, BindError, ReservedPort},
    probes::{Readiness, serve_probes},
    socket,
    telemetry::follow_signals,
    watchdog::VitalsHealth,
};
use prometheus::Registry;
use tokio::{net::TcpListener, runtime::Runtime, time::sleep};

use super::{AppError, operator::Operator};
use crate::config::Config;

/// How often a port that cannot be had is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A port to answer on.
#[derive(Clone, Copy)]
struct Port {
    ip: IpAddr,
    port: u16,
    /// The flags that move it.
    flag: &'static str,
    /// What is answered there.
    what: &'static str,
    /// Whether somebody has asked for it. If not, the agent does without while it cannot be had.
    is_named: bool,
}

/// Serves metrics and probes on the control runtime: at once on the socket, and on the ports when
/// it is this agent's turn.
pub(super) fn serve(
    config: &Config,
    control: &Runtime,
    health: &VitalsHealth,
    registry: &Registry,
    readiness: &Readiness,
) -> Result<(), AppError> {
    let _reactor = control.enter();
    let metrics = Port {
        ip: config.metrics_address,
        port: config.metrics_port,
        flag: "--metrics-port or --metrics-address",
        what: "metrics",
        is_named: config.named.metrics,
    };
    let probes = Port {
        ip: Ipv4Addr::LOCALHOST.into(),
        port: config.probe_port,
        flag: "--probe-port",
        what: "probe",
        is_named: config.named.probes,
    };
    let metrics = metrics.reserve(readiness)?;
    let probes = probes.reserve(readiness)?;
    let (ready, health) = (readiness.clone(), health.clone());
    if let Some(path) = &config.probe_socket {
        let listener = socket::bind(path, "--probe-socket")?;
        control.spawn(serve_probes(listener, ready.clone(), health.clone()));
    }
    let registry = registry.clone();
    control.spawn(async move {
        if let Some(listener) = metrics.await {
            serve_metrics(listener, registry).await;
        }
    });
    control.spawn(async move {
        if let Some(listener) = probes.await {
            serve_probes(listener, ready, health).await;
        }
    });
    Ok(())
}

/// Answers operators on a socket of this agent's own, and changes the log level when they signal
/// so.
pub(super) fn serve_operators(
    config: &Config,
    control: &Runtime,
    operator: Operator,
) -> Result<(), FolderError> {
    control.spawn(async {
        if let Err(error) = follow_signals().await {
            tracing::warn!(%error, "SIGUSR1 does not change the log level");
        }
    });
    let Some(admin) = &config.admin else {
        tracing::info!(
            "podcreds status, refresh and log-level cannot ask this agent: there is no --admin-dir"
        );
        return Ok(());
    };
    let readiness = operator.readiness.clone();
    match Socket::bind(&admin.dir) {
        Ok(socket) => {
            control.spawn(async move {
                let Err(error) = socket.serve(Arc::new(operator)).await;
                tracing::error!(%error, "operators cannot ask this agent");
            });
            Ok(())
        }
        Err(error) if admin.is_named => Err(error),
        Err(error) => {
            tracing::warn!(%error, "operators cannot ask this agent");
            readiness.remark(format!("without a socket for operators: {error}"));
            Ok(())
        }
    }
}

impl Port {
    /// Reserves the port. The result listens on it when it is free.
    fn reserve(
        self,
        readiness: &Readiness,
    ) -> Result<impl Future<Output = Option<TcpListener>> + Send + use<>, BindError> {
        let bound = match self.bind() {
            Err(error) if self.is_named => return Err(error),
            bound => bound,
        };
        let readiness = readiness.clone();
        Ok(async move {
            let reserved = match bound {
                Ok(reserved) => reserved,
                Err(error) => self.bind_at_last(&error, &readiness).await,
            };
            self.listen(reserved).await
        })
    }

    fn bind(self) -> Result<ReservedPort, BindError> {
        port::reserve(self.ip, self.port, self.flag)
    }

    /// Tries again until the port can be had, and says meanwhile that it cannot.
    async fn bind_at_last(self, error: &BindError, readiness: &Readiness) -> ReservedPort {
        let what = self.what;
        tracing::warn!(%error, "there is no {what} server until then: going on without");
        let _remark = readiness.remark_while(format!("without a {what} server: {error}"));
        loop {
            sleep(RETRY).await;
            if let Ok(reserved) = self.bind() {
                return reserved;
            }
        }
    }

    /// Listens when no other agent does any more.
    async fn listen(self, reserved: ReservedPort) -> Option<TcpListener> {
        let what = self.what;
        match reserved.listen().await {
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
}
