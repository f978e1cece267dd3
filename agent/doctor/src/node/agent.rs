//! The running agent, by its probes and its metrics.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use podcreds_local::{exchange, parse_answer};

use crate::{Config, report::Finding};

const NAME: &str = "agent";
const METRICS: &str = "metrics";
/// For all of an exchange.
const LIMIT: Duration = Duration::from_secs(3);
/// The most that is read of an answer: the metrics of a full node.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// How the agent of this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    /// It serves pods.
    Ready {
        /// What it has to do without.
        remarks: Vec<String>,
        /// Whether it redirects, and how many of the host's addresses it serves, if it says so.
        paths: Option<(u32, u32)>,
        /// Why its metrics cannot be had, if so.
        without_metrics: Option<String>,
    },
    /// It answers, and does not serve pods.
    Unready(String),
    /// What answers is not podcreds.
    Other(SocketAddr),
    /// There is none.
    None(String),
}

impl Agent {
    /// Whether podcreds runs on this node.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Ready { .. } | Self::Unready(_) => true,
            Self::Other(_) | Self::None(_) => false,
        }
    }
}

/// Asks the agent of this node.
pub(crate) fn look_for(config: &Config) -> Agent {
    let probes = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), config.probe_port);
    let (status, body) = match get(probes, "/readyz") {
        Ok(answer) => answer,
        Err(error) => return Agent::None(format!("{probes}: {error}")),
    };
    // AWS's agent has the same port and path by default. It answers 200 as well, without a word.
    let mut lines = body.lines();
    match (status, lines.next()) {
        (200, Some("ok")) => {
            let metrics = get(reachable(config.metrics), "/metrics");
            let paths = metrics.as_ref().ok().and_then(|(_, text)| paths(text));
            Agent::Ready {
                remarks: lines.map(str::to_owned).collect(),
                paths,
                without_metrics: metrics.err().map(|error| error.to_string()),
            }
        }
        (503, Some(_)) => Agent::Unready(format!("{status}: {}", body.trim())),
        _ => Agent::Other(probes),
    }
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    judge(&look_for(config))
}

fn judge(agent: &Agent) -> Vec<Finding> {
    let first = match agent {
        Agent::Ready { remarks, paths, .. } => {
            let by = match paths {
                Some((0, addresses)) => {
                    format!(", without eBPF, at {addresses} of the host's addresses")
                }
                Some((_, 0)) => ", by eBPF".to_owned(),
                Some((_, addresses)) => {
                    format!(", by eBPF and at {addresses} of the host's addresses")
                }
                None => String::new(),
            };
            match remarks.is_empty() {
                true => Finding::pass(NAME, format!("an agent serves this node{by}")),
                false => Finding::warn(
                    NAME,
                    format!("an agent serves this node{by}; {}", remarks.join("; ")),
                    "it says itself what it has to do without; its log has more",
                ),
            }
        }
        Agent::Unready(why) => Finding::fail(
            NAME,
            format!("the agent serves no pods yet: {why}"),
            "see its log, and the runbook's PodcredsAgentDown",
        ),
        Agent::Other(at) => Finding::warn(
            NAME,
            format!("what answers at {at} is not podcreds, but most likely AWS's agent"),
            "remove the add-on eks-pod-identity-agent, or keep it off this node; if podcreds runs \
             beside it, name its --probe-port",
        ),
        Agent::None(why) => Finding::warn(
            NAME,
            format!("no agent answers at {why}"),
            "start one, or name its --probe-port; the other checks say what would keep it from \
             starting",
        ),
    };
    let mut findings = vec![first];
    if let Agent::Ready {
        without_metrics: Some(why),
        ..
    } = agent
    {
        findings.push(Finding::warn(
            METRICS,
            format!("the agent's metrics cannot be had: {why}"),
            "see whether another program has the port, or name --metrics-port and \
             --metrics-address as for the agent",
        ));
    }
    findings
}

/// Where something that is served at an address can be had from here.
fn reachable((ip, port): (IpAddr, u16)) -> SocketAddr {
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, port)
}

/// What `podcreds_paths` says.
fn paths(metrics: &str) -> Option<(u32, u32)> {
    let of = |path: &str| {
        let start = format!("podcreds_paths{{path=\"{path}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&start))?;
        value.parse().ok()
    };
    Some((of("ebpf")?, of("node")?))
}

fn get(at: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + LIMIT;
    let stream = TcpStream::connect_timeout(&at, LIMIT)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    exchange(
        &stream,
        request.as_bytes(),
        &mut answer,
        MAX_ANSWER,
        deadline,
    )?;
    let (status, body) =
        parse_answer(&answer).ok_or_else(|| io::Error::other("what answers there is no agent"))?;
    Ok((status, String::from_utf8_lossy(body).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread};

    use podcreds_ops::{
        probes::{Readiness, serve_probes},
        watchdog::VitalsHealth,
    };
    use podcreds_upstream as upstream;

    use super::*;
    use crate::report::Status;

    fn ready(remarks: &[&str]) -> Agent {
        Agent::Ready {
            remarks: remarks.iter().map(|it| (*it).to_owned()).collect(),
            paths: Some((1, 2)),
            without_metrics: None,
        }
    }

    #[test]
    fn an_agent_that_does_without_something_is_a_warning() {
        let well = judge(&ready(&[]));
        assert_eq!(well[0].status, Status::Pass);
        assert!(
            well[0].seen.contains("by eBPF and at 2"),
            "{}",
            well[0].seen
        );
        assert_eq!(judge(&ready(&["without eBPF"]))[0].status, Status::Warn);
        assert_eq!(judge(&Agent::None("x".into()))[0].status, Status::Warn);
        assert_eq!(judge(&Agent::Unready("503".into()))[0].status, Status::Fail);
    }

    fn at_port(probe_port: u16) -> Config {
        Config {
            ebpf: true,
            cgroup_root: None,
            node: Vec::new(),
            upstream: upstream::Config::new("c"),
            keys: None,
            handover: None,
            // Nobody listens there.
            metrics: (Ipv4Addr::LOCALHOST.into(), 1),
            probe_port,
        }
    }

    #[tokio::test]
    async fn podcreds_is_known_by_what_it_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let readiness = Readiness::new();
        readiness.remark("without eBPF");
        let probes = serve_probes(listener, readiness.clone(), VitalsHealth::default());
        tokio::spawn(probes);
        let look = || tokio::task::spawn_blocking(move || look_for(&at_port(port)));
        let Agent::Ready { remarks, .. } = look().await.unwrap() else {
            panic!("not ready");
        };
        assert_eq!(remarks, ["without eBPF"]);
        readiness.drain();
        assert_eq!(
            look().await.unwrap(),
            Agent::Unready("503: draining".into())
        );
    }

    #[test]
    fn what_answers_in_another_way_is_another_agent() {
        // The first three are what AWS's agent answers.
        for answer in [
            "200 OK\r\n\r\n",
            "408 Request Timeout\r\n\r\n",
            "500 Internal Server Error\r\n\r\nInternal Server Error occurred",
            "200 OK\r\n\r\nhello\n",
            "503 Service Unavailable\r\n\r\n",
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = io::Read::read(&mut stream, &mut [0; 1024]);
                stream
                    .write_all(format!("HTTP/1.1 {answer}").as_bytes())
                    .unwrap();
            });
            let agent = look_for(&at_port(at.port()));
            server.join().unwrap();
            assert_eq!(agent, Agent::Other(at), "{answer}");
            assert!(!agent.is_there());
            let found = &judge(&agent)[0];
            assert_eq!(found.status, Status::Warn);
            assert!(found.remedy.as_deref().unwrap().contains("add-on"));
        }
    }

    #[test]
    fn the_paths_are_read_from_the_metrics() {
        let text = "# TYPE podcreds_paths gauge\npodcreds_paths{path=\"ebpf\"} 1\n\
                    podcreds_paths{path=\"node\"} 2\n";
        assert_eq!(paths(text), Some((1, 2)));
        assert_eq!(paths("x 1\n"), None);
        let anywhere = reachable((Ipv4Addr::UNSPECIFIED.into(), 2705));
        assert_eq!(anywhere, "127.0.0.1:2705".parse().unwrap());
    }
}
