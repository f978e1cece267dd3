//! Limits that the process puts on itself before it holds any secret.

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Keeps tokens and credentials out of core dumps: none are written, and no process without
/// `CAP_SYS_PTRACE` can read this one's memory.
///
/// # Errors
///
/// When the kernel refuses one of the calls.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Lets the process open as many files as it is allowed to, and says how many that is.
///
/// Every pod has its listeners, and every connection is a descriptor; the usual soft limit of 1,024
/// is there for programs that still use `select`.
///
/// # Errors
///
/// When the kernel refuses the call.
pub fn raise_open_files() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let current = maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn nothing_is_dumped() {
        forbid_core_dumps().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Core);
        assert_eq!((current, maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(maximum.unwrap_or(512).min(512));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        assert_eq!(raise_open_files().unwrap(), maximum.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
