//! Pods come and go beside others that stay.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{time::clock_getcpuclockid, unistd::Pid};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node, wait::until};

use crate::{Arguments, outcome::Outcome, pods, step};

/// How many pods stay.
const RESIDENTS: [usize; 3] = [0, 110, 500];
/// A pod comes, and goes, this often: a hundred a minute.
const PERIOD: Duration = Duration::from_millis(600);

/// What a pod that comes and goes costs the agents, by the number of those that stay.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for residents in RESIDENTS {
        let node = Node::new();
        let title = format!("Starting {residents} pods that stay");
        let pods = step(&title, || pods::start(&node, residents))?;
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
                Outcome::new(format!("{residents} pods stay"), &subject.name)
                    .with("CPU for a pod", each, "ms")
                    .with("resident", agent.usage().resident as f64 / 1e6, "MB"),
            );
        }
        step("Removing the pods", || drop(pods));
    }
    Ok(outcomes)
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
