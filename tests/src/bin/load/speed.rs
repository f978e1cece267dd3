//! CPU per request and latency, at a fixed rate.

use anyhow::{Context, Result, ensure};
use podcreds_tests::{
    agent::{Agent, Usage},
    eks_auth::EksAuth,
    node::Node,
    pod::Pod,
    table,
};
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
    requests: u64,
    cpu_us: u128,
    p50_us: Vec<u64>,
    p99_us: Vec<u64>,
}

/// Measures both servers, in turns, and returns a table.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<String> {
    let node = Node::new();
    let pod = node.pod("load").start();
    let agent = Agent::on(&node, eks_auth).binary(&arguments.agent).start();
    let body = &pod.run(["get"])["body"];
    ensure!(body["AccessKeyId"].is_string(), "the agent gave {body}");
    let nginx = Nginx::start(&arguments.nginx, &pod, &body.to_string())?;
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
        let before = cpu_us(server.process)?;
        let storm = pod.run(options.iter().map(String::as_str));
        self.cpu_us += cpu_us(server.process)? - before;
        ensure!(
            storm["outcomes"] == json!({ "200": requests }),
            "not all answers were good: {storm}"
        );
        self.requests += requests;
        self.p50_us.push(number(&storm, "p50_us")?);
        self.p99_us.push(number(&storm, "p99_us")?);
        Ok(())
    }

    fn row(&self, name: &str, connections: Connections, other: Option<&Self>) -> Vec<String> {
        let times = other.map_or_else(String::new, |other| {
            let times = self.per_request() / other.per_request();
            format!("{times:.2} (target: {:.1})", connections.target())
        });
        vec![
            connections.name().to_owned(),
            name.to_owned(),
            format!("{:.1} us", self.per_request()),
            format!("{:.2} ms", median_ms(&self.p50_us)),
            format!("{:.2} ms", median_ms(&self.p99_us)),
            times,
        ]
    }

    /// CPU time in microseconds.
    fn per_request(&self) -> f64 {
        self.cpu_us as f64 / self.requests as f64
    }
}

/// The CPU time that a process has used, with all its threads.
fn cpu_us(process: u32) -> Result<u128> {
    let usage = Usage::of(process).context("a server has ended")?;
    Ok(usage.cpu.as_micros())
}

fn number(storm: &Value, field: &str) -> Result<u64> {
    storm[field]
        .as_u64()
        .with_context(|| format!("no {field} in {storm}"))
}

fn median_ms(values_us: &[u64]) -> f64 {
    let mut sorted = values_us.to_vec();
    sorted.sort_unstable();
    sorted
        .get(sorted.len() / 2)
        .map_or(f64::NAN, |value| *value as f64 / 1000.0)
}
