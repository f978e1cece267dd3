//! What time it is, where it is compared with the expiration of credentials.

use std::time::SystemTime;

/// The wall clock, or in tests one that goes with tokio's paused time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    #[cfg(test)]
    paused: Option<(SystemTime, tokio::time::Instant)>,
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> SystemTime {
        #[cfg(test)]
        if let Some((start, instant)) = self.paused {
            return start + instant.elapsed();
        }
        SystemTime::now()
    }

    /// A clock that starts in January 2027 and goes as fast as tokio's.
    #[cfg(test)]
    pub(crate) fn paused() -> Self {
        let start = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        Self {
            paused: Some((start, tokio::time::Instant::now())),
        }
    }
}
