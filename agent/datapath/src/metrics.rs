//! What the datapath sees, in the kernel and in user space.

use std::sync::{Mutex, PoisonError};

use podcreds_common::Counter;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::programs::Counters;

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
        };
        registry.register(Box::new(metrics.pods.clone()))?;
        registry.register(Box::new(metrics.namespaces.clone()))?;
        registry.register(Box::new(metrics.listeners.clone()))?;
        registry.register(Box::new(metrics.unreachable.clone()))?;
        registry.register(Box::new(metrics.missing.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        Ok(metrics)
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
    counters: Counters,
    connects: IntCounterVec,
    accepts: IntCounterVec,
    /// Keeps two scrapes from filling in the values at once.
    scrape: Mutex<()>,
}

impl KernelCollector {
    pub(super) fn new(counters: Counters) -> prometheus::Result<Self> {
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
            connects: IntCounterVec::new(connects, &["outcome"])?,
            accepts: IntCounterVec::new(accepts, &["outcome"])?,
            scrape: Mutex::default(),
        })
    }

    fn family(&self, counter: Counter) -> (&IntCounterVec, &'static str) {
        match counter {
            Counter::RedirectedV4 => (&self.connects, "redirected_ipv4"),
            Counter::RedirectedV6 => (&self.connects, "redirected_ipv6"),
            Counter::Direct => (&self.connects, "direct"),
            Counter::UnknownPod => (&self.connects, "unknown_pod"),
            Counter::ForeignNetns => (&self.connects, "foreign_netns"),
            Counter::BoundToDevice => (&self.connects, "bound_to_device"),
            Counter::Failed => (&self.connects, "failed"),
            Counter::Identified => (&self.accepts, "identified"),
            Counter::Unidentified => (&self.accepts, "unidentified"),
        }
    }
}

impl Collector for KernelCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut descriptions = self.connects.desc();
        descriptions.extend(self.accepts.desc());
        descriptions
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        for counter in Counter::ALL {
            let (family, outcome) = self.family(counter);
            let metric = family.with_label_values(&[outcome]);
            metric.reset();
            metric.inc_by(self.counters.total(counter));
        }
        let mut families = self.connects.collect();
        families.extend(self.accepts.collect());
        families
    }
}
