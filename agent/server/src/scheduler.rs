//! Who runs on the serving thread: one caller after the other, however many connections each has.
//!
//! tokio runs what is ready in the order in which it became so. A pod with a thousand busy
//! connections would run a thousand times where another pod runs once. So a caller's connections
//! run a few times, in slices of one answer each, and what goes beyond waits in the caller's own
//! queue, from which each round admits a few connections. A round lasts until everything that was
//! ready at its beginning has run, and the kernel has been asked for news.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use tokio::task::yield_now;

use super::connection_state::ConnectionState;

/// Slices of one caller in a round before its next ones have to wait. A caller that needs fewer
/// never waits, and a queue costs more than that many requests that are served from memory.
const SLICES: u32 = 16;

/// How many connections a round admits from one queue. With fewer, the rounds themselves would cost
/// too much, and a pod's own burst would be slow.
const ADMITTED: u32 = 8;

/// The order in which connections run. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Scheduler(Arc<Rounds>);

#[derive(Default)]
struct Rounds {
    current: AtomicU64,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    /// The shares with connections in their queues.
    shares: Vec<Arc<Share>>,
    /// There is a task that begins the rounds.
    has_task: bool,
}

/// One caller's share of the serving thread.
#[derive(Default)]
pub(super) struct Share(Mutex<Used>);

#[derive(Default)]
struct Used {
    /// The round of the last slice.
    round: u64,
    /// How many slices there were in it.
    slices: u32,
    /// The connections that wait for one.
    queue: VecDeque<(Arc<ConnectionState>, Waker)>,
}

impl Scheduler {
    /// Runs a connection of the caller with this share, slice by slice.
    pub(super) async fn run<F: Future>(
        &self,
        mut connection: Pin<&mut F>,
        share: &Arc<Share>,
        state: &Arc<ConnectionState>,
    ) -> F::Output {
        poll_fn(|context| {
            ready!(self.poll_slice(share, state, context));
            state.begin_slice();
            connection.as_mut().poll(context)
        })
        .await
    }

    /// Ready when the connection may run.
    fn poll_slice(
        &self,
        share: &Arc<Share>,
        state: &Arc<ConnectionState>,
        context: &Context<'_>,
    ) -> Poll<()> {
        if state.is_admitted.swap(false, Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if state.is_queued.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let mut used = share.lock();
        if used.take(self.0.current.load(Ordering::Relaxed)) {
            return Poll::Ready(());
        }
        state.is_queued.store(true, Ordering::Relaxed);
        let waiter = (Arc::clone(state), context.waker().clone());
        used.queue.push_back(waiter);
        let is_first = used.queue.len() == 1;
        drop(used);
        if is_first {
            self.enqueue(share);
        }
        Poll::Pending
    }

    /// Has a share that has got a queue take part in the rounds.
    fn enqueue(&self, share: &Arc<Share>) {
        let mut queues = self.0.queues();
        queues.shares.push(Arc::clone(share));
        if !queues.has_task {
            queues.has_task = true;
            drop(queues);
            tokio::spawn(self.clone().run_rounds());
        }
    }

    /// Begins rounds for as long as a connection waits for one.
    async fn run_rounds(self) {
        loop {
            // tokio comes back when all that is ready has run, and with what the kernel has to
            // tell.
            yield_now().await;
            if !self.0.begin() {
                return;
            }
        }
    }
}

impl Rounds {
    /// Begins a round, and says whether there must be another one.
    fn begin(&self) -> bool {
        let round = self.current.fetch_add(1, Ordering::Relaxed) + 1;
        let mut queues = self.queues();
        queues.shares.retain(|share| share.lock().admit(round));
        queues.has_task = !queues.shares.is_empty();
        queues.has_task
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    /// Takes a slice of this round, if there is one left and no connection waits for it.
    fn take(&mut self, round: u64) -> bool {
        if self.round != round {
            self.round = round;
            self.slices = 0;
        }
        let is_free = self.slices < SLICES && self.queue.is_empty();
        self.slices += u32::from(is_free);
        is_free
    }

    /// Admits the connections that have waited for the longest time, and says whether more are
    /// waiting.
    fn admit(&mut self, round: u64) -> bool {
        self.round = round;
        self.slices = 0;
        while self.slices < ADMITTED {
            let Some((state, waker)) = self.queue.pop_front() else {
                return false;
            };
            // Only the queue still holds one that has been closed meanwhile.
            if Arc::strong_count(&state) > 1 {
                state.is_queued.store(false, Ordering::Relaxed);
                state.is_admitted.store(true, Ordering::Relaxed);
                waker.wake();
                self.slices += 1;
            }
        }
        !self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// What ran, in the order in which it did.
    type Log = Arc<Mutex<Vec<char>>>;

    /// A connection that always has something to do, so many times.
    fn connect(
        scheduler: &Scheduler,
        share: &Arc<Share>,
        name: char,
        times: usize,
        log: &Log,
    ) -> Arc<ConnectionState> {
        let (scheduler, share, log) = (scheduler.clone(), Arc::clone(share), Arc::clone(log));
        let state = Arc::new(ConnectionState::default());
        let its_own = Arc::clone(&state);
        tokio::spawn(async move {
            let mut left = times;
            let work = poll_fn(|context| {
                log.lock().unwrap().push(name);
                left -= 1;
                if left == 0 {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            });
            scheduler.run(std::pin::pin!(work), &share, &its_own).await;
        });
        state
    }

    async fn wait_for(log: &Log, count: usize) -> String {
        let all = async {
            while log.lock().unwrap().len() < count {
                yield_now().await;
            }
        };
        timeout(PATIENCE, all).await.unwrap();
        log.lock().unwrap().iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_with_many_connections_runs_as_often_as_one_with_a_single_one() {
        let (scheduler, log) = (Scheduler::default(), Log::default());
        let [greedy, modest] = [(); 2].map(|()| Arc::<Share>::default());
        for _ in 0..1000 {
            connect(&scheduler, &greedy, 'g', 20, &log);
        }
        connect(&scheduler, &modest, 'm', 10, &log);
        let order = wait_for(&log, 20_010).await;
        // The modest one is done before the greedy one has run often.
        let last = order.rfind('m').unwrap();
        assert!(last < 3 * SLICES as usize, "{last}: {}", &order[..200]);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_all_want_much_run_equally_often() {
        let (scheduler, log) = (Scheduler::default(), Log::default());
        // As much for all of them, on more or fewer connections.
        for (name, connections) in [('a', 100), ('b', 50), ('c', 20)] {
            let share = Arc::default();
            for _ in 0..connections {
                connect(&scheduler, &share, name, 1000 / connections, &log);
            }
        }
        let order = wait_for(&log, 3000).await;
        // At any time each of them has run about as often as the others.
        for upto in (500..2500).step_by(100) {
            let count = |name| order[..upto].matches(name).count();
            let counts = ['a', 'b', 'c'].map(count);
            let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
            assert!(spread <= 2 * SLICES as usize, "{counts:?} of {upto}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_closed_in_the_queue_delays_no_other() {
        let (scheduler, log) = (Scheduler::default(), Log::default());
        let share = Arc::<Share>::default();
        // Only the queue holds this one.
        for _ in 0..100 {
            let context = &mut Context::from_waker(Waker::noop());
            let _runs = scheduler.poll_slice(&share, &Arc::default(), context);
        }
        connect(&scheduler, &share, 'x', 5, &log);
        wait_for(&log, 5).await;
        assert!(share.lock().queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_rounds_begin_when_no_connection_waits() {
        let (scheduler, log) = (Scheduler::default(), Log::default());
        connect(&scheduler, &Arc::default(), 'x', SLICES as usize, &log);
        wait_for(&log, SLICES as usize).await;
        assert!(!scheduler.0.queues().has_task);
        assert_eq!(scheduler.0.current.load(Ordering::Relaxed), 0);
    }
}
