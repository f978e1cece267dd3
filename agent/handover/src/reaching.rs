//! Whether the successor reaches the listeners that the leader reaches: a leader that is told to
//! end asks, so that no pod is left with an agent that it cannot reach yet.

use std::{collections::HashSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use podcreds_types::ReachedListeners;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{LOOK, Membership};

/// How long a leader waits for its successor to reach what it reaches. On a machine that has
/// anything to spare it takes milliseconds; what takes longer than this is not reached at all.
const PATIENCE: Duration = Duration::from_secs(8);

/// Ends when this agent reaches these listeners too, or their pods are gone.
pub type Reach = Arc<dyn Fn(Vec<ReachedListeners>) -> UntilReached + Send + Sync>;

/// An agent on its way to listeners.
pub type UntilReached = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the leader asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    /// Names it in the answer.
    pub(super) number: u64,
    pub(super) listeners: Vec<ReachedListeners>,
}

/// What the successor has said so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    /// That it serves.
    pub(super) serves: bool,
    /// That it understands questions.
    pub(super) is_extended: bool,
    /// That it reaches all listeners of this question, and of those before.
    pub(super) reached: u64,
}

impl Question {
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// Reads a question. `None` if these are not the bytes of one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Membership {
    /// Waits until the successor reaches each listener that this agent reaches by `reached`, which
    /// is asked again until it has nothing new. Not for ever, and not at all for a successor that
    /// does not understand the question.
    pub async fn wait_until_reached<F>(&self, reached: impl Fn() -> F)
    where
        F: Future<Output = Vec<ReachedListeners>>,
    {
        if self.is_successor() || !self.can_answer() {
            return;
        }
        let waiting = async {
            let mut confirmed = HashSet::new();
            for number in 1.. {
                let listeners = reached().await;
                let before = confirmed.len();
                confirmed.extend(listeners.iter().copied());
                if confirmed.len() == before {
                    return;
                }
                let question = Question { number, listeners };
                self.asking.send_replace(Some(Arc::new(question)));
                let mut said = self.said.clone();
                loop {
                    if !self.can_answer() {
                        return;
                    }
                    let answer = said.wait_for(|said| said.reached >= number);
                    match timeout(LOOK, answer).await {
                        Ok(Ok(_)) => break,
                        Ok(Err(_)) => return,
                        // Its successor may have gone.
                        Err(_) => {}
                    }
                }
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            tracing::warn!(
                "the agent that comes next does not reach all pods that this one reaches: not \
                 waiting any longer"
            );
        }
    }

    fn can_answer(&self) -> bool {
        self.said.borrow().is_extended && self.has_successor()
    }
}
