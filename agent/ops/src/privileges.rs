//! What the process may do: no more than it needs, and each of its threads no more than its own
//! part.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_no_new_privs,
};

/// Keeps these capabilities in the calling thread, and in those that it starts from here on. All
/// others are gone for good. What the thread does not hold it does not get.
///
/// # Errors
///
/// When the kernel refuses one of the calls.
pub fn keep(wanted: CapabilitySet) -> io::Result<()> {
    let kept = wanted & rustix::thread::capabilities(None)?.permitted;
    clear_ambient_capability_set()?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// No program that this process runs gets more than the process has.
///
/// # Errors
///
/// When the kernel refuses the call.
pub fn forbid_new() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::{
        io::Errno,
        thread::{capabilities, set_capabilities},
    };

    use super::*;

    #[test]
    fn a_thread_keeps_what_it_is_told_to_and_no_other_loses_anything() {
        let before = capabilities(None).unwrap();
        thread::spawn(|| {
            let held = capabilities(None).unwrap().effective;
            keep(CapabilitySet::NET_BIND_SERVICE).unwrap();
            let kept = capabilities(None).unwrap();
            assert_eq!(kept.effective, held & CapabilitySet::NET_BIND_SERVICE);
            assert_eq!(kept.permitted, kept.effective);
            assert_eq!(kept.inheritable, CapabilitySet::empty());
            // Not even root gets them back.
            let permitted = kept.permitted | CapabilitySet::SYS_ADMIN;
            let more = CapabilitySets { permitted, ..kept };
            assert_eq!(set_capabilities(None, more), Err(Errno::PERM));
        })
        .join()
        .unwrap();
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
