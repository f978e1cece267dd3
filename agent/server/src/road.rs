//! The road of a request, stage by stage: where a slow answer spent its time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry};

use super::{Times, metrics::BUCKETS};

/// Seconds. Coarser than those of the whole: the sum says how long a stage takes, and the buckets
/// only how unevenly.
const STAGE_BUCKETS: [f64; 9] = [100e-6, 1e-3, 10e-3, 50e-3, 0.1, 0.5, 1.0, 2.5, 10.0];

/// A part of the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// From the pod's `connect()` to accept.
    Kernel,
    /// From accept until the connection's first request is read.
    Read,
    /// What the request asks for, and whose credentials its token may have.
    Identify,
    /// The look into memory.
    Cache,
    /// The wait for an exchange.
    Exchange,
    /// From the answer until the socket has taken it.
    Write,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Kernel,
        Self::Read,
        Self::Identify,
        Self::Cache,
        Self::Exchange,
        Self::Write,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Read => "read",
            Self::Identify => "identify",
            Self::Cache => "cache",
            Self::Exchange => "exchange",
            Self::Write => "write",
        }
    }
}

/// How far a request has come, and how long each stage took. No time is in none of them, or in two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Road {
    /// When the pod called `connect()`, for the first request of a connection.
    connected: Option<Instant>,
    begun: Instant,
    stage: Stage,
    entered: Instant,
    spent: [Duration; Stage::ALL.len()],
}

impl Road {
    /// The first request of a connection has come this way since the connection was made.
    pub(super) fn of_first(times: Times) -> Self {
        let mut road = Self {
            connected: times.connected,
            ..Self::begin(Stage::Read, times.accepted)
        };
        if let Some(connected) = times.connected {
            road.spent[Stage::Kernel as usize] = times.accepted - connected;
        }
        road.enter(Stage::Identify);
        road
    }

    /// A later one has only begun when its head was there.
    pub(super) fn of_later() -> Self {
        Self::begin(Stage::Identify, Instant::now())
    }

    fn begin(stage: Stage, begun: Instant) -> Self {
        Self {
            connected: None,
            begun,
            stage,
            entered: begun,
            spent: [Duration::ZERO; Stage::ALL.len()],
        }
    }

    /// The next stage begins now. One may be entered more than once.
    pub(super) fn enter(&mut self, stage: Stage) {
        let now = Instant::now();
        self.spent[self.stage as usize] += now - self.entered;
        (self.stage, self.entered) = (stage, now);
    }

    /// When the pod began to wait, as far as that is known.
    pub(super) fn start(&self) -> Instant {
        self.connected.unwrap_or(self.begun)
    }

    /// From the accept, or from a later request's head, to the last stage that was entered.
    pub(super) fn since_begun(&self) -> Duration {
        self.entered - self.begun
    }

    /// The same from the pod's `connect()`, where that is known.
    pub(super) fn since_connect(&self) -> Option<Duration> {
        Some(self.entered - self.connected?)
    }
}

/// Takes note of roads that have come to their end. Clones are the same.
#[derive(Clone)]
pub(super) struct Roads(Arc<Histograms>);

struct Histograms {
    stages: [Histogram; Stage::ALL.len()],
    whole: HistogramVec,
    /// The child that nearly every request needs, looked up once.
    whole_of_served: Histogram,
}

impl Roads {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let whole = HistogramVec::new(
            HistogramOpts::new(
                "podcreds_connect_to_response_duration_seconds",
                "Time from the pod's connect() in the kernel until the answer to the first request \
                 is written, by its status.",
            )
            .buckets(BUCKETS.to_vec()),
            &["code"],
        )?;
        let stages = HistogramVec::new(
            HistogramOpts::new(
                "podcreds_request_stage_duration_seconds",
                "Time that requests spend in each stage: kernel (connect to accept), read (accept \
                 to the first request), identify, cache, exchange (the wait for one), write.",
            )
            .buckets(STAGE_BUCKETS.to_vec()),
            &["stage"],
        )?;
        registry.register(Box::new(whole.clone()))?;
        registry.register(Box::new(stages.clone()))?;
        // The two that an alert asks for. Others come with their first event: each is 20 series.
        whole.with_label_values(&[StatusCode::SERVICE_UNAVAILABLE.as_str()]);
        Ok(Self(Arc::new(Histograms {
            stages: Stage::ALL.map(|stage| stages.with_label_values(&[stage.label()])),
            whole_of_served: whole.with_label_values(&[StatusCode::OK.as_str()]),
            whole,
        })))
    }

    /// The answer to a request is written just now, or its client is gone.
    pub(super) fn ended(&self, mut road: Road, status: StatusCode) {
        road.enter(Stage::Write);
        for (histogram, spent) in self.0.stages.iter().zip(road.spent) {
            // Nothing takes no time at all: this stage was not on the road.
            if !spent.is_zero() {
                histogram.observe(spent.as_secs_f64());
            }
        }
        let Some(whole) = road.since_connect() else {
            return;
        };
        let seconds = whole.as_secs_f64();
        if status == StatusCode::OK {
            self.0.whole_of_served.observe(seconds);
        } else {
            let whole = &self.0.whole;
            whole.with_label_values(&[status.as_str()]).observe(seconds);
        }
    }
}
