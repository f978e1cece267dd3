//! What the endpoint counts.

use std::time::Duration;

use http::StatusCode;
use podcreds_types::Refusal;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::{
    answer::NoCredentials,
    road::{Road, Roads},
};

/// Seconds, from a hit in the cache of an idle node to what no SDK waits for.
pub(super) const BUCKETS: [f64; 17] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0,
];

/// Seconds, from an EKS Auth that answers at once to a pod that waits for its association.
const FIRST: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

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

/// What SDKs wait for, and the objective allows. Some wait for no more than that.
const IN_TIME: Duration = Duration::from_secs(1);

/// What became of a request, as the pod that has asked sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// It got credentials.
    Served,
    /// It got credentials after more than [`IN_TIME`].
    Late,
    /// It got none, by no fault of its own.
    Failed,
    /// It got none, and its client or its owner is to blame.
    ClientFault,
}

impl RequestOutcome {
    pub(super) const ALL: [Self; 4] = [Self::Served, Self::Late, Self::Failed, Self::ClientFault];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Late => "late",
            Self::Failed => "failed",
            Self::ClientFault => "client_fault",
        }
    }

    /// Of a request that gets credentials now.
    pub(super) fn of_served(road: &Road) -> Self {
        let waited = road.since_connect().unwrap_or_else(|| road.since_begun());
        match waited > IN_TIME {
            true => Self::Late,
            false => Self::Served,
        }
    }

    /// Of a request that gets none.
    pub(super) fn of_denied(why: &NoCredentials) -> Self {
        match why.is_clients_fault() {
            true => Self::ClientFault,
            false => Self::Failed,
        }
    }
}

/// The endpoint's metrics. Clones are the same ones.
#[derive(Clone)]
pub struct Metrics {
    durations: HistogramVec,
    /// The child that nearly every request needs, looked up once.
    served: Histogram,
    /// Requests by what became of them.
    outcomes: [IntCounter; RequestOutcome::ALL.len()],
    pub(super) roads: Roads,
    /// What pods wait for their first credentials, in seconds.
    pub(super) first_credentials: Histogram,
    refusals: IntCounterVec,
    /// Answers as AWS's agent counts them, and the child that nearly every request needs.
    responses: IntCounterVec,
    response_served: IntCounter,
    /// Set by [`ConnectionLimits`](super::limits::ConnectionLimits).
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
        let outcomes = IntCounterVec::new(
            Opts::new(
                "podcreds_requests_total",
                "Requests by what became of them: served, late (credentials after more than a \
                 second), failed, client_fault (none, and the client or its owner is to blame).",
            ),
            &["outcome"],
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
        let first_credentials = Histogram::with_opts(
            HistogramOpts::new(
                "podcreds_pod_first_credentials_duration_seconds",
                "Time from a pod's first connect() for credentials that were not in memory until it \
                 got some.",
            )
            .buckets(FIRST.to_vec()),
        )?;
        registry.register(Box::new(first_credentials.clone()))?;
        let connections = IntGauge::new("podcreds_connections", "Open connections of pods.")?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(outcomes.clone()))?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self {
            served: durations.with_label_values(&[StatusCode::OK.as_str()]),
            durations,
            outcomes: RequestOutcome::ALL.map(|it| outcomes.with_label_values(&[it.label()])),
            roads: Roads::register(registry)?,
            first_credentials,
            refusals,
            response_served: responses.with_label_values(&[StatusCode::OK.as_str()]),
            responses,
            connections,
        })
    }

    /// A request got its answer, with which its last stage has begun.
    pub(super) fn answered(&self, road: &Road, status: StatusCode, outcome: RequestOutcome) {
        self.outcomes[outcome as usize].inc();
        let seconds = road.since_begun().as_secs_f64();
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
    }

    /// A request or a connection was turned away.
    pub(super) fn refused(&self, refusal: Refusal) {
        self.refusals.with_label_values(&[refusal.metric()]).inc();
    }
}
