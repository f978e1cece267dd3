//! The pods of this node, and what is known about each: one record a pod, for all stages.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Claims, PodUid, SharedMap, Token};

/// The records of the pods on this node. Clones share them.
///
/// The datapath says which pods there are. What Kubernetes calls them, only their tokens tell, so
/// that it is known from the first token on that got credentials: EKS Auth, or one of the cluster's
/// keys, has verified what that one says. It is for people to read, and decides about nothing.
#[derive(Clone, Debug, Default)]
pub struct PodRecords(Arc<SharedMap<PodUid, PodRecord>>);

/// What is known about a pod.
#[derive(Clone, Debug)]
pub struct PodRecord {
    /// What Kubernetes calls it; `None` before it has got credentials.
    pub names: Option<Arc<PodNames>>,
    /// When the datapath found it.
    pub found: Instant,
    /// When it first connected for credentials that had to be fetched.
    pub first_asked: Option<Instant>,
    /// When it first got credentials.
    pub first_served: Option<Instant>,
}

/// What Kubernetes calls a pod. It is shown as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNames {
    /// The pod's namespace.
    pub namespace: Box<str>,
    /// The pod's name.
    pub name: Box<str>,
    /// The name of the service account that it runs as.
    pub service_account: Box<str>,
}

impl PodRecords {
    /// The datapath has found a pod. One that is known already keeps its record.
    pub fn found(&self, pod: PodUid) {
        self.0.entry(pod).or_insert_with(|| PodRecord {
            names: None,
            found: Instant::now(),
            first_asked: None,
            first_served: None,
        });
    }

    /// The pod is gone.
    pub fn gone(&self, pod: PodUid) {
        self.0.remove(&pod);
    }

    /// The pod has connected at this time for credentials that are not in memory.
    pub fn asked(&self, pod: PodUid, connected: Instant) {
        if let Some(mut record) = self.0.get_mut(&pod) {
            record.first_asked.get_or_insert(connected);
        }
    }

    /// This token has got the pod's credentials. Pods that nobody has found have no record, and
    /// get none. Cheap but for the first time, when it says how long the pod has waited since it
    /// [asked](Self::asked).
    pub fn served(&self, pod: PodUid, token: &Token) -> Option<Duration> {
        let is_first = |record: &PodRecord| record.first_served.is_none();
        if !self.0.get(&pod).is_some_and(|record| is_first(&record)) {
            return None;
        }
        let claims = token.claims().ok().filter(|it| it.pod == Some(pod));
        let names = claims.and_then(PodNames::from_claims).map(Arc::new);
        let mut record = self.0.get_mut(&pod)?;
        let now = Instant::now();
        record.first_served = Some(now);
        record.names.clone_from(&names);
        let first_asked = record.first_asked;
        let since_found = now.saturating_duration_since(record.found);
        drop(record);
        tracing::debug!(
            pod = names.as_deref().map(tracing::field::display),
            pod_uid = %pod,
            ?since_found,
            "a pod has got its first credentials"
        );
        Some(now.saturating_duration_since(first_asked?))
    }

    /// All pods that are known.
    pub fn all(&self) -> Vec<PodUid> {
        self.0.iter().map(|record| *record.key()).collect()
    }

    /// The record of a pod.
    pub fn get(&self, pod: PodUid) -> Option<PodRecord> {
        self.0.get(&pod).map(|record| record.clone())
    }

    /// What Kubernetes calls a pod, as far as that is known.
    pub fn names(&self, pod: PodUid) -> Option<Arc<PodNames>> {
        self.0.get(&pod)?.names.clone()
    }
}

impl PodNames {
    /// The names that a token says, if it says all of them.
    pub fn from_claims(claims: &Claims) -> Option<Self> {
        Some(Self {
            namespace: claims.namespace.clone()?,
            name: claims.pod_name.clone()?,
            service_account: claims.service_account.clone()?,
        })
    }
}

impl fmt::Display for PodNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::mem;

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    fn uid(number: u16) -> PodUid {
        format!("{number:032x}").parse().unwrap()
    }

    fn token(pod: u16, name: &str) -> Token {
        let claims = json!({
            "exp": 7,
            "kubernetes.io": {
                "namespace": "shop",
                "pod": {"name": name, "uid": uid(pod).to_string()},
                "serviceaccount": {"name": "reader"},
            },
        });
        let key = EncodingKey::from_secret(b"nobody verifies this here");
        Token::new(encode(&Header::default(), &claims, &key).unwrap())
    }

    #[test]
    fn a_pod_is_named_by_the_first_token_that_gets_credentials_and_by_no_later_one() {
        let pods = PodRecords::default();
        pods.found(uid(1));
        assert!(pods.names(uid(1)).is_none());
        for name in ["web-1", "other"] {
            pods.served(uid(1), &token(1, name));
            assert_eq!(pods.names(uid(1)).unwrap().to_string(), "shop/web-1");
        }
        let record = pods.get(uid(1)).unwrap();
        assert_eq!(&*record.names.unwrap().service_account, "reader");
        assert!(record.first_served.unwrap() >= record.found);
        // Found once more, as by an agent's second look at the node.
        pods.found(uid(1));
        assert!(pods.names(uid(1)).is_some());
    }

    #[test]
    fn a_token_of_another_pod_names_nobody() {
        let pods = PodRecords::default();
        pods.found(uid(1));
        pods.served(uid(1), &token(2, "other"));
        assert!(pods.names(uid(1)).is_none());
        assert!(pods.get(uid(2)).is_none());
    }

    #[test]
    fn a_pod_waits_for_its_first_credentials_since_it_first_asked() {
        let pods = PodRecords::default();
        pods.found(uid(1));
        let asked = Instant::now() - Duration::from_secs(5);
        pods.asked(uid(1), asked);
        pods.asked(uid(1), Instant::now());
        let waited = pods.served(uid(1), &token(1, "web-1")).unwrap();
        assert!(waited >= Duration::from_secs(5), "{waited:?}");
        assert_eq!(pods.served(uid(1), &token(1, "web-1")), None);
        // What was in memory from the agent before this one is not the pod's first.
        pods.found(uid(2));
        assert_eq!(pods.served(uid(2), &token(2, "web-2")), None);
    }

    #[test]
    fn a_pod_that_is_gone_or_was_never_found_has_no_record() {
        let pods = PodRecords::default();
        pods.served(uid(1), &token(1, "web-1"));
        assert!(pods.get(uid(1)).is_none());
        pods.found(uid(1));
        pods.gone(uid(1));
        assert!(pods.get(uid(1)).is_none());
    }

    #[test]
    fn a_thousand_pods_take_less_than_300_kilobytes() {
        let pods = PodRecords::default();
        for pod in 0..1000 {
            pods.found(uid(pod));
            pods.served(uid(pod), &token(pod, "a-deployment-7f8d9c5b4-x2x7z"));
        }
        // A byte beside each entry is the table's own.
        let table = pods.0.capacity() * (mem::size_of::<(PodUid, PodRecord)>() + 1);
        let names = 1000 * (mem::size_of::<PodNames>() + 2 * mem::size_of::<usize>());
        let text = 1000 * ("shop".len() + "a-deployment-7f8d9c5b4-x2x7z".len() + "reader".len());
        assert!(table + names + text < 300_000, "{table} {names} {text}");
    }
}
