//! How far a connection has come, for all parts that serve it.

use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use http::StatusCode;
use tokio::task::AbortHandle;

use super::road::Road;

/// Requests that are refused in a row before the connection is closed. SDKs give up after four.
pub(super) const REFUSALS: u32 = 32;

/// How far a connection has come. Its stream, its service and its task share it, and so do the
/// scheduler and the limits.
#[derive(Default)]
pub(super) struct ConnectionState {
    /// A whole head has arrived at least once.
    asked: AtomicBool,
    /// Bytes have arrived since the last whole head.
    asking: AtomicBool,
    /// A request is being answered.
    answering: AtomicBool,
    /// The next answer is the connection's last.
    ending: AtomicBool,
    /// It was answered since [`Self::take_activity`] was last called.
    active: AtomicBool,
    /// It has given an answer in this slice.
    answered: AtomicBool,
    /// The last answer that has not been written yet.
    unwritten: Mutex<Option<(Road, StatusCode)>>,
    /// That answer is being written.
    writing: AtomicBool,
    /// The peer does not take what has been written.
    stalled: AtomicBool,
    /// The next answer waits for that to end.
    held_back: AtomicBool,
    /// It waits in its caller's queue. See [`Scheduler`](super::scheduler::Scheduler).
    pub(super) is_queued: AtomicBool,
    /// A round has admitted it: it may run now.
    pub(super) is_admitted: AtomicBool,
    /// Requests refused in a row.
    refusals: AtomicU32,
    /// Its order among its caller's connections. See `limits.rs`.
    order: AtomicU64,
    /// Ends its task.
    task: OnceLock<AbortHandle>,
}

impl ConnectionState {
    /// Notes that bytes have arrived.
    pub(super) fn bytes_arrived(&self) {
        self.asking.store(true, Ordering::Relaxed);
    }

    /// Notes that a whole head has arrived, and says whether it is the connection's first.
    pub(super) fn head_arrived(&self) -> bool {
        self.asking.store(false, Ordering::Relaxed);
        !self.asked.swap(true, Ordering::Relaxed)
    }

    /// Notes that the connection is closed after the next answer.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether the next answer is the last.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Whether the client has yet to send its first request.
    pub(super) fn is_new(&self) -> bool {
        !self.asked.load(Ordering::Relaxed)
    }

    /// Whether the client has yet to send a request, or the rest of one.
    pub(super) fn is_behind(&self) -> bool {
        self.is_new() || self.asking.load(Ordering::Relaxed)
    }

    /// Notes that the connection runs, for one slice.
    pub(super) fn begin_slice(&self) {
        self.answered.store(false, Ordering::Relaxed);
    }

    /// Whether the connection has given an answer in this slice.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Notes that the peer does not take what has been written.
    pub(super) fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Notes that the peer has taken everything, and says whether an answer waits for that.
    pub(super) fn flushed(&self) -> bool {
        self.stalled.store(false, Ordering::Relaxed);
        self.held_back.swap(false, Ordering::Relaxed)
    }

    /// Whether the next answer has to wait until the peer has taken the last one. Then it is told
    /// so.
    pub(super) fn holds_back(&self) -> bool {
        let is_stalled = self.stalled.load(Ordering::Relaxed);
        self.held_back.store(is_stalled, Ordering::Relaxed);
        is_stalled
    }

    /// Notes that a request is being answered.
    pub(super) fn begin_answer(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    /// Notes an answer.
    pub(super) fn answered(&self, status: StatusCode) {
        self.answering.store(false, Ordering::Relaxed);
        self.answered.store(true, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
        self.writing.store(true, Ordering::Relaxed);
        if status.is_client_error() {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refusals.store(0, Ordering::Relaxed);
        }
    }

    /// Keeps the road of a request until its answer is written. The road of the answer before it is
    /// handed back if that is not: it is in a buffer, and nobody waits for that one.
    pub(super) fn keep_road(&self, road: Road, status: StatusCode) -> Option<(Road, StatusCode)> {
        self.unwritten().replace((road, status))
    }

    /// Everything is written. What was the last answer's road?
    pub(super) fn written(&self) -> Option<(Road, StatusCode)> {
        match self.writing.swap(false, Ordering::Relaxed) {
            true => self.unwritten().take(),
            false => None,
        }
    }

    /// Nothing more will be written.
    pub(super) fn never_written(&self) -> Option<(Road, StatusCode)> {
        self.unwritten().take()
    }

    fn unwritten(&self) -> MutexGuard<'_, Option<(Road, StatusCode)>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more requests were refused in a row than a client has use for.
    pub(super) fn is_refused_too_often(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) >= REFUSALS
    }

    /// Whether the connection has got an answer since this was last asked, or waits for one now.
    pub(super) fn take_activity(&self) -> bool {
        self.active.swap(false, Ordering::Relaxed) || self.answering.load(Ordering::Relaxed)
    }

    /// The connection's order among its caller's.
    pub(super) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// Puts the connection elsewhere among its caller's.
    pub(super) fn set_order(&self, order: u64) {
        self.order.store(order, Ordering::Relaxed);
    }

    /// Notes the connection's task.
    pub(super) fn runs_in(&self, task: AbortHandle) {
        // There is one for each connection.
        let _is_first = self.task.set(task);
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
