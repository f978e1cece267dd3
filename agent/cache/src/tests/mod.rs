//! The cache as a whole, on tokio's paused clock.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use podcreds_types::{CredentialError, Token};
use prometheus::Registry;
use tokio::time::{sleep, timeout};

use super::{
    testing::{digest, subject, uid},
    *,
};

mod off;
mod presence;
mod refusals;
mod room;
mod upkeep;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// For how long a first refusal is remembered, though not believed.
const REMEMBERED: Duration = Duration::from_secs(63);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

fn with(capacity: usize, retention: Duration) -> Cache {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let config = Config {
        capacity,
        retention,
    };
    Cache::new(config, Clock::paused(), metrics)
}

fn cache() -> Cache {
    with(2000, 3 * HOUR)
}

/// What an exchange brings for a token.
fn fetched(cache: &Cache, token: &str, life: Duration, asked: bool) -> Fetched {
    Fetched {
        body: Bytes::copy_from_slice(token.as_bytes()),
        expiration: cache.clock().now() + life,
        role: Some("arn:aws:sts::123456789012:assumed-role/app".into()),
        token: Token::new(token),
        digest: digest(token),
        asked,
    }
}

/// Has a pod's token get credentials that live six hours, because a request asked for them.
fn insert(cache: &Cache, pod: u16, token: &str) {
    cache.insert(subject(pod), fetched(cache, token, 6 * HOUR, true));
}

fn refuse(cache: &Cache, pod: u16, token: &str, takes: Takes) -> bool {
    let refused = Refused {
        source: Source::EksAuth,
        takes,
        error: CredentialError::not_ready("stands for a refusal"),
    };
    cache.refuse(subject(pod), digest(token), refused)
}

/// What there is for a token, in a word; with the token that got it.
fn look(cache: &Cache, pod: u16, token: &str) -> String {
    let text = |body: Bytes| String::from_utf8(body.to_vec()).unwrap();
    match cache.get(&subject(pod), &digest(token)) {
        Lookup::Fresh(body, _) => format!("fresh {}", text(body)),
        Lookup::Stale(body) => format!("stale {}", text(body)),
        Lookup::Refused(_) => "refused".to_owned(),
        Lookup::Nothing => "nothing".to_owned(),
    }
}

fn entries(cache: &Cache) -> i64 {
    cache.metrics.entries.get()
}

fn due(cache: &Cache) -> Vec<Subject> {
    let due = cache.upkeep().due;
    due.into_iter().map(|renewal| renewal.subject).collect()
}

async fn is_woken(cache: &Cache) -> bool {
    timeout(SECOND, cache.work()).await.is_ok()
}

/// Makes sure that nothing is left of anything.
fn assert_empty(cache: &Cache) {
    let metrics = &cache.metrics;
    assert_eq!(metrics.entries.get(), 0, "entries");
    assert_eq!(metrics.bytes.get(), 0, "bytes");
    assert_eq!(metrics.refusals.get(), 0, "refusals");
    assert_eq!(cache.kept.load(Relaxed), 0, "kept");
    assert_eq!(cache.entries.len(), 0, "slots of the map");
}
