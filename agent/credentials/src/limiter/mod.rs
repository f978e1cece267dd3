//! The agent's own rate limiter: nobody calls EKS Auth without having passed here.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{Config, Metrics, steady::steady};

mod bucket;
mod pace;
mod permit;
mod queue;
#[cfg(test)]
mod tests;
mod turns;

use bucket::Bucket;
use pace::Pace;
pub(super) use permit::{Pass, Permit, QueuePlace};
use queue::{Allowed, Queue, Waiting};
pub(super) use queue::{Kind, Party, Turn, Urgency};

/// Calls that may be in flight at once. Each takes a connection, here and at EKS Auth.
const IN_FLIGHT: usize = 100;
/// Calls a second for tokens that were refused within the last minute, or come from where many
/// were.
const DOUBTFUL: f64 = 20.0;
/// With more calls than this in the queue, nobody is told a place in it: finding one takes time.
const LONG: usize = 256;

/// Lets calls pass one by one, in the order of the queue, at the pace that EKS Auth bears.
///
/// Renewals are held to a rate of their own as well, `--max-service-qps`, and so are calls for
/// tokens that were refused. First fetches, for which somebody waits, are held to the pace alone.
pub(super) struct Limiter {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    state: Mutex<State>,
    /// There is news: somebody has come, or a call has ended.
    news: Notify,
    metrics: Metrics,
}

struct State {
    pace: Pace,
    renewals: Bucket,
    doubtful: Bucket,
    queue: Queue<Entry>,
    entries: u64,
    in_flight: usize,
    /// Whether the log says that EKS Auth is throttling.
    throttled: bool,
}

/// A call that waits.
struct Entry {
    id: u64,
    sender: oneshot::Sender<Permit>,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    /// What kind of call it is.
    pub(super) kind: Kind,
    /// How many calls of its kind go first, unless the queue is long.
    pub(super) ahead: Option<usize>,
    /// How many calls of its kind wait.
    pub(super) waiting: usize,
    /// How many calls are in flight.
    pub(super) in_flight: usize,
    /// How many calls go out in a second at present.
    pub(super) per_second: f64,
    /// Whether that is because EKS Auth throttles.
    pub(super) is_throttled: bool,
    /// How long EKS Auth still wants to be left alone.
    pub(super) block: Option<Duration>,
}

impl Limiter {
    /// A limiter with the rates in `config`, kept by a task on `runtime`.
    pub(super) fn new(config: &Config, runtime: &Handle, metrics: Metrics) -> Self {
        let now = Instant::now();
        let pace = Pace::new(config.calls_per_second, now);
        metrics.limiter_rate.set(pace.per_second());
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                pace,
                renewals: Bucket::new(config.max_renewals_per_second, now),
                doubtful: Bucket::new(DOUBTFUL, now),
                queue: Queue::new(),
                entries: 0,
                in_flight: 0,
                throttled: false,
            }),
            news: Notify::new(),
            metrics,
        });
        let task = {
            let shared = Arc::clone(&shared);
            steady("the rate limiter", move || Arc::clone(&shared).run())
        };
        let task = runtime.spawn(task).abort_handle();
        Self { shared, task }
    }

    /// Joins the queue. One who waits already and becomes more urgent joins anew.
    pub(super) fn queue(&self, turn: &Turn, urgency: Urgency) -> Pass {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.shared.lock();
        state.entries += 1;
        let id = state.entries;
        state.queue.push(turn, urgency, Entry { id, sender });
        self.shared.gauge(&state);
        drop(state);
        self.shared.news.notify_one();
        Pass::new(id, urgency.kind(), receiver)
    }

    /// What a call waits for. `None` if it does not wait here any more.
    pub(super) fn standing(&self, place: QueuePlace) -> Option<Standing> {
        let state = self.shared.lock();
        let QueuePlace { id, kind } = place;
        let waiting = *state.queue.waiting().of(kind);
        let ahead = match waiting <= LONG {
            true => Some(state.queue.ahead(kind, |entry| entry.id == id)?),
            false => None,
        };
        Some(Standing {
            kind,
            ahead,
            waiting,
            in_flight: state.in_flight,
            per_second: state.pace.per_second(),
            is_throttled: state.pace.is_lowered(),
            block: state.pace.block(Instant::now()),
        })
    }

    /// Notes that a call which went out at `started` was throttled.
    pub(super) fn throttled(&self, started: Instant) {
        let mut state = self.shared.lock();
        state.pace.throttled(started, Instant::now());
        let known = mem::replace(&mut state.throttled, true);
        let calls_per_second = state.pace.per_second();
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
        self.shared.lock().pace.blocked(Instant::now(), wait);
    }

    /// Drops the places of those who no longer wait, and notices when the pace is back.
    pub(super) fn sweep(&self) {
        let mut state = self.shared.lock();
        state.pace.update(Instant::now());
        let is_back = state.throttled && !state.pace.is_lowered();
        if is_back {
            state.throttled = false;
        }
        state.queue.retain(|entry| !entry.sender.is_closed());
        self.shared.gauge(&state);
        drop(state);
        if is_back {
            tracing::info!("EKS Auth no longer throttles: calls go out as fast as before");
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Lets the next call go out whenever the rates allow.
    async fn run(self: Arc<Self>) {
        loop {
            match self.step() {
                Step::Pass(entry, permit) => {
                    // A permit for somebody who has left comes back, and takes nothing along.
                    let _ = entry.sender.send(permit);
                }
                Step::At(when) => {
                    // Who comes meanwhile may go at once.
                    let _ = timeout_at(when, self.news.notified()).await;
                }
                Step::Idle => self.news.notified().await,
            }
        }
    }

    fn step(self: &Arc<Self>) -> Step {
        let now = Instant::now();
        let mut state = self.lock();
        let waiting = state.queue.waiting();
        if waiting == Waiting::default() || state.in_flight >= IN_FLIGHT {
            return Step::Idle;
        }
        if let Err(when) = state.pace.ready(now) {
            return Step::At(when);
        }
        let renewals = state.renewals.ready(now);
        let doubtful = state.doubtful.ready(now);
        let allowed = Allowed {
            refresh: renewals.is_ok(),
            doubtful: doubtful.is_ok(),
        };
        let Some((kind, entry)) = state.queue.pop(allowed) else {
            let renewals = renewals.err().filter(|_| waiting.refreshes > 0);
            let doubtful = doubtful.err().filter(|_| waiting.doubtful > 0);
            let first = renewals.into_iter().chain(doubtful).min();
            return first.map_or(Step::Idle, Step::At);
        };
        state.pace.spend();
        if let Some(bucket) = state.bucket(kind) {
            bucket.spend();
        }
        state.in_flight += 1;
        self.gauge(&state);
        Step::Pass(entry, Permit::new(Arc::clone(self), kind))
    }

    fn gauge(&self, state: &State) {
        let waiting = state.queue.waiting();
        self.metrics.limiter_rate.set(state.pace.per_second());
        self.metrics.limiter_in_flight.set(state.in_flight as i64);
        self.metrics.queue_asked.set(waiting.asked as i64);
        self.metrics.queue_refreshes.set(waiting.refreshes as i64);
        self.metrics.queue_doubtful.set(waiting.doubtful as i64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The rate of its own that a kind of calls is held to.
    fn bucket(&mut self, kind: Kind) -> Option<&mut Bucket> {
        match kind {
            Kind::Asked => None,
            Kind::Refresh => Some(&mut self.renewals),
            Kind::Doubtful => Some(&mut self.doubtful),
        }
    }
}

/// What the limiter does next.
enum Step {
    /// Let this call pass.
    Pass(Entry, Permit),
    /// Wait until then, or for news.
    At(Instant),
    /// Wait for news.
    Idle,
}
