//! A visit: a process of its own that goes into a cgroup and a network namespace, does one thing
//! there, and says what came of it.
//!
//! It is this program again. A process that changes its cgroup changes it for all its threads, and
//! one that is in a pod's cgroup counts there, so it must not be the doctor itself.

mod ask;
mod inside;

use std::{
    fmt,
    io::{self, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use podcreds_datapath::diagnosis::{self, CgroupTree};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, Zeroizing};

use crate::cgroups::OwnCgroup;

pub use inside::run;

/// The subcommand that makes a process of this program a visitor.
pub const SUBCOMMAND: &str = "doctor-visit";
/// The longest answer of a visitor.
const MAX_ANSWER: u64 = 256 * 1024;
/// How often it is looked whether a visitor has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Where to go, and what to do there.
#[derive(Serialize, Deserialize)]
pub(crate) struct Visit {
    /// Who sends it: without that process it ends.
    pub(crate) sender: u32,
    /// Where the cgroup hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// The cgroup to be in, from the mount on.
    pub(crate) cgroup: PathBuf,
    pub(crate) network: Network,
    pub(crate) errand: Errand,
}

/// The network namespace to be in.
#[derive(Serialize, Deserialize)]
pub(crate) enum Network {
    /// A new one, with `lo` up, in which nothing can be reached but by a redirect.
    New,
    /// The one that this file stands for.
    Of(PathBuf),
}

/// What to do.
#[derive(Serialize, Deserialize)]
pub(crate) enum Errand {
    /// Loads this build's eBPF programs for this cgroup alone, and has them redirect a connect.
    TryPrograms,
    /// Asks for credentials.
    Ask {
        /// Who is asked.
        address: SocketAddr,
        /// With this token, or with none.
        token: Option<Secret>,
        /// For how many milliseconds it is tried again, as an SDK would.
        patience: u64,
    },
}

/// A token. It is passed over a pipe, and shown nowhere.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// What came of [`Errand::TryPrograms`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Trial {
    Redirected,
    /// Privileges are missing, in these words.
    NotPermitted(String),
    Failed(String),
}

/// What came of [`Errand::Ask`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Why there is no answer, if there is none.
    pub(crate) error: Option<String>,
    /// Where the connection went, if it was redirected.
    pub(crate) redirected_to: Option<SocketAddr>,
    /// Whether `lo` is up there.
    pub(crate) has_loopback: bool,
    /// The answer's HTTP status.
    pub(crate) status: Option<u16>,
    /// What it says of the reason, unless it holds credentials.
    pub(crate) reason: String,
    /// When its credentials expire, if it holds some.
    pub(crate) expiration: Option<String>,
    /// How long the last try took, in milliseconds.
    pub(crate) took: u64,
}

impl Visit {
    /// Sends a visitor, and waits for what it says.
    ///
    /// # Errors
    ///
    /// When it cannot be sent, does not come back in time, or says why it could not go there.
    pub(crate) fn send<T: DeserializeOwned>(&self, limit: Duration) -> io::Result<T> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut visitor = command.spawn()?;
        let told = Zeroizing::new(serde_json::to_vec(self)?);
        if let Some(mut pipe) = visitor.stdin.take() {
            pipe.write_all(&told)?;
        }
        let deadline = Instant::now() + limit;
        while visitor.try_wait()?.is_none() {
            if Instant::now() > deadline {
                visitor.kill()?;
                visitor.wait()?;
                let late = format!("a process there gave no answer within {limit:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, late));
            }
            thread::sleep(LOOK);
        }
        let mut answer = String::new();
        if let Some(pipe) = visitor.stdout.take() {
            pipe.take(MAX_ANSWER).read_to_string(&mut answer)?;
        }
        let answer: Result<T, VisitError> = serde_json::from_str(&answer)
            .map_err(|_| io::Error::other("a process there was ended, or gave no answer"))?;
        answer.map_err(VisitError::into)
    }
}

/// Sends a visitor into a new network namespace, from a cgroup of the doctor's own that is made for
/// `purpose`, with others in it as `inner` says.
///
/// # Errors
///
/// When there can be no such cgroup, and those of [`Visit::send`].
pub(crate) fn from_own_cgroup<T: DeserializeOwned>(
    cgroup_root: Option<PathBuf>,
    purpose: &str,
    inner: &str,
    errand: Errand,
    limit: Duration,
) -> io::Result<T> {
    let CgroupTree { mount, root, .. } =
        diagnosis::cgroup_tree(cgroup_root).map_err(io::Error::other)?;
    let parent = root.strip_prefix(&mount).map_err(io::Error::other)?;
    let own = OwnCgroup::make(&mount, parent, purpose, inner.as_ref())?;
    let visit = Visit {
        sender: std::process::id(),
        cgroup: own.cgroup.clone(),
        mount,
        network: Network::New,
        errand,
    };
    visit.send(limit)
}

/// Why a visitor could not do what it was sent for.
#[derive(Serialize, Deserialize)]
struct VisitError {
    what: String,
    errno: Option<i32>,
}

impl From<VisitError> for io::Error {
    fn from(trouble: VisitError) -> Self {
        match trouble.errno.map(Self::from_raw_os_error) {
            Some(source) => Self::new(source.kind(), format!("{}: {source}", trouble.what)),
            None => Self::other(trouble.what),
        }
    }
}
