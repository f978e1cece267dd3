//! Which thread may do what. `docs/security.md` says why.

use podcreds_ops::privileges;
use rustix::thread::CapabilitySet;

use crate::config::Config;

/// What the process takes along from its start: nothing that it is not asked to do.
pub(super) fn of_process(config: &Config) -> CapabilitySet {
    let mut needed = CapabilitySet::empty();
    if config.paths.ebpf.is_some() {
        needed |= CapabilitySet::BPF
            | CapabilitySet::NET_ADMIN
            | CapabilitySet::SYS_ADMIN
            | CapabilitySet::SYS_PTRACE;
    }
    if config.paths.node.is_some() {
        needed |= CapabilitySet::NET_BIND_SERVICE;
    }
    if !config.identity.delegates.is_empty() {
        needed |= CapabilitySet::DAC_READ_SEARCH;
    }
    needed
}

/// The thread that answers pods: reads the callers' records, and listens again on addresses of the
/// host.
pub(super) fn keep_for_serving() {
    keep(
        "serving",
        CapabilitySet::BPF | CapabilitySet::NET_BIND_SERVICE,
    );
}

/// The threads that call AWS: read the programs' counters, and the tokens of delegates.
pub(super) fn keep_for_control() {
    keep(
        "control",
        CapabilitySet::BPF | CapabilitySet::DAC_READ_SEARCH,
    );
}

/// The thread that follows the pods, once it has attached its programs.
pub(super) fn keep_for_datapath() {
    keep(
        "datapath",
        CapabilitySet::BPF | CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE,
    );
}

fn keep(thread: &str, capabilities: CapabilitySet) {
    if let Err(error) = privileges::keep(capabilities) {
        tracing::error!(thread, %error, "cannot give up capabilities");
    }
}
