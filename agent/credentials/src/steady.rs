//! Tasks that are to go on whatever happens to them.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;

/// What panics once may panic again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs a task until it ends, and anew after each panic: nobody else would notice that it is gone.
pub(super) async fn steady<F>(what: &'static str, task: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
        tracing::error!("{what} has panicked and is started anew");
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_does_not_end_it() {
        let runs = AtomicUsize::new(0);
        steady("a test", || async {
            assert!(runs.fetch_add(1, Relaxed) > 1, "not yet");
        })
        .await;
        assert_eq!(runs.load(Relaxed), 3);
    }
}
