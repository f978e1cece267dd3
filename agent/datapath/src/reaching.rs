//! The way to the datapath's thread for an agent that is to reach what another one reaches.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use podcreds_types::ReachedListeners;
use tokio::sync::{mpsc, oneshot};

use super::{pods::Pods, worker::WorkerCommand};

/// How often what is not reached is tried again. Each try has longer than that.
const RETRY: Duration = Duration::from_millis(250);

/// Has the datapath go to listeners that another agent reaches. It does not keep the datapath.
#[derive(Clone, Debug)]
pub struct Reaching(pub(super) mpsc::WeakSender<WorkerCommand>);

impl Reaching {
    /// Ends when this agent's listeners there can be reached as well, or their pods are gone. Never
    /// once the datapath is stopping.
    pub async fn reach(self, listeners: Vec<ReachedListeners>) {
        let (reply, reached) = oneshot::channel();
        if let Some(commands) = self.0.upgrade() {
            // Where that fails, so does what follows.
            let _ = commands
                .send(WorkerCommand::Reach(ReachRequest::new(listeners, reply)))
                .await;
        }
        if reached.await.is_err() {
            pending().await
        }
    }
}

/// Listeners that are to be reached, and who waits for that.
#[derive(Debug)]
pub(super) struct ReachRequest {
    /// Those that are not reached yet.
    unreached: Vec<ReachedListeners>,
    reply: oneshot::Sender<()>,
    retry_at: Instant,
}

impl ReachRequest {
    fn new(unreached: Vec<ReachedListeners>, reply: oneshot::Sender<()>) -> Self {
        Self {
            unreached,
            reply,
            retry_at: Instant::now(),
        }
    }

    /// When [`Self::retry`] is due.
    pub(super) fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// Tries again what is not reached.
    pub(super) fn retry(&mut self, pods: &mut Pods, beat: impl Fn()) {
        self.retry_at = Instant::now() + RETRY;
        pods.retry_unreached(&self.unreached, beat);
    }

    /// Sees what is reached by now, and says so once that is everything. `None` if it is over.
    pub(super) fn look(mut self, pods: &Pods) -> Option<Self> {
        self.unreached.retain(|listeners| !pods.reaches(listeners));
        if self.unreached.is_empty() {
            // An error means that nobody waits any more.
            let _sent = self.reply.send(());
            return None;
        }
        (!self.reply.is_closed()).then_some(self)
    }
}
