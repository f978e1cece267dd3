//! Resident memory, with nothing and with many pods in memory.

use anyhow::{Result, ensure};
use podcreds_tests::{agent::Agent, eks_auth::EksAuth, node::Node};
use procfs::process::Process;

use crate::{Arguments, outcome::Outcome, pods, step};

/// Measures fresh agents, one after the other, with the same pods.
pub(crate) fn measure(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    let count = arguments.pods;
    let node = Node::new();
    let mut empty = Vec::new();
    for subject in arguments.subjects() {
        let agent = Agent::on(&node, eks_auth).binary(&subject.binary).start();
        empty.push(row("no pods".to_owned(), &subject.name, &agent)?);
    }
    let title = format!("Starting {count} pods, each with a network namespace of its own");
    let pods = step(&title, || pods::start(&node, count))?;
    let mut full = Vec::new();
    for subject in arguments.subjects() {
        let agent = Agent::on(&node, eks_auth).binary(&subject.binary).start();
        let title = format!(
            "Letting each of them get its credentials of {}",
            subject.name
        );
        step(&title, || pods::get_all(&pods))?;
        let entries = agent.metrics().sum("podcreds_cache_entries", &[]);
        ensure!(entries == count as f64, "{entries} pods are cached");
        full.push(row(
            format!("{count} pods in memory"),
            &subject.name,
            &agent,
        )?);
    }
    step("Removing them", || drop(pods));
    Ok(empty.into_iter().chain(full).collect())
}

fn row(case: String, name: &str, agent: &Agent) -> Result<Outcome> {
    let (resident, data) = resident(agent)?;
    Ok(Outcome::new(case, name)
        .with("resident", resident, "MB")
        .with("of it data", data, "MB"))
}

/// What the kernel counts, and what of it is the agent's own data, not its program file; in MB.
pub(crate) fn resident(agent: &Agent) -> Result<(f64, f64)> {
    let status = Process::new(agent.id().cast_signed()).and_then(|process| process.status())?;
    let mb = |kb: Option<u64>| kb.unwrap_or_default() as f64 * 1024.0 / 1e6;
    Ok((mb(status.vmrss), mb(status.rssanon)))
}
