//! Polling with a deadline, in place of sleeping for as long as things usually take.

use std::{
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what should be there in milliseconds. Long, because the machine may be
/// busy: a passing test never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives something, or gives `None` when `deadline` has passed.
pub fn poll<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits for `condition` to hold, within [`DEADLINE`].
///
/// # Panics
///
/// When it does not, with `what` was waited for.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = poll(DEADLINE, || condition().then_some(()));
    assert!(met.is_some(), "gave up after {DEADLINE:?}: {what}");
}

/// Waits for a process of this one to end, within [`DEADLINE`].
///
/// # Panics
///
/// When it does not.
pub fn exit(child: &mut Child) -> ExitStatus {
    let ended = poll(DEADLINE, || {
        child.try_wait().expect("a process's exit status")
    });
    ended.unwrap_or_else(|| panic!("process {} does not end", child.id()))
}
