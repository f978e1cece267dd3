//! What a leader's cache hands over to its successor's.

use std::collections::HashSet;

use bytes::Bytes;
use podcreds_cache::{
    self as cache, Clock, Fetched, Lookup, Refused, Source, Subject, Takes,
    testing::{digest, subject, uid},
};
use podcreds_types::{CredentialError, EksRefusal, RefusalKind, Token};
use prometheus::{Registry, TextEncoder};
use tokio::time::sleep;

use super::{change::EntryChange, changes::Changes, *};

mod clocks;
mod connections;
mod conversation;
mod copies;
mod encoding;
mod lagging;
mod learning;
mod pods;
mod reaching;
mod refused;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const ROLE: &str = "arn:aws:sts::123456789012:assumed-role/app";
/// What an agent has unless it is told otherwise.
const CONFIG: cache::Config = cache::Config {
    capacity: 2000,
    retention: Duration::from_secs(3 * 3600),
};

/// An agent, as far as the other one has to do with it.
struct Agent {
    cache: Arc<Cache>,
    registry: Registry,
}

impl Agent {
    fn new(config: cache::Config, clock: Clock) -> Self {
        let registry = Registry::new();
        let metrics = cache::Metrics::register(&registry).unwrap();
        let cache = Arc::new(Cache::new(config, clock, metrics));
        Self { cache, registry }
    }

    fn successor(config: cache::Config, clock: Clock) -> Self {
        let successor = Self::new(config, clock);
        successor.cache.set_following(true);
        successor
    }

    fn changes(&self) -> Changes {
        Changes::of(&self.cache)
    }

    /// Exchanges a token for credentials that live so long.
    fn exchange_for(&self, subject: Subject, token: &str, life: Duration, asked: bool) {
        let body = format!(r#"{{"AccessKeyId":"{token}"}}"#);
        let fetched = Fetched {
            body: Bytes::from(body),
            expiration: self.cache.clock().now() + life,
            role: Some(ROLE.into()),
            token: Token::new(token),
            digest: digest(token),
            asked,
        };
        self.cache.insert(subject, fetched);
    }

    /// Exchanges a token because a request has asked for it.
    fn exchange(&self, subject: Subject, token: &str) {
        self.exchange_for(subject, token, 6 * HOUR, true);
    }

    /// Renews all that is due, and names the pods' subjects.
    fn renew(&self) -> Vec<Subject> {
        let due = self.cache.upkeep().due;
        for renewal in &due {
            self.exchange_for(renewal.subject, renewal.token.expose(), 6 * HOUR, false);
        }
        due.into_iter().map(|renewal| renewal.subject).collect()
    }

    fn refuse(&self, pod: u16, token: &str, takes: Takes) {
        let (kind, code) = match takes {
            Takes::Token => (RefusalKind::BadToken, "ExpiredTokenException"),
            _ => (RefusalKind::NotFound, "ResourceNotFoundException"),
        };
        let refusal = EksRefusal {
            kind,
            code: code.to_owned(),
            message: "no".to_owned(),
        };
        let refused = Refused {
            source: Source::EksAuth,
            takes,
            error: CredentialError::Refused(refusal),
        };
        self.cache.refuse(subject(pod), digest(token), refused);
    }

    fn body(&self, subject: Subject, token: &str) -> Option<Bytes> {
        match self.cache.get(&subject, &digest(token)) {
            Lookup::Fresh(body, _) | Lookup::Stale(body) => Some(body),
            Lookup::Refused(_) | Lookup::Nothing => None,
        }
    }

    fn refuses(&self, pod: u16, token: &str) -> bool {
        let found = self.cache.get(&subject(pod), &digest(token));
        matches!(found, Lookup::Refused(CredentialError::Refused(_)))
    }

    /// The tokens of these that get a subject's credentials from memory.
    fn served<'a>(&self, subject: Subject, tokens: &[&'a str]) -> Vec<&'a str> {
        let has = |token: &&&str| self.body(subject, token).is_some();
        tokens.iter().filter(has).copied().collect()
    }

    /// What a metric without labels says.
    fn metric(&self, name: &str) -> i64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        let text = text.unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(of, _)| *of == name).unwrap();
        value.parse().unwrap()
    }

    fn entries(&self) -> i64 {
        self.metric("podcreds_cache_entries")
    }

    /// Takes in one change, as from a frame.
    fn take(&self, change: EntryChange) -> bool {
        match change.snapshot {
            Some(snapshot) => self.cache.inherit(change.subject, snapshot),
            None => {
                self.cache.disown(&change.subject);
                false
            }
        }
    }
}

/// Tells the successor what there is to tell by now, in bytes as between two processes.
fn tell(changes: &mut Changes, successor: &Agent) -> Vec<Subject> {
    let mut told = Vec::new();
    while changes.waiting() > 0 {
        let change = changes.take().unwrap();
        told.push(change.subject);
        let bytes = change.encode().unwrap();
        successor.take(EntryChange::decode(&bytes).unwrap());
    }
    told
}

/// A leader with the credentials of pods 1 and 2, what it has to tell, and its successor.
fn two_agents() -> (Agent, Changes, Agent) {
    let clock = Clock::paused();
    let leader = Agent::new(CONFIG, clock);
    leader.exchange(subject(1), "a");
    leader.exchange(subject(2), "b");
    let changes = leader.changes();
    (leader, changes, Agent::successor(CONFIG, clock))
}
