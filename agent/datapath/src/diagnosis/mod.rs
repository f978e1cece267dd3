//! What `podcreds doctor` asks about the node's kernel and its pods, without an agent.
//!
//! Nothing here is on the road of a request. It looks at the same things as the datapath does, with
//! the same code, and says what it sees.

mod hooks;
mod mount;
mod pods;
mod trial;

use std::path::PathBuf;

use podcreds_common::{CREDENTIALS_PORT, CREDENTIALS_V4};

pub use self::{
    hooks::{Attached, Holder, Hook, programs_at},
    mount::{Writable, writable},
    pods::{CgroupProcess, FoundPod, find_pods, kubelet_levels, processes_of},
    trial::{TrialError, try_programs},
};
use super::{DatapathError, programs::preflight};

/// Where the SDKs of pods ask for credentials, over IPv4.
pub const CREDENTIALS: std::net::SocketAddr = std::net::SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(
        CREDENTIALS_V4[0],
        CREDENTIALS_V4[1],
        CREDENTIALS_V4[2],
        CREDENTIALS_V4[3],
    )),
    CREDENTIALS_PORT,
);

/// The cgroup hierarchy, as far as it can be seen from here.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Where pods are looked for: the value of `--cgroup-root`, or the mount.
    pub root: PathBuf,
    /// Whether the mount shows the hierarchy's true root, at which programs run for every pod.
    pub sees_root: bool,
}

/// Finds the cgroup hierarchy as the agent does.
///
/// # Errors
///
/// When there is none, or `cgroup_root` is not in it.
pub fn cgroup_tree(cgroup_root: Option<PathBuf>) -> Result<CgroupTree, DatapathError> {
    let hierarchy = preflight::hierarchy(cgroup_root)?;
    Ok(CgroupTree {
        sees_root: preflight::is_true_root(&hierarchy.mount),
        mount: hierarchy.mount,
        root: hierarchy.root,
    })
}

/// Whether this kernel is new enough.
///
/// # Errors
///
/// That it is too old, and which one is needed.
pub fn check_kernel() -> Result<(), DatapathError> {
    preflight::check_kernel()
}

/// The capabilities that the datapath needs and this process lacks, each with what it is for.
///
/// # Errors
///
/// When the process cannot see its capabilities.
pub fn missing_capabilities() -> Result<Vec<&'static str>, DatapathError> {
    Ok(preflight::missing_capabilities(preflight::held()?))
}
