//! How far something has come that takes long, for somebody who watches a terminal.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// What is done sooner needs no progress.
const SILENCE: Duration = Duration::from_secs(1);
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

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown && self.since.elapsed() > SILENCE {
            // Clears the line.
            eprint!("\r\x1b[K");
        }
    }
}
