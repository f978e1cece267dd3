//! Requests that wait, and why those whose time is up have nothing yet: in words that blame whoever
//! it is that keeps them waiting.

use std::time::Duration;

use podcreds_types::TokenDigest;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    CredentialError, Metrics, Subject,
    limiter::{Kind, Standing},
    line::{Outcome, Phase, Progress},
    store::Shared,
};

/// A request's place in line.
pub(super) struct InLine {
    pub(super) progress: watch::Receiver<Progress>,
    /// Whether nobody else waits for this token's credentials.
    pub(super) is_first: bool,
    /// Whether there are valid credentials that will do for now.
    pub(super) has_stale: bool,
}

/// How a wait has ended.
pub(super) enum Waited {
    /// The exchange is over.
    Done(Outcome),
    /// The time is up. The last exchange may have failed.
    TimeIsUp(Option<String>),
    /// The line has gone, and the exchange with it.
    GivenUp,
}

impl InLine {
    /// Waits until the exchange is over, or until the deadline. Who has something that will do
    /// waits less, and not at all for an upstream that is in trouble.
    pub(super) async fn wait(&mut self, deadline: Instant) -> Waited {
        let has_stale = self.has_stale;
        let longest = deadline.saturating_duration_since(Instant::now());
        let longest = if has_stale { longest / 3 } else { longest };
        let enough = |progress: &Progress| match progress {
            Progress::Waiting => false,
            Progress::Failing(_) => has_stale,
            Progress::Done(_) => true,
        };
        let ended = timeout(longest, self.progress.wait_for(enough)).await;
        if matches!(ended, Ok(Err(_))) {
            return Waited::GivenUp;
        }
        drop(ended);
        match &*self.progress.borrow() {
            Progress::Done(outcome) => Waited::Done(outcome.clone()),
            Progress::Failing(reason) => Waited::TimeIsUp(Some(reason.clone())),
            Progress::Waiting => Waited::TimeIsUp(None),
        }
    }
}

/// Counts a request among those that wait, until it is dropped.
pub(super) struct Waiting<'a>(&'a Metrics);

impl<'a> Waiting<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        metrics.waiters.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiters.dec();
    }
}

impl Shared {
    /// What a request is told whose time is up.
    pub(super) fn not_yet(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        failure: Option<String>,
    ) -> CredentialError {
        let phase = self.lines.get(subject).and_then(|line| line.phase(digest));
        let now = Instant::now();
        let waits_for = match phase {
            None => "the exchange has ended without an answer".to_owned(),
            Some(Phase::Called(at)) => called(now - at),
            Some(Phase::Queued(place)) => match self.limiter.standing(place) {
                Some(standing) => queued(&standing),
                // It was let out of the queue this very moment.
                None => called(Duration::ZERO),
            },
            Some(Phase::InLine(not_before)) if not_before > now => {
                let wait = seconds(not_before - now);
                match failure {
                    Some(_) => format!("the agent tries again in {wait}"),
                    None => format!(
                        "EKS Auth has lately refused several tokens of this pod, so the agent tries \
                         another one only in {wait}"
                    ),
                }
            }
            Some(Phase::InLine(_)) => {
                "another token of this pod is exchanged first, and EKS Auth has not been asked about \
                 this one"
                    .to_owned()
            }
        };
        CredentialError::not_ready(match failure {
            Some(failure) => format!("{failure}; {waits_for}"),
            None => waits_for,
        })
    }

    /// What a request is told whose line has gone.
    pub(super) fn given_up(&self, subject: &Subject) -> CredentialError {
        CredentialError::not_ready(match self.is_present(subject) {
            true => "the agent has given up the exchange, by a fault of its own; it begins anew",
            false => "this pod has gone from the node, by what the agent knows",
        })
    }
}

/// Somebody waits for EKS Auth itself.
fn called(since: Duration) -> String {
    format!(
        "EKS Auth has not answered yet: it was asked {} ago",
        seconds(since)
    )
}

/// Somebody waits for the agent's own limiter.
fn queued(standing: &Standing) -> String {
    if let Some(block) = standing.block {
        return format!(
            "EKS Auth has asked this node by Retry-After to be left alone for {} more, so the agent has \
             not asked it about this token",
            seconds(block)
        );
    }
    let reason = match standing.kind {
        _ if standing.is_throttled => " since EKS Auth throttles this node",
        Kind::Doubtful => {
            " at most, and fewer for tokens like this one, which EKS Auth has refused"
        }
        Kind::Asked | Kind::Refresh => " at present",
    };
    let place = match standing.ahead {
        Some(ahead) => format!("number {}", ahead + 1),
        None => "one".to_owned(),
    };
    format!(
        "the call for this token waits in the agent's own rate limiter, and EKS Auth has not been \
         asked: it is {place} of {} in the queue, {} calls are in flight, and {:.1} go out in a \
         second{reason} (a request waits for --max-request-wait; --max-service-qps holds renewals \
         only)",
        standing.waiting, standing.in_flight, standing.per_second,
    )
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
