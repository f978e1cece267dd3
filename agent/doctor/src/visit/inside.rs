//! The visitor's side.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
};

use nix::sched::{CloneFlags, unshare};
use podcreds_datapath::{DatapathError, diagnosis};
use podcreds_ops::hardening;
use rtnetlink::{LinkUnspec, new_connection};
use rustix::{
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde_json::Value;
use tokio::runtime::Builder;
use zeroize::Zeroizing;

use super::{Errand, Network, Trial, Visit, VisitError, ask::ask};
use crate::cgroups::View;

/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Does what standard input says, and prints what came of it. The process must have one thread.
pub fn run() {
    let outcome = match visit() {
        Ok(answer) => serde_json::json!({ "Ok": answer }),
        Err(trouble) => serde_json::json!({ "Err": trouble }),
    };
    println!("{outcome}");
}

fn visit() -> Result<Value, VisitError> {
    // It would stay in its cgroup, which then cannot be removed.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| failed("following the doctor in its end")(errno.into()))?;
    hardening::forbid_core_dumps().map_err(failed("forbidding core dumps"))?;
    let mut told = Zeroizing::new(String::new());
    io::stdin()
        .read_to_string(&mut told)
        .map_err(failed("reading what to do"))?;
    let visit: Visit = serde_json::from_str(&told).map_err(|error| VisitError {
        what: format!("what to do is not understood: {error}"),
        errno: None,
    })?;
    if visit.sender.cast_signed() != Pid::as_raw(getppid()) {
        return Err(VisitError {
            what: "the doctor has ended".to_owned(),
            errno: None,
        });
    }
    // Opened first: from another cgroup namespace the paths look different.
    let view = View::open(&visit.mount).map_err(failed("opening the cgroup hierarchy"))?;
    let network = match &visit.network {
        Network::New => None,
        Network::Of(file) => Some(File::open(file).map_err(failed("opening its network"))?),
    };
    join_cgroup(&view.path(&visit.cgroup))?;
    match network {
        Some(file) => move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| failed("entering its network namespace")(errno.into()))?,
        None => new_network()?,
    }
    let answer = match visit.errand {
        Errand::TryPrograms => serde_json::to_value(try_programs(&view.path(&visit.cgroup))),
        Errand::Ask {
            address,
            token,
            patience,
        } => serde_json::to_value(ask(address, token.as_ref(), patience)),
    };
    answer.map_err(|error| failed("answering")(error.into()))
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> VisitError {
    move |error| VisitError {
        what: match error.raw_os_error() {
            Some(_) => what.to_owned(),
            None => format!("{what}: {error}"),
        },
        errno: error.raw_os_error(),
    }
}

fn join_cgroup(cgroup: &Path) -> Result<(), VisitError> {
    // Out of a container, whose cgroup namespace processes may not leave by way of cgroups. Where
    // there is no such container, or no way to the first process, it is not needed or fails below.
    if let Ok(file) = File::open("/proc/1/ns/cgroup") {
        let cgroups = Some(LinkNameSpaceType::ControlGroup);
        let _joined = move_into_link_name_space(file.as_fd(), cgroups);
    }
    fs::write(cgroup.join("cgroup.procs"), "0").map_err(failed("entering its cgroup"))
}

fn new_network() -> Result<(), VisitError> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| failed("making a network namespace")(errno.into()))?;
    let raise = || {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = new_connection()?;
            tokio::spawn(connection);
            let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
            let set = handle.link().set(up).execute().await;
            set.map_err(io::Error::other)
        })
    };
    raise().map_err(failed("bringing lo up in a network namespace of its own"))
}

fn try_programs(cgroup: &Path) -> Trial {
    match diagnosis::try_programs(cgroup) {
        Ok(()) => Trial::Redirected,
        Err(diagnosis::TrialError::Programs(DatapathError::NotPermitted(why))) => {
            Trial::NotPermitted(why)
        }
        Err(error) => Trial::Failed(error.to_string()),
    }
}
