//! `podcreds doctor`: looks for what keeps a node, or one of its pods, from credentials.
//!
//! - `node` and `pod` have a file for each idea. One function looks, another judges what it has
//!   seen; only the second decides between pass, warn and fail.
//! - `checks` runs them side by side, each for a limited time, and `report` writes what they say.
//! - `visit` sends a process into a cgroup and a network namespace, `cgroups` makes such a cgroup.
//!
//! It needs no agent, and changes nothing that lasts: its own cgroups and programs are gone when it
//! ends. It shows no token and no key.

mod cgroups;
mod checks;
mod node;
mod pod;
mod report;
mod sockets;
pub mod visit;
mod words;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use futures_util::future::select_all;
use podcreds_handover as handover;
use podcreds_upstream::{self as upstream, KeyServer};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

pub use pod::PodName;
pub use report::{Finding, Report, ReportFormat, Status};

/// Threads that may wait for the kernel at once: there is one check of the machine on each.
const BLOCKING_THREADS: usize = 32;

/// What the agent of this node is told, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether pods are to be redirected by eBPF.
    pub ebpf: bool,
    /// Where pods are looked for; `None` for the whole cgroup2 hierarchy.
    pub cgroup_root: Option<PathBuf>,
    /// The host's addresses that are to be served, if any.
    pub node: Vec<SocketAddr>,
    /// EKS Auth.
    pub upstream: upstream::Config,
    /// Who publishes the cluster's keys, if anyone.
    pub keys: Option<KeyServer>,
    /// Where agents hand over to each other, if they do.
    pub handover: Option<handover::Config>,
    /// Where metrics are served.
    pub metrics: (IpAddr, u16),
    /// Where probes are answered, on localhost.
    pub probe_port: u16,
}

/// Looks at the node, or at one of its pods.
///
/// # Errors
///
/// When the machine gives no runtime, or a signal has come: then there is nothing to report.
pub fn examine(config: &Config, pod: Option<&PodName>) -> std::io::Result<Report> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        let signals = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let mut signals = signals
            .into_iter()
            .map(signal)
            .collect::<Result<Vec<_>, _>>()?;
        let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        let any_signal = select_all(waits);
        let examination = async {
            match pod {
                Some(pod) => pod::examine(config, pod).await,
                None => Report::new("node", checks::run(node::checks(config)).await),
            }
        };
        tokio::select! {
            report = examination => Ok(report),
            _ = any_signal => Err(std::io::ErrorKind::Interrupted.into()),
        }
    });
    // A check that took too long may have left some.
    cgroups::remove_all();
    // A check that took too long may wait for the kernel still.
    runtime.shutdown_timeout(Duration::from_millis(100));
    report
}
