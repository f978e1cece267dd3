//! What an operator is told over the socket, put together from all stages.

mod refused;
mod rows;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use futures_util::future::{BoxFuture, FutureExt, join_all};
use podcreds_admin::{
    AgentStatus, Granted, KeysStatus, LimiterStatus, LogLevel, NodeStatus, Operate, OperateError,
    PathsStatus, PodStatus, Refresh, RefreshedPod, SetLogLevel, Target, TimedError, UpstreamStatus,
};
use podcreds_credentials::{ExchangeReport, Store, Subject};
use podcreds_datapath as datapath;
use podcreds_handover::CurrentRole;
use podcreds_identity::Identity;
use podcreds_keys::ClusterKeys;
use podcreds_ops::{
    probes::{NotReady, Readiness},
    telemetry::{self, Filter, FilterState},
};
use podcreds_types::{PodRecords, RefusedCallers};
use tokio::time::timeout;

use self::rows::{Row, select};

/// How long an operator waits for EKS Auth. The exchange itself goes on.
const PATIENCE: Duration = Duration::from_secs(20);
/// A log level lasts no longer than this, if its end is named at all.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What an operator can ask about. Clones look at the same agent.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) store: Store,
    pub(super) identity: Arc<Identity>,
    pub(super) pods: PodRecords,
    pub(super) refused: RefusedCallers,
    pub(super) keys: Option<ClusterKeys>,
    pub(super) standing: CurrentRole,
    pub(super) readiness: Readiness,
    pub(super) started: SystemTime,
    /// There once the paths are open.
    pub(super) paths: Arc<OnceLock<datapath::Metrics>>,
}

impl Operate for Operator {
    fn status(&self) -> BoxFuture<'static, NodeStatus> {
        let this = self.clone();
        async move {
            let report = this.store.report().await;
            let agent = this.agent(report.as_ref());
            let rows = this.rows(report.as_ref());
            let pods = rows.into_iter().map(|row| row.status).collect();
            let refused = this.refused();
            NodeStatus {
                agent,
                pods,
                refused,
            }
        }
        .boxed()
    }

    fn refresh(&self, target: Target) -> BoxFuture<'static, Result<Refresh, OperateError>> {
        let this = self.clone();
        async move {
            // Also those that have nothing yet, or nothing any more: to say so.
            let report = this.store.report().await;
            let mut matching = select(this.rows(report.as_ref()), &target)?;
            // The agent before this one renews them, hands them on, and is asked as well.
            matching.retain(|row| !row.status.renewed_by_leader);
            let pods = matching.into_iter().map(|row| this.refresh_one(row));
            let pods = join_all(pods).await;
            Ok(Refresh { pods })
        }
        .boxed()
    }

    fn log_level(&self) -> LogLevel {
        log_level(telemetry::level())
    }

    fn set_log_level(&self, wanted: SetLogLevel) -> Result<LogLevel, OperateError> {
        let filter: Result<Filter, _> = wanted.filter.parse();
        let filter = filter.map_err(|error| OperateError::Invalid(error.to_string()))?;
        let lasts = wanted.for_seconds.map(Duration::from_secs);
        if lasts.is_some_and(|lasts| lasts.is_zero() || lasts > LONGEST) {
            let why = "a log level goes back by itself after a second at least and 30 days at most";
            return Err(OperateError::Invalid(why.to_owned()));
        }
        Ok(log_level(telemetry::set_level(filter, lasts)))
    }
}

impl Operator {
    fn agent(&self, report: Option<&ExchangeReport>) -> AgentStatus {
        let (ready, remarks) = match self.readiness.check() {
            Ok(remarks) => (true, remarks),
            Err(why @ (NotReady::Draining | NotReady::Waiting(_))) => {
                (false, vec![why.to_string()])
            }
        };
        let paths = self.paths.get().map(|metrics| PathsStatus {
            in_pod: metrics.is_redirecting(),
            node_addresses: metrics.node_addresses(),
        });
        let keys = self.keys.as_ref().map(|keys| {
            let failure = keys.failure().map(|failure| failure.to_string());
            let known = keys.known();
            KeysStatus { known, failure }
        });
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("PODCREDS_REVISION").to_owned(),
            process: std::process::id(),
            role: self.standing.name().to_owned(),
            started: self.started.into(),
            ready,
            remarks,
            paths: paths.unwrap_or_default(),
            limiter: report.map(limiter).unwrap_or_default(),
            upstream: report.map(upstream).unwrap_or_default(),
            keys,
            log_level: self.log_level().filter,
        }
    }

    async fn refresh_one(&self, row: Row) -> RefreshedPod {
        let subject = row.subject;
        let Some(before) = row.granted else {
            return refreshed(row.status, None, Err(NOT_YET.to_owned()));
        };
        let outcome = match timeout(PATIENCE, self.store.refresh(subject)).await {
            Ok(Ok(())) => self.granted(&subject).ok_or_else(|| GONE.to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(self.still_waiting(&subject).await),
        };
        refreshed(row.status, Some(before), outcome)
    }

    /// What a subject has by now.
    fn granted(&self, subject: &Subject) -> Option<Granted> {
        let (role, expiration) = self.store.cache().granted(subject)?;
        Some(Granted {
            role: role.as_deref().map(str::to_owned),
            expires: expiration.into(),
        })
    }

    /// What an operator is told whose time is up.
    async fn still_waiting(&self, subject: &Subject) -> String {
        let errors = self.store.report().await.map(|report| report.errors);
        let mut errors = errors.into_iter().flatten();
        let last = errors.find(|(other, _)| other == subject);
        let seconds = PATIENCE.as_secs();
        match last {
            Some((_, error)) => format!(
                "no new credentials within {seconds} s, and the agent goes on trying: {}",
                error.message
            ),
            None => format!("there was no answer within {seconds} s; the agent goes on"),
        }
    }
}

const NOT_YET: &str = "it has no credentials to refresh, and EKS Auth is asked again when the pod \
                       next asks";
const GONE: &str = "the pod has gone meanwhile";

fn limiter(report: &ExchangeReport) -> LimiterStatus {
    let limiter = &report.limiter;
    LimiterStatus {
        calls_per_second: limiter.calls_per_second,
        throttled: limiter.is_throttled,
        in_flight: limiter.in_flight,
        waiting: limiter.waiting,
        waiting_renewals: limiter.waiting_renewals,
        waiting_doubtful: limiter.waiting_doubtful,
        blocked_seconds: limiter.blocked.map(|blocked| blocked.as_secs_f64()),
    }
}

fn upstream(report: &ExchangeReport) -> UpstreamStatus {
    let upstream = &report.upstream;
    UpstreamStatus {
        failures_in_a_row: upstream.failures_in_a_row,
        last_answer: upstream.last_answer.map(Into::into),
        last_failure: upstream
            .last_failure
            .clone()
            .map(|(at, message)| TimedError {
                at: at.into(),
                message,
            }),
    }
}

fn refreshed(
    pod: PodStatus,
    before: Option<Granted>,
    outcome: Result<Granted, String>,
) -> RefreshedPod {
    let (after, error) = match outcome {
        Ok(after) => (Some(after), None),
        Err(error) => (None, Some(error)),
    };
    RefreshedPod {
        uid: pod.uid,
        namespace: pod.namespace,
        name: pod.name,
        before,
        after,
        error,
    }
}

fn log_level(level: Option<FilterState>) -> LogLevel {
    let Some(level) = level else {
        return LogLevel {
            filter: "panic".to_owned(),
            started_with: "panic".to_owned(),
            back_in_seconds: None,
        };
    };
    LogLevel {
        filter: level.filter.to_string(),
        started_with: level.started_with.to_string(),
        back_in_seconds: level.back_in.map(nearest_second),
    }
}

fn nearest_second(duration: Duration) -> u64 {
    (duration + Duration::from_millis(500)).as_secs()
}
