//! The composition root: the one place that knows all stages, and how they start and end.

mod operator;
mod ops;
mod path;
mod privileges;

use std::{
    io,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use podcreds_admin::FolderError;
use podcreds_credentials as credentials;
use podcreds_credentials::{Clock, Store};
use podcreds_datapath::{DatapathError, Lending, Reaching};
use podcreds_handover as handover;
use podcreds_handover::{Handover, HandoverError, Lend, Membership, Reach};
use podcreds_identity as identity;
use podcreds_identity::Identity;
use podcreds_keys as keys;
use podcreds_keys::{ClusterKeys, VerifyToken};
use podcreds_ops::{
    metrics::register_process,
    port::BindError,
    probes::Readiness,
    shutdown::{Ending, Signals, within},
    socket::SocketError,
    telemetry,
    watchdog::{OnStall, VitalsHealth, Watchdog, beat},
};
use podcreds_server as server;
use podcreds_server::Server;
use podcreds_types::{PodRecords, RefusedCallers, Vitals, sdk::AUDIENCE};
use podcreds_upstream as upstream;
use podcreds_upstream::{EksAuth, KeyFetcher, Outbound, SetupError};
use prometheus::Registry;
use tokio::runtime::{Builder, Runtime};

use self::{
    operator::Operator,
    path::{Paths, Stages},
};
use crate::config::Config;

/// Without it nothing is fetched, and nothing renewed.
const EXCHANGES: &str = "exchanging tokens";

/// Threads for blocking work of the control runtime, such as looking names up.
const BLOCKING_THREADS: usize = 2;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// eBPF cannot be had, and nothing else is wanted.
    #[error("{0}; or use --datapath node, which serves addresses of the host without eBPF")]
    Ebpf(DatapathError),
    /// eBPF cannot be had, and no address of the host either.
    #[error("{ebpf}; and without eBPF: {node}")]
    NoPath {
        /// What eBPF lacks.
        ebpf: DatapathError,
        /// What the node path lacks.
        node: DatapathError,
    },
    /// A flag, the addresses for pods, or the machine.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// An address for metrics or probes.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The socket for probes.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What the agent needs to call EKS Auth.
    #[error(transparent)]
    Upstream(#[from] SetupError),
    /// The place where agents hand over to each other.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The place where operators ask.
    #[error(transparent)]
    Admin(#[from] FolderError),
    /// Two metrics of one name.
    #[error("registering metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The kernel does not let the process give up what it does not need.
    #[error("giving up capabilities: {0}")]
    Privileges(#[source] io::Error),
    /// The machine is out of something.
    #[error("starting: {0}")]
    Io(#[from] io::Error),
    /// A second signal, or the end of the grace period, came before everything was finished.
    #[error(
        "ended before everything was finished ({ending:?}): {connections} connections were cut off"
    )]
    CutOff {
        /// How many were open.
        connections: usize,
        /// What came first.
        ending: Ending,
    },
}

/// Runs the agent until a signal ends it.
///
/// Three threads do the work. This one serves pods, and does nothing that may block or take long.
/// The datapath's own follows the pods on the node. The control thread talks to EKS Auth, and
/// answers Prometheus and kubelet, who must get an answer also when serving has stalled. When one
/// of them does nothing any more, the watchdog lets `on_stall` say so and ends the process with the
/// exit code that goes with it.
///
/// # Errors
///
/// When the agent cannot start, or could not end in order.
pub(crate) fn run(config: Config, on_stall: OnStall) -> Result<(), AppError> {
    podcreds_ops::privileges::keep(privileges::of_process(&config))
        .map_err(AppError::Privileges)?;
    telemetry::start_writing()?;
    let control = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("control")
        .on_thread_start(privileges::keep_for_control)
        .enable_all()
        .build()?;
    let serving = Builder::new_current_thread().enable_all().build()?;
    let vitals = Vitals::default();
    let watchdog = Watchdog::start(vitals.clone(), on_stall)?;
    control.spawn(beat(vitals.thread("the control runtime")));
    let health = watchdog.health();
    let app = App::start(&config, &control, &serving, &vitals, &health);
    let result = app.and_then(|app| match app {
        Some(app) => serving.block_on(app.until_told_to_end(config.grace_period)),
        None => Ok(()),
    });
    drop(watchdog);
    control.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The running agent.
struct App {
    paths: Paths,
    server: Arc<Server>,
    /// Its place among the agents of this node.
    membership: Membership,
    readiness: Readiness,
    vitals: Vitals,
    signals: Signals,
}

impl App {
    /// Starts the agent. `None` if it is told to end before its turn has come.
    fn start(
        config: &Config,
        control: &Runtime,
        serving: &Runtime,
        vitals: &Vitals,
        health: &VitalsHealth,
    ) -> Result<Option<Self>, AppError> {
        let registry = Registry::new();
        register_process(
            &registry,
            env!("CARGO_PKG_VERSION"),
            env!("PODCREDS_REVISION"),
        )?;
        let readiness = Readiness::new();
        let degraded = readiness.clone();
        telemetry::register(&registry)?;
        let handover = Handover::open(
            config.handover.as_ref(),
            handover::Metrics::register(&registry)?,
            Box::new(move |error| {
                degraded.remark(format!("without handing credentials over: {error}"));
            }),
        )?;
        let turn = readiness.gate("its turn: another agent is about to take over");
        let started = readiness.gate("the datapath");
        let mut signals = serving.block_on(async { Signals::install() })?;
        ops::serve(config, control, health, &registry, &readiness)?;
        let stages = stages(config, control, &registry, vitals, &readiness)?;
        let paths_metrics = Arc::new(OnceLock::new());
        let operator = Operator {
            store: stages.store.clone(),
            identity: Arc::clone(&stages.identity),
            pods: stages.pods.clone(),
            refused: stages.refused.clone(),
            keys: stages.keys.clone(),
            standing: handover.standing(),
            readiness: readiness.clone(),
            started: SystemTime::now(),
            paths: Arc::clone(&paths_metrics),
        };
        ops::serve_operators(config, control, operator)?;
        let predecessor = handover.predecessor();
        let lending = Arc::new(Lending::new(Box::new(move || predecessor.connect())));
        let lender = Arc::clone(&lending);
        let lend: Lend = Arc::new(move |stream| lender.lend(&stream));
        let reaching = Arc::new(OnceLock::new());
        let Some(membership) = serving.block_on(async {
            let join = handover.join(
                Arc::clone(stages.store.cache()),
                lend,
                reach(Arc::clone(&reaching)),
                vitals,
                control.handle(),
            );
            tokio::select! {
                joined = join => joined.map(Some),
                _ = signals.next() => Ok(None),
            }
        })?
        else {
            tracing::info!("ended");
            return Ok(None);
        };
        turn.open();
        let paths = Paths::start(
            &config.paths,
            &stages,
            serving.handle(),
            &registry,
            &readiness,
            vitals,
            &lending,
        )?;
        // Only once, and nobody has before.
        let _ = paths_metrics.set(paths.metrics());
        let _ = reaching.set(paths.reaching());
        // The thread that follows the pods has started, with all that this one had.
        privileges::keep_for_serving();
        started.open();
        membership.serve();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            revision = env!("PODCREDS_REVISION"),
            "ready"
        );
        Ok(Some(Self {
            paths,
            server: stages.server,
            membership,
            readiness,
            vitals: vitals.clone(),
            signals,
        }))
    }

    /// Serves until a signal, then ends in order: no connect is lost, nothing in flight is cut off.
    async fn until_told_to_end(mut self, grace: Duration) -> Result<(), AppError> {
        // Not before: until here this thread has had other things to do.
        tokio::spawn(beat(self.vitals.thread("the serving runtime")));
        let signal = self.signals.next().await;
        self.vitals.close();
        self.readiness.drain();
        tracing::info!(signal, "draining");
        let work = async {
            // The other half is for what follows.
            self.membership
                .wait_for_successor(|| self.paths.reached(), grace / 2)
                .await;
            self.paths.stop(self.membership.has_other_agent()).await;
            self.server.drain().await;
            self.membership.leave().await;
        };
        let ending = within(grace, work, self.signals.next()).await;
        if ending == Ending::Complete {
            tracing::info!("ended");
            return Ok(());
        }
        Err(AppError::CutOff {
            connections: self.server.open_connections(),
            ending,
        })
    }
}

/// Goes to the listeners that the agent before this one reaches, on the paths that are open. An
/// agent without in-pod listeners has nowhere to go: its pods come another way.
fn reach(paths: Arc<OnceLock<Option<Reaching>>>) -> Reach {
    Arc::new(move |listeners| {
        let reaching = paths.get().cloned().flatten();
        Box::pin(async move {
            if let Some(reaching) = reaching {
                reaching.reach(listeners).await;
            }
        })
    })
}

/// Makes the stages behind the paths, from the last one to the first.
fn stages(
    config: &Config,
    control: &Runtime,
    registry: &Registry,
    vitals: &Vitals,
    readiness: &Readiness,
) -> Result<Stages, AppError> {
    let outbound = control.block_on(Outbound::from_environment())?;
    let eks_auth = control.block_on(EksAuth::new(
        config.upstream.clone(),
        &outbound,
        upstream::Metrics::register(registry)?,
    ))?;
    let keys = match config.keys.clone() {
        Some(server) => {
            let source = Arc::new(KeyFetcher::new(server, outbound));
            let metrics = keys::Metrics::register(registry)?;
            Some(cluster_keys(source, metrics, readiness))
        }
        None => None,
    };
    let (pods, refused) = (PodRecords::default(), RefusedCallers::default());
    let store = Store::start(
        config.credentials.clone(),
        Arc::new(eks_auth),
        keys.clone()
            .map(|keys| Arc::new(keys) as Arc<dyn VerifyToken>),
        Clock::default(),
        &credentials::Metrics::register(registry)?,
        control.handle(),
        vitals.task(EXCHANGES),
    )?;
    let server = Arc::new(Server::new(
        &config.server,
        store.clone(),
        pods.clone(),
        refused.clone(),
        server::Metrics::register(registry)?,
        registry,
    )?);
    let identity = Identity::new(
        config.identity.clone(),
        pods.clone(),
        keys.clone(),
        control.handle().clone(),
        identity::Metrics::register(registry)?,
    );
    Ok(Stages {
        server,
        identity,
        store,
        pods,
        refused,
        keys,
    })
}

/// The cluster's keys. While they cannot be had, the readiness probe says so, and no more: what
/// serves without them is better than no agent, and a whole cluster may be without them.
fn cluster_keys(
    source: Arc<KeyFetcher>,
    metrics: keys::Metrics,
    readiness: &Readiness,
) -> ClusterKeys {
    let keys = ClusterKeys::new(source, AUDIENCE, metrics);
    let asked = keys.clone();
    readiness.remark_if(move || Some(format!("without the newest keys: {}", asked.failure()?)));
    keys
}
