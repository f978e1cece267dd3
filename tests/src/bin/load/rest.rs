//! What an agent costs that nobody asks: processor time, wake-ups and memory, by the number of
//! pods.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node, table};
use procfs::process::Process;

use crate::{Arguments, memory, step};

/// How long agents get to come to rest once they listen for all pods. Looks become rarer for that
/// long.
const SETTLING: Duration = Duration::from_secs(20);

/// An agent, and what it has used until a moment.
struct Subject {
    name: String,
    agent: Agent,
    used: Used,
}

/// What a process has used since it started.
#[derive(Clone, Copy)]
struct Used {
    cpu: Duration,
    /// Of the threads that live; those of threads that have ended are not known any more.
    wake_ups: u64,
    at: Instant,
}

/// Measures the agents side by side, and returns a table.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<String> {
    let mut rows = Vec::new();
    for count in &arguments.rest_pods {
        let node = Node::new();
        let title = format!("Starting {count} pods, each with a network namespace of its own");
        let pods = step(&title, || memory::start(&node, *count))?;
        let binaries = [Some(&arguments.agent), arguments.against.as_ref()];
        let mut subjects = step("Starting the agents, and letting them come to rest", || {
            let binaries = binaries.into_iter().flatten();
            let started = binaries.map(|binary| start(binary, &node, eks_auth, *count));
            let started = started.collect::<Result<Vec<_>>>();
            thread::sleep(SETTLING);
            started
        })?;
        let title = format!("Asking nothing for {} s", arguments.rest_seconds);
        rows.extend(step(&title, || {
            for subject in &mut subjects {
                subject.used = Used::by(&subject.agent)?;
            }
            thread::sleep(Duration::from_secs(arguments.rest_seconds));
            let rows = subjects.iter().map(|subject| subject.row(*count));
            rows.collect::<Result<Vec<_>>>()
        })?);
        drop(subjects);
        step("Removing the pods", || drop(pods));
    }
    let titles = ["PODS", "AGENT", "CPU/MINUTE", "WAKE-UPS/MINUTE", "RESIDENT"];
    Ok(table::layout(&titles, &rows, &[0, 2, 3, 4]))
}

fn start(binary: &Path, node: &Node, eks_auth: &EksAuth, pods: usize) -> Result<Subject> {
    let agent = Agent::on(node, eks_auth).binary(binary).start();
    agent.wait_metric("podcreds_network_namespaces", &[], |count| {
        count == pods as f64 + 1.0
    });
    Ok(Subject {
        name: name_of(binary),
        used: Used::by(&agent)?,
        agent,
    })
}

fn name_of(binary: &Path) -> String {
    let parts: PathBuf = binary
        .iter()
        .rev()
        .take(2)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    parts.display().to_string()
}

impl Used {
    fn by(agent: &Agent) -> Result<Self> {
        let id = agent.id().cast_signed();
        let cpu = clock_getcpuclockid(Pid::from_raw(id))?.now()?.into();
        let threads = Process::new(id)?.tasks()?.flatten();
        // A thread may end meanwhile.
        let statuses = threads.filter_map(|thread| thread.status().ok());
        let switches = |status: procfs::process::Status| {
            status.voluntary_ctxt_switches.unwrap_or_default()
                + status.nonvoluntary_ctxt_switches.unwrap_or_default()
        };
        Ok(Self {
            cpu,
            wake_ups: statuses.map(switches).sum(),
            at: Instant::now(),
        })
    }
}

impl Subject {
    fn row(&self, pods: usize) -> Result<Vec<String>> {
        let now = Used::by(&self.agent)?;
        let minutes = (now.at - self.used.at).as_secs_f64() / 60.0;
        let cpu = (now.cpu - self.used.cpu).as_secs_f64() * 1e3 / minutes;
        let wake_ups = now.wake_ups.saturating_sub(self.used.wake_ups) as f64 / minutes;
        let resident = memory::resident(&self.agent).context("an agent has ended")?;
        Ok(vec![
            pods.to_string(),
            self.name.clone(),
            format!("{cpu:.1} ms"),
            format!("{wake_ups:.0}"),
            resident,
        ])
    }
}
