//! The leader's side: it tells the heir what it has.

use std::{io, os::unix::net::UnixListener as StdListener, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    frame::{self, Frame},
    metrics::Metrics,
    peer,
};
use crate::credentials::Store;

/// How long the heir may take to greet, or to read a frame.
const PATIENCE: Duration = Duration::from_secs(2);
/// Heirs at once. There is one, and perhaps another that has not noticed yet that its connection broke.
const HEIRS: usize = 4;
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An agent that tells what it has.
#[derive(Clone)]
pub(super) struct Leader {
    pub(super) store: Store,
    pub(super) metrics: Metrics,
    /// Turns true when an heir says that it serves.
    pub(super) heir_serves: watch::Sender<bool>,
    pub(super) leaving: watch::Receiver<bool>,
}

impl Leader {
    /// Tells every heir that comes, until it is leaving and each has heard everything.
    pub(super) async fn lead(self, listener: StdListener) -> io::Result<()> {
        let listener = UnixListener::from_std(listener)?;
        let mut leaving = self.leaving.clone();
        let mut heirs = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = heirs.join_next() => continue,
                _ = leaving.wait_for(|leaving| *leaving) => break,
            };
            match accepted {
                Ok((stream, _)) if heirs.len() < HEIRS => {
                    let leader = self.clone();
                    heirs.spawn(Conversation { leader, stream }.hold());
                }
                Ok(_) => tracing::warn!("too many agents want to be told what this one has"),
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of the agent that comes next");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        while heirs.join_next().await.is_some() {}
        Ok(())
    }
}

/// What is said to one heir.
struct Conversation {
    leader: Leader,
    stream: UnixStream,
}

impl Conversation {
    /// Serves the heir, and notes how that ended.
    async fn hold(mut self) {
        match self.welcome().await {
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
        if let Err(error) = self.tell().await {
            tracing::info!(%error, "the agent that comes next no longer listens");
            self.leader.heir_serves.send_replace(false);
        }
    }

    /// Greets the heir, and hears which version it speaks.
    async fn welcome(&mut self) -> io::Result<u16> {
        peer::check(&self.stream)?;
        in_time(async {
            frame::greet(&mut self.stream).await?;
            frame::hear(&mut self.stream).await
        })
        .await
    }

    /// Tells all there is, then what changes, and at the end that this is the end.
    async fn tell(&mut self) -> io::Result<()> {
        let changes = self.leader.store.changes();
        let mut is_complete = false;
        loop {
            // In this order: what has changed before the end is told before the end.
            let is_last = *self.leader.leaving.borrow_and_update();
            while let Some(change) = changes.take() {
                let Some(bytes) = change.encode() else {
                    continue;
                };
                self.send(Frame::Change(bytes)).await?;
                self.leader.metrics.sent.inc();
            }
            if !is_complete {
                self.send(Frame::Complete).await?;
                is_complete = true;
                tracing::info!("another agent has come that will take over");
            }
            if is_last {
                return self.send(Frame::Leaving).await;
            }
            tokio::select! {
                () = changes.wait() => {}
                _ = self.leader.leaving.changed() => {}
                serves = frame::hear_serving(&mut self.stream) => {
                    serves?;
                    self.leader.heir_serves.send_replace(true);
                }
            }
        }
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
