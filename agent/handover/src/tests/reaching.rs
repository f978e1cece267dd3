//! What the leader asks its successor before it ends, and what it does with the answers.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use podcreds_types::ReachedListeners;

use super::*;
use crate::{
    reaching::{Asker, ReachQuestion},
    said::Said,
};

/// A leader that asks, and the answers that it is given.
struct Asking {
    said: watch::Sender<Said>,
    asking: watch::Sender<Option<Arc<ReachQuestion>>>,
    /// The pods whose listeners the leader reaches.
    reached: Arc<Mutex<Vec<u64>>>,
}

impl Asking {
    fn new(pods: impl IntoIterator<Item = u64>) -> Self {
        let said = watch::Sender::new(Said {
            serves: true,
            is_extended: true,
            ..Said::default()
        });
        Self {
            said,
            asking: watch::Sender::default(),
            reached: Arc::new(Mutex::new(pods.into_iter().collect())),
        }
    }

    /// Has it ask, or wait for a successor that serves and then ask.
    fn start(&self) -> AbortOnDropHandle<()> {
        self.start_until(None)
    }

    fn start_until(&self, end: Option<Instant>) -> AbortOnDropHandle<()> {
        let (said, asking) = (self.said.subscribe(), self.asking.clone());
        let reached = Arc::clone(&self.reached);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let asker = Asker {
                said,
                asking: &asking,
                has_successor: &|| true,
            };
            let reached = || {
                let pods = reached.lock().unwrap().clone();
                async move { pods.into_iter().map(listeners).collect() }
            };
            match end {
                Some(end) => asker.wait(reached, end).await,
                None => asker.ask(reached).await,
            }
        }))
    }

    fn set_reached(&self, pods: &[u64]) {
        *self.reached.lock().unwrap() = pods.to_vec();
    }

    /// The question that the successor was asked last: its number, and the pods in it.
    fn question(&self) -> Option<(u64, Vec<u64>)> {
        let asking = self.asking.borrow();
        let question = asking.as_ref()?;
        let pods = question.listeners.iter().map(|it| it.pod).collect();
        Some((question.number, pods))
    }

    fn answer(&self, number: u64) {
        self.said.send_modify(|said| said.reached = number);
    }
}

fn listeners(pod: u64) -> ReachedListeners {
    ReachedListeners {
        pod,
        netns: 8,
        v4: true,
        v6: true,
        process: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_asks_until_it_reaches_nothing_that_was_not_confirmed() {
    let leader = Asking::new([1, 2]);
    let asks = leader.start();
    sleep(SECOND).await;
    assert_eq!(leader.question(), Some((1, vec![1, 2])));
    leader.set_reached(&[1, 2, 3]);
    sleep(SECOND).await;
    assert_eq!(leader.question(), Some((1, vec![1, 2])), "it has grown");
    leader.answer(1);
    sleep(SECOND).await;
    assert_eq!(leader.question(), Some((2, vec![1, 2, 3])));
    assert!(!asks.is_finished());
    leader.answer(2);
    asks.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_no_longer_reaches_it_does_not_wait_for() {
    let leader = Asking::new([1, 2]);
    let asks = leader.start();
    sleep(SECOND).await;
    leader.set_reached(&[2]);
    sleep(SECOND).await;
    assert_eq!(leader.question(), Some((2, vec![2])));
    // An answer to the first question says nothing about the second one.
    leader.answer(1);
    sleep(SECOND).await;
    assert!(!asks.is_finished());
    leader.set_reached(&[]);
    asks.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_is_lost_while_it_is_asked_is_waited_for_and_asked_again() {
    let leader = Asking::new([1]);
    let waits = leader.start_until(Some(Instant::now() + MINUTE));
    sleep(SECOND).await;
    assert_eq!(leader.question(), Some((1, vec![1])));
    // The connection breaks, and the next one has not said anything yet.
    let before = leader.said.send_replace(Said::default());
    sleep(SECOND).await;
    assert!(!waits.is_finished());
    leader.set_reached(&[1, 2]);
    leader.said.send_replace(before);
    sleep(SECOND).await;
    assert_eq!(leader.question(), Some((2, vec![1, 2])));
    // What it was asked before, it may be asked there once more.
    leader.answer(1);
    sleep(SECOND).await;
    assert!(!waits.is_finished());
    leader.answer(2);
    timeout(SECOND, waits).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn listeners_are_confirmed_whichever_process_is_in_their_namespace() {
    let leader = Asking::new([1]);
    let (said, asking) = (leader.said.subscribe(), leader.asking.clone());
    let process = AtomicU32::new(1);
    let asker = Asker {
        said,
        asking: &asking,
        has_successor: &|| true,
    };
    let asks = asker.ask(|| {
        let process = Some(process.fetch_add(1, Ordering::Relaxed));
        let listeners = ReachedListeners {
            process,
            ..listeners(1)
        };
        async move { vec![listeners] }
    });
    let answers = async {
        sleep(SECOND / 10).await;
        leader.answer(1);
    };
    let both = async { tokio::join!(asks, answers) };
    timeout(SECOND, both).await.unwrap();
    assert_eq!(leader.question(), Some((1, vec![1])));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_not_waited_for() {
    let too_many = Asking::new(0..10_000);
    timeout(SECOND, too_many.start()).await.unwrap().unwrap();
    assert_eq!(too_many.question(), None);
    let earlier_build = Asking::new([1]);
    earlier_build
        .said
        .send_modify(|said| said.is_extended = false);
    timeout(SECOND, earlier_build.start())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(earlier_build.question(), None);
}
