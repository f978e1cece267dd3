//! The right to make one call, which is given back if nobody makes it.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use super::{Kind, Shared};

/// What tells a call in the queue from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuePlace {
    pub(super) id: u64,
    pub(super) kind: Kind,
}

/// A place in the queue, which is given up when this is dropped.
pub(crate) struct Pass {
    place: QueuePlace,
    receiver: oneshot::Receiver<Permit>,
}

impl Pass {
    pub(super) fn new(id: u64, kind: Kind, receiver: oneshot::Receiver<Permit>) -> Self {
        let place = QueuePlace { id, kind };
        Self { place, receiver }
    }

    /// Where it stands in the queue, by which the limiter can tell what it waits for.
    pub(crate) fn place(&self) -> QueuePlace {
        self.place
    }

    /// Waits until the call may go out. `None` if the limiter has gone. A permit that was given and
    /// not taken goes back when the place is dropped.
    pub(crate) async fn granted(&mut self) -> Option<Permit> {
        (&mut self.receiver).await.ok()
    }
}

/// The right to make one call, and then the call, until it is dropped.
pub(crate) struct Permit {
    limiter: Arc<Shared>,
    kind: Kind,
    /// When the call went out.
    started: Option<Instant>,
}

impl Permit {
    pub(super) fn new(limiter: Arc<Shared>, kind: Kind) -> Self {
        Self {
            limiter,
            kind,
            started: None,
        }
    }

    /// Notes that the call goes out now, and says when that is.
    pub(crate) fn start(&mut self) -> Instant {
        *self.started.insert(Instant::now())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        state.in_flight -= 1;
        if self.started.is_none() {
            state.pace.refund();
            if let Some(bucket) = state.bucket(self.kind) {
                bucket.refund();
            }
        }
        self.limiter.gauge(&state);
        drop(state);
        self.limiter.news.notify_one();
    }
}
