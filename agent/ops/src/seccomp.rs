//! System calls that the agent never makes, and that an attacker in it would like to.

use std::{collections::BTreeMap, env::consts::ARCH};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};

/// Refused with EPERM, whatever their arguments.
///
/// Those only that libc knows on each of our targets. A list of what is allowed would be shorter to
/// defend, but it would depend on the C library, on the kernel and on each dependency. `execve` is
/// not here: the AWS SDK runs a profile's
/// `credential_process`.
const REFUSED: [libc::c_long; 52] = [
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // Mounts and roots.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_umount2,
    // Namespaces, devices, and files without a path.
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    // The kernel and the machine.
    libc::SYS_acct,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // The clock.
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    // What kernels were most often attacked through.
    libc::SYS_add_key,
    libc::SYS_fanotify_init,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_move_pages,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    // Other users.
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
];

/// What `clone` could make again. `unshare` is refused altogether.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];
/// Set in the number of a call that is made the x32 way, where the kernel knows each of them by a
/// second number.
const X32: u32 = 0x4000_0000;

/// Why the filter is not in place.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// It cannot be made for this machine.
    #[error("making the seccomp filter: {0}")]
    Filter(#[from] BackendError),
    /// The kernel does not take it.
    #[error("applying the seccomp filter: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// From here on refuses those calls to this thread, to those that it starts, and to the programs
/// that they run.
///
/// # Errors
///
/// When the kernel does not take the filter.
pub fn refuse_what_is_never_needed() -> Result<(), SeccompError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(
        libc::SYS_setns,
        vec![SeccompRule::new(vec![any_but_net()?])?],
    );
    let new_namespaces = NAMESPACES.map(|flag| SeccompRule::new(vec![any_with(flag)?]));
    let new_namespaces = new_namespaces.into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, new_namespaces);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(seccompiler::apply_filter(&what_there_is_not())?)
}

/// Says ENOSYS to what a filter cannot look into: `clone3`, which has its flags in memory (C
/// libraries then take `clone`), and all calls by their second numbers.
fn what_there_is_not() -> BpfProgram {
    let instruction = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let clone3 = libc::SYS_clone3 as u32;
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        // The number is what comes first.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 2, 0, X32),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, clone3),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, no_such_call),
    ]
}

/// `clone` with a flag.
fn any_with(flag: libc::c_int) -> Result<SeccompCondition, BackendError> {
    let flag = u64::from(flag.unsigned_abs());
    SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(flag),
        flag,
    )
}

/// `setns` into a namespace that is not a network namespace.
fn any_but_net() -> Result<SeccompCondition, BackendError> {
    let net = u64::from(libc::CLONE_NEWNET.unsigned_abs());
    SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, net)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd, thread};

    use nix::{
        errno::Errno as NixErrno,
        sched::{CloneFlags, unshare},
    };
    use rustix::{
        io::Errno,
        process::geteuid,
        thread::{LinkNameSpaceType, move_into_link_name_space},
    };

    use super::*;

    #[test]
    fn only_network_namespaces_can_be_entered() {
        thread::spawn(|| {
            let enter = |name: &str, allowed| {
                let namespace = File::open(format!("/proc/self/ns/{name}")).unwrap();
                move_into_link_name_space(namespace.as_fd(), allowed)
            };
            refuse_what_is_never_needed().unwrap();
            let named = Some(LinkNameSpaceType::HostNameAndNISDomainName);
            assert_eq!(enter("uts", named), Err(Errno::PERM));
            assert_eq!(enter("uts", None), Err(Errno::PERM));
            // Without privileges the kernel says the same, so this shows something only with them.
            if geteuid().is_root() {
                enter("net", Some(LinkNameSpaceType::Network)).unwrap();
            }
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(NixErrno::EPERM));
        })
        .join()
        .unwrap();
        // This thread is as it was.
        assert!(unshare(CloneFlags::empty()).is_ok());
    }
}
