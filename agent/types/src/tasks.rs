//! Tasks that the agent cannot do without: what happens when one panics.
//!
//! A task that panics ends, and the process lives on without it. Here it is started again, or its
//! [`Vital`] is dropped, so that the watchdog ends the process.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use super::Vital;

/// The time between a panic and a new start: what panics once may panic again at once.
const PAUSE: Duration = Duration::from_millis(100);
/// How many panics in a row are borne. More of them are no accident.
const MOST_PANICS: u32 = 5;
/// After how long without a panic the next one is the first again.
const STEADY: Duration = Duration::from_secs(60);

/// Runs a task until it ends by itself, and again after a panic. One that panics over and over has
/// failed; one that is dropped has not.
pub async fn restarted<F>(vital: Vital, what: &str, task: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    let proof = Proof(Some(vital));
    let mut panics = 0;
    loop {
        let started = Instant::now();
        let run = AssertUnwindSafe(async { task().await }).catch_unwind();
        if run.await.is_ok() {
            return;
        }
        panics = if started.elapsed() > STEADY {
            1
        } else {
            panics + 1
        };
        if panics >= MOST_PANICS {
            tracing::error!("{what} has panicked {panics} times in a row");
            return proof.fail();
        }
        tracing::error!("{what} has panicked and is started again");
        sleep(PAUSE).await;
    }
}

/// Runs a task that cannot be restarted. One that panics has failed; one that ends or is dropped
/// has not.
pub async fn watched(vital: Vital, task: impl Future<Output = ()>) {
    let proof = Proof(Some(vital));
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        proof.fail();
    }
}

/// Retires the part when it is dropped: its task was told to end, or is not needed.
struct Proof(Option<Vital>);

impl Proof {
    fn fail(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        if let Some(vital) = self.0.take() {
            vital.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering::Relaxed},
        },
    };

    use super::*;
    use crate::Vitals;

    #[tokio::test(start_paused = true)]
    async fn a_task_is_restarted_after_a_panic_and_has_failed_after_many_in_a_row() {
        let (vitals, runs) = (Vitals::default(), Arc::new(AtomicU32::new(0)));
        let (vital, counted) = (vitals.task("accepting"), Arc::clone(&runs));
        let task = tokio::spawn(restarted(vital, "accepting", move || {
            let run = counted.fetch_add(1, Relaxed);
            async move {
                if run < MOST_PANICS {
                    sleep(2 * STEADY).await;
                }
                panic!("the mistake");
            }
        }));
        sleep(2 * STEADY * MOST_PANICS).await;
        assert_eq!(vitals.failed(), Vec::<String>::new());
        task.await.unwrap();
        assert_eq!(runs.load(Relaxed), 2 * MOST_PANICS - 1);
        assert_eq!(vitals.failed(), ["accepting"]);
    }

    #[tokio::test]
    async fn a_task_that_ends_or_is_aborted_has_not_failed() {
        let vitals = Vitals::default();
        restarted(vitals.task("ends"), "ends", || async {}).await;
        watched(vitals.task("ends"), async {}).await;
        let aborted = [
            tokio::spawn(restarted(vitals.task("aborted"), "aborted", pending)),
            tokio::spawn(watched(vitals.task("aborted"), pending())),
        ];
        for task in aborted {
            tokio::task::yield_now().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(vitals.failed(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_watched_task_that_panics_has_failed_at_once() {
        let vitals = Vitals::default();
        watched(vitals.task("leading"), async { panic!("the mistake") }).await;
        assert_eq!(vitals.failed(), ["leading"]);
    }
}
