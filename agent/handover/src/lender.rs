//! What cannot be told is lent: descriptors, over connections of their own.

use std::{
    io,
    os::unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    sync::Arc,
    time::Duration,
};

use podcreds_local::check_peer;
use tokio::{net::UnixListener, time::sleep};

use super::folder::HandoverFolder;

/// How long the leader may take to say what it lends.
const PATIENCE: Duration = Duration::from_secs(1);
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Lends what there is over a connection, and must not block.
pub type Lend = Arc<dyn Fn(StdStream) -> io::Result<()> + Send + Sync>;

/// The way to the agent that was here before.
#[derive(Clone)]
pub struct Predecessor(pub(super) Option<Arc<HandoverFolder>>);

impl Predecessor {
    /// A connection to that agent, over which it lends what it has. May block for a moment.
    ///
    /// # Errors
    ///
    /// When there is none, or somebody else is at the other end.
    pub fn connect(&self) -> io::Result<StdStream> {
        let folder = self.0.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let stream = folder.connect_to_lender()?;
        check_peer(&stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// Lends to every agent that comes.
pub(super) async fn lend_to_all(listener: StdListener, lend: Lend) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "nothing can be lent to the next agent"),
    };
    loop {
        let lent = match listener.accept().await {
            Ok((stream, _)) => check_peer(&stream).and_then(|()| lend(stream.into_std()?)),
            Err(error) => {
                sleep(ACCEPT_PAUSE).await;
                Err(error)
            }
        };
        if let Err(error) = lent {
            tracing::warn!(%error, "cannot lend listeners to the agent that asks");
        }
    }
}
