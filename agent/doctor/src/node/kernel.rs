//! The kernel's version.

use std::fmt::Display;

use podcreds_datapath::diagnosis;
use rustix::system::uname;

use crate::report::Finding;

const NAME: &str = "kernel";

pub(super) fn check() -> Finding {
    judge(
        &uname().release().to_string_lossy(),
        diagnosis::check_kernel(),
    )
}

fn judge(release: &str, fit: Result<(), impl Display>) -> Finding {
    let seen = format!("Linux {release}");
    match fit {
        Ok(()) => Finding::pass(NAME, seen),
        Err(why) => Finding::fail(
            NAME,
            format!("{seen}: {why}"),
            "update the node's kernel (5.15 or later), or run the agent with --datapath node",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn an_old_kernel_fails_with_its_version() {
        assert_eq!(judge("6.18.0", Ok::<_, &str>(())).status, Status::Pass);
        let old = judge("5.10.0", Err("too old"));
        assert_eq!(old.status, Status::Fail);
        assert!(old.seen.contains("5.10.0"), "{}", old.seen);
    }
}
