//! The podcreds binary, run as on a node, and what it says about itself.

mod builder;
mod logs;
mod maps;
mod metrics;
mod process;
mod stopped;

use std::{
    net::SocketAddr,
    process::{Child, ExitStatus},
    thread,
};

pub use builder::AgentBuilder;
pub use logs::{LogLine, Logs};
pub use metrics::{Metrics, Sample};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
pub use process::Usage;
pub use stopped::StoppedThread;

use crate::{
    eks_auth::EksAuth,
    http::client::{self, Answer},
    network::HostNetwork,
    node::Node,
    wait::{self, DEADLINE},
};

/// The port that the agent's listeners try first in each network namespace.
pub const LISTENER_PORT: u16 = 62_723;

/// Where they are in a pod in which nothing else has taken that port.
pub const LISTENERS: [&str; 2] = ["127.0.0.1:62723", "[::1]:62723"];

/// How many log lines a failing test shows.
const SHOWN: usize = 60;

/// A running agent. It is killed when this is dropped; a test that panics shows its last log lines.
pub struct Agent {
    child: Child,
    logs: Logs,
    network: Option<HostNetwork>,
}

impl Agent {
    /// An agent on `node`, which asks `eks_auth` for credentials.
    pub fn on(node: &Node, eks_auth: &EksAuth) -> AgentBuilder {
        AgentBuilder::on_node(node, eks_auth)
    }

    /// An agent that needs no privileges: it takes connections on loopback, and knows callers by
    /// their tokens alone.
    pub fn on_loopback(eks_auth: &EksAuth) -> AgentBuilder {
        AgentBuilder::on_loopback(eks_auth)
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far, and will.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Waits until it is ready for pods.
    ///
    /// # Panics
    ///
    /// When it is not within [`DEADLINE`].
    pub fn wait_ready(&self) {
        self.logs
            .wait_for("the agent is ready", |line| line.message == "ready");
    }

    /// Where it serves its metrics.
    pub fn metrics_address(&self) -> SocketAddr {
        self.address("metrics server listening")
    }

    /// Where it answers probes.
    pub fn probe_address(&self) -> SocketAddr {
        self.address("probe server listening")
    }

    /// Where it takes connections when it is [on loopback](Self::on_loopback).
    pub fn node_path_address(&self) -> SocketAddr {
        self.address("node path listening")
    }

    fn address(&self, message: &str) -> SocketAddr {
        let line = self.logs.wait_for(message, |line| line.message == message);
        let address = line
            .field("address")
            .and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    /// What it answers to a GET request.
    ///
    /// # Panics
    ///
    /// When it does not answer at all.
    pub fn get(&self, address: SocketAddr, path: &str) -> Answer {
        let get = || client::get(address, path).expect("an answer of the agent");
        match &self.network {
            Some(network) => network.enter(get),
            None => get(),
        }
    }

    /// The status with which it answers a probe such as `/readyz`.
    ///
    /// # Panics
    ///
    /// When it does not answer at all.
    pub fn probe(&self, path: &str) -> u16 {
        self.get(self.probe_address(), path).status
    }

    /// Its metrics, now.
    ///
    /// # Panics
    ///
    /// When they cannot be had.
    pub fn metrics(&self) -> Metrics {
        let answer = self.get(self.metrics_address(), "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Metrics::parse(&answer.body)
    }

    /// Waits until the sum of the samples of this name and these labels is as wanted, and returns
    /// it.
    ///
    /// # Panics
    ///
    /// When it is not within [`DEADLINE`], with what it was instead.
    pub fn wait_metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> f64 {
        let mut last = f64::NAN;
        let met = wait::poll(DEADLINE, || {
            last = self.metrics().sum(name, labels);
            wanted(last).then_some(last)
        });
        met.unwrap_or_else(|| panic!("gave up waiting for {name}{labels:?}: it is {last}"))
    }

    /// What it uses of the machine, now.
    ///
    /// # Panics
    ///
    /// When it is no longer running.
    pub fn usage(&self) -> Usage {
        Usage::of(self.id()).expect("the agent's /proc files")
    }

    /// How many inotify watches it has.
    ///
    /// # Panics
    ///
    /// When it is no longer running.
    pub fn inotify_watches(&self) -> usize {
        maps::fdinfo(self.id())
            .iter()
            .flat_map(|info| info.lines())
            .filter(|line| line.starts_with("inotify "))
            .count()
    }

    /// How many entries one of its eBPF maps has: `PODS`, say.
    ///
    /// # Panics
    ///
    /// When it has no such map.
    pub fn map_entries(&self, name: &str) -> usize {
        maps::entries(self.id(), name)
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it cannot be sent.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("a process ID");
        kill(Pid::from_raw(pid), signal).expect("a signal to the agent");
    }

    /// Stops its oldest thread of this name, until the result is dropped; the main thread is called
    /// `podcreds`.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn stop_thread(&self, name: &str) -> StoppedThread {
        StoppedThread::stop(self.id(), name)
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Panics
    ///
    /// When it has not within a minute.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit()
    }

    /// Waits until it has stopped.
    ///
    /// # Panics
    ///
    /// When it has not within a minute.
    pub fn wait_exit(&mut self) -> ExitStatus {
        wait::exit(&mut self.child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- the agent's last log lines ----");
            for line in self.logs.last(SHOWN) {
                eprintln!("{}", line.raw);
            }
        }
    }
}
