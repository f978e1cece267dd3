//! How long credentials are good enough to be handed out, and when newer ones are fetched.
//!
//! Three ages matter. Credentials are refreshed ahead at two thirds of their life or after the
//! configured retention, whichever comes first. They are stale, and handed out only while there
//! are none newer, from the point on which botocore would ask again at every call. And they expire.

use std::time::{Duration, SystemTime};

use super::{clock::Reading, jitter};

/// With less than this left, botocore starts to refresh at every call.
pub(super) const MIN_LEFT: Duration = Duration::from_secs(15 * 60);
/// The first pause after a refresh that failed; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two refreshes that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// How long credentials are kept, but not served, when they have expired: the clock that says so
/// may be set right again.
const AFTERLIFE: Duration = Duration::from_secs(5 * 60);

/// The three ages of one set of credentials.
///
/// They are times of day, as AWS gives them, but the wall clock alone does not decide whether they
/// have come: it may be put back. What has passed since the credentials came is what the clock says
/// that cannot be set, or the wall clock if that says more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    /// When they came.
    fetched: Reading,
    /// When they are refreshed, if somebody has asked for them.
    refresh_at: SystemTime,
    /// From when on they are handed out only if there are none newer.
    stale_at: SystemTime,
    /// When AWS stops accepting them.
    pub(super) expiration: SystemTime,
}

/// The same as times of day alone, right by the wall clock at the time when they are made: what one
/// agent can tell another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ages {
    pub(super) fetched: SystemTime,
    pub(super) refresh_at: SystemTime,
    pub(super) stale_at: SystemTime,
    pub(super) expiration: SystemTime,
}

impl Freshness {
    /// The ages of credentials that have just come.
    pub(super) fn new(now: Reading, expiration: SystemTime, retention: Duration) -> Self {
        let life = expiration.duration_since(now.wall).unwrap_or_default();
        let latest = retention.min(life * 2 / 3);
        Self {
            fetched: now,
            // Pods that started together shall not be refreshed together.
            refresh_at: now.wall + jitter::between(latest, 0.85, 1.0),
            // Whoever hands out credentials that live minutes only cannot give better ones.
            stale_at: expiration - MIN_LEFT.min(life / 3),
            expiration,
        }
    }

    /// The ages of credentials of which another agent has told just now, and which are not to get
    /// older than `retention` before they are refreshed.
    pub(super) fn told(ages: Ages, now: Reading, retention: Duration) -> Self {
        let age = now.wall.duration_since(ages.fetched).unwrap_or_default();
        Self {
            fetched: Reading {
                wall: ages.fetched,
                boot: now.boot.saturating_sub(age),
            },
            refresh_at: ages.refresh_at.min(ages.fetched + retention),
            stale_at: ages.stale_at,
            expiration: ages.expiration,
        }
    }

    /// What to tell another agent.
    pub(super) fn ages(&self, now: Reading) -> Ages {
        // It knows nothing of a wall clock that was put back since the credentials came.
        let put_back = self.time(now).duration_since(now.wall).unwrap_or_default();
        Ages {
            fetched: self.fetched.wall - put_back,
            refresh_at: self.refresh_at - put_back,
            stale_at: self.stale_at - put_back,
            expiration: self.expiration - put_back,
        }
    }

    /// What time it is for these credentials.
    fn time(&self, now: Reading) -> SystemTime {
        now.wall.max(self.steady_time(now))
    }

    /// What time it is if nobody has set the wall clock since they came.
    fn steady_time(&self, now: Reading) -> SystemTime {
        self.fetched.wall + now.boot.saturating_sub(self.fetched.boot)
    }

    /// How long ago they came.
    pub(super) fn age(&self, now: Reading) -> Duration {
        let age = self.time(now).duration_since(self.fetched.wall);
        age.unwrap_or_default()
    }

    /// How long they are good still.
    pub(super) fn left(&self, now: Reading) -> Duration {
        let left = self.expiration.duration_since(self.time(now));
        left.unwrap_or_default()
    }

    /// Whether AWS has stopped accepting them.
    pub(super) fn has_expired(&self, now: Reading) -> bool {
        self.expiration <= self.time(now)
    }

    /// Whether they expired long enough ago, also if the wall clock should go wrong.
    pub(super) fn is_over(&self, now: Reading) -> bool {
        self.expiration + AFTERLIFE <= self.steady_time(now)
    }

    /// Whether they are handed out only if there are none newer.
    pub(super) fn is_stale(&self, now: Reading) -> bool {
        self.stale_at <= self.time(now)
    }

    /// Whether it is time for a refresh.
    pub(super) fn is_due(&self, now: Reading) -> bool {
        self.refresh_at <= self.time(now)
    }

    /// Whether a token that expires then, in seconds since 1970, has not expired yet.
    pub(super) fn is_before(&self, now: Reading, seconds: u64) -> bool {
        let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        end.is_none_or(|end| self.time(now) < end)
    }

    /// Whether these came after others, whatever was done to the wall clock.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.fetched.boot > other.fetched.boot
    }

    /// Whether these came after something that happened at that time since the machine started.
    pub(super) fn came_after(&self, boot: Duration) -> bool {
        self.fetched.boot > boot
    }

    /// Tries again a while after the `failures`th refresh in a row has failed.
    pub(super) fn postpone(&mut self, now: Reading, failures: u32) {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_PAUSE);
        self.refresh_at = self.time(now) + jitter::between(pause, 0.5, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    /// Minutes after the credentials came, by clocks that nobody has set.
    fn at(minutes: u32) -> Reading {
        set(minutes, minutes.into())
    }

    /// The same, by a wall clock that says something else.
    fn set(minutes: u32, wall: i64) -> Reading {
        let by = MINUTE * u32::try_from(wall.unsigned_abs()).unwrap();
        Reading {
            wall: if wall < 0 {
                UNIX_EPOCH - by
            } else {
                UNIX_EPOCH + by
            },
            boot: HOUR + MINUTE * minutes,
        }
    }

    fn refresh_and_stale(life: Duration) -> (Duration, Duration) {
        let fresh = Freshness::new(at(0), UNIX_EPOCH + life, 3 * HOUR);
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
        let mut fresh = Freshness::new(at(0), UNIX_EPOCH + HOUR, HOUR);
        for (failures, most) in [(0, 10), (1, 20), (4, 160), (5, 300), (40, 300)] {
            fresh.postpone(at(0), failures);
            let pause = fresh.refresh_at.duration_since(UNIX_EPOCH).unwrap();
            let most = Duration::from_secs(most);
            assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn a_wall_clock_that_is_put_back_makes_nothing_younger() {
        let fresh = Freshness::new(at(0), UNIX_EPOCH + 59 * MINUTE, 3 * HOUR);
        let back = |minutes: u32| set(minutes, i64::from(minutes) - 120);
        assert_eq!(fresh.age(back(30)), 30 * MINUTE);
        assert_eq!(fresh.left(back(30)), 29 * MINUTE);
        assert!(fresh.is_due(back(41)) && !fresh.is_stale(back(41)));
        assert!(fresh.is_stale(back(45)) && !fresh.has_expired(back(58)));
        assert!(fresh.has_expired(back(59)) && !fresh.is_over(back(60)));
        assert!(fresh.is_over(back(64)));
        assert!(fresh.is_before(back(30), 31 * 60) && !fresh.is_before(back(30), 30 * 60));
    }

    #[test]
    fn a_wall_clock_that_is_put_forward_ends_them_but_does_not_drop_them() {
        let fresh = Freshness::new(at(0), UNIX_EPOCH + 59 * MINUTE, 3 * HOUR);
        assert!(fresh.has_expired(set(10, 130)) && !fresh.is_over(set(10, 130)));
        assert!(!fresh.has_expired(at(11)), "it was set right again");
    }

    #[test]
    fn what_is_told_is_right_by_the_clock_of_who_is_told() {
        let fresh = Freshness::new(at(0), UNIX_EPOCH + 59 * MINUTE, 3 * HOUR);
        let now = set(30, -90);
        let told = Freshness::told(fresh.ages(now), now, 3 * HOUR);
        assert_eq!((told.age(now), told.left(now)), (30 * MINUTE, 29 * MINUTE));
        assert!(told.has_expired(set(59, -61)));
        assert!(!told.is_newer_than(&fresh) && !fresh.is_newer_than(&told));
        // And where nobody has set it, it is what it was.
        let ages = fresh.ages(at(30));
        assert_eq!(ages.expiration, fresh.expiration);
        // An agent that does not know of this tells what lies in the future.
        let unaware = Freshness::told(ages, set(30, -90), 3 * HOUR);
        assert!(unaware.has_expired(set(95, -25)));
    }
}
