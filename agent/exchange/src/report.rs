//! How the exchanges are going, for people to read.

use std::time::{Duration, SystemTime};

use podcreds_cache::Subject;
use podcreds_types::{PodNames, PodUid, Token};
use podcreds_upstream::UpstreamError;
use tokio::time::Instant;

use crate::{last_errors::LastError, task::Task};

/// The longest name of a pod or a service account in Kubernetes, in characters.
const LONGEST_NAME: usize = 253;
/// The same of a namespace.
const LONGEST_NAMESPACE: usize = 63;

/// How the exchanges are going.
#[derive(Clone, Debug)]
pub struct ExchangeReport {
    /// The rate limiter.
    pub limiter: LimiterReport,
    /// How EKS Auth is doing.
    pub upstream: UpstreamReport,
    /// Subjects with a token in a queue, and what it says about them.
    pub exchanging: Vec<(Subject, Told)>,
    /// Why subjects last got no new credentials.
    pub errors: Vec<(Subject, LastError)>,
}

/// What a token says about its pod. Nobody may have verified that.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The pod that it was issued to.
    pub pod: Option<PodUid>,
    /// What Kubernetes calls this pod.
    pub names: Option<PodNames>,
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
pub struct UpstreamReport {
    /// Calls without a usable answer since the last one with.
    pub failures_in_a_row: u32,
    /// When it last gave an answer, if only a refusal.
    pub last_answer: Option<SystemTime>,
    /// When a call last failed, and why, without secrets.
    pub last_failure: Option<(SystemTime, String)>,
}

impl Task {
    /// How it is going at this moment.
    pub(crate) fn report(&mut self) -> ExchangeReport {
        ExchangeReport {
            limiter: self.limiter.report(Instant::now()),
            upstream: self.health.trouble(),
            exchanging: self.exchanging(),
            errors: self.last_errors.all(self.parts.cache.clock().now()),
        }
    }

    fn exchanging(&self) -> Vec<(Subject, Told)> {
        let queues = self.queues.iter();
        let told = queues.map(|(subject, queue)| {
            let token = queue.tokens.first();
            let told = token.map(|queued| Told::by(&queued.token));
            (*subject, told.unwrap_or_default())
        });
        told.collect()
    }

    /// Notes why a token got no credentials.
    pub(crate) fn note_error(&mut self, subject: Subject, token: &Token, error: &UpstreamError) {
        let noted = LastError {
            at: self.parts.cache.clock().now(),
            message: "".into(),
            told: Told::by(token),
        };
        self.last_errors.note(subject, &error.to_string(), noted);
    }
}

impl Told {
    /// Reads a copy: what is read stays with a token as long as that is kept.
    fn by(token: &Token) -> Self {
        let copy = token.without_claims();
        match copy.claims() {
            Ok(claims) => Self {
                pod: claims.pod,
                names: PodNames::from_claims(claims).filter(could_be),
            },
            Err(_) => Self::default(),
        }
    }
}

/// Whether Kubernetes could have given these names: nobody has verified the token that says them,
/// and what it says is kept.
fn could_be(names: &PodNames) -> bool {
    let is_in_use = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let is_name =
        |name: &str, longest| (1..=longest).contains(&name.len()) && name.bytes().all(is_in_use);
    is_name(&names.namespace, LONGEST_NAMESPACE)
        && is_name(&names.name, LONGEST_NAME)
        && is_name(&names.service_account, LONGEST_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubernetes_does_not_give_are_not_kept() {
        let names = |namespace: &str, name: &str, service_account: &str| PodNames {
            namespace: namespace.into(),
            name: name.into(),
            service_account: service_account.into(),
        };
        let longest = names(&"n".repeat(63), &"p".repeat(253), &"s".repeat(253));
        assert!(could_be(&longest));
        assert!(could_be(&names("shop", "web-7f8d.x2x7z", "reader")));
        for odd in [
            names(&"n".repeat(64), "web", "reader"),
            names("shop", &"p".repeat(254), "reader"),
            names("shop", "web", &"s".repeat(254)),
            names("shop", "", "reader"),
            names("shop", "web\u{202e}", "reader"),
            names("shop", "web/other", "reader"),
        ] {
            assert!(!could_be(&odd), "{odd:?}");
        }
    }
}
