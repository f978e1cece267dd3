//! The successor's side: it takes in what the leader tells, and tells it what it has got itself.

use std::{collections::HashSet, future::pending, io, sync::Arc, time::Duration};

use podcreds_cache::Cache;
use podcreds_local::check_peer;
use tokio::{
    net::{
        UnixStream,
        unix::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    change::EntryChange,
    changes::Changes,
    folder::HandoverFolder,
    frame::{self, Frame},
    metrics::Metrics,
    reaching::{Reach, ReachQuestion, UntilReached},
};

/// How long the leader may take to greet.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a connection that failed or broke.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest time after connections that made no sense: each has the leader tell it all again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The most entries that are taken in: many times as many as a node has pods.
const MOST: usize = 100_000;

/// How a conversation with the leader ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It has said its last word.
    Left,
    /// It does not speak this agent's version.
    Foreign(u16),
}

/// An agent that takes in what its leader tells.
pub(super) struct Successor {
    pub(super) cache: Arc<Cache>,
    pub(super) metrics: Metrics,
    /// Turns true when the leader has told everything, or never will.
    pub(super) learned: watch::Sender<bool>,
    /// Whether it serves.
    pub(super) serves: watch::Receiver<bool>,
    /// Goes to the listeners that the leader reaches.
    pub(super) reach: Reach,
}

impl Successor {
    /// Takes in what is told, over as many connections as it takes, until `last` turns true and the
    /// leader says nothing any more.
    pub(super) async fn follow(self, folder: Arc<HandoverFolder>, mut last: watch::Receiver<bool>) {
        let mut complaint = None;
        let mut pause = PAUSE;
        loop {
            let heard = match folder.connect().await {
                Ok(Some(stream)) => self.listen(stream).await,
                Ok(None) => Err(io::ErrorKind::NotConnected.into()),
                Err(error) => Err(io::Error::other(error)),
            };
            pause = match &heard {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    (2 * pause).min(LONGEST_PAUSE)
                }
                _ => PAUSE,
            };
            match heard {
                Ok(Ended::Left) => tracing::info!("the agent before this one has left"),
                Ok(Ended::Foreign(theirs)) => {
                    tracing::warn!(
                        ours = frame::VERSION,
                        theirs,
                        "the agent before this one hands over in another version: its credentials are not used"
                    );
                    self.learned.send_replace(true);
                    return;
                }
                // Said once: it is tried again and again.
                Err(error) if complaint != Some(error.kind()) => {
                    tracing::info!(%error, "the agent before this one cannot be heard");
                    complaint = Some(error.kind());
                }
                Err(_) => {}
            }
            tokio::select! {
                biased;
                _ = last.wait_for(|last| *last) => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes in what is told on one connection.
    async fn listen(&self, mut stream: UnixStream) -> io::Result<Ended> {
        check_peer(&stream)?;
        let greeted = timeout(PATIENCE, async {
            frame::greet(&mut stream).await?;
            frame::hear(&mut stream).await
        });
        let theirs = greeted
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if theirs != frame::VERSION {
            return Ok(Ended::Foreign(theirs));
        }
        self.converse(stream).await
    }

    /// Takes in what a leader tells that has been greeted, and speaks to it.
    pub(super) async fn converse(&self, mut stream: UnixStream) -> io::Result<Ended> {
        let (mut from_leader, to_leader) = stream.split();
        let first = frame::receive(&mut from_leader).await?;
        let is_extended = matches!(first, Frame::Extended);
        let (asked, questions) = mpsc::unbounded_channel();
        tokio::select! {
            end = self.take_in(first, from_leader, asked) => end,
            // Never: whether the leader still listens is heard on the other side, after all that it
            // has said.
            never = async {
                let _error = self.speak(to_leader, is_extended, questions).await;
                pending().await
            } => never,
        }
    }

    /// Says that this agent serves, once it does. To a leader that understands it, also tells what
    /// this agent gets itself, and answers questions.
    async fn speak(
        &self,
        mut to_leader: WriteHalf<'_>,
        is_extended: bool,
        mut questions: mpsc::UnboundedReceiver<ReachQuestion>,
    ) -> io::Result<()> {
        let mut serves = self.serves.clone();
        let mut is_said = false;
        let mut changes = Changes::own_of(&self.cache);
        let mut answer: Option<(u64, UntilReached)> = None;
        if is_extended {
            frame::send(&mut to_leader, &Frame::Extended).await?;
        }
        loop {
            for _ in 0..changes.waiting() {
                let told = changes
                    .take()
                    .filter(|it| is_extended && it.snapshot.is_some());
                if let Some(bytes) = told.and_then(|change| change.in_a_frame()) {
                    frame::send(&mut to_leader, &Frame::Change(bytes)).await?;
                    self.metrics.sent.inc();
                }
            }
            tokio::select! {
                () = changes.wait() => {}
                is_serving = turns_true(&mut serves), if !is_said => {
                    is_said = true;
                    if is_serving {
                        frame::say_serving(&mut to_leader).await?;
                    }
                }
                // Before it serves, it has no listeners of its own that it could go by.
                Some(ReachQuestion { number, listeners }) = questions.recv(), if is_said => {
                    answer = Some((number, (self.reach)(listeners)));
                }
                number = reached(&mut answer) => {
                    answer = None;
                    frame::send(&mut to_leader, &Frame::Reached(number)).await?;
                }
            }
        }
    }

    async fn take_in(
        &self,
        first: Frame,
        mut from_leader: ReadHalf<'_>,
        asked: mpsc::UnboundedSender<ReachQuestion>,
    ) -> io::Result<Ended> {
        let mut first = Some(first);
        let started = Instant::now();
        let (mut told, mut kept) = (HashSet::new(), 0);
        let mut is_complete = false;
        let mut has_complained = false;
        loop {
            let frame = match first.take() {
                Some(first) => first,
                None => frame::receive(&mut from_leader).await?,
            };
            let skipped = match frame {
                Frame::Change(bytes) => match EntryChange::decode(&bytes) {
                    Some(_) if !is_complete && told.len() >= MOST => Some("there are too many"),
                    Some(change) => {
                        self.metrics.received.inc();
                        if !is_complete {
                            told.insert(change.subject);
                        }
                        kept += usize::from(self.take(change));
                        None
                    }
                    None => {
                        // What was told of it before is no longer true.
                        if let Some(gone) = EntryChange::gone_by(&bytes) {
                            self.take(gone);
                        }
                        Some("it cannot be read")
                    }
                },
                Frame::Extended => None,
                Frame::Reach(bytes) => match ReachQuestion::decode(&bytes) {
                    // An error means that this connection ends.
                    Some(question) => asked.send(question).err().map(|_| "nobody answers"),
                    None => Some("it cannot be read"),
                },
                Frame::Reached(_) => Some("only a successor says that"),
                Frame::Unknown(why) => Some(why),
                Frame::Complete => {
                    is_complete = true;
                    // What an earlier connection has told may not be true any more.
                    self.cache.disown_all_but(&std::mem::take(&mut told));
                    self.learned.send_replace(true);
                    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(
                        entries = kept,
                        ms,
                        "took in the credentials of the agent before this one"
                    );
                    None
                }
                Frame::Leaving => return Ok(Ended::Left),
            };
            if let Some(why) = skipped {
                self.metrics.received_skipped.inc();
                // Said once a connection, and counted each time.
                if !has_complained {
                    tracing::warn!(why, "passed over what the agent before this one has told");
                    has_complained = true;
                }
            }
        }
    }

    /// Takes in one change. True if there are credentials of the leader now.
    fn take(&self, change: EntryChange) -> bool {
        match change.snapshot {
            Some(snapshot) => self.cache.inherit(change.subject, snapshot),
            None => {
                self.cache.disown(&change.subject);
                false
            }
        }
    }
}

/// Waits until it is true. False if nobody can say so any more.
async fn turns_true(value: &mut watch::Receiver<bool>) -> bool {
    value.wait_for(|value| *value).await.is_ok()
}

/// Waits until the listeners of a question are reached. Which question it was.
async fn reached(answer: &mut Option<(u64, UntilReached)>) -> u64 {
    match answer {
        Some((number, reaching)) => {
            reaching.await;
            *number
        }
        None => pending().await,
    }
}
