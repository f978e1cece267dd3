//! The leader's side: it tells the successor what it has, and learns what that has got itself.

use std::{
    convert::Infallible, io, os::unix::net::UnixListener as StdListener, sync::Arc, time::Duration,
};

use podcreds_cache::Cache;
use podcreds_local::check_peer;
use tokio::{
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    change::EntryChange,
    changes::Changes,
    frame::{self, Frame},
    metrics::Metrics,
    reaching::ReachQuestion,
    said::{Said, SaidHere},
};

/// How long the successor may take to greet, or to read a frame.
const PATIENCE: Duration = Duration::from_secs(2);
/// Successors at once. There is one, and perhaps another that has not noticed yet that its
/// connection broke.
const SUCCESSORS: usize = 4;
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An agent that tells what it has.
#[derive(Clone)]
pub(super) struct Leader {
    pub(super) cache: Arc<Cache>,
    pub(super) metrics: Metrics,
    /// What the successor says.
    pub(super) said: watch::Sender<Said>,
    /// What it is to be asked.
    pub(super) asking: watch::Receiver<Option<Arc<ReachQuestion>>>,
    pub(super) leaving: watch::Receiver<bool>,
}

impl Leader {
    /// Tells every successor that comes, until it is leaving and each has heard everything.
    pub(super) async fn lead(self, listener: StdListener) -> io::Result<()> {
        let listener = UnixListener::from_std(listener)?;
        let mut leaving = self.leaving.clone();
        let mut successors = JoinSet::new();
        let mut connection = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = successors.join_next() => continue,
                _ = leaving.wait_for(|leaving| *leaving) => break,
            };
            match accepted {
                Ok((stream, _)) if successors.len() < SUCCESSORS => {
                    let leader = self.clone();
                    successors.spawn(hold(leader, connection, stream));
                    connection += 1;
                }
                Ok(_) => tracing::warn!("too many agents want to be told what this one has"),
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of the agent that comes next");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        while successors.join_next().await.is_some() {}
        Ok(())
    }
}

/// Serves a successor, and notes how that ended.
async fn hold(leader: Leader, connection: u64, mut stream: UnixStream) {
    match welcome(&mut stream).await {
        Ok(frame::VERSION) => {}
        Ok(theirs) => {
            return tracing::warn!(
                ours = frame::VERSION,
                theirs,
                "another agent hands over in another version: it gets no credentials from this one"
            );
        }
        Err(error) => {
            return tracing::warn!(
                %error,
                "somebody who is no agent of this node's asks for its credentials, and gets none"
            );
        }
    }
    if let Err(error) = converse(leader, connection, stream).await {
        tracing::info!(%error, "the agent that comes next no longer listens");
    }
}

/// Tells a successor that has been greeted what there is, and takes in what that says.
pub(super) async fn converse(
    leader: Leader,
    connection: u64,
    stream: UnixStream,
) -> io::Result<()> {
    let (from_successor, to_successor) = stream.into_split();
    let said = SaidHere::begin(&leader.said, connection);
    let learning = learn(leader.clone(), said.clone(), from_successor);
    let mut conversation = Conversation {
        leader,
        said: said.clone(),
        stream: to_successor,
    };
    let ended = tokio::select! {
        told = conversation.tell() => told,
        learned = learning => learned.map(|never| match never {}),
    };
    if ended.is_err() {
        said.forget();
    }
    ended
}

/// Greets the successor, and hears which version it speaks.
async fn welcome(stream: &mut UnixStream) -> io::Result<u16> {
    check_peer(stream)?;
    in_time(async {
        frame::greet(stream).await?;
        frame::hear(stream).await
    })
    .await
}

/// Takes in what a successor says, for as long as it does.
async fn learn(
    leader: Leader,
    said: SaidHere,
    mut from_successor: OwnedReadHalf,
) -> io::Result<Infallible> {
    loop {
        match frame::hear_successor(&mut from_successor).await? {
            None => said.note(|said| said.serves = true),
            Some(Frame::Extended) => said.note(|said| said.is_extended = true),
            Some(Frame::Reached(number)) => said.note(|said| {
                said.reached = said.reached.max(number);
            }),
            Some(Frame::Change(bytes)) => match EntryChange::decode(&bytes) {
                Some(EntryChange {
                    subject,
                    snapshot: Some(snapshot),
                }) => {
                    leader.metrics.received.inc();
                    leader.cache.learn(subject, snapshot);
                }
                // What it does not have any more is no news here.
                Some(_) => {}
                None => leader.metrics.received_skipped.inc(),
            },
            Some(_) => leader.metrics.received_skipped.inc(),
        }
    }
}

/// What is said to one successor.
struct Conversation {
    leader: Leader,
    said: SaidHere,
    stream: OwnedWriteHalf,
}

impl Conversation {
    /// Tells all there is, then what changes, and at the end that this is the end.
    async fn tell(&mut self) -> io::Result<()> {
        self.send(Frame::Extended).await?;
        let mut said = self.leader.said.subscribe();
        let mut asked = 0;
        let mut changes = Changes::of(&self.leader.cache);
        let mut is_complete = false;
        let mut has_complained = false;
        loop {
            // In this order: what has changed before the end is told before the end.
            let is_last = *self.leader.leaving.borrow_and_update();
            // No more than what waits by now: what changes all the time must not keep the rest from
            // being said.
            for _ in 0..changes.waiting() {
                let Some(change) = changes.take() else {
                    break;
                };
                let told = match change.in_a_frame() {
                    Some(bytes) => Some(bytes),
                    None => {
                        self.leader.metrics.sent_skipped.inc();
                        // Said once a connection, and counted each time.
                        if !has_complained {
                            tracing::warn!(
                                "credentials that are too long to be handed over are passed over: \
                                 the next agent will fetch them"
                            );
                            has_complained = true;
                        }
                        // What it was told of them before is no longer true.
                        EntryChange::gone(change.subject).in_a_frame()
                    }
                };
                if let Some(bytes) = told {
                    self.send(Frame::Change(bytes)).await?;
                    self.leader.metrics.sent.inc();
                }
            }
            if !is_complete {
                self.send(Frame::Complete).await?;
                is_complete = true;
                tracing::info!("another agent has come that will take over");
            }
            if is_last {
                return self.send(Frame::Leaving).await;
            }
            let is_extended = self.said.is_extended(&said.borrow_and_update());
            asked = self.ask(asked, is_extended).await?;
            tokio::select! {
                () = changes.wait() => {}
                _ = self.leader.leaving.changed() => {}
                Ok(()) = self.leader.asking.changed() => {}
                Ok(()) = said.changed() => {}
            }
        }
    }

    /// Asks what there is to ask, if that is newer than what was `asked` before, and the successor
    /// understands it. Says which question was the last.
    async fn ask(&mut self, asked: u64, is_extended: bool) -> io::Result<u64> {
        let question = self.leader.asking.borrow_and_update().clone();
        let Some(question) = question.filter(|it| is_extended && it.number > asked) else {
            return Ok(asked);
        };
        if let Some(bytes) = question.encode() {
            self.send(Frame::Reach(bytes)).await?;
        }
        Ok(question.number)
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        in_time(frame::send(&mut self.stream, &frame)).await
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use podcreds_cache::{self as cache, Clock};
    use prometheus::Registry;
    use serde_json::{Value, json};

    use super::*;

    /// The credentials of a pod, with a body of so many bytes.
    fn change(pod: u8, length: usize) -> EntryChange {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let time = |hours: u64| {
            let seconds = now.as_secs() + hours * 3600;
            json!({ "secs_since_epoch": seconds, "nanos_since_epoch": 0 })
        };
        let change = json!({
            "subject": { "pod": pod },
            "kept": {
                "body": "x".repeat(length),
                "fetched": time(0),
                "refresh_at": time(3),
                "stale_at": time(5),
                "expiration": time(6),
                "latest": null,
                "older": [],
                "renewing": null,
                "asked": true,
                "failures": 0,
            },
        });
        EntryChange::decode(change.to_string().as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn credentials_that_are_too_long_are_passed_over() {
        let metrics = cache::Metrics::register(&Registry::new()).unwrap();
        let config = cache::Config {
            capacity: 10,
            retention: Duration::from_secs(3600),
        };
        let cache = Arc::new(Cache::new(config, Clock::default(), metrics));
        for (pod, length) in [(1, 100), (2, frame::LONGEST as usize), (3, 100)] {
            let EntryChange { subject, snapshot } = change(pod, length);
            assert!(cache.inherit(subject, snapshot.unwrap()));
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let leader = Leader {
            cache,
            metrics: Metrics::register(&Registry::new()).unwrap(),
            said: watch::Sender::default(),
            asking: watch::Sender::default().subscribe(),
            leaving: watch::Sender::new(true).subscribe(),
        };
        let skipped = leader.metrics.sent_skipped.clone();
        let (_from_successor, to_successor) = ours.into_split();
        let mut conversation = Conversation {
            said: SaidHere::begin(&leader.said, 0),
            leader,
            stream: to_successor,
        };
        let telling = tokio::spawn(async move { conversation.tell().await });
        let first = frame::receive(&mut theirs).await;
        assert!(matches!(first, Ok(Frame::Extended)));
        let mut heard = Vec::new();
        while let Frame::Change(bytes) = frame::receive(&mut theirs).await.unwrap() {
            let change: Value = serde_json::from_slice(&bytes).unwrap();
            heard.push(change["kept"].is_object());
        }
        // The second one is told as gone, so that no older copy of it is used.
        assert_eq!(heard, [true, false, true]);
        assert!(matches!(
            frame::receive(&mut theirs).await,
            Ok(Frame::Leaving)
        ));
        telling.await.unwrap().unwrap();
        assert_eq!(skipped.get(), 1);
    }
}
