//! The composition root: the one place that knows all stages, and how they start and end.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use prometheus::Registry;
use tokio::runtime::{Builder, Runtime};

use crate::{
    config::{Config, Datapath as DatapathConfig},
    credentials::{self, Clock, ClusterKeys, Store},
    datapath::{self, Accepted, Datapath, DatapathError, Hooks, NodePath, OnAccept},
    identity::{self, Identity},
    ops::{
        http::{self, BindError},
        metrics::{register_process, serve_metrics},
        probes::{Readiness, serve_probes},
        shutdown::{Ending, Signals, within},
    },
    server::{self, Server, Times},
    upstream::{self, EksAuth, SetupError},
};

/// Whom EKS Pod Identity's tokens are for.
const AUDIENCE: &str = "pods.eks.amazonaws.com";

/// Threads for blocking work of the control runtime, such as looking names up.
const BLOCKING_THREADS: usize = 2;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The kernel, the privileges or the addresses for pods.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// An address for metrics or probes.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What the agent needs to call EKS Auth.
    #[error(transparent)]
    Upstream(#[from] SetupError),
    /// Two metrics of one name.
    #[error("registering metrics: {0}")]
    Metrics(#[from] prometheus::Error),
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
/// Three threads do the work. This one serves pods, and does nothing that may block or take long. The
/// datapath's own follows the pods on the node. The control thread talks to EKS Auth, and answers
/// Prometheus and kubelet, who must get an answer also when serving has stalled.
///
/// # Errors
///
/// When the agent cannot start, or could not end in order.
pub fn run(config: Config) -> Result<(), AppError> {
    let control = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let serving = Builder::new_current_thread().enable_all().build()?;
    let result = App::start(&config, &control, &serving)
        .and_then(|app| serving.block_on(app.until_told_to_end(config.grace_period)));
    control.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The running agent.
struct App {
    path: Path,
    server: Arc<Server>,
    readiness: Readiness,
    signals: Signals,
}

/// The road from the pods to the server.
enum Path {
    Ebpf(Datapath),
    Node(NodePath),
}

impl App {
    fn start(config: &Config, control: &Runtime, serving: &Runtime) -> Result<Self, AppError> {
        let registry = Registry::new();
        register_process(
            &registry,
            env!("CARGO_PKG_VERSION"),
            env!("PODCREDS_REVISION"),
        )?;
        let readiness = Readiness::new();
        let started = readiness.gate("the datapath");
        let signals = serving.block_on(async { Signals::install() })?;
        serve_ops(config, control, serving, &registry, &readiness)?;

        let eks_auth = control.block_on(EksAuth::new(
            config.upstream.clone(),
            upstream::Metrics::register(&registry)?,
        ))?;
        let store = Store::new(
            config.credentials.clone(),
            Arc::new(eks_auth),
            control.handle().clone(),
            Clock::default(),
            credentials::Metrics::register(&registry)?,
        );
        let keys = config.keys.clone().map(|source| {
            let keys = ClusterKeys::new(Arc::new(source), AUDIENCE);
            store.trust(Arc::new(keys.clone()));
            keys
        });
        let server = Arc::new(Server::new(
            &config.server,
            store.clone(),
            server::Metrics::register(&registry)?,
        ));
        let identity = Identity::new(
            config.identity.clone(),
            keys,
            control.handle().clone(),
            identity::Metrics::register(&registry)?,
        );
        let path = Path::start(config, serving, &registry, &server, identity, store)?;
        started.open();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            revision = env!("PODCREDS_REVISION"),
            "ready"
        );
        Ok(Self {
            path,
            server,
            readiness,
            signals,
        })
    }

    /// Serves until a signal, then ends in order: no connect is lost, nothing in flight is cut off.
    async fn until_told_to_end(mut self, grace: Duration) -> Result<(), AppError> {
        let signal = self.signals.next().await;
        self.readiness.drain();
        tracing::info!(signal, "draining");
        let work = async {
            self.path.stop().await;
            self.server.drain().await;
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

impl Path {
    fn start(
        config: &Config,
        serving: &Runtime,
        registry: &Registry,
        server: &Arc<Server>,
        identity: Arc<Identity>,
        store: Store,
    ) -> Result<Self, AppError> {
        let metrics = datapath::Metrics::register(registry)?;
        let on_accept = on_accept(Arc::clone(server), Arc::clone(&identity));
        Ok(match &config.datapath {
            DatapathConfig::Ebpf(datapath) => {
                let met = Arc::clone(&identity);
                let hooks = Hooks {
                    on_accept,
                    on_pod_started: Box::new(move |pod| met.meet(pod)),
                    on_pod_gone: Box::new(move |pod| {
                        store.forget(pod);
                        identity.forget(pod);
                    }),
                };
                let serving = serving.handle().clone();
                Self::Ebpf(Datapath::start(
                    datapath.clone(),
                    hooks,
                    serving,
                    metrics,
                    registry,
                )?)
            }
            DatapathConfig::Node(addresses) => {
                let path = NodePath::start(addresses, &on_accept, serving.handle(), &metrics)?;
                for address in path.addresses() {
                    tracing::info!(%address, "node path listening");
                }
                Self::Node(path)
            }
        })
    }

    async fn stop(self) {
        match self {
            Self::Ebpf(datapath) => datapath.stop().await,
            Self::Node(path) => path.stop().await,
        }
    }
}

/// Brings the stages together for one connection: what the kernel saw, under the node's policy, to
/// the server.
fn on_accept(server: Arc<Server>, identity: Arc<Identity>) -> OnAccept {
    Arc::new(move |connection: Accepted| {
        let times = Times {
            accepted: connection.accepted,
            connected: connection.connected,
        };
        let caller = identity.caller(connection.evidence);
        server.serve(connection.stream, caller, times);
    })
}

/// Serves metrics and probes on the control runtime, from before the start until after the end.
fn serve_ops(
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
