//! One agent's part in the queue.

use std::{os::unix::net::UnixListener, sync::Arc, time::Duration};

use podcreds_cache::Cache;
use podcreds_types::{Vitals, watched};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    HandoverError, LAST_WORDS, LOOK, Metrics, Optional,
    folder::{HandoverFolder, LEADER, LEND, Lock, SUCCESSOR, TALK},
    leader::Leader,
    lender::{Lend, lend_to_all},
    metrics::Role,
    reaching::{Reach, ReachQuestion},
    said::Said,
    successor::Successor,
};

/// How long the leader's credentials are waited for before the agent starts without. It may stand
/// still, which must not keep its successor from serving.
const PATIENCE: Duration = Duration::from_secs(2);

/// What goes on in the background: without it an agent would lead nobody, and nobody would know.
const LEADING: &str = "leading this node's agents";

/// What an agent brings to the queue.
pub(super) struct Member {
    pub(super) folder: Arc<HandoverFolder>,
    pub(super) metrics: Metrics,
    pub(super) cache: Arc<Cache>,
    pub(super) lend: Lend,
    /// What goes on here is among them.
    pub(super) vitals: Vitals,
    pub(super) role: watch::Sender<Role>,
    /// Whether it has left.
    pub(super) left: watch::Receiver<bool>,
    /// Whether it serves.
    pub(super) serves: watch::Receiver<bool>,
    /// Goes to the listeners that the leader reaches.
    pub(super) reach: Reach,
    /// What the successor says.
    pub(super) said: watch::Sender<Said>,
    /// What it is to be asked.
    pub(super) asking: watch::Receiver<Option<Arc<ReachQuestion>>>,
    pub(super) optional: Optional,
}

impl Member {
    /// Waits for this agent's turn, with the successor's lock or for it, and goes on from there on
    /// `runtime`. `None` where the folder cannot be used, and need not be.
    pub(super) async fn join(
        self,
        successor: Option<Lock>,
        runtime: &Handle,
    ) -> Result<Option<AbortOnDropHandle<()>>, HandoverError> {
        let successor = match successor {
            Some(lock) => lock,
            None => {
                self.set_role(Role::Waiting);
                tracing::info!(
                    "another agent is about to take over: this one waits until that has happened"
                );
                self.turn(SUCCESSOR).await
            }
        };
        let Some(lock) = self.optional.unless_named(self.folder.try_lock(LEADER))? else {
            return Ok(None);
        };
        let task = match lock {
            Some(lock) => {
                let sockets = self.optional.unless_named(self.listen())?;
                drop(successor);
                let vital = self.vitals.task(LEADING);
                runtime.spawn(watched(vital, self.lead(lock, sockets)))
            }
            None => {
                self.set_role(Role::Successor);
                self.cache.set_following(true);
                let (learned, mut learns) = watch::channel(false);
                let vital = self.vitals.task(LEADING);
                let task = runtime.spawn(watched(vital, self.succeed(successor, learned)));
                let settled = learns.wait_for(|learned| *learned);
                if timeout(PATIENCE, settled).await.is_err() {
                    tracing::warn!(
                        "the agent before this one does not tell what it has: starting without"
                    );
                }
                task
            }
        };
        Ok(Some(AbortOnDropHandle::new(task)))
    }

    /// Follows the leader until it is gone, then leads.
    async fn succeed(self, lock: Lock, learned: watch::Sender<bool>) {
        let mut left = self.left.clone();
        let (last, is_last) = watch::channel(false);
        let successor = Successor {
            cache: Arc::clone(&self.cache),
            metrics: self.metrics.clone(),
            learned,
            serves: self.serves.clone(),
            reach: Arc::clone(&self.reach),
        };
        let vital = self.vitals.task("following the agent before this one");
        let follow = tokio::spawn(watched(
            vital,
            successor.follow(Arc::clone(&self.folder), is_last),
        ));
        let follow = AbortOnDropHandle::new(follow);
        let lead = tokio::select! {
            lead = self.turn(LEADER) => lead,
            _ = left.wait_for(|left| *left) => return,
        };
        // What it said last may still be on its way.
        last.send_replace(true);
        if timeout(LAST_WORDS, follow).await.is_err() {
            tracing::warn!("the agent before this one has gone, but its connection has not ended");
        }
        self.cache.set_following(false);
        // It serves already, so it goes on, also without a folder that was named.
        let sockets = self
            .listen()
            .inspect_err(|error| self.optional.go_on_without(error));
        drop(lock);
        self.lead(lead, sockets.ok()).await;
    }

    /// Listens for the successor, where the leader tells and where it lends.
    fn listen(&self) -> Result<[UnixListener; 2], HandoverError> {
        Ok([self.folder.listen(TALK)?, self.folder.listen(LEND)?])
    }

    /// Holds the lead, and tells successors what there is, until told to leave.
    async fn lead(mut self, _lock: Lock, sockets: Option<[UnixListener; 2]>) {
        self.set_role(Role::Leader);
        tracing::info!("leading this node's agents");
        if let Some([listener, lender]) = sockets {
            let vital = self.vitals.task("lending listeners to the next agent");
            let lend = lend_to_all(lender, Arc::clone(&self.lend));
            let lending = tokio::spawn(watched(vital, lend));
            let _lending = AbortOnDropHandle::new(lending);
            let leader = Leader {
                cache: Arc::clone(&self.cache),
                metrics: self.metrics.clone(),
                said: self.said.clone(),
                asking: self.asking.clone(),
                leaving: self.left.clone(),
            };
            let told = leader.lead(listener).await;
            if let Err(error) = told {
                tracing::error!(%error, "credentials will not outlive this agent");
            }
        }
        // An error means that the sender is gone.
        let _left = self.left.wait_for(|left| *left).await;
    }

    fn set_role(&self, role: Role) {
        self.metrics.set_role(role);
        self.role.send_replace(role);
    }

    /// Waits for a lock.
    async fn turn(&self, name: &str) -> Lock {
        loop {
            match self.folder.try_lock(name) {
                Ok(Some(lock)) => return lock,
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "cannot try to take the lock"),
            }
            sleep(LOOK).await;
        }
    }
}
