//! Which thread may do what. `docs/security.md` says why.

use caps::Capability::{self, *};
use podcreds_ops::privileges;

use crate::config::Config;

/// What the process takes along from its start: nothing that it is not asked to do.
pub(super) fn of_process(config: &Config) -> Vec<Capability> {
    let mut needed = Vec::new();
    if config.paths.ebpf.is_some() {
        needed.extend([CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE]);
    }
    if config.paths.node.is_some() {
        needed.push(CAP_NET_BIND_SERVICE);
    }
    if !config.identity.delegates.is_empty() {
        needed.push(CAP_DAC_READ_SEARCH);
    }
    needed
}

/// The thread that answers pods: reads the callers' records, and listens again on addresses of the
/// host.
pub(super) fn keep_for_serving() {
    keep("serving", &[CAP_BPF, CAP_NET_BIND_SERVICE]);
}

/// The threads that call AWS: read the programs' counters, and the tokens of delegates.
pub(super) fn keep_for_control() {
    keep("control", &[CAP_BPF, CAP_DAC_READ_SEARCH]);
}

/// The thread that follows the pods, once it has attached its programs.
pub(super) fn keep_for_datapath() {
    keep("datapath", &[CAP_BPF, CAP_SYS_ADMIN, CAP_SYS_PTRACE]);
}

fn keep(thread: &str, capabilities: &[Capability]) {
    if let Err(error) = privileges::keep(capabilities) {
        tracing::error!(thread, %error, "cannot give up capabilities");
    }
}
