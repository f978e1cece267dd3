//! A leader and its successor, over a connection.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use podcreds_types::ReachedListeners;
use tokio::{net::UnixStream, task::JoinHandle};

use super::*;
use crate::{
    frame::{self, Frame},
    leader::{self, Leader},
    reaching::ReachQuestion,
    said::Said,
    successor::{Ended, Successor},
};

/// Both sides of a conversation, and what each of them is to say.
struct Conversation {
    leader: Agent,
    successor: Agent,
    said: watch::Sender<Said>,
    asking: watch::Sender<Option<Arc<ReachQuestion>>>,
    leaving: watch::Sender<bool>,
    serving: watch::Sender<bool>,
    /// Whether the successor reaches what it is asked about.
    reaches: Arc<AtomicBool>,
    hearing: JoinHandle<io::Result<Ended>>,
    telling: JoinHandle<io::Result<()>>,
}

impl Conversation {
    fn start() -> Self {
        let (leader, _, successor) = two_agents();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let [leaving, serving] = [(); 2].map(|()| watch::Sender::new(false));
        let (said, asking) = (watch::Sender::default(), watch::Sender::default());
        let reaches = Arc::new(AtomicBool::new(false));
        let lead = Leader {
            cache: Arc::clone(&leader.cache),
            metrics: Metrics::register(&Registry::new()).unwrap(),
            said: said.clone(),
            asking: asking.subscribe(),
            leaving: leaving.subscribe(),
        };
        let follow = Successor {
            cache: Arc::clone(&successor.cache),
            metrics: Metrics::register(&Registry::new()).unwrap(),
            learned: watch::Sender::new(false),
            serves: serving.subscribe(),
            reach: reach_once(&reaches),
        };
        Self {
            leader,
            successor,
            said,
            asking,
            leaving,
            serving,
            reaches,
            hearing: tokio::spawn(async move { follow.converse(theirs).await }),
            telling: tokio::spawn(leader::converse(lead, 0, ours)),
        }
    }
}

/// Reaches any listeners as soon as a flag is set.
fn reach_once(flag: &Arc<AtomicBool>) -> Reach {
    let flag = Arc::clone(flag);
    Arc::new(move |_| {
        let flag = Arc::clone(&flag);
        Box::pin(async move {
            while !flag.load(Relaxed) {
                sleep(SECOND).await;
            }
        })
    })
}

/// Waits until something holds, by clocks that pass the time in which nothing happens.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        sleep(SECOND).await;
    }
    panic!("never: {what}");
}

pub(super) fn question(number: u64) -> Option<Arc<ReachQuestion>> {
    let listeners = vec![ReachedListeners {
        pod: 7,
        netns: 8,
        v4: true,
        v6: false,
        process: None,
    }];
    Some(Arc::new(ReachQuestion { number, listeners }))
}

#[tokio::test(start_paused = true)]
async fn each_tells_the_other_what_it_gets_and_the_leader_says_when_it_leaves() {
    let talk = Conversation::start();
    let both = [&talk.leader, &talk.successor];
    until("the successor knows what the leader has", || {
        talk.successor.entries() == 2
    })
    .await;
    talk.successor.exchange(subject(3), "c");
    talk.leader.exchange(subject(4), "d");
    until("both know all four", || {
        both.iter().all(|agent| agent.entries() == 4)
    })
    .await;
    until("what the successor got is the leader's", || {
        talk.successor.cache.own_snapshot(&subject(3)).is_none()
    })
    .await;
    talk.leader.exchange(subject(5), "e");
    talk.leaving.send_replace(true);
    assert!(talk.telling.await.unwrap().is_ok());
    assert!(matches!(talk.hearing.await.unwrap(), Ok(Ended::Left)));
    assert_eq!(talk.successor.entries(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_successor_says_when_it_serves_and_when_it_reaches_what_it_is_asked_about() {
    let talk = Conversation::start();
    let said = || *talk.said.borrow();
    until("it understands questions", || said().is_extended).await;
    assert!(!said().serves);
    talk.asking.send_replace(question(1));
    talk.reaches.store(true, Relaxed);
    sleep(10 * SECOND).await;
    assert_eq!(said().reached, 0, "it does not serve");
    talk.reaches.store(false, Relaxed);
    talk.serving.send_replace(true);
    until("it serves", || said().serves).await;
    sleep(10 * SECOND).await;
    assert_eq!(said().reached, 0);
    talk.reaches.store(true, Relaxed);
    until("it reaches them", || said().reached == 1).await;
    talk.asking.send_replace(question(2));
    until("it reaches the others", || said().reached == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_of_an_earlier_build_is_heard_and_asked_nothing() {
    let (leader, _, _) = two_agents();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (leaving, said) = (watch::Sender::new(false), watch::Sender::default());
    let lead = Leader {
        cache: Arc::clone(&leader.cache),
        metrics: Metrics::register(&Registry::new()).unwrap(),
        said: said.clone(),
        asking: watch::Sender::new(question(1)).subscribe(),
        leaving: leaving.subscribe(),
    };
    let telling = tokio::spawn(leader::converse(lead, 0, ours));
    frame::say_serving(&mut theirs).await.unwrap();
    until("it serves", || said.borrow().serves).await;
    leaving.send_replace(true);
    telling.await.unwrap().unwrap();
    while let Ok(frame) = frame::receive(&mut theirs).await {
        assert!(!matches!(frame, Frame::Reach(_)));
    }
}
