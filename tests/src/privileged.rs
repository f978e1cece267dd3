//! What a test on the real kernel needs from the machine.
//!
//! Where it is missing, such a test cannot tell anything. On a developer's machine it says so and
//! passes; in CI (`CI` is set) it fails, so that nobody believes in tests that never ran.

use std::{env, path::Path};

use nix::unistd::Uid;
use procfs::process::Process;

use crate::{pod::cgroup, run};

/// The capabilities that the tests use, by number (linux/capability.h).
const CAPABILITIES: [(&str, u32); 3] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_BPF", 39),
];

/// Exists only where the kernel has the bpf() system call.
const BPF_SYSCTL: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// Leaves a test that cannot run here, after it has said why; see
/// [`privileged`](crate::privileged).
#[macro_export]
macro_rules! needs_privileges {
    () => {
        if !$crate::privileged::available() {
            return;
        }
    };
}

/// Whether privileged tests can run here. Prints what is missing.
///
/// # Panics
///
/// When something is missing and `CI` is set.
pub fn available() -> bool {
    can_run(check())
}

/// Whether a test can run that needs something. Prints what is missing.
///
/// # Panics
///
/// When something is missing and `CI` is set.
pub fn can_run(needed: Result<(), String>) -> bool {
    match needed {
        Ok(()) => {
            // So that what the test makes from here on is removed, however it ends.
            run::current();
            true
        }
        Err(missing) if env::var_os("CI").is_some() => panic!("cannot run this test: {missing}"),
        Err(missing) => {
            eprintln!("skipped: {missing}");
            false
        }
    }
}

/// What of the things that simulated pods and eBPF need is missing.
///
/// # Errors
///
/// The first thing that is missing, and what to do.
pub fn check() -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Err("needs root (namespaces, cgroups, eBPF)".to_owned());
    }
    let own = Process::myself().and_then(|process| process.status());
    let held = own
        .map_err(|why| format!("cannot read /proc/self/status: {why}"))?
        .capeff;
    for (name, number) in CAPABILITIES {
        if held & 1 << number == 0 {
            return Err(format!(
                "needs {name}, which this container or user namespace lacks"
            ));
        }
    }
    if !Path::new(BPF_SYSCTL).exists() {
        return Err("needs a kernel with CONFIG_BPF_SYSCALL".to_owned());
    }
    cgroup::mount_point().map(drop)
}
