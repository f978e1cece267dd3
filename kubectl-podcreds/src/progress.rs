//! How far something has come that takes long, for somebody who watches a terminal.

use std::{
    io::{self, IsTerminal, Write},
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tokio::time::timeout;

/// What is done sooner needs no progress.
const SILENCE: Duration = Duration::from_secs(3);
/// After so many it is said again.
const STEP: usize = 25;

/// Counts what is done.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    of: usize,
    done: AtomicUsize,
    since: Instant,
    is_shown: bool,
}

impl Progress {
    /// So many of these are to be done.
    pub(crate) fn new(what: &'static str, of: usize) -> Self {
        Self {
            what,
            of,
            done: AtomicUsize::new(0),
            since: Instant::now(),
            is_shown: io::stderr().is_terminal(),
        }
    }

    pub(crate) fn one_done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.is_shown && done.is_multiple_of(STEP) && self.since.elapsed() > SILENCE {
            eprint!("\r{done} of {} {}", self.of, self.what);
            // Nothing can be done about a terminal that is gone.
            let _flushed = io::stderr().flush();
        }
    }
}

/// Waits for what is asked, and says so where it takes long.
pub(crate) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match timeout(SILENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            if io::stderr().is_terminal() {
                eprintln!("waiting for what Kubernetes, EKS, IAM or agents answer ...");
            }
            work.await
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown && self.since.elapsed() > SILENCE {
            // Clears the line.
            eprint!("\r\x1b[K");
        }
    }
}
