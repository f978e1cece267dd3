//! A trial of the programs: loaded, attached to one cgroup, and a connect that they redirect.

use std::{
    fs,
    io::{self, ErrorKind},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use podcreds_common::{ASKED_V4, PodEndpoint};
use socket2::{Domain, Socket, Type};

use super::CREDENTIALS;
use crate::{DatapathError, listeners::listener, namespaces::netns, programs::Programs};

/// A connect on the loopback takes microseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether the connection has come.
const LOOK: Duration = Duration::from_millis(5);

/// What went wrong in the trial.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The programs cannot be loaded or attached.
    #[error(transparent)]
    Programs(#[from] DatapathError),
    /// The connect did not arrive at the listener.
    #[error("a connect to {CREDENTIALS} was not redirected: {0}")]
    NotRedirected(io::Error),
    /// It arrived, and the kernel did not say who called.
    #[error("a connect was redirected, but the kernel did not record its caller")]
    NotRecorded,
    /// The machine is out of something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> TrialError {
    move |source| TrialError::Io { what, source }
}

/// Attaches the programs to `cgroup`, in which the calling process must be, and has them redirect a
/// connect of this very process to a listener of its own. Everything is gone when this returns.
///
/// The process should be in a network namespace of its own, with `lo` up, so that nothing but a
/// redirect can let the connect succeed.
///
/// # Errors
///
/// What the kernel refuses, or what the programs did not do.
pub fn try_programs(cgroup: &Path) -> Result<(), TrialError> {
    let id = fs::metadata(cgroup)
        .map_err(failed("looking at the cgroup of the trial"))?
        .ino();
    let loaded = Programs::load()?;
    let mut programs = loaded.programs;
    let mut listener = listener::open_v4(&[]).map_err(failed("listening"))?;
    let tag = |error| TrialError::Io {
        what: "marking a listener",
        source: error,
    };
    programs.tag_listener(&mut listener).map_err(tag)?;
    let endpoint = PodEndpoint {
        netns: netns::current_cookie().map_err(failed("naming the network namespace"))?,
        port4: listener.port,
        port6: 0,
        reported_at: 0,
    };
    programs
        .publish_pod(id, endpoint)
        .map_err(failed("telling the programs of a pod"))?;
    let _links = programs.attach(cgroup)?;
    let client = connect().map_err(TrialError::NotRedirected)?;
    let accepted = accept(&listener.socket).map_err(TrialError::NotRedirected)?;
    let caller = loaded.callers.of(&accepted);
    drop(client);
    match caller {
        Some(caller) if caller.pod == id && caller.asked == ASKED_V4 => Ok(()),
        _ => Err(TrialError::NotRecorded),
    }
}

fn connect() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.connect_timeout(&CREDENTIALS.into(), PATIENCE)?;
    Ok(socket)
}

fn accept(listener: &std::net::TcpListener) -> io::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(LOOK);
            }
            Err(error) => return Err(error),
        }
    }
}
