//! What an agent costs that nobody asks: processor time, wake-ups and memory, by the number of
//! pods.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{time::clock_getcpuclockid, unistd::Pid};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node};
use procfs::process::Process;

use crate::{Arguments, Subject, memory, outcome::Outcome, pods, step};

/// How long agents get to come to rest once they listen for all pods. Looks become rarer for that
/// long.
const SETTLING: Duration = Duration::from_secs(20);

/// An agent that rests, and what it has used until a moment.
struct Resting {
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

/// Measures the agents side by side.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for count in &arguments.rest_pods {
        let node = Node::new();
        let title = format!("Starting {count} pods, each with a network namespace of its own");
        let pods = step(&title, || pods::start(&node, *count))?;
        let mut resting = step("Starting the agents, and letting them come to rest", || {
            let subjects = arguments.subjects().into_iter();
            let started = subjects.map(|subject| start(subject, &node, eks_auth, *count));
            let started = started.collect::<Result<Vec<_>>>();
            thread::sleep(SETTLING);
            started
        })?;
        let title = format!("Asking nothing for {} s", arguments.rest_seconds);
        outcomes.extend(step(&title, || {
            for one in &mut resting {
                one.used = Used::by(&one.agent)?;
            }
            thread::sleep(Duration::from_secs(arguments.rest_seconds));
            let measured = resting.iter().map(|one| one.outcome(*count));
            measured.collect::<Result<Vec<_>>>()
        })?);
        drop(resting);
        step("Removing the pods", || drop(pods));
    }
    Ok(outcomes)
}

fn start(subject: Subject, node: &Node, eks_auth: &EksAuth, pods: usize) -> Result<Resting> {
    let agent = Agent::on(node, eks_auth).binary(subject.binary).start();
    agent.wait_metric("podcreds_network_namespaces", &[], |count| {
        count == pods as f64 + 1.0
    });
    Ok(Resting {
        name: subject.name,
        used: Used::by(&agent)?,
        agent,
    })
}

impl Used {
    fn by(agent: &Agent) -> Result<Self> {
        let id = agent.id().cast_signed();
        let cpu = clock_getcpuclockid(Pid::from_raw(id))?.now()?.into();
        let threads = Process::new(id)?.tasks()?.flatten();
        // A thread may end meanwhile.
        let statuses = threads.filter_map(|thread| thread.status().ok());
        // What goes to sleep has been awake; what only makes way for others has not slept.
        let sleeps =
            |status: procfs::process::Status| status.voluntary_ctxt_switches.unwrap_or_default();
        Ok(Self {
            cpu,
            wake_ups: statuses.map(sleeps).sum(),
            at: Instant::now(),
        })
    }
}

impl Resting {
    fn outcome(&self, pods: usize) -> Result<Outcome> {
        let now = Used::by(&self.agent)?;
        let minutes = (now.at - self.used.at).as_secs_f64() / 60.0;
        let cpu = (now.cpu - self.used.cpu).as_secs_f64() * 1e3 / minutes;
        let wake_ups = now.wake_ups.saturating_sub(self.used.wake_ups) as f64 / minutes;
        let (resident, _) = memory::resident(&self.agent)?;
        Ok(Outcome::new(format!("{pods} pods"), &self.name)
            .with("CPU a minute", cpu, "ms")
            .with("wake-ups a minute", wake_ups.round(), "")
            .with("resident", resident, "MB"))
    }
}
