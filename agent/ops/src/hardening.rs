//! Limits that the process puts on itself before it holds any secret.

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
};

/// Keeps tokens and credentials out of core dumps: none are written, and no process without
/// `CAP_SYS_PTRACE` can read this one's memory.
///
/// # Errors
///
/// When the kernel refuses one of the calls.
pub fn forbid_core_dumps() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)
}

/// Lets the process open as many files as it is allowed to, and says how many that is.
///
/// Every pod has its listeners, and every connection is a descriptor; the usual soft limit of 1,024
/// is there for programs that still use `select`.
///
/// # Errors
///
/// When the kernel refuses one of the calls.
pub fn raise_open_files() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_dumped() {
        forbid_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
    }

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).unwrap();
        assert_eq!(raise_open_files().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
