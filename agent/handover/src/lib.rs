//! Agents of one node that follow each other, as in an update.
//!
//! They queue at two locks. The agent that holds the first is the *leader*: it has the credentials,
//! renews them, and tells the *successor*, which holds the second lock, everything that it has and
//! that changes (`leader.rs`, `changes.rs`). The successor serves pods beside the leader
//! (`successor.rs`), and leads once that is gone, however it went: a lock ends with its holder. A
//! third agent *waits* (`member.rs`).
//!
//! So there are never more than two that serve, and the order of the queue is the only one there
//! is. Credentials go from memory to memory through a socket that only root can reach (`frame.rs`).

mod change;
mod changes;
mod error;
mod folder;
mod frame;
#[cfg(test)]
mod fuzz;
mod leader;
mod lender;
mod member;
mod metrics;
mod reaching;
mod said;
mod successor;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

pub use self::{
    error::HandoverError,
    lender::{Lend, Predecessor},
    metrics::Metrics,
    reaching::{Reach, UntilReached},
};
use podcreds_cache::Cache;
use podcreds_types::{ReachedListeners, Vitals};

use self::{
    folder::{HandoverFolder, Lock, SUCCESSOR},
    member::Member,
    metrics::Role,
    reaching::{Asker, ReachQuestion},
    said::Said,
};

/// How often an agent looks whether it is its turn.
const LOOK: Duration = Duration::from_millis(50);
/// How long a leader that is told to end waits for a successor altogether.
const LONGEST_WAIT: Duration = reaching::SUCCESSOR_PATIENCE.saturating_add(reaching::PATIENCE);
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

/// Looks at a folder in which agents could meet, and changes nothing. False if it is not there: an
/// agent makes it.
///
/// # Errors
///
/// When an agent would not use it.
pub fn check(dir: &Path) -> Result<bool, HandoverError> {
    match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        _ => HandoverFolder::open(dir)?.check_sockets().map(|()| true),
    }
}

/// Told why the agent goes on without handing over what it has.
pub type OnDegraded = Box<dyn Fn(&HandoverError) + Send + Sync>;

/// The place where agents meet, found to be safe; or none, and then each keeps to itself.
pub struct Handover {
    opened: Option<Opened>,
    role: watch::Sender<Role>,
}

/// What an agent is to the others on its node, also before it has joined them.
#[derive(Clone)]
pub struct CurrentRole(watch::Receiver<Role>);

impl CurrentRole {
    /// In a word: `leader`, `successor` or `waiting`. One that keeps to itself is the leader.
    pub fn name(&self) -> &'static str {
        self.0.borrow().name()
    }
}

struct Opened {
    folder: Arc<HandoverFolder>,
    metrics: Metrics,
    optional: Optional,
    /// The successor's lock, if it was free: the leader knows from here on that an agent is
    /// coming.
    successor: Option<Lock>,
}

/// An agent's place in the queue. Dropped, it is given up at once.
pub struct Membership {
    leaving: watch::Sender<bool>,
    serving: watch::Sender<bool>,
    role: watch::Receiver<Role>,
    /// What the successor says.
    said: watch::Receiver<Said>,
    /// What it is asked.
    asking: watch::Sender<Option<Arc<ReachQuestion>>>,
    /// Where the agents meet, and what goes on there meanwhile; nothing if the agent keeps to
    /// itself.
    member: Option<(Arc<HandoverFolder>, AbortOnDropHandle<()>)>,
}

/// Whether the agent goes on when the place cannot be used.
struct Optional {
    is_named: bool,
    on_degraded: OnDegraded,
}

impl Optional {
    /// What there is, or `None` where the agent goes on without.
    fn unless_named<T>(
        &self,
        result: Result<T, HandoverError>,
    ) -> Result<Option<T>, HandoverError> {
        match result {
            Ok(there) => Ok(Some(there)),
            Err(error) if self.is_named => Err(error),
            Err(error) => {
                self.go_on_without(&error);
                Ok(None)
            }
        }
    }

    /// Says that the agent goes on, and that credentials end with it.
    fn go_on_without(&self, error: &HandoverError) {
        // Somebody may be after the credentials of the node's pods.
        if error.is_unsafe() {
            tracing::error!(%error, "not safe to be used: credentials will not outlive this agent");
        } else {
            tracing::warn!(%error, "credentials will not outlive this agent");
        }
        (self.on_degraded)(error);
    }
}

impl Handover {
    /// Looks at the place. One that cannot be used is no error if nobody has named it: the agent
    /// then keeps to itself.
    ///
    /// # Errors
    ///
    /// When it was named and cannot be had, or somebody else could have prepared it.
    pub fn open(
        config: Option<&Config>,
        metrics: Metrics,
        on_degraded: OnDegraded,
    ) -> Result<Self, HandoverError> {
        // Nobody is before one that keeps to itself.
        let role = watch::Sender::new(Role::Leader);
        let Some(config) = config else {
            return Ok(Self { opened: None, role });
        };
        let optional = Optional {
            is_named: config.is_named,
            on_degraded,
        };
        let opened = HandoverFolder::open(&config.dir).and_then(|folder| {
            let successor = folder.try_lock(SUCCESSOR)?;
            Ok((folder, successor))
        });
        let opened = optional.unless_named(opened)?;
        let opened = opened.map(|(folder, successor)| Opened {
            folder: Arc::new(folder),
            metrics,
            optional,
            successor,
        });
        if opened.is_some() {
            role.send_replace(Role::Waiting);
        }
        Ok(Self { opened, role })
    }

    /// What this agent is to the others, from here on.
    pub fn standing(&self) -> CurrentRole {
        CurrentRole(self.role.subscribe())
    }

    /// The way to the agent that was here before.
    pub fn predecessor(&self) -> Predecessor {
        Predecessor(
            self.opened
                .as_ref()
                .map(|opened| Arc::clone(&opened.folder)),
        )
    }

    /// Waits until at most one other agent is there, and takes over what that has. An agent that is
    /// alone does not wait. What goes on afterwards does so on `runtime`, and is vital: the next
    /// agent is told what is in `cache`, and lent what `lend` lends. `reach` goes to the listeners
    /// that the agent before this one reaches.
    ///
    /// # Errors
    ///
    /// When the folder was named and cannot be used, or something in it could be another user's.
    pub async fn join(
        self,
        cache: Arc<Cache>,
        lend: Lend,
        reach: Reach,
        vitals: &Vitals,
        runtime: &Handle,
    ) -> Result<Membership, HandoverError> {
        let (leaving, left) = watch::channel(false);
        let (serving, serves) = watch::channel(false);
        let (successor_says, said) = watch::channel(Said::default());
        let (asking, asked) = watch::channel(None);
        let (role, roles) = (self.role.clone(), self.role.subscribe());
        let member = match self.opened {
            Some(opened) => {
                let folder = Arc::clone(&opened.folder);
                let member = Member {
                    folder: opened.folder,
                    metrics: opened.metrics,
                    cache,
                    lend,
                    vitals: vitals.clone(),
                    role,
                    left,
                    serves,
                    reach,
                    said: successor_says,
                    asking: asked,
                    optional: opened.optional,
                };
                let task = member.join(opened.successor, runtime).await?;
                task.map(|task| (folder, task))
            }
            None => None,
        };
        if member.is_none() {
            self.role.send_replace(Role::Leader);
        }
        Ok(Membership {
            leaving,
            serving,
            role: roles,
            said,
            asking,
            member,
        })
    }
}

impl Membership {
    /// Lets the leader know that this agent serves.
    pub fn serve(&self) {
        self.serving.send_replace(true);
    }

    /// Whether an agent is there that has come before this one.
    fn is_successor(&self) -> bool {
        *self.role.borrow() == Role::Successor
    }

    /// Waits until an agent that has come to take over serves, and reaches each listener that this
    /// one reaches by `reached`: the one who told this agent to end may not have waited for that.
    /// No longer than `at_most`, nor for ever, and not at all if there is none.
    pub async fn wait_for_successor<F>(&self, reached: impl Fn() -> F, at_most: Duration)
    where
        F: Future<Output = Vec<ReachedListeners>>,
    {
        if self.is_successor() {
            return;
        }
        let asker = Asker {
            said: self.said.clone(),
            asking: &self.asking,
            has_successor: &|| self.has_successor(),
        };
        let end = Instant::now() + at_most.min(LONGEST_WAIT);
        asker.wait(reached, end).await;
    }

    /// Whether another agent serves the pods of this node, or is about to.
    pub fn has_other_agent(&self) -> bool {
        self.is_successor() || self.has_successor()
    }

    fn has_successor(&self) -> bool {
        let folder = self.member.as_ref().map(|(folder, _)| folder);
        folder.is_some_and(|folder| matches!(folder.try_lock(SUCCESSOR), Ok(None)))
    }

    /// Tells the successor the last of what there is to tell, and leaves the lead to it.
    pub async fn leave(self) {
        self.leaving.send_replace(true);
        if let Some((_, task)) = self.member
            && timeout(LAST_WORDS, task).await.is_err()
        {
            tracing::warn!("the agent that comes next does not listen to this one's last words");
        }
    }
}
