//! The in-pod path, from a pod's `connect()` to an accepted connection with evidence of its caller,
//! and the node path beside it.
//!
//! 1. `discovery` finds pods by their cgroups; `pods` knows where their processes are, and what
//!    they need.
//! 2. `namespaces` has listeners where those processes are, and `programs` tells the eBPF programs.
//! 3. The programs redirect connects, record the callers, and report what needs action.
//! 4. `listeners` accepts on the serving runtime, and `accept` turns records into evidence.
//! 5. `node` accepts on addresses of the host, from callers that no program redirects.
//!
//! [`diagnosis`] looks at the same things for `podcreds doctor`.
//!
//! The first three run on a thread of their own (`worker`), since what they do may block.

#![expect(
    unsafe_code,
    reason = "socket options that no library wraps; each use says why it is sound"
)]

mod accept;
pub mod diagnosis;
mod discovery;
mod error;
#[cfg(test)]
mod fuzz;
mod listeners;
mod metrics;
mod namespaces;
mod node;
mod pods;
mod poll_set;
mod programs;
mod reaching;
mod sockopt;
mod worker;

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use prometheus::Registry as MetricsRegistry;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

pub use accept::{Accepted, OnAccept};
pub use error::DatapathError;
pub use metrics::Metrics;
pub use node::lending::Lending;
pub use node::{Need, NodePath};
pub use pods::{NotRedirected, OnLeftAlone, OnNotRedirected, OnPod, OnReachable};
pub use reaching::Reaching;

use podcreds_types::{PodUid, ReachedListeners, Vitals};

use self::{pods::known_pods::KnownPods, worker::WorkerCommand};

/// How long connects that were under way when the listeners were moved may take to reach a backlog:
/// microseconds, unless the caller is put off the processor just then and others have it for a
/// while.
const BACKLOG_PAUSE: Duration = Duration::from_millis(250);

/// What the datapath needs to know from the command line.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where to look for pods; `None` for the whole cgroup2 hierarchy.
    pub cgroup_root: Option<PathBuf>,
}

/// What the datapath calls when something happens.
pub struct Hooks {
    /// A connection was accepted.
    pub on_accept: OnAccept,
    /// A pod's first container runs, or its sandbox has been made again.
    pub on_pod_started: OnPod,
    /// A pod's cgroup is gone.
    pub on_pod_gone: OnPod,
    /// A pod can, or cannot, reach its own listeners. As long as this is not called for it, it can.
    pub on_pod_reachable: OnReachable,
    /// A pod's connect was left alone and will come to the node path, from one of these addresses.
    pub on_left_alone: OnLeftAlone,
    /// A connect was not redirected. Not called for each of many within milliseconds.
    pub on_not_redirected: OnNotRedirected,
    /// The programs are attached. Called on the thread that follows the pods from here on.
    pub on_attached: Box<dyn FnOnce() + Send>,
    /// The programs are about to be detached, for whatever reason: from here on pods come by other
    /// ways.
    pub on_detached: Box<dyn FnOnce() + Send>,
    /// Where the parts of the datapath show that they work.
    pub vitals: Vitals,
}

/// The running datapath. Dropping it detaches the programs and closes the listeners at once.
pub struct Datapath {
    commands: mpsc::Sender<WorkerCommand>,
    thread: Option<thread::JoinHandle<()>>,
    pods: Arc<KnownPods>,
}

impl Datapath {
    /// Loads the programs, finds the pods that are there, listens for them, and only then attaches.
    ///
    /// Connections are accepted on `serving`.
    ///
    /// # Errors
    ///
    /// When the kernel or the agent's privileges do not suffice; nothing is left attached.
    pub fn start(
        config: Config,
        hooks: Hooks,
        serving: Handle,
        metrics: Metrics,
        registry: &MetricsRegistry,
    ) -> Result<Self, DatapathError> {
        let (commands, commanded) = mpsc::channel(1);
        let (started, start) = std::sync::mpsc::channel();
        let registry = registry.clone();
        let thread = thread::Builder::new()
            .name("datapath".to_owned())
            .spawn(move || {
                worker::run(
                    config, hooks, serving, metrics, &registry, started, commanded,
                );
            })
            .map_err(DatapathError::io("starting the datapath's thread"))?;
        let pods = start.recv().map_err(|_| {
            DatapathError::Unsupported("the datapath's thread panicked".to_owned())
        })??;
        Ok(Self {
            commands,
            thread: Some(thread),
            pods,
        })
    }

    /// Says whether a pod is on the node, at any time.
    pub fn knows_pod(&self) -> impl Fn(PodUid) -> bool + Send + Sync + 'static {
        let pods = Arc::clone(&self.pods);
        move |uid| pods.has(uid)
    }

    /// The listeners to which pods are sent, and which they reach.
    pub async fn reached(&self) -> Vec<ReachedListeners> {
        let (reply, reached) = oneshot::channel();
        // An error means that the thread has ended: there are none any more.
        let _ = self.commands.send(WorkerCommand::Reached(reply)).await;
        reached.await.unwrap_or_default()
    }

    /// Goes to listeners that another agent reaches.
    pub fn reaching(&self) -> Reaching {
        Reaching(self.commands.downgrade())
    }

    /// Stops redirecting, accepts what is under way, and closes the listeners.
    ///
    /// In this order no connect meets a closed listener. What has been accepted is not touched.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(WorkerCommand::Stop(done)).await.is_ok() {
            // An error means that the thread has ended, and its listeners with it.
            let _stopped = stopped.await;
        }
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.commands, closed));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the datapath's thread panicked");
        }
    }
}
