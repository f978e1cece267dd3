//! What the process may do: no more than it needs, and each of its threads no more than its own
//! part.

use std::collections::HashSet;

use caps::{CapSet, Capability, errors::CapsError};
use nix::sys::prctl;

/// Keeps these capabilities in the calling thread, and in those that it starts from here on. All
/// others are gone for good. What the thread does not hold it does not get.
///
/// # Errors
///
/// When the kernel refuses one of the calls.
pub fn keep(capabilities: &[Capability]) -> Result<(), CapsError> {
    let wanted: HashSet<Capability> = capabilities.iter().copied().collect();
    let held = caps::read(None, CapSet::Permitted)?;
    let kept = wanted.intersection(&held).copied().collect();
    // In this order, since none of the sets may hold more than the last one.
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// No program that this process runs gets more than the process has.
///
/// # Errors
///
/// When the kernel refuses the call.
pub fn forbid_new() -> nix::Result<()> {
    prctl::set_no_new_privs()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_keeps_what_it_is_told_to_and_no_other_loses_anything() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        thread::spawn(|| {
            let held = caps::read(None, CapSet::Effective).unwrap();
            keep(&[Capability::CAP_NET_BIND_SERVICE]).unwrap();
            let kept = caps::read(None, CapSet::Effective).unwrap();
            let expected = held
                .into_iter()
                .filter(|capability| *capability == Capability::CAP_NET_BIND_SERVICE);
            assert_eq!(kept, expected.collect());
            assert_eq!(kept, caps::read(None, CapSet::Permitted).unwrap());
            // Not even root gets them back.
            let more = HashSet::from([Capability::CAP_SYS_ADMIN]);
            assert!(caps::set(None, CapSet::Permitted, &more).is_err());
        })
        .join()
        .unwrap();
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before);
    }
}
