//! Events that the programs report.

use std::io;

use aya::maps::{MapData, RingBuf};
use podcreds_common::KernelEvent;
use tokio::io::{Interest, unix::AsyncFd};

/// How many events are taken at once.
const BATCH: usize = 64;

/// The programs' events, in their order. Some are lost while they are not taken.
pub(crate) struct Events(AsyncFd<RingBuf<MapData>>);

impl Events {
    /// For the runtime in whose context it is made.
    pub(crate) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: a ring keeps its descriptor open, and the same one, until it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        Ok(Self(ring))
    }

    /// Waits until something happens. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<KernelEvent>> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            let mut events = Vec::new();
            while events.len() < BATCH
                && let Some(bytes) = guard.get_inner_mut().next()
            {
                events.extend(KernelEvent::from_bytes(&bytes));
            }
            // Only a ring that has been seen empty says so when there is more.
            if events.len() < BATCH {
                guard.clear_ready();
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
