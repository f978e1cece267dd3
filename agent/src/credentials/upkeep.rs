//! What is done every few seconds without anybody asking: refreshes, and forgetting.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::store::Shared;

/// How often. Refreshes are minutes from being urgent, so a look at all entries now and then is
/// as good as a timer for each.
const PERIOD: Duration = Duration::from_secs(5);

/// Keeps a store in order for as long as somebody has it.
pub(super) async fn run(store: Weak<Shared>) {
    loop {
        sleep(PERIOD).await;
        match store.upgrade() {
            Some(store) => store.upkeep(),
            None => return,
        }
    }
}

impl Shared {
    fn upkeep(self: &Arc<Self>) {
        let now = self.clock.now();
        let upkeep = self.cache.upkeep(now);
        let nearest = upkeep
            .nearest_expiry
            .and_then(|expiration| expiration.duration_since(now).ok());
        let nearest = nearest.unwrap_or_default();
        self.metrics.nearest_expiry.set(nearest.as_secs_f64());
        for (subject, token, expiration) in upkeep.due {
            self.refresh(subject, token, expiration);
        }
        self.refusals.sweep(Instant::now());
        self.limiter.sweep();
        let failing = self.lines.iter().filter(|line| line.is_failing()).count();
        self.metrics.backing_off.set(failing as i64);
    }
}
