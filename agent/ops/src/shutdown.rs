//! How the agent is told to end, and how long it may take over it.

use std::{future::Future, io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the agent to end: SIGTERM from the kubelet, SIGINT from a terminal.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals over. From here on neither ends the process by itself.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How an orderly end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything in flight was finished.
    Complete,
    /// The grace period ran out first.
    OutOfTime,
    /// Somebody asked a second time.
    Impatient,
}

/// Runs `work` to its end, but no longer than `grace`, nor past the completion of `again`.
pub async fn within(grace: Duration, work: impl Future<Output = ()>, again: impl Future) -> Ending {
    tokio::select! {
        // In this order: work that always has more to do uses up the task's budget, and neither of
        // the others is heard.
        biased;
        _ = again => Ending::Impatient,
        () = tokio::time::sleep(grace) => Ending::OutOfTime,
        () = work => Ending::Complete,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// Held by a test that raises signals: each of them hears those of all others.
    static RAISING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn raise(signal: Signal) {
        kill_process(getpid(), signal).unwrap();
    }

    #[tokio::test]
    async fn signals_are_told_apart_and_end_nothing() {
        let _alone = RAISING.lock().await;
        let mut signals = Signals::install().unwrap();
        raise(Signal::TERM);
        assert_eq!(signals.next().await, "SIGTERM");
        raise(Signal::INT);
        assert_eq!(signals.next().await, "SIGINT");
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_in_one_of_three_ways() {
        let grace = Duration::from_secs(30);
        let long = || tokio::time::sleep(Duration::from_secs(31));
        let short = || tokio::time::sleep(Duration::from_secs(29));
        assert_eq!(
            within(grace, short(), pending::<()>()).await,
            Ending::Complete
        );
        assert_eq!(
            within(grace, long(), pending::<()>()).await,
            Ending::OutOfTime
        );
        assert_eq!(within(grace, long(), ready(())).await, Ending::Impatient);
    }

    #[tokio::test]
    async fn work_that_never_waits_is_ended_too() {
        let _alone = RAISING.lock().await;
        let grace = Duration::from_millis(1);
        let busy = || async {
            for _ in 0..10_000_000 {
                tokio::task::coop::consume_budget().await;
            }
        };
        let ending = within(grace, busy(), pending::<()>()).await;
        assert_eq!(ending, Ending::OutOfTime);
        let mut signals = Signals::install().unwrap();
        raise(Signal::INT);
        let ending = within(Duration::MAX, busy(), signals.next()).await;
        assert_eq!(ending, Ending::Impatient);
    }
}
