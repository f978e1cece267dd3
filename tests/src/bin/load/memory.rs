//! Resident memory, with nothing and with many pods cached.

use std::thread;

use anyhow::{Result, anyhow, ensure};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node, pod::Pod};

use crate::step;

/// More would only wait for the kernel's lock on network namespaces.
const STARTERS: usize = 4;
/// What podcreds allows itself with 1,000 pods.
const TARGET_MB: f64 = 12.0;

/// Measures a fresh agent, and returns a line about it.
pub(crate) fn measure(count: usize, eks_auth: &EksAuth) -> Result<String> {
    let node = Node::new();
    let agent = Agent::on(&node, eks_auth).start();
    let empty = resident_mb(&agent);
    let title = format!("Starting {count} pods, each with a network namespace of its own");
    let pods = step(&title, || start(&node, count))?;
    step("Letting each of them get its credentials", || {
        get_all(&pods)
    })?;
    let entries = agent.metrics().sum("podcreds_cache_entries", &[]);
    ensure!(entries == count as f64, "{entries} pods are cached");
    let full = resident_mb(&agent);
    step("Removing them", || drop(pods));
    Ok(format!(
        "Resident memory: {empty:.1} MB without pods, {full:.1} MB with {count} pods cached \
         (target: {TARGET_MB:.0} MB with 1000)"
    ))
}

fn start(node: &Node, count: usize) -> Result<Vec<Pod>> {
    let started = in_parallel(|starter| {
        (starter..count)
            .step_by(STARTERS)
            .map(|number| node.pod(&format!("pod-{number}")).start())
            .collect::<Vec<_>>()
    })?;
    Ok(started.into_iter().flatten().collect())
}

fn get_all(pods: &[Pod]) -> Result<()> {
    let failures = in_parallel(|starter| {
        pods.iter()
            .skip(starter)
            .step_by(STARTERS)
            .map(|pod| pod.run(["get"]))
            .find(|answer| answer["status"] != 200)
    })?;
    match failures.into_iter().flatten().next() {
        Some(answer) => Err(anyhow!("a pod got {answer}")),
        None => Ok(()),
    }
}

/// Runs `work` in several threads, each with its own number.
fn in_parallel<T: Send>(work: impl Fn(usize) -> T + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..STARTERS)
            .map(|starter| {
                let work = &work;
                scope.spawn(move || work(starter))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")))
            .collect()
    })
}

fn resident_mb(agent: &Agent) -> f64 {
    agent.usage().resident as f64 / 1e6
}
