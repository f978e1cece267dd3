//! Whether the successor reaches the listeners that the leader reaches: a leader that is told to
//! end asks, so that no pod is left with an agent that it cannot reach yet.

use std::{collections::HashSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use podcreds_types::ReachedListeners;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{LOOK, frame::LONGEST, said::Said};

/// How long a leader that is told to end waits for a successor that does not serve yet.
pub(super) const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(10);

/// How long a leader waits for its successor to reach what it reaches. On a machine that has
/// anything to spare it takes milliseconds; what takes longer than this is not reached at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// How long after a question the leader looks whether it still reaches all that it has asked about:
/// some of it may have ended.
const REVISE: Duration = Duration::from_millis(500);

/// Ends when this agent reaches these listeners too, or their pods are gone.
pub type Reach = Arc<dyn Fn(Vec<ReachedListeners>) -> UntilReached + Send + Sync>;

/// An agent on its way to listeners.
pub type UntilReached = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the leader asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReachQuestion {
    /// Names it in the answer.
    pub(super) number: u64,
    pub(super) listeners: Vec<ReachedListeners>,
}

/// What becomes of a question.
enum Outcome {
    /// The successor reaches all of it.
    Reached,
    /// The leader itself reaches no more than this by now.
    Outdated(Vec<ReachedListeners>),
    /// Nobody will answer it.
    Dropped,
}

impl ReachQuestion {
    /// The question in bytes, unless there are too many of them for a frame.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let bytes = serde_json::to_vec(self).ok()?;
        (bytes.len() <= LONGEST as usize).then_some(bytes)
    }

    /// Reads a question. `None` if these are not the bytes of one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Asks the successor.
pub(super) struct Asker<'a> {
    /// What it says.
    pub(super) said: watch::Receiver<Said>,
    /// What it is asked.
    pub(super) asking: &'a watch::Sender<Option<Arc<ReachQuestion>>>,
    /// Whether there is one.
    pub(super) has_successor: &'a (dyn Fn() -> bool + Sync),
}

impl Asker<'_> {
    /// Waits until there is no successor, or it serves and reaches each listener that this agent
    /// reaches by `reached`. To that end at the latest, and not for long at all.
    pub(super) async fn wait<F>(&self, reached: impl Fn() -> F, end: Instant)
    where
        F: Future<Output = Vec<ReachedListeners>>,
    {
        while self.serves_in_time(end).await {
            let end = end.min(Instant::now() + PATIENCE);
            if timeout_at(end, self.ask(&reached)).await.is_err() {
                tracing::warn!(
                    "the agent that comes next does not reach all pods that this one reaches: not \
                     waiting any longer"
                );
            }
            // It is late again if its connection broke meanwhile, or another one took its place.
            if !self.is_late() {
                return;
            }
        }
    }

    /// Waits until the successor serves, if there is one. False if it does not.
    async fn serves_in_time(&self, end: Instant) -> bool {
        if !self.is_late() {
            return true;
        }
        tracing::info!("the agent that comes next does not serve yet: waiting for it");
        let end = end.min(Instant::now() + SUCCESSOR_PATIENCE);
        let serves = timeout_at(end, async {
            while self.is_late() {
                sleep(LOOK).await;
            }
        });
        let is_in_time = serves.await.is_ok();
        if !is_in_time {
            tracing::warn!(
                "the agent that comes next still does not serve: not waiting any longer"
            );
        }
        is_in_time
    }

    /// Whether there is a successor that does not serve yet.
    fn is_late(&self) -> bool {
        !self.said.borrow().serves && (self.has_successor)()
    }

    /// Asks until the successor reaches all that is reached here, or cannot be asked.
    pub(super) async fn ask<F>(&self, reached: impl Fn() -> F)
    where
        F: Future<Output = Vec<ReachedListeners>>,
    {
        if !self.can_answer() {
            return;
        }
        let mut confirmed: HashSet<ReachedListeners> = HashSet::new();
        let mut listeners = reached().await;
        // Of an answer it must be clear which question it is for, also on the next connection.
        let last = self.asking.borrow().as_ref().map_or(0, |it| it.number);
        for number in last + 1.. {
            // Which process is in a namespace may change all the time.
            let is_confirmed = |it: &ReachedListeners| confirmed.contains(&it.without_process());
            if listeners.iter().all(is_confirmed) {
                return;
            }
            let question = Arc::new(ReachQuestion { number, listeners });
            if question.encode().is_none() {
                tracing::warn!("there are too many pods to ask the agent that comes next about");
                return;
            }
            self.asking.send_replace(Some(Arc::clone(&question)));
            listeners = match self.outcome(&question, &reached).await {
                Outcome::Reached => {
                    let answered = question.listeners.iter();
                    confirmed.extend(answered.map(|it| it.without_process()));
                    reached().await
                }
                Outcome::Outdated(listeners) => listeners,
                Outcome::Dropped => return,
            };
        }
    }

    /// Waits for the answer to a question, as long as it is worth one.
    async fn outcome<F>(&self, question: &ReachQuestion, reached: &impl Fn() -> F) -> Outcome
    where
        F: Future<Output = Vec<ReachedListeners>>,
    {
        let mut said = self.said.clone();
        let mut revise_at = Instant::now() + REVISE;
        while self.can_answer() {
            let answer = said.wait_for(|said| said.reached >= question.number);
            let is_answered = async { answer.await.is_ok() };
            match timeout(LOOK, is_answered).await {
                Ok(true) => return Outcome::Reached,
                Ok(false) => return Outcome::Dropped,
                Err(_) if Instant::now() < revise_at => {}
                Err(_) => {
                    let now = reached().await;
                    if !question.listeners.iter().all(|it| now.contains(it)) {
                        return Outcome::Outdated(now);
                    }
                    revise_at = Instant::now() + REVISE;
                }
            }
        }
        // The successor has gone.
        Outcome::Dropped
    }

    fn can_answer(&self) -> bool {
        self.said.borrow().is_extended && (self.has_successor)()
    }
}
