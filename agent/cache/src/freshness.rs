//! How long credentials are good enough to be handed out, and when newer ones are fetched.
//!
//! Three ages matter. Credentials are renewed ahead at two thirds of their life or after the
//! configured retention, whichever comes first. They are stale, and handed out only while there
//! are none newer, from the point on which botocore would ask again at every call. And they expire.

use std::time::{Duration, SystemTime};

use crate::clock::Reading;

/// With less than this left, botocore asks again at every call.
pub(crate) const MIN_LEFT: Duration = Duration::from_secs(15 * 60);
/// The first pause after a renewal that failed; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two renewals that fail.
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
pub(crate) struct Freshness {
    /// When they came.
    fetched: Reading,
    /// When they are to be renewed first, if somebody has asked for them.
    due_at: SystemTime,
    /// When they are renewed: then, or a while after a renewal that failed.
    renew_at: SystemTime,
    /// From when on they are handed out only if there are none newer.
    stale_at: SystemTime,
    /// When AWS stops accepting them.
    pub(crate) expiration: SystemTime,
}

/// The same as times of day alone, right by the wall clock at the time when they are made: what one
/// agent can tell another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// When they came.
    pub fetched: SystemTime,
    /// When they are renewed, if they are asked for.
    pub renew_at: SystemTime,
    /// From when on they are served only if there are none newer.
    pub stale_at: SystemTime,
    /// When AWS stops accepting them.
    pub expiration: SystemTime,
}

impl Freshness {
    /// The ages of credentials that have just come.
    pub(crate) fn new(now: Reading, expiration: SystemTime, retention: Duration) -> Self {
        let life = expiration.duration_since(now.wall).unwrap_or_default();
        let latest = retention.min(life * 2 / 3);
        // Pods that started together shall not be renewed together.
        let due_at = now.wall + between(latest, 0.85, 1.0);
        Self {
            fetched: now,
            due_at,
            renew_at: due_at,
            // A service that issues credentials for minutes only has no better ones.
            stale_at: expiration - MIN_LEFT.min(life / 3),
            expiration,
        }
    }

    /// The ages of credentials of which another agent has told just now, and which are not to get
    /// older than `retention` before they are renewed.
    pub(crate) fn told(ages: Ages, now: Reading, retention: Duration) -> Self {
        let age = now.wall.duration_since(ages.fetched).unwrap_or_default();
        let renew_at = ages.renew_at.min(ages.fetched + retention);
        Self {
            fetched: Reading {
                wall: ages.fetched,
                boot: now.boot.saturating_sub(age),
            },
            due_at: renew_at,
            renew_at,
            stale_at: ages.stale_at,
            expiration: ages.expiration,
        }
    }

    /// What to tell another agent.
    pub(crate) fn ages(&self, now: Reading) -> Ages {
        // It knows nothing of a wall clock that was put back since the credentials came.
        let put_back = self.time(now).duration_since(now.wall).unwrap_or_default();
        Ages {
            fetched: self.fetched.wall - put_back,
            renew_at: self.renew_at - put_back,
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
    pub(crate) fn age(&self, now: Reading) -> Duration {
        let age = self.time(now).duration_since(self.fetched.wall);
        age.unwrap_or_default()
    }

    /// How long they are good still.
    pub(crate) fn left(&self, now: Reading) -> Duration {
        let left = self.expiration.duration_since(self.time(now));
        left.unwrap_or_default()
    }

    /// Whether AWS has stopped accepting them.
    pub(crate) fn has_expired(&self, now: Reading) -> bool {
        self.expiration <= self.time(now)
    }

    /// How long until they are due, by the clocks as they go.
    pub(crate) fn until_due(&self, now: Reading) -> Duration {
        let until = self.renew_at.duration_since(self.time(now));
        until.unwrap_or_default()
    }

    /// How long until they have expired long enough ago, also if the wall clock should go wrong.
    pub(crate) fn until_over(&self, now: Reading) -> Duration {
        let until = (self.expiration + AFTERLIFE).duration_since(self.steady_time(now));
        until.unwrap_or_default()
    }

    /// Whether they are handed out only if there are none newer.
    pub(crate) fn is_stale(&self, now: Reading) -> bool {
        self.stale_at <= self.time(now)
    }

    /// Whether it is time for a renewal.
    pub(crate) fn is_due(&self, now: Reading) -> bool {
        self.renew_at <= self.time(now)
    }

    /// How long ago they were due first, whatever failed since.
    pub(crate) fn since_due(&self, now: Reading) -> Duration {
        let since = self.time(now).duration_since(self.due_at);
        since.unwrap_or_default()
    }

    /// How long ago their renewal was due.
    pub(crate) fn overdue(&self, now: Reading) -> Duration {
        let overdue = self.time(now).duration_since(self.renew_at);
        overdue.unwrap_or_default()
    }

    /// Whether that time has not come yet.
    pub(crate) fn is_before(&self, now: Reading, end: SystemTime) -> bool {
        self.time(now) < end
    }

    /// Whether these came after others, whatever was done to the wall clock.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        self.fetched.boot > other.fetched.boot
    }

    /// When they came, as the time since the machine started.
    pub(crate) fn fetched_at(&self) -> Duration {
        self.fetched.boot
    }

    /// Tries again a while after the `failures`th renewal in a row has failed.
    pub(crate) fn postpone(&mut self, now: Reading, failures: u32) {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_PAUSE);
        self.renew_at = self.time(now) + between(pause, 0.5, 1.0);
    }
}

/// A random duration between `low` and `high` times `duration`.
fn between(duration: Duration, low: f64, high: f64) -> Duration {
    duration.mul_f64(low + (high - low) * fastrand::f64())
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

    fn renewal_and_stale(life: Duration) -> (Duration, Duration) {
        let fresh = Freshness::new(at(0), UNIX_EPOCH + life, 3 * HOUR);
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap();
        (since(fresh.renew_at), since(fresh.stale_at))
    }

    #[test]
    fn long_lived_credentials_are_renewed_within_the_retention() {
        let (renewal, stale) = renewal_and_stale(6 * HOUR);
        assert!(renewal >= 153 * MINUTE && renewal <= 3 * HOUR);
        assert_eq!(stale, 345 * MINUTE);
    }

    #[test]
    fn short_lived_ones_are_renewed_well_before_botocore_would_ask() {
        let (renewal, stale) = renewal_and_stale(59 * MINUTE);
        assert!(renewal >= 33 * MINUTE && renewal <= 40 * MINUTE);
        assert_eq!(stale, 44 * MINUTE);
    }

    #[test]
    fn very_short_ones_are_not_stale_from_the_start() {
        let (renewal, stale) = renewal_and_stale(12 * MINUTE);
        assert!(renewal <= 8 * MINUTE);
        assert_eq!(stale, 8 * MINUTE);
    }

    #[test]
    fn failing_renewals_back_off() {
        let mut fresh = Freshness::new(at(0), UNIX_EPOCH + HOUR, HOUR);
        for (failures, most) in [(0, 10), (1, 20), (4, 160), (5, 300), (40, 300)] {
            fresh.postpone(at(0), failures);
            let pause = fresh.renew_at.duration_since(UNIX_EPOCH).unwrap();
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
        assert!(fresh.has_expired(back(59)) && !fresh.until_over(back(60)).is_zero());
        assert!(fresh.until_over(back(64)).is_zero());
        assert!(
            fresh.is_before(back(30), UNIX_EPOCH + 31 * MINUTE)
                && !fresh.is_before(back(30), UNIX_EPOCH + 30 * MINUTE)
        );
    }

    #[test]
    fn a_wall_clock_that_is_put_forward_ends_them_but_does_not_drop_them() {
        let fresh = Freshness::new(at(0), UNIX_EPOCH + 59 * MINUTE, 3 * HOUR);
        assert!(fresh.has_expired(set(10, 130)) && !fresh.until_over(set(10, 130)).is_zero());
        assert!(!fresh.has_expired(at(11)), "it was set right again");
    }

    #[test]
    fn times_are_told_by_the_wall_clock_of_the_moment() {
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
