//! The store as a whole, with a fake EKS Auth on tokio's paused clock.

use std::{ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use podcreds_cache::testing::uid;
use podcreds_exchange::RequestResult;
use podcreds_keys::{Verdict, VerifyToken};
use podcreds_types::{Claimant, CredentialError, Origin, Token, TokenDigest, Vitals};
use podcreds_upstream::{AssumeRole, UpstreamError};
use prometheus::{Registry, TextEncoder};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use self::fake::{Fake, credentials, refused};
use super::*;

mod bearers;
mod bounds;
mod clocks;
mod days;
mod exchanges;
mod fake;
mod faults;
mod freshness;
mod lookup;
mod model;
mod refresh;
mod refusals;
mod rejections;
mod rotation;
mod starts;
mod threads;
mod told;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// What EKS Auth takes to answer.
const SOON: Duration = Duration::from_millis(50);

/// A store, and what it counts.
#[derive(Clone)]
struct TestStore {
    store: Store,
    clock: Clock,
    registry: Registry,
}

impl Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl TestStore {
    fn start(
        config: Config,
        upstream: Arc<dyn AssumeRole>,
        keys: Option<Arc<dyn VerifyToken>>,
        clock: Clock,
        runtime: &Handle,
    ) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let vital = Vitals::default().task("exchanging");
        let store = Store::start(config, upstream, keys, clock, &metrics, runtime, vital);
        Self {
            store: store.unwrap(),
            clock,
            registry,
        }
    }

    /// The response's body, if it is in memory and fresh.
    fn cached(&self, claimant: &Claimant, digest: &TokenDigest) -> Option<Bytes> {
        self.look_up(claimant, digest)?.ok()
    }

    /// What a metric says, which is named with its labels.
    fn metric_f64(&self, name: &str) -> f64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        let text = text.unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The same, for what is counted in whole numbers.
    fn metric(&self, name: &str) -> i64 {
        self.metric_f64(name) as i64
    }
}

/// The default settings, but for some.
fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

/// Lets the task do what it was told.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

fn pod(number: u16) -> Claimant {
    Claimant::Pod(uid(number))
}

/// A caller at `10.0.0.HOST` whose token says that it is a pod's.
fn bearer(host: u8, claims: Option<u16>) -> Claimant {
    Claimant::Bearer {
        claims: claims.map(uid),
        origin: Origin::Address([10, 0, 0, host].into()),
    }
}

/// An EKS Auth that answers after `delay` and gives every token six hours, but calls tokens that
/// begin with "bad" unknown.
fn generous(delay: Duration) -> (Fake, TestStore, Clock) {
    with_config(delay, Config::default())
}

fn with_config(delay: Duration, config: Config) -> (Fake, TestStore, Clock) {
    make(delay, config, None)
}

/// The same, with keys.
fn generous_with(delay: Duration, keys: impl VerifyToken) -> (Fake, TestStore, Clock) {
    make(delay, Config::default(), Some(Arc::new(keys)))
}

fn make(
    delay: Duration,
    config: Config,
    keys: Option<Arc<dyn VerifyToken>>,
) -> (Fake, TestStore, Clock) {
    let clock = Clock::paused();
    let fake = Fake::new(delay, move |token| {
        if token.starts_with("bad") {
            return Err(refused());
        }
        Ok(credentials(token, clock.now() + 6 * HOUR))
    });
    let store = TestStore::start(
        config,
        Arc::new(fake.clone()),
        keys,
        clock,
        &Handle::current(),
    );
    (fake, store, clock)
}

/// What a pod does that needs credentials.
async fn ask(store: &TestStore, claimant: Claimant, token: &str) -> RequestResult {
    let token = Token::new(token);
    match store.look_up(&claimant, &token.digest()) {
        Some(outcome) => outcome,
        None => store.fetch(claimant, token).await,
    }
}

fn is_for(body: &Bytes, token: &str) -> bool {
    let start = format!(r#"{{"AccessKeyId":"{token}","#);
    body.starts_with(start.as_bytes())
}

fn not_ready(outcome: &RequestResult) -> bool {
    matches!(outcome, Err(CredentialError::NotReady { .. }))
}

fn was_refused(outcome: &RequestResult) -> bool {
    matches!(outcome, Err(CredentialError::Refused(_)))
}
