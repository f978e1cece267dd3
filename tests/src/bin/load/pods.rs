//! Many pods at once.

use std::{thread, time::Duration};

use anyhow::{Result, anyhow};
use podcreds_tests::{node::Node, pod::Pod, wait::poll};

/// More would only wait for the kernel's lock on network namespaces.
const STARTERS: usize = 4;
/// How long a pod may wait for its credentials.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts so many pods, each with a network namespace of its own.
pub(crate) fn start(node: &Node, count: usize) -> Result<Vec<Pod>> {
    let started = in_parallel(|starter| {
        (starter..count)
            .step_by(STARTERS)
            .map(|number| node.pod(&format!("pod-{number}")).start())
            .collect::<Vec<_>>()
    })?;
    Ok(started.into_iter().flatten().collect())
}

/// Has each of them get its credentials.
pub(crate) fn get_all(pods: &[Pod]) -> Result<()> {
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
