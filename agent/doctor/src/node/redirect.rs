//! Whether the running agent redirects a pod: one of the doctor's own, which no other program
//! knows.

use std::{fs, io, path::PathBuf, time::Duration};

use podcreds_datapath::diagnosis::CREDENTIALS;

use super::agent::{self, Agent};
use crate::{
    Config,
    report::Finding,
    visit::{Asked, Errand, from_own_cgroup},
};

const NAME: &str = "redirect";
const LIMIT: Duration = Duration::from_secs(12);
/// An agent finds a pod within milliseconds. It has this many.
const PATIENCE: u64 = 5000;

pub(super) fn check(config: &Config, cgroup_root: Option<PathBuf>) -> Vec<Finding> {
    // Said by another check already.
    let Agent::Ready { paths, .. } = agent::look_for(config) else {
        return Vec::new();
    };
    if paths.is_some_and(|(ebpf, _)| ebpf == 0) {
        return vec![Finding::warn(
            NAME,
            "the running agent redirects no pods: it serves the host's addresses alone",
            "see the checks programs, capabilities and cgroup, and the agent's log",
        )];
    }
    vec![judge(look(cgroup_root))]
}

fn look(cgroup_root: Option<PathBuf>) -> io::Result<Asked> {
    let uid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let pod = format!("kubepods/pod{}/doctor", uid.trim());
    let errand = Errand::Ask {
        address: CREDENTIALS,
        token: None,
        patience: PATIENCE,
    };
    from_own_cgroup(cgroup_root, NAME, &pod, errand, LIMIT)
}

fn judge(asked: io::Result<Asked>) -> Finding {
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            return Finding::warn(
                NAME,
                format!("could not be tried: {error}"),
                "run it with CAP_SYS_ADMIN and CAP_NET_ADMIN, where cgroups can be made",
            );
        }
    };
    match (asked.redirected_to, asked.status, asked.error) {
        // Without a token there is nothing else to say to it.
        (Some(at), Some(400), _) => Finding::pass(
            NAME,
            format!("a connect from a pod of the doctor's own went to the agent at {at}"),
        ),
        (Some(at), Some(status), _) => Finding::fail(
            NAME,
            format!(
                "a connect was redirected to {at}, which answers {status}: {}",
                asked.reason
            ),
            "see the agent's log, and whether another program redirects pods too (hooks)",
        ),
        (_, _, error) => Finding::fail(
            NAME,
            format!(
                "a connect from a pod of the doctor's own was not redirected: {}",
                error.unwrap_or_else(|| "something else has answered".to_owned())
            ),
            "see whether the agent's programs are attached (hooks), and restart the agent: \
             something may have detached them",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn only_an_answer_of_the_agent_by_a_redirect_passes() {
        let asked = |redirected: bool, status| Asked {
            redirected_to: redirected.then(|| "127.0.0.1:62723".parse().unwrap()),
            status,
            ..Asked::default()
        };
        assert_eq!(judge(Ok(asked(true, Some(400)))).status, Status::Pass);
        for other in [
            asked(true, Some(404)),
            asked(false, Some(400)),
            asked(false, None),
        ] {
            assert_eq!(judge(Ok(other)).status, Status::Fail);
        }
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(judge(Err(error)).status, Status::Warn);
    }
}
