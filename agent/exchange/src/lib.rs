//! Exchanges tokens for credentials at EKS Auth. One task owns all of its state, and takes requests
//! over a channel: no lock, and nothing that two threads could disagree about.
//!
//! 1. [`Exchange::fetch`] sends a request to the task and waits for its answer (`lib.rs`).
//! 2. The task finds out whose credentials the token may have (`admit.rs`, `verification.rs`), and
//!    puts it into its subject's queue (`queue.rs`).
//! 3. A queue has one attempt at a time, which waits for the rate limiter (`attempt.rs`,
//!    `limiter`).
//! 4. What the call brought goes into the cache, and to all who wait (`settle.rs`).
//! 5. A request whose time is up is told what it waits for (`explain.rs`).
//! 6. An operator is told how all of that is going, and may have credentials fetched again
//!    (`report.rs`, `refresh.rs`).

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use podcreds_cache::{Cache, Subject};
use podcreds_keys::VerifyToken;
use podcreds_types::{Claimant, CredentialError, PodUid, Token, Vital, restarted};
use podcreds_upstream::AssumeRole;
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout},
};

mod admit;
mod attempt;
mod body;
mod config;
mod explain;
mod health;
mod last_errors;
mod limiter;
mod limits;
mod metrics;
mod origins;
mod queue;
mod refresh;
mod report;
mod request;
mod settle;
mod task;
mod timers;
mod verification;

pub use config::Config;
pub use last_errors::LastError;
pub use metrics::Metrics;
pub use report::{ExchangeReport, LimiterReport, Told, UpstreamReport};

use request::{Request, TaskCommand};
use task::Task;

/// What a request ends with: the response's body, or why there is none.
pub type RequestResult = Result<Bytes, CredentialError>;

/// What a refresh ends with: there are new credentials, or the reason why not.
pub type Refreshed = Result<(), CredentialError>;

/// How much longer than its time limit a request waits for the task's word.
const GRACE: Duration = Duration::from_secs(1);

const NAME: &str = "the task that exchanges tokens";

/// What the task works with.
#[derive(Clone)]
pub(crate) struct TaskParts {
    pub(crate) config: Config,
    pub(crate) cache: Arc<Cache>,
    pub(crate) keys: Option<Arc<dyn VerifyToken>>,
    pub(crate) upstream: Arc<dyn AssumeRole>,
    pub(crate) metrics: Metrics,
}

/// The way to the task. Clones lead to the same one, which ends when the last of them goes.
#[derive(Clone)]
pub struct Exchange {
    commands: mpsc::UnboundedSender<TaskCommand>,
    client_wait: Duration,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    /// Starts the task on `runtime`, and again after a panic, for which `vital` answers. It renews
    /// what `cache` has, and fetches the rest from `upstream`. With `keys`, a pod's new token has
    /// what the pod's old one got.
    pub fn start(
        config: Config,
        cache: Arc<Cache>,
        keys: Option<Arc<dyn VerifyToken>>,
        upstream: Arc<dyn AssumeRole>,
        metrics: Metrics,
        runtime: &Handle,
        vital: Vital,
    ) -> Self {
        let client_wait = config.client_wait;
        // No longer than there are connections: each waits for one answer.
        let (commands, received) = mpsc::unbounded_channel();
        let received = Arc::new(Mutex::new(received));
        let parts = TaskParts {
            config,
            cache,
            keys,
            upstream,
            metrics,
        };
        let run = move || {
            let (parts, received) = (parts.clone(), Arc::clone(&received));
            async move { Task::new(parts).run(&mut *received.lock().await).await }
        };
        runtime.spawn(async move { restarted(vital, NAME, run).await });
        Self {
            commands,
            client_wait,
        }
    }

    /// The response's body, from EKS Auth if need be. One call goes out for all who wait; the
    /// exchange goes on when they have given up.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Refused`] when EKS Auth will have none of it,
    /// [`CredentialError::NotReady`] when there is no answer within [`Config::client_wait`] and
    /// nothing valid in memory.
    pub async fn fetch(&self, claimant: Claimant, token: Token) -> RequestResult {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            claimant,
            digest: token.digest(),
            token,
            deadline: Instant::now() + self.client_wait,
            reply,
        };
        // Where there is no task to receive it, its answer is missing.
        let _ = self.commands.send(TaskCommand::Get(request));
        match timeout(self.client_wait + GRACE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(CredentialError::not_ready(
                "the agent has given up the exchange, by a fault of its own; it begins again",
            )),
            Err(_) => Err(CredentialError::not_ready(
                "the agent is too busy to say what the exchange waits for",
            )),
        }
    }

    /// How the exchanges are going. `None` if there is no task that could say so.
    pub async fn report(&self) -> Option<ExchangeReport> {
        let (reply, report) = oneshot::channel();
        let _ = self.commands.send(TaskCommand::Report(reply));
        report.await.ok()
    }

    /// Fetches a subject's credentials again, by a call that goes out from here on. They replace
    /// those that there are, however long these would be good for.
    ///
    /// # Errors
    ///
    /// The same as of [`Self::fetch`], but it waits for as long as the exchange goes on trying.
    pub async fn refresh(&self, subject: Subject) -> Refreshed {
        let (reply, refreshed) = oneshot::channel();
        let _ = self.commands.send(TaskCommand::Refresh(subject, reply));
        refreshed.await.unwrap_or_else(|_| {
            Err(CredentialError::not_ready(
                "the pod is gone, or the agent has given up the exchange by a fault of its own",
            ))
        })
    }

    /// Gives up what is in flight for a pod that is gone. What its last requests bring is not kept.
    pub fn forget(&self, pod: PodUid) {
        // A task that has ended keeps nothing.
        let _ = self.commands.send(TaskCommand::Forget(pod));
    }
}
