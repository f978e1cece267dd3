//! A successor whose connection broke: it says everything again on the next one, perhaps before the
//! leader has noticed.

use std::io;

use tokio::{net::UnixStream, task::JoinHandle};

use super::{
    conversation::{question, until},
    *,
};
use crate::{
    frame::{self, Frame},
    leader::{self, Leader},
    reaching::ReachQuestion,
    said::Said,
};

/// A leader, and what it knows of its successor.
struct Leading {
    leader: Leader,
    said: watch::Receiver<Said>,
    asking: watch::Sender<Option<Arc<ReachQuestion>>>,
    leaving: watch::Sender<bool>,
}

/// The successor's end of one connection.
struct Connection {
    stream: UnixStream,
    leader: JoinHandle<io::Result<()>>,
}

impl Leading {
    fn new() -> Self {
        let (said, heard) = watch::channel(Said::default());
        let (asking, asked) = watch::channel(None);
        let (leaving, left) = watch::channel(false);
        let leader = Leader {
            cache: two_agents().0.cache,
            metrics: Metrics::register(&Registry::new()).unwrap(),
            said,
            asking: asked,
            leaving: left,
        };
        Self {
            leader,
            said: heard,
            asking,
            leaving,
        }
    }

    /// Takes a successor's connection. Whatever that says on it is heard at once.
    async fn connect(&self, number: u64) -> Connection {
        let (ours, stream) = UnixStream::pair().unwrap();
        let leader = self.leader.clone();
        let leader = tokio::spawn(leader::converse(leader, number, ours));
        let is_begun = || self.said.borrow().connection >= Some(number);
        until("the connection counts", is_begun).await;
        Connection { stream, leader }
    }

    fn serves(&self) -> bool {
        self.said.borrow().serves
    }

    fn is_extended(&self) -> bool {
        self.said.borrow().is_extended
    }
}

impl Connection {
    async fn say_serving(&mut self) {
        frame::say_serving(&mut self.stream).await.unwrap();
    }

    async fn say_extended(&mut self) {
        let sent = frame::send(&mut self.stream, &Frame::Extended).await;
        sent.unwrap();
    }

    /// Breaks it, and waits until the leader has noticed.
    async fn break_off(self) {
        drop(self.stream);
        assert!(self.leader.await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_successor_says_on_its_next_connection_counts_when_the_last_one_ends() {
    let leading = Leading::new();
    let mut broken = leading.connect(1).await;
    broken.say_serving().await;
    until("it serves", || leading.serves()).await;
    let mut next = leading.connect(2).await;
    assert!(!leading.serves(), "it has not said so again");
    next.say_serving().await;
    until("it serves", || leading.serves()).await;
    broken.break_off().await;
    assert!(leading.serves());
    next.break_off().await;
    assert!(!leading.serves());
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_on_a_connection_that_has_been_replaced_does_not_count() {
    let leading = Leading::new();
    let mut replaced = leading.connect(1).await;
    let mut next = leading.connect(2).await;
    replaced.say_serving().await;
    replaced.break_off().await;
    assert!(!leading.serves());
    next.say_serving().await;
    until("it serves", || leading.serves()).await;
    // An earlier one, which was greeted late.
    let earlier = leading.connect(0).await;
    assert!(leading.serves());
    earlier.break_off().await;
    assert!(leading.serves());
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_understands_no_questions_is_asked_none_though_another_one_does() {
    for [earlier, extended] in [[2, 1], [1, 2]] {
        let leading = Leading::new();
        let mut first = leading.connect(1).await;
        if extended == 1 {
            first.say_extended().await;
            until("it understands questions", || leading.is_extended()).await;
        }
        let mut second = leading.connect(2).await;
        if extended == 2 {
            second.say_extended().await;
            until("it understands questions", || leading.is_extended()).await;
        }
        leading.asking.send_replace(question(1));
        sleep(SECOND).await;
        leading.leaving.send_replace(true);
        let Connection { mut stream, .. } = if earlier == 1 { first } else { second };
        while let Ok(frame) = frame::receive(&mut stream).await {
            assert!(!matches!(frame, Frame::Reach(_)), "{earlier}");
        }
    }
}
