//! How long credentials are good enough to be handed out, and when newer ones are fetched.
//!
//! Three ages matter. Credentials are refreshed ahead at two thirds of their life or after the
//! configured retention, whichever comes first. They are stale, and handed out only while there
//! are none newer, from the point on which botocore would ask again at every call. And they expire.

use std::time::{Duration, SystemTime};

use super::jitter;

/// With less than this left, botocore starts to refresh at every call.
pub(super) const MIN_LEFT: Duration = Duration::from_secs(15 * 60);
/// The first pause after a refresh that failed; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two refreshes that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The three ages of one set of credentials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    /// When they came.
    pub(super) fetched: SystemTime,
    /// When they are refreshed, if somebody has asked for them.
    pub(super) refresh_at: SystemTime,
    /// From when on they are handed out only if there are none newer.
    pub(super) stale_at: SystemTime,
    /// When AWS stops accepting them.
    pub(super) expiration: SystemTime,
}

impl Freshness {
    /// The ages of credentials that have just come.
    pub(super) fn new(now: SystemTime, expiration: SystemTime, retention: Duration) -> Self {
        let life = expiration.duration_since(now).unwrap_or_default();
        let latest = retention.min(life * 2 / 3);
        Self {
            fetched: now,
            // Pods that started together shall not be refreshed together.
            refresh_at: now + jitter::between(latest, 0.85, 1.0),
            // Whoever hands out credentials that live minutes only cannot give better ones.
            stale_at: expiration - MIN_LEFT.min(life / 3),
            expiration,
        }
    }

    /// How long ago they came.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.fetched).unwrap_or_default()
    }

    /// Tries again a while after the `failures`th refresh in a row has failed.
    pub(super) fn postpone(&mut self, now: SystemTime, failures: u32) {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_PAUSE);
        self.refresh_at = now + jitter::between(pause, 0.5, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn refresh_and_stale(life: Duration) -> (Duration, Duration) {
        let fresh = Freshness::new(UNIX_EPOCH, UNIX_EPOCH + life, 3 * HOUR);
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap();
        (since(fresh.refresh_at), since(fresh.stale_at))
    }

    #[test]
    fn long_lived_credentials_are_refreshed_within_the_retention() {
        let (refresh, stale) = refresh_and_stale(6 * HOUR);
        assert!(refresh >= 153 * MINUTE && refresh <= 3 * HOUR);
        assert_eq!(stale, 345 * MINUTE);
    }

    #[test]
    fn short_lived_ones_are_refreshed_well_before_botocore_would_ask() {
        let (refresh, stale) = refresh_and_stale(59 * MINUTE);
        assert!(refresh >= 33 * MINUTE && refresh <= 40 * MINUTE);
        assert_eq!(stale, 44 * MINUTE);
    }

    #[test]
    fn very_short_ones_are_not_stale_from_the_start() {
        let (refresh, stale) = refresh_and_stale(12 * MINUTE);
        assert!(refresh <= 8 * MINUTE);
        assert_eq!(stale, 8 * MINUTE);
    }

    #[test]
    fn failing_refreshes_back_off() {
        let mut fresh = Freshness::new(UNIX_EPOCH, UNIX_EPOCH + HOUR, HOUR);
        for (failures, most) in [(0, 10), (1, 20), (4, 160), (5, 300), (40, 300)] {
            fresh.postpone(UNIX_EPOCH, failures);
            let pause = fresh.refresh_at.duration_since(UNIX_EPOCH).unwrap();
            let most = Duration::from_secs(most);
            assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
        }
    }
}
