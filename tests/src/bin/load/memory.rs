//! Resident memory, with nothing and with many pods cached.

use std::{thread, time::Duration};

use anyhow::{Result, anyhow, ensure};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node, pod::Pod, wait::poll};
use procfs::process::Process;

use crate::{Arguments, step};

/// More would only wait for the kernel's lock on network namespaces.
const STARTERS: usize = 4;
/// How long a pod may wait for its credentials.
const PATIENCE: Duration = Duration::from_secs(60);
/// What podcreds allows itself with 1,000 pods.
const TARGET_MB: f64 = 12.0;

/// Measures a fresh agent, and returns a line about it.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<String> {
    let count = arguments.pods;
    let node = Node::new();
    let agent = Agent::on(&node, eks_auth).binary(&arguments.agent).start();
    let empty = resident(&agent)?;
    let title = format!("Starting {count} pods, each with a network namespace of its own");
    let pods = step(&title, || start(&node, count))?;
    step("Letting each of them get its credentials", || {
        get_all(&pods)
    })?;
    let entries = agent.metrics().sum("podcreds_cache_entries", &[]);
    ensure!(entries == count as f64, "{entries} pods are cached");
    let full = resident(&agent)?;
    step("Removing them", || drop(pods));
    Ok(format!(
        "Resident memory: {empty} without pods, {full} with {count} pods cached \
         (target: {TARGET_MB:.0} MB with 1000)"
    ))
}

pub(crate) fn start(node: &Node, count: usize) -> Result<Vec<Pod>> {
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
            .find(|pod| poll(PATIENCE, || is_served(pod).then_some(())).is_none())
            .map(Pod::name)
    })?;
    match failures.into_iter().flatten().next() {
        Some(pod) => Err(anyhow!("{pod} got no credentials in {PATIENCE:?}")),
        None => Ok(()),
    }
}

/// Asks once, as SDKs do again and again while the agent is still asking EKS Auth.
fn is_served(pod: &Pod) -> bool {
    pod.run(["get"])["status"] == 200
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

/// What the kernel counts, and what of it is the agent's own data, not its program file.
pub(crate) fn resident(agent: &Agent) -> Result<String> {
    let status = Process::new(agent.id().cast_signed()).and_then(|process| process.status())?;
    let mb = |kb: Option<u64>| kb.unwrap_or_default() as f64 * 1024.0 / 1e6;
    Ok(format!(
        "{:.1} MB ({:.1} MB of it data)",
        mb(status.vmrss),
        mb(status.rssanon)
    ))
}
