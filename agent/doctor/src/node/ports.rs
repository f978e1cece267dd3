//! Who has the port of the node path's addresses.

use std::net::SocketAddr;

use crate::{
    report::Finding,
    sockets::{Process, listeners_at},
};

const NAME: &str = "port";
/// How the agents call themselves, of which the kernel keeps 15 characters.
const OWN: &str = "podcreds";
const OFFICIAL: &str = "eks-pod-identit";

pub(super) fn check(at: &[SocketAddr]) -> Finding {
    let seen: Vec<_> = at.iter().map(|at| (*at, listeners_at(*at))).collect();
    judge(&seen)
}

fn judge(seen: &[(SocketAddr, Option<Vec<Process>>)]) -> Finding {
    let named = |processes: &[Process]| {
        let them = processes
            .iter()
            .map(|it| format!("{} (process {})", it.name, it.pid));
        match processes {
            [] => "a process that cannot be seen from here".to_owned(),
            _ => them.collect::<Vec<_>>().join(", "),
        }
    };
    let taken = seen
        .iter()
        .filter_map(|(at, them)| Some((at, them.as_ref()?)));
    let is_own = |them: &[Process]| them.iter().any(|it| it.name == OWN);
    let Some((at, them)) = taken.clone().find(|(_, them)| !is_own(them)) else {
        let own: Vec<_> = taken.map(|(at, _)| at.to_string()).collect();
        return match own.is_empty() {
            true => Finding::pass(NAME, "nothing listens at the node path's addresses"),
            false => Finding::pass(NAME, format!("podcreds listens at {}", own.join(" and "))),
        };
    };
    let said = format!("{at} is taken by {}", named(them));
    if them.iter().any(|it| it.name.starts_with(OFFICIAL)) {
        return Finding::fail(
            NAME,
            format!("{said}: AWS's agent runs on this node too"),
            "remove the add-on eks-pod-identity-agent, or keep it off this node; until then pods \
             that are not redirected are served by it",
        );
    }
    Finding::fail(
        NAME,
        said,
        "stop that program, or have it listen elsewhere: pods ask at this address and port alone",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn another_agent_is_told_from_another_program() {
        let seen = |name: Option<&str>| {
            let process = name.map(|name| Process {
                pid: 7,
                name: name.to_owned(),
            });
            let at = "169.254.170.23:80".parse().unwrap();
            judge(&[(at, process.map(|process| vec![process]))])
        };
        assert_eq!(seen(None).status, Status::Pass);
        assert_eq!(seen(Some("podcreds")).status, Status::Pass);
        let official = seen(Some("eks-pod-identit"));
        assert_eq!(official.status, Status::Fail);
        assert!(official.remedy.unwrap().contains("add-on"));
        let other = seen(Some("nginx"));
        assert!(other.seen.contains("nginx (process 7)"), "{}", other.seen);
    }
}
