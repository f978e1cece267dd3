//! The datapath's thread: starts everything in order, follows the pods, and stops in order.

use std::{
    io,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use podcreds_common::KernelEvent;
use podcreds_types::{ReachedListeners, Vital};
use prometheus::Registry as MetricsRegistry;
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot},
    time::{sleep, sleep_until},
};

use super::{
    BACKLOG_PAUSE, Config, DatapathError, Hooks, Metrics,
    accept::{Acceptor, NestedRegistry},
    discovery::Discovery,
    metrics::KernelCollector,
    namespaces::{
        Namespaces,
        location::NewsReceiver,
        nested::Nested,
        netns::{self, Netns},
    },
    pods::{PodHooks, Pods, known_pods::KnownPods},
    programs::{Links, Loaded, Programs, arrivals::Arrivals, events::Events, preflight},
    reaching::ReachRequest,
};

/// How often what is not as it should be is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How often redirected connects are compared with accepted connections, at most.
const ARRIVALS: Duration = Duration::from_secs(8);

/// How long to wait after the programs' events could not be waited for.
const EVENTS_PAUSE: Duration = Duration::from_secs(1);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum WorkerCommand {
    /// To end in order, and to say when that is done.
    Stop(oneshot::Sender<()>),
    /// To say which listeners are reached.
    Reached(oneshot::Sender<Vec<ReachedListeners>>),
    /// To reach listeners that another agent reaches.
    Reach(ReachRequest),
}

type Commands = mpsc::Receiver<WorkerCommand>;

/// What the thread owns while it runs.
struct Worker {
    /// First, so that it is dropped first: pods that are no longer redirected are expected
    /// elsewhere.
    detaching: Detaching,
    /// Next: no connect is sent to a listener that is closed.
    links: Links,
    discovery: Discovery,
    pods: Pods,
    known: Arc<KnownPods>,
    arrivals: Arrivals,
    news: NewsReceiver,
    events: Events,
    metrics: Metrics,
}

/// Announces once that the programs are about to be detached, also when the thread panics.
struct Detaching(Option<Box<dyn FnOnce() + Send>>);

impl Detaching {
    fn announce(&mut self) {
        if let Some(announce) = self.0.take() {
            announce();
        }
    }
}

impl Drop for Detaching {
    fn drop(&mut self) {
        self.announce();
    }
}

/// The thread's main function.
pub(super) fn run(
    config: Config,
    hooks: Hooks,
    serving: Handle,
    metrics: Metrics,
    registry: &MetricsRegistry,
    started: Sender<Result<Arc<KnownPods>, DatapathError>>,
    commands: Commands,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = DatapathError::io("starting the datapath's runtime")(error);
            // The receiver is gone only if the agent is ending already.
            let _sent = started.send(Err(error));
            return;
        }
    };
    // It does not count before the first beat: an agent that cannot have eBPF may do without.
    let vital = hooks.vitals.thread("the datapath's thread");
    runtime.block_on(async {
        match Worker::start(config, hooks, serving, metrics, registry) {
            Ok(worker) => {
                let _sent = started.send(Ok(Arc::clone(&worker.known)));
                worker.follow(commands, vital).await;
            }
            Err(error) => {
                let _sent = started.send(Err(error));
            }
        }
    });
}

impl Worker {
    /// The order matters. The listeners are there before the programs, so that no connect is sent
    /// to a closed port; and the links are made last, so that when the process is killed the kernel
    /// takes them first.
    fn start(
        config: Config,
        hooks: Hooks,
        serving: Handle,
        metrics: Metrics,
        metrics_registry: &MetricsRegistry,
    ) -> Result<Self, DatapathError> {
        let hierarchy = preflight::check(config.cgroup_root)?;
        let Loaded {
            programs,
            callers,
            counters,
            events,
        } = Programs::load()?;
        register(metrics_registry, KernelCollector::new(counters.clone()))?;
        let arrivals = Arrivals::new(counters, metrics.missing.clone());
        let events =
            Events::new(events).map_err(DatapathError::io("waiting for the programs' events"))?;

        let known = Arc::new(KnownPods::default());
        let nested = Arc::new(NestedRegistry::default());
        let acceptor = Acceptor {
            callers,
            pods: Arc::clone(&known),
            nested: Arc::clone(&nested),
            host_netns: netns::current_cookie().map_err(DatapathError::io(
                "asking for the cookie of the host's network namespace",
            ))?,
            arrived: arrivals.arrived(),
            on_accept: hooks.on_accept,
        };
        let (namespaces, news) =
            Namespaces::new(acceptor, &serving, &hooks.vitals, metrics.clone())
                .map_err(DatapathError::io("waiting for sockets"))?;
        let host = Netns::of_agent().map_err(DatapathError::io("opening /proc/self/ns/net"))?;
        let mut pods = Pods::new(
            programs,
            namespaces,
            host,
            Arc::clone(&known),
            Nested::new(nested),
            PodHooks {
                started: hooks.on_pod_started,
                gone: hooks.on_pod_gone,
                reachable: hooks.on_pod_reachable,
                left_alone: hooks.on_left_alone,
                not_redirected: hooks.on_not_redirected,
            },
            metrics.clone(),
        )
        .map_err(DatapathError::io(
            "listening in the host's network namespace",
        ))?;

        let mut discovery = Discovery::new(hierarchy.root, &hierarchy.mount);
        pods.apply(discovery.scan(), || {});
        pods.started();
        pods.look(|| {});
        let links = pods.programs().attach(&hierarchy.mount)?;
        metrics.ebpf.set(1);
        (hooks.on_attached)();
        Ok(Self {
            detaching: Detaching(Some(hooks.on_detached)),
            links,
            discovery,
            pods,
            known,
            arrivals,
            news,
            events,
            metrics,
        })
    }

    /// Follows the pods until told to stop, and shows by `vital` that it does.
    async fn follow(mut self, mut commands: Commands, vital: Vital) {
        vital.beat();
        let mut scan_at = Instant::now() + self.discovery.scan_interval();
        let mut retry_at = None;
        let mut reaching: Option<ReachRequest> = None;
        let request = loop {
            reaching = reaching.and_then(|request| request.look(&self.pods));
            if self.discovery.is_incomplete() {
                scan_at = scan_at.min(Instant::now() + self.discovery.scan_interval());
            }
            let look_at = self.pods.next_look();
            retry_at = match self.pods.has_trouble() {
                true => retry_at.or_else(|| Some(Instant::now() + RETRY)),
                false => None,
            };
            tokio::select! {
                command = commands.recv() => match command {
                    None => break None,
                    Some(WorkerCommand::Stop(done)) => break Some(done),
                    // An error means that nobody waits any more.
                    Some(WorkerCommand::Reached(reply)) => drop(reply.send(self.pods.reached())),
                    Some(WorkerCommand::Reach(request)) => {
                        // Pods that are not known after that are gone.
                        scan_at = self.scan(&vital);
                        reaching = Some(request);
                    }
                },
                () = wait_until(reaching.as_ref().map(ReachRequest::retry_at)) => {
                    if let Some(request) = &mut reaching {
                        request.retry(&mut self.pods, || vital.beat());
                    }
                }
                changes = self.discovery.next() => match changes {
                    Some(changes) => self.pods.apply(changes, || vital.beat()),
                    None => {
                        tracing::warn!("cgroup events were lost: comparing the whole tree");
                        scan_at = self.scan(&vital);
                    }
                },
                Some(news) = self.news.next() => self.pods.handle_news(news),
                events = self.events.next() => self.handle_events(events, &vital).await,
                ends = self.pods.next_ends() => self.handle_ends(ends).await,
                () = wait_until(look_at) => self.pods.look(|| vital.beat()),
                () = wait_until(retry_at) => {
                    retry_at = None;
                    self.pods.retry(|| vital.beat());
                }
                () = wait_until(Some(scan_at)) => scan_at = self.scan(&vital),
                () = vital.asked() => {
                    vital.beat();
                    self.compare_arrivals(&vital);
                }
            }
        };
        if let Some(mut done) = request {
            tokio::select! {
                () = self.wind_down() => {}
                () = answer(&vital) => {}
                // The caller has run out of patience, and the serving runtime may stand still.
                () = done.closed() => return,
            }
            // An error means that patience ran out just now.
            let _sent = done.send(());
        }
    }

    /// Compares the whole tree with what is known, and returns when to do so again.
    fn scan(&mut self, vital: &Vital) -> Instant {
        let changes = self.discovery.scan();
        self.pods.apply(changes, || vital.beat());
        self.pods.look_at_unsettled();
        Instant::now() + self.discovery.scan_interval()
    }

    /// Sees whether redirected connects have gone missing, and if so which listeners cannot be
    /// reached.
    ///
    /// The kernel does not report them, so this uses a moment at which the thread is awake anyway.
    fn compare_arrivals(&mut self, vital: &Vital) {
        if self.arrivals.age() >= ARRIVALS && self.arrivals.has_more_missing() {
            self.pods.try_all(|| vital.beat());
        }
    }

    async fn handle_ends(&mut self, ends: io::Result<Vec<u64>>) {
        match ends {
            Ok(pods) => self.pods.handle_ends(pods),
            Err(error) => {
                self.metrics.errors.inc();
                tracing::error!(%error, "cannot wait for the ends of pods' processes; trying again");
                sleep(EVENTS_PAUSE).await;
            }
        }
    }

    async fn handle_events(&mut self, events: io::Result<Vec<KernelEvent>>, vital: &Vital) {
        match events {
            Ok(events) => self.pods.handle_events(&events, || vital.beat()),
            Err(error) => {
                self.metrics.errors.inc();
                tracing::error!(%error, "cannot wait for the programs' events; trying again");
                sleep(EVENTS_PAUSE).await;
            }
        }
    }

    /// Detaches first, closes last: no connect meets a closed listener.
    async fn wind_down(&mut self) {
        self.detaching.announce();
        self.links.connect.clear();
        self.links.bind.clear();
        self.metrics.ebpf.set(0);
        sleep(BACKLOG_PAUSE).await;
        self.pods.drain().await;
        self.links.peer.clear();
    }
}

/// Shows that the thread works, whenever it is asked.
async fn answer(vital: &Vital) {
    loop {
        vital.asked().await;
        vital.beat();
    }
}

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn register(
    registry: &MetricsRegistry,
    collector: prometheus::Result<KernelCollector>,
) -> Result<(), DatapathError> {
    collector
        .and_then(|collector| registry.register(Box::new(collector)))
        .map_err(|error| DatapathError::Io {
            what: "registering the kernel's counters",
            source: std::io::Error::other(error),
        })
}
