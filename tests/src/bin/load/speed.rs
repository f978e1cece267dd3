//! CPU per request and latency, at a fixed rate.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node, pod::Pod};
use serde_json::json;

use crate::{
    Arguments, Subject,
    nginx::{self, Nginx},
    number,
    outcome::{Line, Outcome},
    step,
};

/// How the clients use their connections.
#[derive(Clone, Copy)]
enum Connections {
    New,
    Kept,
}

impl Connections {
    const ALL: [Self; 2] = [Self::New, Self::Kept];

    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
        }
    }

    fn plot(self) -> &'static str {
        match self {
            Self::New => "Latency, new connections",
            Self::Kept => "Latency, kept connections",
        }
    }

    /// `pod-client storm`'s requests per connection.
    fn keepalive(self) -> u32 {
        match self {
            Self::New => 1,
            Self::Kept => u32::MAX,
        }
    }
}

/// A server to be asked: from where, its address there, and the process that does the work.
struct Server<'a> {
    name: &'a str,
    pod: &'a Pod,
    address: Option<&'a str>,
    process: u32,
}

/// An agent with a node of its own, and a pod that it serves.
struct Served {
    agent: Agent,
    pod: Pod,
    node: Node,
    body: String,
}

/// What one server needed for all rounds of one kind.
#[derive(Default)]
struct Cost {
    /// CPU time per request, in each of the rounds.
    cpu_us: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    /// Of each round: which part of the requests took how many microseconds at most.
    quantiles: Vec<Vec<(f64, f64)>>,
}

/// Measures all servers, in turns.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    let nginx = arguments.nginx.as_ref().context("no nginx is named")?;
    let subjects = arguments.subjects();
    let served = subjects
        .iter()
        .map(|subject| Served::start(subject, eks_auth));
    let served = served.collect::<Result<Vec<_>>>()?;
    let first = served.first().context("no agent is named")?;
    let nginx = Nginx::start(nginx, &first.node, &first.pod, &first.body)?;
    let mut servers = vec![Server {
        name: "nginx",
        pod: &first.pod,
        address: Some(nginx::ADDRESS),
        process: nginx.worker(),
    }];
    servers.extend(subjects.iter().zip(&served).map(|(subject, one)| Server {
        name: &subject.name,
        pod: &one.pod,
        address: None,
        process: one.agent.id(),
    }));
    let other = arguments.other(eks_auth)?;
    servers.extend(other.iter().map(|other| Server {
        name: "other",
        pod: other.pod(),
        address: Some(other.address()),
        process: other.process(),
    }));
    let mut outcomes = Vec::new();
    for connections in Connections::ALL {
        let mut costs: Vec<_> = servers.iter().map(|_| Cost::default()).collect();
        let title = format!(
            "Asking in turns, {} connections: {} requests/s from {} callers",
            connections.name(),
            arguments.rate,
            arguments.callers
        );
        step(&title, || {
            for _ in 0..arguments.rounds {
                for (server, cost) in servers.iter().zip(&mut costs) {
                    cost.add(arguments, server, connections)?;
                }
            }
            anyhow::Ok(())
        })?;
        let nginx = costs.first().context("nginx was not asked")?;
        let measured = servers.iter().zip(&costs);
        outcomes.extend(measured.map(|(server, cost)| cost.outcome(server, connections, nginx)));
    }
    Ok(outcomes)
}

impl Served {
    fn start(subject: &Subject, eks_auth: &EksAuth) -> Result<Self> {
        let node = Node::new();
        let pod = node.pod("load").start();
        let agent = Agent::on(&node, eks_auth).binary(&subject.binary).start();
        let body = &pod.run(["get"])["body"];
        ensure!(body["AccessKeyId"].is_string(), "the agent gave {body}");
        let body = body.to_string();
        Ok(Self {
            agent,
            pod,
            node,
            body,
        })
    }
}

impl Cost {
    /// One round.
    fn add(
        &mut self,
        arguments: &Arguments,
        server: &Server<'_>,
        connections: Connections,
    ) -> Result<()> {
        let requests = u64::from(arguments.rate) * u64::from(arguments.seconds);
        let mut options = vec!["storm".to_owned()];
        let mut option = |name: &str, value: &dyn ToString| {
            options.extend([format!("--{name}"), value.to_string()]);
        };
        option("requests", &requests);
        option("rate", &arguments.rate);
        option("threads", &arguments.callers);
        option("keepalive", &connections.keepalive());
        if let Some(address) = server.address {
            option("dst", &address);
        }
        let clock = clock_getcpuclockid(Pid::from_raw(server.process.cast_signed()))?;
        let before = Duration::from(clock.now()?);
        let storm = server.pod.run(options.iter().map(String::as_str));
        let cpu = Duration::from(clock.now()?) - before;
        ensure!(
            storm["outcomes"] == json!({ "200": requests }),
            "not all answers were good: {storm}"
        );
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / requests as f64);
        self.p50_us.push(number(&storm, "p50_us")?);
        self.p99_us.push(number(&storm, "p99_us")?);
        self.quantiles
            .push(serde_json::from_value(storm["quantiles_us"].clone())?);
        Ok(())
    }

    fn outcome(&self, server: &Server<'_>, connections: Connections, nginx: &Self) -> Outcome {
        let ms = |values_us: &[f64]| values_us.iter().map(|us| us / 1000.0).collect::<Vec<_>>();
        // Of each round by itself: what the machine was busy with lay on all of them.
        let times = self.cpu_us.iter().zip(&nginx.cpu_us);
        let case = format!("{} connections", connections.name());
        Outcome::new(case, server.name)
            .with_rounds("CPU a request", self.cpu_us.iter().copied(), "us")
            .with_rounds("p50", ms(&self.p50_us), "ms")
            .with_rounds("p99", ms(&self.p99_us), "ms")
            .with_rounds(
                "CPU, times nginx",
                times.map(|(ours, theirs)| ours / theirs),
                "",
            )
            .with_line(Line {
                plot: connections.plot(),
                x: "percentile",
                y: "ms",
                points: self.percentiles(),
            })
    }

    /// The latencies of all rounds, as a curve: of each percentile the median of the rounds.
    fn percentiles(&self) -> Vec<(f64, f64)> {
        let Some(first) = self.quantiles.first() else {
            return Vec::new();
        };
        let median = |index: usize| {
            let mut rounds: Vec<_> = self
                .quantiles
                .iter()
                .filter_map(|round| round.get(index).map(|(_, us)| *us))
                .collect();
            rounds.sort_unstable_by(f64::total_cmp);
            rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let points = first.iter().enumerate();
        points
            .map(|(index, (part, _))| (part * 100.0, median(index) / 1000.0))
            .collect()
    }
}
