//! Runs checks side by side, each for a limited time.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture, future::join_all};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::report::Finding;

/// For checks of the machine, which take milliseconds.
const MACHINE: Duration = Duration::from_secs(15);
/// For checks over the network: longer than the longest way to EKS Auth, so that it says itself
/// what was slow.
const NETWORK: Duration = Duration::from_secs(60);
/// After so long it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(3);

/// Something to look at.
pub(crate) struct Check {
    name: &'static str,
    limit: Duration,
    work: BoxFuture<'static, Vec<Finding>>,
}

impl Check {
    /// Looks at the machine, on a thread that may block.
    pub(crate) fn machine(
        name: &'static str,
        work: impl FnOnce() -> Vec<Finding> + Send + 'static,
    ) -> Self {
        let work = async move {
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|_| vec![panicked(name)])
        };
        Self {
            name,
            limit: MACHINE,
            work: work.boxed(),
        }
    }

    /// Asks somebody over the network.
    pub(crate) fn network(
        name: &'static str,
        work: impl Future<Output = Vec<Finding>> + Send + 'static,
    ) -> Self {
        Self {
            name,
            limit: NETWORK,
            work: work.boxed(),
        }
    }

    async fn run(self) -> Vec<Finding> {
        let Self { name, limit, work } = self;
        match timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(_)) => vec![panicked(name)],
            Err(_) => vec![late(
                name,
                limit,
                "see what the node is busy with, and run this again",
            )],
        }
    }
}

fn late(name: &'static str, limit: Duration, remedy: &str) -> Finding {
    Finding::fail(
        name,
        format!("the check took longer than {limit:?}"),
        remedy,
    )
}

/// Looks for what other checks need, on a thread that may block. One that takes too long is left
/// behind: then this is the finding, with that remedy.
///
/// # Errors
///
/// When it took too long, or panicked.
pub(crate) async fn look<T: Send + 'static>(
    name: &'static str,
    remedy: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Finding> {
    look_within(MACHINE, name, remedy, work).await
}

async fn look_within<T: Send + 'static>(
    limit: Duration,
    name: &'static str,
    remedy: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Finding> {
    let progress = say_what_is_waited_for(&Arc::new(Mutex::new([name].into())));
    let done = timeout(limit, tokio::task::spawn_blocking(work)).await;
    progress.abort();
    match done {
        Ok(done) => done.map_err(|_| panicked(name)),
        Err(_) => Err(late(name, limit, remedy)),
    }
}

fn say_what_is_waited_for(waiting: &Arc<Mutex<BTreeSet<&'static str>>>) -> JoinHandle<()> {
    let waiting = Arc::clone(waiting);
    tokio::spawn(async move {
        loop {
            sleep(SILENCE).await;
            let names = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let names: Vec<_> = names.iter().copied().collect();
            eprintln!("podcreds doctor: waiting for {}", names.join(", "));
        }
    })
}

fn panicked(name: &'static str) -> Finding {
    Finding::warn(
        name,
        "the check itself failed: this is a mistake in podcreds",
        "please report it, with what is above on standard error",
    )
}

/// Runs all checks at once. The findings are in the order of the checks.
pub(crate) async fn run(checks: Vec<Check>) -> Vec<Finding> {
    let names = checks.iter().map(|check| check.name);
    let waiting = Arc::new(Mutex::new(names.collect::<BTreeSet<_>>()));
    let progress = say_what_is_waited_for(&waiting);
    let all = checks.into_iter().map(|check| {
        let waiting = Arc::clone(&waiting);
        async move {
            let name = check.name;
            let findings = check.run().await;
            let mut names = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            names.remove(name);
            findings
        }
    });
    let findings = join_all(all).await.concat();
    progress.abort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[tokio::test]
    async fn findings_come_in_the_order_of_the_checks_and_a_panic_is_one_of_them() {
        let slow = async {
            sleep(Duration::from_millis(20)).await;
            vec![Finding::pass("slow", "")]
        };
        let found = run(vec![
            Check::network("slow", slow),
            Check::machine("broken", || panic!("on purpose")),
            Check::machine("quick", || vec![Finding::pass("quick", "")]),
        ])
        .await;
        let names: Vec<_> = found.iter().map(|it| it.check).collect();
        assert_eq!(names, ["slow", "broken", "quick"]);
        assert_eq!(found[1].status, Status::Warn);
    }

    #[tokio::test]
    async fn a_look_that_never_ends_is_left_behind_with_its_remedy() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let endless = move || ended.recv().is_ok();
        let limit = Duration::from_millis(20);
        let late = look_within(limit, "token", "see its mounts", endless).await;
        let late = late.unwrap_err();
        assert_eq!(late.status, Status::Fail);
        assert_eq!(late.remedy.as_deref(), Some("see its mounts"));
        drop(end);
        assert_eq!(look("token", "", || 7).await, Ok(7));
    }
}
