//! Pods come and go beside others that stay.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use podcreds_tests::{
    agent::Agent,
    eks_auth::EksAuth,
    node::Node,
    pod::{Join, Pod},
    wait::until,
};

use crate::{Arguments, outcome::Outcome, pods, step};

/// How many pods stay, and whether one of them is crowded.
const CASES: [(usize, bool); 4] = [(0, false), (110, false), (110, true), (500, false)];
/// How many cgroups a crowded pod has, and how many processes in each of them.
const CROWD: (usize, usize) = (200, 25);
/// A pod comes, and goes, this often: a hundred a minute.
const PERIOD: Duration = Duration::from_millis(600);

/// What a pod that comes and goes costs the agents, by the number of those that stay.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (residents, is_crowded) in CASES {
        let node = Node::new();
        let title = format!("Starting {residents} pods that stay");
        let pods = step(&title, || pods::start(&node, residents))?;
        let crowded = pods.first().filter(|_| is_crowded);
        let crowd = match crowded {
            Some(pod) => step("Starting 5,000 processes in one of them", || crowd(pod))?,
            None => Vec::new(),
        };
        let case = match is_crowded {
            true => format!("{residents} pods stay, one with 5,000 processes"),
            false => format!("{residents} pods stay"),
        };
        for subject in arguments.subjects() {
            let agent = Agent::on(&node, eks_auth).binary(&subject.binary);
            let agent = agent.start();
            let title = format!(
                "{} pods come and go beside {residents}, for {}",
                arguments.churn, subject.name
            );
            let cpu = step(&title, || once(&node, &agent, residents, arguments.churn))?;
            let each = cpu.as_secs_f64() * 1000.0 / f64::from(arguments.churn);
            outcomes.push(
                Outcome::new(&case, &subject.name)
                    .with("CPU for a pod", each, "ms")
                    .with("resident", agent.usage().resident as f64 / 1e6, "MB"),
            );
        }
        step("Removing the pods", || {
            drop(pods);
            crowd
                .into_iter()
                .try_for_each(|mut shell| shell.wait().map(drop))
        })?;
    }
    Ok(outcomes)
}

/// Fills a pod with cgroups and processes, which end with it. Returns the shells that started them.
fn crowd(pod: &Pod) -> Result<Vec<Child>> {
    let (cgroups, processes) = CROWD;
    let start = |number| {
        let cgroup = pod.cgroup().join(format!("crowd-{number}"));
        fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        let join = Join::nothing().cgroup(&cgroup).network(&pod.network());
        let script = format!("for i in $(seq {processes}); do sleep infinity & done; wait");
        let mut shell = join.command("sh");
        let shell = shell.arg("-c").arg(script).stdin(Stdio::null());
        shell.spawn().context("cannot start a shell")
    };
    (0..cgroups).map(start).collect()
}

/// The CPU time that it takes the agent.
fn once(node: &Node, agent: &Agent, residents: usize, count: u32) -> Result<Duration> {
    let listening = |pods: usize| {
        agent.wait_metric("podcreds_network_namespaces", &[], |count| {
            count == pods as f64 + 1.0
        });
    };
    listening(residents);
    let clock = clock_getcpuclockid(Pid::from_raw(agent.id().cast_signed()))?;
    let mut spent = Duration::ZERO;
    for number in 0..count {
        let begun = Instant::now();
        let before = Duration::from(clock.now()?);
        let pod = node.pod(&format!("comes-{number}")).start();
        // The agent's map is read from here, which costs the agent nothing.
        until("the agent has found the pod", || {
            agent.map_entries("PODS") == residents + 1
        });
        thread::sleep(PERIOD / 2);
        drop(pod);
        until("the agent has let the pod go", || {
            agent.map_entries("PODS") == residents
        });
        thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
        spent += Duration::from(clock.now()?) - before;
    }
    Ok(spent)
}
