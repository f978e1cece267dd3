//! Turns on the serving thread: one caller after the other, however many connections each of them
//! has.
//!
//! tokio runs what is ready in the order in which it became so. A pod with a thousand busy
//! connections would have a thousand turns where another pod has one. So a caller's connections
//! have a few turns at once, and what goes beyond waits in the caller's own queue, from which each
//! round lets in a few connections. A round lasts until everything that was ready at its beginning
//! has run, and the kernel has been asked for news.

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

use super::progress::Progress;

/// Turns of one caller before the next ones have to wait. Nobody waits for others who has fewer at
/// once, and a queue costs more than that many requests that are served from memory.
const BURST: u32 = 16;

/// How many connections a round lets in from one queue. Fewer would make the rounds themselves
/// dear, and a pod's own burst slow.
const LET_IN: u32 = 8;

/// The order of turns. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Rounds>);

#[derive(Default)]
struct Rounds {
    current: AtomicU64,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    /// The shares whose queues are not empty.
    shares: Vec<Arc<Share>>,
    /// There is a task that begins the rounds.
    is_kept: bool,
}

/// One caller's share of the turns.
#[derive(Default)]
pub(super) struct Share(Mutex<Turn>);

#[derive(Default)]
struct Turn {
    /// The round of the last turn.
    round: u64,
    /// How many turns there were in it.
    taken: u32,
    /// The connections that wait for one.
    queue: VecDeque<(Arc<Progress>, Waker)>,
}

impl Turns {
    /// Runs a connection of the caller with this share, in its turns.
    pub(super) async fn run<F: Future>(
        &self,
        mut connection: Pin<&mut F>,
        share: &Arc<Share>,
        progress: &Arc<Progress>,
    ) -> F::Output {
        poll_fn(|context| {
            ready!(self.poll_turn(share, progress, context));
            progress.begin_turn();
            connection.as_mut().poll(context)
        })
        .await
    }

    /// Ready when it is the connection's turn.
    fn poll_turn(
        &self,
        share: &Arc<Share>,
        progress: &Arc<Progress>,
        context: &Context<'_>,
    ) -> Poll<()> {
        if progress.is_next.swap(false, Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if progress.is_queued.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let mut turn = share.lock();
        if turn.take(self.0.current.load(Ordering::Relaxed)) {
            return Poll::Ready(());
        }
        progress.is_queued.store(true, Ordering::Relaxed);
        let waiter = (Arc::clone(progress), context.waker().clone());
        turn.queue.push_back(waiter);
        let is_first = turn.queue.len() == 1;
        drop(turn);
        if is_first {
            self.enqueue(share);
        }
        Poll::Pending
    }

    /// Has a share that has got a queue take part in the rounds.
    fn enqueue(&self, share: &Arc<Share>) {
        let mut queues = self.0.queues();
        queues.shares.push(Arc::clone(share));
        if !queues.is_kept {
            queues.is_kept = true;
            drop(queues);
            tokio::spawn(self.clone().keep());
        }
    }

    /// Begins rounds for as long as somebody waits for one.
    async fn keep(self) {
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
        queues.shares.retain(|share| share.lock().let_in(round));
        queues.is_kept = !queues.shares.is_empty();
        queues.is_kept
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Takes a turn in this round, if there is one left and nobody waits for it.
    fn take(&mut self, round: u64) -> bool {
        if self.round != round {
            self.round = round;
            self.taken = 0;
        }
        let is_free = self.taken < BURST && self.queue.is_empty();
        self.taken += u32::from(is_free);
        is_free
    }

    /// Lets in the connections that have waited for the longest time, and says whether more are
    /// waiting.
    fn let_in(&mut self, round: u64) -> bool {
        self.round = round;
        self.taken = 0;
        while self.taken < LET_IN {
            let Some((progress, waker)) = self.queue.pop_front() else {
                return false;
            };
            // One that has been closed meanwhile has nobody else who speaks of it.
            if Arc::strong_count(&progress) > 1 {
                progress.is_queued.store(false, Ordering::Relaxed);
                progress.is_next.store(true, Ordering::Relaxed);
                waker.wake();
                self.taken += 1;
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
        turns: &Turns,
        share: &Arc<Share>,
        name: char,
        times: usize,
        log: &Log,
    ) -> Arc<Progress> {
        let (turns, share, log) = (turns.clone(), Arc::clone(share), Arc::clone(log));
        let progress = Arc::new(Progress::default());
        let its_own = Arc::clone(&progress);
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
            turns.run(std::pin::pin!(work), &share, &its_own).await;
        });
        progress
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
    async fn many_connections_have_one_callers_turns() {
        let (turns, log) = (Turns::default(), Log::default());
        let [greedy, modest] = [(); 2].map(|()| Arc::<Share>::default());
        for _ in 0..1000 {
            connect(&turns, &greedy, 'g', 20, &log);
        }
        connect(&turns, &modest, 'm', 10, &log);
        let order = wait_for(&log, 20_010).await;
        // All of the modest one's turns are over before the greedy one has had many.
        let last = order.rfind('m').unwrap();
        assert!(last < 3 * BURST as usize, "{last}: {}", &order[..200]);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_all_want_much_take_turns() {
        let (turns, log) = (Turns::default(), Log::default());
        // As much for all of them, on more or fewer connections.
        for (name, connections) in [('a', 100), ('b', 50), ('c', 20)] {
            let share = Arc::default();
            for _ in 0..connections {
                connect(&turns, &share, name, 1000 / connections, &log);
            }
        }
        let order = wait_for(&log, 3000).await;
        // At any time each of them has had about as many as the others.
        for upto in (500..2500).step_by(100) {
            let count = |name| order[..upto].matches(name).count();
            let counts = ['a', 'b', 'c'].map(count);
            let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
            assert!(spread <= 2 * BURST as usize, "{counts:?} of {upto}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_closed_in_the_queue_holds_up_nobody() {
        let (turns, log) = (Turns::default(), Log::default());
        let share = Arc::<Share>::default();
        // Nobody but the queue knows this one.
        for _ in 0..100 {
            let context = &mut Context::from_waker(Waker::noop());
            let _turn = turns.poll_turn(&share, &Arc::default(), context);
        }
        connect(&turns, &share, 'x', 5, &log);
        wait_for(&log, 5).await;
        assert!(share.lock().queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_runs_when_nobody_waits() {
        let (turns, log) = (Turns::default(), Log::default());
        connect(&turns, &Arc::default(), 'x', BURST as usize, &log);
        wait_for(&log, BURST as usize).await;
        assert!(!turns.0.queues().is_kept);
        assert_eq!(turns.0.current.load(Ordering::Relaxed), 0);
    }
}
