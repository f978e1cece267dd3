//! The leader's side: it tells the heir what it has.

use std::{io, os::unix::net::UnixListener as StdListener, time::Duration};

use tokio::{
    io::AsyncReadExt,
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

/// Tells every heir that comes, until `leaving` turns true and each has heard everything.
pub(super) async fn lead(
    listener: StdListener,
    store: Store,
    metrics: Metrics,
    mut leaving: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let mut heirs = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = heirs.join_next() => continue,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        match accepted {
            Ok((stream, _)) if heirs.len() < HEIRS => {
                let (store, metrics) = (store.clone(), metrics.clone());
                heirs.spawn(attend(stream, store, metrics, leaving.clone()));
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

/// Serves one heir, and notes how that ended.
async fn attend(
    mut stream: UnixStream,
    store: Store,
    metrics: Metrics,
    leaving: watch::Receiver<bool>,
) {
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
            return tracing::warn!(%error, "somebody who is no agent of this node's asks for its credentials, and gets none");
        }
    }
    match tell(&mut stream, &store, &metrics, leaving).await {
        Ok(()) => {}
        Err(error) => tracing::info!(%error, "the agent that comes next no longer listens"),
    }
}

/// Greets the heir, and hears which version it speaks.
async fn welcome(stream: &mut UnixStream) -> io::Result<u16> {
    peer::check(stream)?;
    in_time(async {
        frame::greet(stream).await?;
        frame::hear(stream).await
    })
    .await
}

/// Tells all there is, then what changes, and at the end that this is the end.
async fn tell(
    stream: &mut UnixStream,
    store: &Store,
    metrics: &Metrics,
    mut leaving: watch::Receiver<bool>,
) -> io::Result<()> {
    let changes = store.changes();
    let mut is_complete = false;
    loop {
        // In this order: what has changed before the end is told before the end.
        let is_last = *leaving.borrow_and_update();
        while let Some(change) = changes.take() {
            let Some(bytes) = change.encode() else {
                continue;
            };
            in_time(frame::send(stream, &Frame::Change(bytes))).await?;
            metrics.sent.inc();
        }
        if !is_complete {
            in_time(frame::send(stream, &Frame::Complete)).await?;
            is_complete = true;
            tracing::info!("another agent has come that will take over");
        }
        if is_last {
            return in_time(frame::send(stream, &Frame::Leaving)).await;
        }
        tokio::select! {
            () = changes.wait() => {}
            _ = leaving.changed() => {}
            // The heir has nothing to say.
            _ = stream.read_u8() => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
