//! How the exchanges are going, for people to read.

use std::time::{Duration, SystemTime};

use podcreds_cache::Subject;
use podcreds_types::Token;
use podcreds_upstream::UpstreamError;
use tokio::time::Instant;

use crate::{last_errors::LastError, task::Task};

/// How the exchanges are going.
#[derive(Clone, Debug)]
pub struct Report {
    /// The rate limiter.
    pub limiter: LimiterReport,
    /// How EKS Auth is doing.
    pub upstream: Trouble,
    /// Subjects with a token in a queue.
    pub exchanging: Vec<Subject>,
    /// Why subjects last got no new credentials.
    pub errors: Vec<(Subject, LastError)>,
}

/// How the rate limiter is going.
#[derive(Clone, Debug)]
pub struct LimiterReport {
    /// Calls that it lets through in a second.
    pub calls_per_second: f64,
    /// Whether that is less than usual, because EKS Auth throttles.
    pub is_throttled: bool,
    /// Calls that have not ended yet.
    pub in_flight: usize,
    /// Calls in the queue that a request waits for.
    pub waiting: usize,
    /// Renewals in the queue.
    pub waiting_renewals: usize,
    /// Calls in the queue for tokens that have just been refused.
    pub waiting_doubtful: usize,
    /// How long EKS Auth still wants to be left alone.
    pub blocked: Option<Duration>,
}

/// How EKS Auth is doing.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Calls without a usable answer since the last one with.
    pub failures_in_a_row: u32,
    /// When it last gave an answer, if only a refusal.
    pub last_answer: Option<SystemTime>,
    /// When a call last failed, and why, without secrets.
    pub last_failure: Option<(SystemTime, String)>,
}

impl Task {
    /// How it is going at this moment.
    pub(crate) fn report(&self) -> Report {
        Report {
            limiter: self.limiter.report(Instant::now()),
            upstream: self.health.trouble(),
            exchanging: self.queues.keys().copied().collect(),
            errors: self.last_errors.all(),
        }
    }

    /// Notes why a token got no credentials.
    pub(crate) fn note_error(&mut self, subject: Subject, token: &Token, error: &UpstreamError) {
        let copy = token.to_kept();
        let claims = copy.claims().ok();
        let noted = LastError {
            at: self.parts.cache.clock().now(),
            message: "".into(),
            pod: claims.and_then(|claims| claims.pod),
            names: claims.and_then(podcreds_types::PodNames::from_claims),
        };
        self.last_errors.note(subject, &error.to_string(), noted);
    }
}
