//! What the endpoint counts.

use std::time::Instant;

use http::StatusCode;
use podcreds_types::Refusal;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Seconds, from a hit in the cache of an idle node to what no SDK waits for.
const BUCKETS: [f64; 17] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0,
];

/// The statuses of answers. A series that appears with its first event hides that event from
/// rate().
const STATUSES: [StatusCode; 6] = [
    StatusCode::OK,
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// The endpoint's metrics. Clones are the same ones.
#[derive(Clone)]
pub struct Metrics {
    durations: HistogramVec,
    /// The child that nearly every request needs, looked up once.
    served: Histogram,
    connect_to_response: Histogram,
    refusals: IntCounterVec,
    /// Answers as AWS's agent counts them, and the child that nearly every request needs.
    responses: IntCounterVec,
    response_served: IntCounter,
    /// Set by [`Limits`](super::limits::Limits).
    pub(super) connections: IntGauge,
}

impl Metrics {
    /// Registers the endpoint's metrics.
    ///
    /// # Errors
    ///
    /// When they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "podcreds_request_duration_seconds",
                "Time to answer a request: from the accept of its connection, or on a kept \
                 connection from the end of the request's head.",
            )
            .buckets(BUCKETS.to_vec()),
            &["code"],
        )?;
        let connect_to_response = Histogram::with_opts(
            HistogramOpts::new(
                "podcreds_connect_to_response_duration_seconds",
                "Time from the pod's connect() in the kernel to the answer of the first request.",
            )
            .buckets(BUCKETS.to_vec()),
        )?;
        let refusals = IntCounterVec::new(
            Opts::new(
                "podcreds_refusals_total",
                "Requests and connections that were turned away.",
            ),
            &["reason"],
        )?;
        // A series that appears with its first event hides that event from rate().
        for reason in Refusal::METRICS {
            refusals.with_label_values(&[reason]);
        }
        let responses = IntCounterVec::new(
            Opts::new(
                "pod_identity_http_response",
                "Requests, by the status of the answer.",
            ),
            &["code"],
        )?;
        registry.register(Box::new(responses.clone()))?;
        for status in STATUSES {
            durations.with_label_values(&[status.as_str()]);
            responses.with_label_values(&[status.as_str()]);
        }
        let connections = IntGauge::new("podcreds_connections", "Open connections of pods.")?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(connect_to_response.clone()))?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self {
            served: durations.with_label_values(&[StatusCode::OK.as_str()]),
            durations,
            connect_to_response,
            refusals,
            response_served: responses.with_label_values(&[StatusCode::OK.as_str()]),
            responses,
            connections,
        })
    }

    /// A request got its answer just now.
    pub(super) fn answered(&self, since: Since, status: StatusCode) {
        let now = Instant::now();
        let seconds = now.saturating_duration_since(since.begun).as_secs_f64();
        if status == StatusCode::OK {
            self.served.observe(seconds);
            self.response_served.inc();
        } else {
            let durations = &self.durations;
            durations
                .with_label_values(&[status.as_str()])
                .observe(seconds);
            self.responses.with_label_values(&[status.as_str()]).inc();
        }
        if let Some(connected) = since.connected {
            let seconds = now.saturating_duration_since(connected).as_secs_f64();
            self.connect_to_response.observe(seconds);
        }
    }

    /// A request or a connection was turned away.
    pub(super) fn refused(&self, refusal: Refusal) {
        self.refusals.with_label_values(&[refusal.metric()]).inc();
    }
}

/// The times from which a request is measured.
#[derive(Clone, Copy)]
pub(super) struct Since {
    pub(super) begun: Instant,
    /// Of the first request of a connection only.
    pub(super) connected: Option<Instant>,
}
