//! Agents of one node that follow each other, as in an update.
//!
//! They queue at two locks. Whoever holds the first *leads*: it has the credentials, refreshes them, and tells the
//! *heir*, who holds the second one, everything that it has and that changes. The heir serves pods beside the leader, and
//! leads once that is gone, however it went: a lock ends with its holder. Whoever comes third *waits*.
//!
//! So there are never more than two that serve, and whatever they believe of themselves, the order of the queue is
//! the only one there is. Credentials go from memory to memory through a socket that only root can reach.

mod error;
mod folder;
mod frame;
mod heir;
mod leader;
mod metrics;
mod peer;

use std::{os::unix::net::UnixListener, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

pub use self::{error::HandoverError, metrics::Metrics};
use self::{
    folder::{Folder, HEIR, LEADER, Lock},
    heir::Progress,
    metrics::Role,
};
use crate::credentials::Store;

/// How often an agent looks whether it is its turn.
const LOOK: Duration = Duration::from_millis(50);
/// How long the leader's credentials are waited for before the agent starts without. It may stand still, which must
/// not keep its heir from serving.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the last words of an agent may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where agents of one node meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A folder of root's, made if need be.
    pub dir: PathBuf,
    /// Whether somebody has named it. If not, and it cannot be had, the agent does without.
    pub is_named: bool,
}

/// The place where agents meet, found to be safe; or none, and then each keeps to itself.
pub struct Handover(Option<(Arc<Folder>, Metrics)>);

/// One agent's part in a meeting.
struct Meeting {
    folder: Arc<Folder>,
    metrics: Metrics,
    role: watch::Sender<Role>,
    left: watch::Receiver<bool>,
}

/// An agent's place in the queue. Dropped, it is given up at once.
pub struct Seat {
    leaving: watch::Sender<bool>,
    role: watch::Receiver<Role>,
    /// What goes on meanwhile; nothing if the agent keeps to itself.
    task: Option<AbortOnDropHandle<()>>,
}

impl Handover {
    /// Looks at the place. One that cannot be had is no error if nobody has named it.
    ///
    /// # Errors
    ///
    /// When it cannot be had, or somebody else could have prepared it.
    pub fn open(config: Option<&Config>, metrics: Metrics) -> Result<Self, HandoverError> {
        let Some(config) = config else {
            return Ok(Self(None));
        };
        match Folder::open(&config.dir) {
            Ok(folder) => Ok(Self(Some((Arc::new(folder), metrics)))),
            Err(error) if error.is_harmless() && !config.is_named => {
                tracing::warn!(%error, "credentials will not outlive this agent");
                Ok(Self(None))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until at most one other agent is there, and takes over what that has. An agent that is alone does not
    /// wait. What goes on afterwards does so on `runtime`.
    ///
    /// # Errors
    ///
    /// When something in the folder could be another user's.
    pub async fn join(self, store: Store, runtime: &Handle) -> Result<Seat, HandoverError> {
        let (leaving, left) = watch::channel(false);
        // Nobody is before one that keeps to itself.
        let (role, roles) = watch::channel(Role::Leader);
        let task = match self.0 {
            Some((folder, metrics)) => {
                let meeting = Meeting {
                    folder,
                    metrics,
                    role,
                    left,
                };
                Some(meeting.join(store, runtime).await?)
            }
            None => None,
        };
        Ok(Seat {
            leaving,
            role: roles,
            task,
        })
    }
}

impl Meeting {
    async fn join(
        self,
        store: Store,
        runtime: &Handle,
    ) -> Result<AbortOnDropHandle<()>, HandoverError> {
        let heir = match self.folder.try_lock(HEIR)? {
            Some(lock) => lock,
            None => {
                self.set_role(Role::Waiting);
                tracing::info!(
                    "another agent is about to take over: this one waits until that has happened"
                );
                self.turn(HEIR).await
            }
        };
        let task = match self.folder.try_lock(LEADER)? {
            Some(lock) => {
                let listener = self.folder.listen()?;
                drop(heir);
                runtime.spawn(self.lead(lock, Some(listener), store))
            }
            None => {
                self.set_role(Role::Heir);
                store.set_following(true);
                let (progress, mut learns) = watch::channel(Progress::Learning);
                let task = runtime.spawn(self.succeed(heir, store, progress));
                let settled = learns.wait_for(|progress| *progress == Progress::Settled);
                if timeout(PATIENCE, settled).await.is_err() {
                    tracing::warn!(
                        "the agent before this one does not tell what it has: starting without"
                    );
                }
                task
            }
        };
        Ok(AbortOnDropHandle::new(task))
    }

    /// Follows the leader until it is gone, then leads.
    async fn succeed(self, heir: Lock, store: Store, progress: watch::Sender<Progress>) {
        let mut left = self.left.clone();
        let (last, is_last) = watch::channel(false);
        let follow = heir::follow(
            Arc::clone(&self.folder),
            store.clone(),
            self.metrics.clone(),
            progress,
            is_last,
        );
        let follow = AbortOnDropHandle::new(tokio::spawn(follow));
        let lock = tokio::select! {
            lock = self.turn(LEADER) => lock,
            _ = left.wait_for(|left| *left) => return,
        };
        // What it said last may still be on its way.
        last.send_replace(true);
        if timeout(LAST_WORDS, follow).await.is_err() {
            tracing::warn!("the agent before this one has gone, but its connection has not ended");
        }
        store.set_following(false);
        let listener = self.folder.listen().inspect_err(|error| {
            tracing::error!(%error, "credentials will not outlive this agent");
        });
        drop(heir);
        self.lead(lock, listener.ok(), store).await;
    }

    /// Holds the lead, and tells heirs what there is, until told to leave.
    async fn lead(mut self, _lock: Lock, listener: Option<UnixListener>, store: Store) {
        self.set_role(Role::Leader);
        tracing::info!("leading this node's agents");
        if let Some(listener) = listener {
            let told = leader::lead(listener, store, self.metrics.clone(), self.left.clone()).await;
            if let Err(error) = told {
                tracing::error!(%error, "credentials will not outlive this agent");
            }
        }
        // An error means that whoever would say so is gone.
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
                Err(error) => tracing::debug!(%error, "cannot look whose turn it is"),
            }
            sleep(LOOK).await;
        }
    }
}

impl Seat {
    /// Whether an agent is there that has come before this one.
    pub fn is_heir(&self) -> bool {
        *self.role.borrow() == Role::Heir
    }

    /// Tells the heir the last of what there is to tell, and leaves the lead to it.
    pub async fn leave(self) {
        self.leaving.send_replace(true);
        if let Some(task) = self.task
            && timeout(LAST_WORDS, task).await.is_err()
        {
            tracing::warn!("the agent that comes next does not listen to this one's last words");
        }
    }
}
