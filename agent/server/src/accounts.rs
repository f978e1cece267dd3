//! Requests by the service account of the pod that asks, for operators who want it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use podcreds_types::{PodRecords, PodUid};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::metrics::RequestOutcome;

/// In place of both names for pods that have no name yet. No name in Kubernetes has such a
/// character.
const UNKNOWN: &str = "_unknown";
/// The same for what is beyond the limit.
const OTHER: &str = "_other";

type OutcomeCounters = [IntCounter; RequestOutcome::ALL.len()];

/// Counts requests by service account, up to a number of accounts.
pub(super) struct Accounts {
    pods: PodRecords,
    limit: usize,
    requests: IntCounterVec,
    unknown: OutcomeCounters,
    other: OutcomeCounters,
    known: Mutex<KnownAccounts>,
}

#[derive(Default)]
struct KnownAccounts {
    count: usize,
    /// By namespace, then by name.
    counters: HashMap<Box<str>, HashMap<Box<str>, OutcomeCounters>>,
}

impl Accounts {
    /// Counts so many accounts one by one, those that come first.
    ///
    /// # Errors
    ///
    /// When the metric is registered already.
    pub(super) fn register(
        limit: usize,
        pods: PodRecords,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new(
                "podcreds_service_account_requests_total",
                "Requests by the service account of the pod that asks and by what became of them; \
                 _unknown before a pod has got credentials, _other beyond the limit.",
            ),
            &["account_namespace", "service_account", "outcome"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Self {
            pods,
            limit,
            unknown: counters(&requests, UNKNOWN, UNKNOWN),
            other: counters(&requests, OTHER, OTHER),
            requests,
            known: Mutex::default(),
        })
    }

    /// Counts a request of a pod.
    pub(super) fn count(&self, pod: Option<PodUid>, outcome: RequestOutcome) {
        let names = pod.and_then(|pod| self.pods.names(pod));
        match names {
            None => self.unknown[outcome as usize].inc(),
            Some(names) => self.count_named(&names.namespace, &names.service_account, outcome),
        }
    }

    fn count_named(&self, namespace: &str, account: &str, outcome: RequestOutcome) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_namespace = known.counters.get(namespace);
        if let Some(counters) = of_namespace.and_then(|accounts| accounts.get(account)) {
            return counters[outcome as usize].inc();
        }
        if known.count >= self.limit {
            return self.other[outcome as usize].inc();
        }
        known.count += 1;
        let counters = counters(&self.requests, namespace, account);
        counters[outcome as usize].inc();
        let of_namespace = known.counters.entry(namespace.into()).or_default();
        of_namespace.insert(account.into(), counters);
    }
}

fn counters(requests: &IntCounterVec, namespace: &str, account: &str) -> OutcomeCounters {
    RequestOutcome::ALL.map(|outcome| {
        let labels = [namespace, account, outcome.label()];
        requests.with_label_values(&labels)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_beyond_the_limit_are_counted_together() {
        let registry = Registry::new();
        let accounts = Accounts::register(2, PodRecords::default(), &registry).unwrap();
        for (namespace, account) in [("a", "x"), ("b", "x"), ("c", "x"), ("a", "y"), ("a", "x")] {
            accounts.count_named(namespace, account, RequestOutcome::Served);
        }
        accounts.count(None, RequestOutcome::Failed);
        let count = |namespace, account, outcome| {
            let labels = [namespace, account, outcome];
            accounts.requests.with_label_values(&labels).get()
        };
        assert_eq!(count("a", "x", "served"), 2);
        assert_eq!(count("b", "x", "served"), 1);
        assert_eq!(count(OTHER, OTHER, "served"), 2);
        assert_eq!(count(UNKNOWN, UNKNOWN, "failed"), 1);
        // Four outcomes of two accounts, and of the two that stand for others.
        assert_eq!(registry.gather()[0].get_metric().len(), 16);
    }
}
