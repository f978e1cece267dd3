//! CPU per request and latency, at a fixed rate.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node, pod::Pod, table};
use serde_json::{Value, json};

use crate::{
    Arguments,
    nginx::{self, Nginx},
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

    /// `pod-client storm`'s requests per connection.
    fn keepalive(self) -> u32 {
        match self {
            Self::New => 1,
            Self::Kept => u32::MAX,
        }
    }

    /// At most so many times nginx's CPU is what podcreds allows itself.
    fn target(self) -> f64 {
        match self {
            Self::New => 1.3,
            Self::Kept => 1.0,
        }
    }
}

/// A server to be asked: its address in the pod, and the process that does the work.
struct Server {
    address: Option<&'static str>,
    process: u32,
}

/// What one server needed for all rounds of one kind.
#[derive(Default)]
struct Cost {
    /// CPU time per request, in each of the rounds.
    cpu_us: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

/// Measures both servers, in turns, and returns a table.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<String> {
    let nginx = arguments.nginx.as_ref().context("no nginx is named")?;
    let node = Node::new();
    let pod = node.pod("load").start();
    let agent = Agent::on(&node, eks_auth).binary(&arguments.agent).start();
    let body = &pod.run(["get"])["body"];
    ensure!(body["AccessKeyId"].is_string(), "the agent gave {body}");
    let nginx = Nginx::start(nginx, &node, &pod, &body.to_string())?;
    let servers = [
        Server {
            address: None,
            process: agent.id(),
        },
        Server {
            address: Some(nginx::ADDRESS),
            process: nginx.worker(),
        },
    ];
    let mut rows = Vec::new();
    for connections in Connections::ALL {
        let mut costs = [Cost::default(), Cost::default()];
        let title = format!(
            "Asking podcreds and nginx in turns, {} connections: {} requests/s from {} callers",
            connections.name(),
            arguments.rate,
            arguments.callers
        );
        step(&title, || {
            for _ in 0..arguments.rounds {
                for (server, cost) in servers.iter().zip(&mut costs) {
                    cost.add(arguments, &pod, server, connections)?;
                }
            }
            anyhow::Ok(())
        })?;
        let [podcreds, nginx] = costs;
        rows.push(podcreds.row("podcreds", connections, Some(&nginx)));
        rows.push(nginx.row("nginx", connections, None));
    }
    let titles = [
        "CONNECTIONS",
        "SERVER",
        "CPU/REQUEST",
        "P50",
        "P99",
        "CPU, TIMES NGINX",
    ];
    Ok(table::layout(&titles, &rows, &[2, 3, 4]))
}

impl Cost {
    /// One round.
    fn add(
        &mut self,
        arguments: &Arguments,
        pod: &Pod,
        server: &Server,
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
        let storm = pod.run(options.iter().map(String::as_str));
        let cpu = Duration::from(clock.now()?) - before;
        ensure!(
            storm["outcomes"] == json!({ "200": requests }),
            "not all answers were good: {storm}"
        );
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / requests as f64);
        self.p50_us.push(number(&storm, "p50_us")?);
        self.p99_us.push(number(&storm, "p99_us")?);
        Ok(())
    }

    fn row(&self, name: &str, connections: Connections, other: Option<&Self>) -> Vec<String> {
        let times = other.map_or_else(String::new, |other| {
            // Of each round by itself: what the machine was busy with lay on both.
            let times = self.cpu_us.iter().zip(&other.cpu_us);
            let times = median(times.map(|(ours, theirs)| ours / theirs));
            format!("{times:.2} (target: {:.1})", connections.target())
        });
        let ms = |values_us: &[f64]| median(values_us.iter().map(|value| value / 1000.0));
        vec![
            connections.name().to_owned(),
            name.to_owned(),
            format!("{:.1} us", median(self.cpu_us.iter().copied())),
            format!("{:.2} ms", ms(&self.p50_us)),
            format!("{:.2} ms", ms(&self.p99_us)),
            times,
        ]
    }
}

fn number(storm: &Value, field: &str) -> Result<f64> {
    storm[field]
        .as_f64()
        .with_context(|| format!("no {field} in {storm}"))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
