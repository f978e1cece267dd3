//! What the datapath sees, in the kernel and in user space.

use podcreds_common::Counter;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc, Describer},
    proto::{self, LabelPair, Metric, MetricFamily, MetricType},
};

use super::programs::ProgramCounters;

/// The label of what the kernel did.
const OUTCOME: &str = "outcome";

/// Seconds: a pod that is found late, what a network plugin takes, and one that hangs.
const LISTENER: [f64; 10] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Counts what user space does.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) pods: IntGauge,
    pub(super) namespaces: IntGauge,
    pub(super) listeners: IntGauge,
    /// Open ones that cannot be reached.
    pub(super) unreachable: IntGauge,
    /// Redirected connects that have not arrived.
    pub(super) missing: IntGauge,
    pub(super) errors: IntCounter,
    /// How long pods that start have no listener, in seconds.
    pub(super) listener_delay: Histogram,
    /// Whether pods are redirected: 1 or 0.
    pub(super) ebpf: IntGauge,
    /// How many of the host's addresses are listened on.
    pub(super) node_path: IntGauge,
}

impl Metrics {
    /// Registers the metrics of this stage.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let paths = IntGaugeVec::new(
            Opts::new(
                "podcreds_paths",
                "How pods reach podcreds: ebpf is 1 while they are redirected, node is the number of \
                 the host's addresses that are served.",
            ),
            &["path"],
        )?;
        registry.register(Box::new(paths.clone()))?;
        let metrics = Self {
            ebpf: paths.with_label_values(&["ebpf"]),
            node_path: paths.with_label_values(&["node"]),
            pods: IntGauge::new("podcreds_pods", "Pods whose cgroup is known.")?,
            namespaces: IntGauge::new(
                "podcreds_network_namespaces",
                "Network namespaces that podcreds listens in, the host's included.",
            )?,
            listeners: IntGauge::new("podcreds_listeners", "Open listening sockets for pods.")?,
            unreachable: IntGauge::new(
                "podcreds_unreachable_listeners",
                "Open listeners that nobody is sent to, since they cannot be reached from within their \
                 network namespace.",
            )?,
            missing: IntGauge::new(
                "podcreds_missing_connections",
                "Redirected connects that no listener has accepted within ten seconds.",
            )?,
            errors: IntCounter::new(
                "podcreds_datapath_errors_total",
                "Failures to listen in a pod's namespace, to publish a pod, or to accept.",
            )?,
            listener_delay: Histogram::with_opts(
                HistogramOpts::new(
                    "podcreds_pod_listener_duration_seconds",
                    "Time from a new pod's cgroup until it is sent to a listener of its own.",
                )
                .buckets(LISTENER.to_vec()),
            )?,
        };
        registry.register(Box::new(metrics.listener_delay.clone()))?;
        registry.register(Box::new(metrics.pods.clone()))?;
        registry.register(Box::new(metrics.namespaces.clone()))?;
        registry.register(Box::new(metrics.listeners.clone()))?;
        registry.register(Box::new(metrics.unreachable.clone()))?;
        registry.register(Box::new(metrics.missing.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        Ok(metrics)
    }

    /// Whether the kernel sends pods to their own listeners.
    pub fn is_redirecting(&self) -> bool {
        self.ebpf.get() > 0
    }

    /// How many addresses of the host are listened on.
    pub fn node_addresses(&self) -> u32 {
        u32::try_from(self.node_path.get()).unwrap_or_default()
    }
}

/// Counts in a gauge as long as it is there.
pub(super) struct Counted(IntGauge);

impl Counted {
    pub(super) fn in_gauge(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Reads the programs' counters whenever the metrics are asked for.
pub(super) struct KernelCollector {
    counters: ProgramCounters,
    connects: Desc,
    accepts: Desc,
}

impl KernelCollector {
    pub(super) fn new(counters: ProgramCounters) -> prometheus::Result<Self> {
        let connects = Opts::new(
            "podcreds_kernel_connects_total",
            "Calls of connect() for a credentials address or a listener, by what the kernel did: \
             redirected_ipv4, redirected_ipv6, direct (straight to a listener), and left alone for \
             unknown_pod, foreign_netns, bound_to_device or failed.",
        );
        let accepts = Opts::new(
            "podcreds_kernel_accepts_total",
            "Accepted connections, by whether the kernel could tell the caller: identified, \
             unidentified.",
        );
        Ok(Self {
            counters,
            connects: connects.variable_label(OUTCOME).describe()?,
            accepts: accepts.variable_label(OUTCOME).describe()?,
        })
    }

    fn family(&self, description: &Desc, is_of_it: fn(Counter) -> bool) -> MetricFamily {
        let metrics = Counter::ALL
            .into_iter()
            .filter(|counter| is_of_it(*counter));
        let mut family = MetricFamily::default();
        family.set_name(description.fq_name.clone());
        family.set_help(description.help.clone());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(metrics.map(|counter| self.metric(counter)).collect());
        family
    }

    fn metric(&self, counter: Counter) -> Metric {
        let mut label = LabelPair::default();
        label.set_name(OUTCOME.to_owned());
        label.set_value(outcome(counter).to_owned());
        let mut value = proto::Counter::default();
        // Exact up to 2^53.
        value.set_value(self.counters.total(counter) as f64);
        let mut metric = Metric::from_label(vec![label]);
        metric.set_counter(value);
        metric
    }
}

/// The label of what became of a connection.
pub(crate) fn outcome(counter: Counter) -> &'static str {
    match counter {
        Counter::RedirectedV4 => "redirected_ipv4",
        Counter::RedirectedV6 => "redirected_ipv6",
        Counter::Direct => "direct",
        Counter::UnknownPod => "unknown_pod",
        Counter::ForeignNetns => "foreign_netns",
        Counter::BoundToDevice => "bound_to_device",
        Counter::Failed => "failed",
        Counter::Identified => "identified",
        Counter::Unidentified => "unidentified",
    }
}

fn is_accept(counter: Counter) -> bool {
    matches!(counter, Counter::Identified | Counter::Unidentified)
}

impl Collector for KernelCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.connects, &self.accepts]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![
            self.family(&self.connects, |counter| !is_accept(counter)),
            self.family(&self.accepts, is_accept),
        ]
    }
}
