//! Whether the programs of this build load on this kernel, and redirect.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    report::Finding,
    visit::{Errand, Trial, from_own_cgroup},
};

const NAME: &str = "programs";
const LIMIT: Duration = Duration::from_secs(12);

pub(super) fn check(cgroup_root: Option<PathBuf>) -> Finding {
    judge(look(cgroup_root))
}

fn look(cgroup_root: Option<PathBuf>) -> io::Result<Trial> {
    from_own_cgroup(cgroup_root, NAME, "trial", Errand::TryPrograms, LIMIT)
}

fn judge(trial: io::Result<Trial>) -> Finding {
    match trial {
        Ok(Trial::Redirected) => Finding::pass(
            NAME,
            "this build's programs load, redirect a connect in a cgroup of its own, and name its \
             caller",
        ),
        Ok(Trial::NotPermitted(why)) => Finding::fail(
            NAME,
            why,
            "run it with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN; a security module may forbid \
             bpf() as well",
        ),
        Ok(Trial::Failed(why)) => Finding::fail(
            NAME,
            why,
            "see the checks kernel and hooks; without these programs pods come by the node path \
             alone (--datapath node)",
        ),
        Err(error) => Finding::warn(
            NAME,
            format!("could not be tried: {error}"),
            "run it with CAP_SYS_ADMIN and CAP_NET_ADMIN, where cgroups can be made",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn what_the_kernel_refuses_fails_and_what_cannot_be_tried_is_a_warning() {
        assert_eq!(judge(Ok(Trial::Redirected)).status, Status::Pass);
        let refused = judge(Ok(Trial::Failed("no BTF".to_owned())));
        assert_eq!((refused.status, &*refused.seen), (Status::Fail, "no BTF"));
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(judge(Err(error)).status, Status::Warn);
    }
}
