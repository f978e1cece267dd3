//! A real request, from inside of the pod's network namespace and cgroup.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use podcreds_types::Token;

use super::process::OpenNamespace;
use crate::{
    Config,
    node::{Agent, look_for_agent},
    report::Finding,
    visit::{Asked, Errand, Network, Secret, Visit},
};

const LISTENER: &str = "listener";
const REQUEST: &str = "request";
const LIMIT: Duration = Duration::from_secs(12);
/// For how many milliseconds it is tried again, as an SDK would.
const PATIENCE: u64 = 4000;

/// Where the request comes from, and where it goes.
pub(super) struct RequestRoute {
    pub(super) mount: PathBuf,
    /// Of one of the pod's processes.
    pub(super) cgroup: PathBuf,
    pub(super) network: OpenNamespace,
    pub(super) address: SocketAddr,
}

pub(super) fn check(config: &Config, place: &RequestRoute, token: Option<&Token>) -> Vec<Finding> {
    let agent = look_for_agent(config);
    match send(place, token) {
        Ok(asked) => judge(&asked, config.ebpf, &agent, token.is_some()),
        Err(error) => vec![judge_no_place(&error)],
    }
}

pub(super) fn judge_no_place(error: &io::Error) -> Finding {
    Finding::warn(
        REQUEST,
        format!("could not be tried: {error}"),
        "run it with CAP_SYS_ADMIN and CAP_SYS_PTRACE, in the host's PID namespace, on a pod whose \
         application uses the pod's network",
    )
}

fn send(place: &RequestRoute, token: Option<&Token>) -> io::Result<Asked> {
    let cgroup = place
        .cgroup
        .strip_prefix(&place.mount)
        .map_err(io::Error::other)?;
    let secret = |token: &Token| Secret(token.expose().to_owned());
    let visit = Visit {
        sender: std::process::id(),
        mount: place.mount.clone(),
        cgroup: cgroup.to_owned(),
        network: Network::Of(place.network.path()),
        errand: Errand::Ask {
            address: place.address,
            token: token.map(secret),
            patience: PATIENCE,
        },
    };
    visit.send(LIMIT)
}

fn judge(asked: &Asked, ebpf: bool, agent: &Agent, has_token: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let loopback = "bring lo up in the pod, or take away what blocks 127.0.0.1 there: the agent \
                    listens on it";
    findings.push(match (asked.redirected_to, &asked.error) {
        (Some(at), _) => Finding::pass(LISTENER, format!("connects are redirected to {at}")),
        (None, _) if !asked.has_loopback => {
            Finding::fail(LISTENER, "the pod's loopback (lo) is down", loopback)
        }
        (None, Some(why)) if !agent.is_there() => Finding::fail(
            LISTENER,
            format!("nobody answers, and podcreds does not run on this node: {why}"),
            "start the agent: see `podcreds doctor`",
        ),
        (None, Some(why)) => Finding::fail(
            LISTENER,
            format!("connects are not redirected, and do not succeed: {why}"),
            format!(
                "see `podcreds doctor` (hooks, redirect), and the runbook's \
                 PodcredsListenersUnreachable; {loopback}"
            ),
        ),
        (None, None) if matches!(agent, Agent::Other(_)) => Finding::warn(
            LISTENER,
            "connects are not redirected: what answers is most likely AWS's agent",
            "start podcreds in its place: see `podcreds doctor` (agent, port)",
        ),
        (None, None) if ebpf => Finding::warn(
            LISTENER,
            "connects are not redirected: the pod comes by the node path",
            "see `podcreds doctor` (hooks, redirect), and the runbook's \
             PodcredsConnectsNotRedirected",
        ),
        (None, None) => Finding::pass(LISTENER, "not wanted: pods come by the node path"),
    });
    findings.extend(judge_answer(asked, has_token));
    findings
}

fn judge_answer(asked: &Asked, has_token: bool) -> Option<Finding> {
    let status = asked.status?;
    let said = format!("the agent answers {status}: {}", asked.reason);
    const SERVICE: &str = "see `podcreds doctor` (eks-auth, signed-call), and the agent's log";
    Some(match status {
        200 => Finding::pass(
            REQUEST,
            format!(
                "credentials in {} ms, good until {}",
                asked.took,
                asked.expiration.as_deref().unwrap_or("an unknown time")
            ),
        ),
        // It was asked without a token, for there is none: the agent is there.
        400 | 401 if !has_token => Finding::warn(
            REQUEST,
            "asked without a token: the agent is there, and refuses that",
            "see the check token",
        ),
        503 => Finding::fail(REQUEST, said, SERVICE),
        _ => Finding::fail(
            REQUEST,
            said,
            "see the checks token and eks-auth, and the table of refusals in docs/operations.md",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    fn asked(redirected: bool, status: Option<u16>) -> Asked {
        Asked {
            redirected_to: redirected.then(|| "127.0.0.1:62723".parse().unwrap()),
            error: status.is_none().then(|| "refused".to_owned()),
            status,
            has_loopback: true,
            ..Asked::default()
        }
    }

    fn statuses(found: &[Finding]) -> Vec<Status> {
        found.iter().map(|it| it.status).collect()
    }

    fn ready() -> Agent {
        Agent::Ready {
            remarks: Vec::new(),
            paths: None,
            without_metrics: None,
        }
    }

    #[test]
    fn a_redirected_request_with_credentials_passes() {
        let well = judge(&asked(true, Some(200)), true, &ready(), true);
        assert_eq!(statuses(&well), [Status::Pass, Status::Pass]);
        let detour = judge(&asked(false, Some(200)), true, &ready(), true);
        assert_eq!(statuses(&detour), [Status::Warn, Status::Pass]);
        let refused = judge(&asked(true, Some(404)), true, &ready(), true);
        assert_eq!(statuses(&refused), [Status::Pass, Status::Fail]);
    }

    #[test]
    fn a_connect_that_fails_is_told_by_its_cause() {
        let seen = |asked: &Asked, agent| judge(asked, true, &agent, true)[0].seen.clone();
        let mut silent = asked(false, None);
        let other = || Agent::Other("127.0.0.1:2703".parse().unwrap());
        for nobody in [Agent::None("x".into()), other()] {
            assert!(seen(&silent, nobody).contains("podcreds does not run"));
        }
        assert!(seen(&silent, ready()).contains("not redirected"));
        silent.has_loopback = false;
        assert!(seen(&silent, ready()).contains("lo"));
        let answered = asked(false, Some(200));
        assert!(seen(&answered, other()).contains("AWS's agent"));
    }
}
