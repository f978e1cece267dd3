//! The one gate to EKS Auth: nobody calls it without having passed here.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{Metrics, steady::steady};

mod queue;
mod rate;

use queue::{Queue, Waiting};
pub(super) use queue::{Turn, Urgency};
use rate::Rate;

/// Lets calls pass one by one, in the order of the queue and at the pace that EKS Auth bears.
pub(super) struct Limiter {
    shared: Arc<Shared>,
    usher: AbortHandle,
}

struct Shared {
    state: Mutex<State>,
    arrival: Notify,
    metrics: Metrics,
}

struct State {
    rate: Rate,
    queue: Queue<oneshot::Sender<()>>,
    /// Whether the log says that EKS Auth is throttling.
    throttled: bool,
}

/// A place in the queue, which is given up when this is dropped. It resolves when it is time.
pub(super) type Pass = oneshot::Receiver<()>;

impl Limiter {
    /// A gate for at most `max` calls a second, kept by a task on `runtime`.
    pub(super) fn new(max: f64, runtime: &Handle, metrics: Metrics) -> Self {
        metrics.limiter_rate.set(max);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                rate: Rate::new(max, Instant::now()),
                queue: Queue::new(),
                throttled: false,
            }),
            arrival: Notify::new(),
            metrics,
        });
        let usher = {
            let shared = Arc::clone(&shared);
            steady("the limiter", move || Arc::clone(&shared).usher())
        };
        let usher = runtime.spawn(usher).abort_handle();
        Self { shared, usher }
    }

    /// Joins the queue. One who waits already and becomes more urgent joins anew.
    pub(super) fn queue(&self, turn: &Turn, urgency: Urgency) -> Pass {
        let (sender, pass) = oneshot::channel();
        let mut state = self.shared.lock();
        state.queue.push(turn, urgency, sender);
        self.shared.gauge(&state);
        drop(state);
        self.shared.arrival.notify_one();
        pass
    }

    /// Notes that a call was throttled.
    pub(super) fn throttled(&self) {
        let mut state = self.shared.lock();
        state.rate.throttled(Instant::now());
        let known = mem::replace(&mut state.throttled, true);
        let calls_per_second = state.rate.per_second();
        self.shared.gauge(&state);
        drop(state);
        // Whoever reads the log may be slow: nothing is written with the lock held.
        if !known {
            tracing::warn!(
                calls_per_second,
                "EKS Auth is throttling: calls go out slower"
            );
        }
    }

    /// Notes that EKS Auth asked to be left alone for a while.
    pub(super) fn blocked(&self, wait: Duration) {
        self.shared.lock().rate.blocked(Instant::now(), wait);
    }

    /// Drops the places of those who no longer wait, and notices when the rate is back.
    pub(super) fn sweep(&self) {
        let mut state = self.shared.lock();
        state.rate.update(Instant::now());
        let is_back = state.throttled && !state.rate.is_lowered();
        if is_back {
            state.throttled = false;
        }
        state.queue.retain(|sender| !sender.is_closed());
        self.shared.gauge(&state);
        drop(state);
        if is_back {
            tracing::info!("EKS Auth is called at the configured rate again");
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.usher.abort();
    }
}

impl Shared {
    /// Calls up whoever is next, whenever the rate allows.
    async fn usher(self: Arc<Self>) {
        loop {
            match self.step() {
                Step::Again => {}
                Step::At(when) => sleep_until(when).await,
                Step::Idle => self.arrival.notified().await,
            }
        }
    }

    fn step(&self) -> Step {
        let mut state = self.lock();
        if state.queue.waiting() == Waiting::default() {
            return Step::Idle;
        }
        if let Err(when) = state.rate.ready(Instant::now()) {
            return Step::At(when);
        }
        while let Some(next) = state.queue.pop() {
            // Who has left in the meantime costs nothing.
            if next.send(()).is_ok() {
                state.rate.spend();
                break;
            }
        }
        self.gauge(&state);
        Step::Again
    }

    fn gauge(&self, state: &State) {
        let waiting = state.queue.waiting();
        self.metrics.limiter_rate.set(state.rate.per_second());
        self.metrics.queue_asked.set(waiting.asked as i64);
        self.metrics.queue_refreshes.set(waiting.refreshes as i64);
        self.metrics.queue_doubtful.set(waiting.doubtful as i64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the usher does next.
enum Step {
    /// Look again.
    Again,
    /// Wait until then.
    At(Instant),
    /// Wait for somebody to come.
    Idle,
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use prometheus::Registry;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(max: f64) -> Limiter {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Limiter::new(max, &Handle::current(), metrics)
    }

    fn of(namespace: &str) -> Turn {
        Turn::Namespace(namespace.to_owned())
    }

    async fn has_passed(pass: &mut Pass) -> bool {
        poll_fn(|context| {
            let pass = std::pin::Pin::new(&mut *pass);
            Poll::Ready(std::future::Future::poll(pass, context).is_ready())
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn calls_pass_at_the_configured_pace() {
        let limiter = limiter(2.0);
        let started = Instant::now();
        for _ in 0..40 {
            limiter.queue(&of("a"), Urgency::Asked).await.unwrap();
        }
        let took = started.elapsed();
        assert!(took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_costs_nothing() {
        let limiter = limiter(0.1);
        limiter.queue(&of("a"), Urgency::Asked).await.unwrap();
        drop(limiter.queue(&of("a"), Urgency::Asked));
        let mut stays = limiter.queue(&of("a"), Urgency::Asked);
        sleep(11 * SECOND).await;
        assert!(has_passed(&mut stays).await);
        assert_eq!(limiter.shared.metrics.queue_asked.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn all_wait_while_upstream_asks_to_be_left_alone() {
        let limiter = limiter(3.0);
        limiter.throttled();
        limiter.blocked(20 * SECOND);
        let mut pass = limiter.queue(&of("a"), Urgency::Asked);
        sleep(19 * SECOND).await;
        assert!(!has_passed(&mut pass).await);
        sleep(2 * SECOND).await;
        assert!(has_passed(&mut pass).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_drops_those_who_left() {
        let limiter = limiter(1.0);
        limiter.blocked(60 * SECOND);
        drop(limiter.queue(&of("a"), Urgency::Asked));
        let _stays = limiter.queue(&of("a"), Urgency::Refresh(std::time::UNIX_EPOCH));
        limiter.sweep();
        assert_eq!(limiter.shared.metrics.queue_asked.get(), 0);
        assert_eq!(limiter.shared.metrics.queue_refreshes.get(), 1);
    }
}
