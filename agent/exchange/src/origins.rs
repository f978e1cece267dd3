//! Where bad tokens come from: an origin of many has its next ones treated as refused already.

use std::{collections::HashMap, time::Duration};

use podcreds_types::Origin;
use tokio::time::Instant;

/// From this many more bad than good tokens on, an origin's next tokens count as doubtful.
const SUSPECT: u32 = 16;
/// How long an origin is remembered after its last bad token.
const MEMORY: Duration = Duration::from_secs(60);
/// From this many origins on, old ones are looked for whenever a new one comes.
const MANY: usize = 1024;

/// The origins of unidentified callers that have shown bad tokens.
#[derive(Default)]
pub(crate) struct Origins(HashMap<Origin, History>);

struct History {
    /// Bad tokens, less the good ones.
    bad: u32,
    /// When the last bad one came.
    last: Instant,
}

impl Origins {
    /// Notes that a token from there was good.
    pub(crate) fn good(&mut self, origin: Origin) {
        if let Some(record) = self.0.get_mut(&origin) {
            record.bad = record.bad.saturating_sub(1);
            if record.bad == 0 {
                self.0.remove(&origin);
            }
        }
    }

    /// Notes that a token from there was bad.
    pub(crate) fn bad(&mut self, origin: Origin, now: Instant) {
        if self.0.len() >= MANY {
            self.0.retain(|_, record| record.last + MEMORY > now);
        }
        let record = self
            .0
            .entry(origin)
            .or_insert(History { bad: 0, last: now });
        record.bad = (record.bad + 1).min(2 * SUSPECT);
        record.last = now;
    }

    /// Whether the next token from there is as likely bad as one that has been refused.
    pub(crate) fn is_suspect(&self, origin: Origin, now: Instant) -> bool {
        let record = self.0.get(&origin);
        record.is_some_and(|it| it.bad >= SUSPECT && it.last + MEMORY > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_suspect_for_as_long_as_its_tokens_are_bad() {
        let (mut origins, now) = (Origins::default(), Instant::now());
        let (flood, node) = (Origin::Pod(1), Origin::Pod(2));
        for _ in 0..1000 {
            origins.bad(flood, now);
            origins.bad(node, now);
            origins.good(node);
        }
        assert!(origins.is_suspect(flood, now) && !origins.is_suspect(node, now));
        assert!(!origins.is_suspect(flood, now + MEMORY), "long ago");
        for _ in 0..=SUSPECT {
            origins.good(flood);
        }
        assert!(!origins.is_suspect(flood, now));
    }

    #[test]
    fn origins_cost_bounded_memory() {
        let mut origins = Origins::default();
        let start = Instant::now();
        for n in 0..10 * MANY as u64 {
            origins.bad(Origin::Pod(n), start + Duration::from_millis(n * 60));
        }
        assert!(origins.0.len() <= MANY + 1, "{}", origins.0.len());
    }
}
