//! What time it is, where it is compared with the expiration of credentials.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// The machine's two clocks, or in tests two that go with tokio's paused time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    #[cfg(any(test, feature = "test-util"))]
    paused: Option<&'static Paused>,
}

/// What both clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The time of day. Somebody may set it, forward or back.
    pub(crate) wall: SystemTime,
    /// The time since the machine has started, also while it was suspended. Nobody can set it.
    pub(crate) boot: Duration,
}

impl Reading {
    /// The time since the machine has started, in whole seconds.
    pub(crate) fn boot_seconds(&self) -> u32 {
        u32::try_from(self.boot.as_secs()).unwrap_or(u32::MAX)
    }
}

impl Clock {
    /// The time of day.
    pub fn now(&self) -> SystemTime {
        #[cfg(any(test, feature = "test-util"))]
        if let Some(paused) = self.paused {
            return paused.read().wall;
        }
        SystemTime::now()
    }

    /// What both clocks say.
    pub(crate) fn read(&self) -> Reading {
        #[cfg(any(test, feature = "test-util"))]
        if let Some(paused) = self.paused {
            return paused.read();
        }
        // Never before the start of the machine, so this always is a duration.
        let boot = Duration::try_from(clock_gettime(ClockId::Boottime));
        Reading {
            wall: SystemTime::now(),
            boot: boot.unwrap_or_default(),
        }
    }
}

/// A pair of clocks that go as fast as tokio's.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
struct Paused {
    start: SystemTime,
    since: tokio::time::Instant,
    /// By how many seconds the wall clock was put forward; less than nothing if it was put back.
    put_forward: std::sync::atomic::AtomicI64,
}

#[cfg(any(test, feature = "test-util"))]
impl Paused {
    fn read(&self) -> Reading {
        const BOOTED_FOR: Duration = Duration::from_secs(100_000);
        let elapsed = self.since.elapsed();
        let forward = self.put_forward.load(std::sync::atomic::Ordering::Relaxed);
        let by = Duration::from_secs(forward.unsigned_abs());
        let wall = self.start + elapsed;
        Reading {
            wall: if forward < 0 { wall - by } else { wall + by },
            boot: BOOTED_FOR + elapsed,
        }
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock {
    /// Clocks that start in January 2027. Their copies are the same ones.
    pub fn paused() -> Self {
        let paused = Paused {
            start: std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            since: tokio::time::Instant::now(),
            put_forward: std::sync::atomic::AtomicI64::new(0),
        };
        Self {
            paused: Some(Box::leak(Box::new(paused))),
        }
    }

    /// Sets the wall clock so many seconds ahead of what it would say; none sets it right again.
    pub fn put_forward(&self, seconds: i64) {
        if let Some(paused) = self.paused {
            let forward = &paused.put_forward;
            forward.store(seconds, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_boot_is_not_the_time_of_day_and_goes_on() {
        let clock = Clock::default();
        let (first, second) = (clock.read(), clock.read());
        assert!(second.boot >= first.boot && !first.boot.is_zero());
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((first.boot.as_secs_f64() - uptime).abs() < 60.0);
    }
}
