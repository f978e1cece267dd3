//! A node on which agents hand over to each other, and a load that notices when they do it badly.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    num::NonZero,
    ops::Deref,
    thread,
    time::Duration,
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    pod::{Client, Pod},
    scenario::{ACCOUNT, wait_served},
    shared_node::SharedNode,
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Pods that ask.
pub(crate) const PODS: usize = 20;
/// New connections a second, of all of them.
const RATE: usize = 500;
/// The same where there is one processor, as in a virtual machine, for agents and clients.
const RATE_OF_ONE: usize = 100;
/// How many of them are in the host's network, where some are.
pub(crate) const HOST_PODS: usize = 5;
/// Pods that are started at once.
const STARTERS: usize = 4;

/// A node whose agents follow each other.
pub(crate) struct Scene(SharedNode);

impl Deref for Scene {
    type Target = SharedNode;

    fn deref(&self) -> &SharedNode {
        &self.0
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self(SharedNode::new())
    }

    /// So many pods that have theirs: in networks of their own, and in the host's.
    pub(crate) fn served_pods(&self, own: usize, host: usize) -> Vec<Pod> {
        let start = |number: usize| {
            let name = format!("pod-{number}");
            match number < own {
                true => self.served_pod(&name),
                false => self.serve(self.node.pod(&name).host_network()),
            }
        };
        thread::scope(|scope| {
            let starters: Vec<_> = (0..STARTERS)
                .map(|first| {
                    let numbers = (first..own + host).step_by(STARTERS);
                    scope.spawn(move || numbers.map(start).collect::<Vec<_>>())
                })
                .collect();
            let pods = starters.into_iter().map(|starter| starter.join().unwrap());
            pods.flatten().collect()
        })
    }

    /// A few pods in the host's network that ask at addresses of the host, and have their
    /// credentials.
    pub(crate) fn host_pods(&self, port: &HostPort) -> Vec<Pod> {
        let pods = (0..HOST_PODS).map(|number| {
            let name = format!("host-{number}");
            let pod = self
                .node
                .pod(&name)
                .account(ACCOUNT.0, ACCOUNT.1)
                .host_network()
                .start();
            // Each address may be another agent's for a moment, but the cache is one.
            for address in port.destinations() {
                wait_served(&pod, ["--dst", address]);
            }
            pod
        });
        pods.collect()
    }
}

/// A port of the host that was free a moment ago.
pub(crate) struct HostPort {
    addresses: [String; 2],
    port: u16,
}

impl HostPort {
    /// One that is free in both families.
    pub(crate) fn find() -> Self {
        let port = loop {
            let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = v4.local_addr().unwrap().port();
            if TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok() {
                break port;
            }
        };
        Self {
            addresses: ["127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}")),
            port,
        }
    }

    /// Has an agent serve it, on a datapath that does so.
    pub(crate) fn serve(&self, agent: AgentBuilder, datapath: &str) -> AgentBuilder {
        let agent = agent
            .set("--datapath", datapath)
            .set("--bind-hosts", "127.0.0.1,::1");
        agent.set("--port", &self.port.to_string())
    }

    /// Whether another program of root's can listen there as well.
    pub(crate) fn lets_others_in(&self) -> bool {
        let listen = |address: &String| {
            let address: SocketAddr = address.parse().unwrap();
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            socket.listen(1)
        };
        self.addresses.iter().any(|address| listen(address).is_ok())
    }

    /// Where it is, over both families.
    pub(crate) fn destinations(&self) -> [&str; 2] {
        self.addresses.each_ref().map(String::as_str)
    }
}

/// New connections at a steady rate, over both families, from all pods at once.
pub(crate) struct Load(Vec<(String, Client)>);

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    /// By status, or by the error's name.
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) worst: Duration,
}

impl Load {
    pub(crate) fn start(pods: &[Pod]) -> Self {
        Self::to(pods, &["169.254.170.23:80", "[fd00:ec2::23]:80"])
    }

    /// The same, to other addresses.
    pub(crate) fn to(pods: &[Pod], destinations: &[&str]) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let rate = if processors == 1 { RATE_OF_ONE } else { RATE };
        let rate = (rate / pods.len()).to_string();
        let mut command = vec!["storm", "--threads", "4", "--rate", &rate];
        command.extend(["--until-end-of-input", "--timeout-ms", "20000"]);
        command.extend(destinations.iter().flat_map(|address| ["--dst", *address]));
        let start = |pod: &Pod| (pod.uid().to_owned(), pod.spawn(command.iter().copied()));
        Self(pods.iter().map(start).collect())
    }

    /// Ends it. All that was given out must have been each pod's own.
    pub(crate) fn finish(self) -> Report {
        let mut report = Report::default();
        for (uid, client) in self.0 {
            let tally = client.finish().pop().unwrap();
            let number = |value: &Value| value.as_u64().unwrap_or_default();
            report.requests += number(&tally["requests"]);
            let worst = Duration::from_micros(number(&tally["max_us"]));
            report.worst = report.worst.max(worst);
            for (outcome, count) in tally["outcomes"].as_object().unwrap() {
                *report.outcomes.entry(outcome.clone()).or_default() += number(count);
            }
            let owners = tally["owners"].as_object().unwrap();
            assert!(owners.keys().all(|owner| *owner == uid), "{uid}: {tally}");
        }
        report
    }
}

impl Report {
    /// Requests that did not bring credentials.
    pub(crate) fn failed(&self) -> u64 {
        self.requests - self.outcomes.get("200").copied().unwrap_or_default()
    }
}

/// Waits until an agent has given out credentials `count` times more.
pub(crate) fn wait_answers(agent: &Agent, count: f64) {
    let (name, labels) = ("podcreds_request_duration_seconds_count", [("code", "200")]);
    let before = agent.metrics().sum(name, &labels);
    agent.wait_metric(name, &labels, |answers| answers >= before + count);
}

/// Waits until an agent has a role among the agents of its node.
pub(crate) fn wait_role(agent: &Agent, role: &str) {
    agent.wait_metric("podcreds_handover_role", &[("role", role)], |it| it == 1.0);
}
