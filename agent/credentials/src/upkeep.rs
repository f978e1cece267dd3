//! What is done every few seconds without anybody asking: refreshes, and forgetting.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{steady::steady, store::Shared};

/// How often. Refreshes are minutes from being urgent, so a look at all entries now and then is
/// as good as a timer for each.
const PERIOD: Duration = Duration::from_secs(5);

/// How long after a pod has gone there may still be requests of its last processes.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

/// Keeps a store in order for as long as somebody has it.
pub(super) async fn run(store: Weak<Shared>) {
    steady("the upkeep of the credentials", || {
        every_period(store.clone())
    })
    .await;
}

async fn every_period(store: Weak<Shared>) {
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
        let upkeep = self.cache.upkeep(self.clock.read());
        let nearest = (upkeep.nearest_expiry).map_or(f64::NAN, |left| left.as_secs_f64());
        self.metrics.nearest_expiry.set(nearest);
        for (subject, token, expiration) in upkeep.due {
            self.refresh(subject, token, expiration);
        }
        self.refusals.sweep(Instant::now());
        self.gone.retain(|_, since| since.elapsed() < LAST_REQUESTS);
        self.limiter.sweep();
        let mut failing: HashSet<_> = upkeep.failing.into_iter().collect();
        let lines = self.lines.iter().filter(|line| line.is_failing());
        failing.extend(lines.map(|line| *line.key()));
        self.metrics.backing_off.set(failing.len() as i64);
    }
}
