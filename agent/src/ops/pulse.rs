//! Whether a thread of the agent still does its work.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a thread that has something to do every ten seconds may be silent. It may have much to do, and the
/// machine may be busy; but one that is stuck never finds another pod.
const SILENCE: Duration = Duration::from_secs(60);

/// The pulse of a thread. Clones are the same one. It is well until it has begun, and after it has stopped.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// The thread is alive.
    pub fn beat(&self) {
        self.set(Some(Instant::now()));
    }

    /// The thread has nothing to do any more.
    pub fn stop(&self) {
        self.set(None);
    }

    /// Whether the thread is alive.
    ///
    /// # Errors
    ///
    /// For how long it has been silent.
    pub fn check(&self) -> Result<(), Duration> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.map(|last| last.elapsed()) {
            Some(silence) if silence > SILENCE => Err(silence),
            _ => Ok(()),
        }
    }

    fn set(&self, last: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_pulse_that_has_begun_can_be_missed() {
        let pulse = Pulse::default();
        advance(2 * SILENCE).await;
        assert_eq!(pulse.check(), Ok(()));
        pulse.clone().beat();
        advance(SILENCE).await;
        assert_eq!(pulse.check(), Ok(()));
        advance(SILENCE).await;
        assert_eq!(pulse.check(), Err(2 * SILENCE));
        pulse.beat();
        assert_eq!(pulse.check(), Ok(()));
        advance(2 * SILENCE).await;
        pulse.stop();
        assert_eq!(pulse.check(), Ok(()));
    }
}
