//! The parts of the agent without which it is of no use, and whether each of them still works.
//!
//! A part holds its [`Vital`] for as long as it works. The watchdog reads all of them, and ends the
//! process when one has stopped: the kernel then detaches the programs, and the next agent starts.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering::Relaxed},
    },
};

use rustix::thread::gettid;
use tokio::sync::Notify;

/// The vital parts of one agent. Clones are the same ones.
#[derive(Clone, Default)]
pub struct Vitals(Arc<Mutex<VitalsState>>);

#[derive(Default)]
struct VitalsState {
    all: Vec<Arc<Part>>,
    /// Counts the parts that there ever were.
    last_id: u64,
    failed: Vec<Cow<'static, str>>,
    /// Whether the agent is about to end, so that parts may end too.
    is_closed: bool,
}

struct Part {
    id: u64,
    name: Cow<'static, str>,
    beats: AtomicU64,
    /// The thread of the last beat; 0 before the first one.
    thread: AtomicI32,
    /// Whether it has failed when it ends without a single beat.
    is_task: bool,
    /// Whether it is to beat.
    asked: Notify,
}

/// Proof that a part works. Dropped without [`Vital::retire`], by a panic for one, that part has
/// failed.
#[must_use = "a part whose proof is dropped has failed"]
pub struct Vital {
    all: Vitals,
    part: Arc<Part>,
    retired: bool,
}

/// What is known about a part that works on a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beats {
    /// Which part it is; never used again for another.
    pub id: u64,
    /// Its name, as in "... has done nothing for 5 s".
    pub name: Cow<'static, str>,
    /// How often it has beaten.
    pub count: u64,
    /// The ID of the thread on which it has beaten last.
    pub thread: i32,
}

impl Vitals {
    /// A part that does its work in turns, such as a thread or a runtime: from its first
    /// [beat](Vital::beat) on it beats whenever it is [asked](Vital::asked).
    pub fn thread(&self, name: impl Into<Cow<'static, str>>) -> Vital {
        self.add(name.into(), false)
    }

    /// A part that waits for others most of the time, such as a task that accepts connections: it
    /// only has to live.
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> Vital {
        self.add(name.into(), true)
    }

    /// From here on parts may end: the whole agent does.
    pub fn close(&self) {
        self.lock().is_closed = true;
    }

    /// The parts that have ended and should not have.
    pub fn failed(&self) -> Vec<Cow<'static, str>> {
        self.lock().failed.clone()
    }

    /// The parts that have to beat, and how often they have done so.
    pub fn beats(&self) -> Vec<Beats> {
        let beats = |part: &Arc<Part>| {
            let count = part.beats.load(Relaxed);
            (count > 0 && !part.is_task).then(|| Beats {
                id: part.id,
                name: part.name.clone(),
                count,
                thread: part.thread.load(Relaxed),
            })
        };
        self.lock().all.iter().filter_map(beats).collect()
    }

    /// Asks all parts that have to beat to do so.
    pub fn ask(&self) {
        let parts = self.lock();
        for part in parts.all.iter().filter(|part| !part.is_task) {
            part.asked.notify_one();
        }
    }

    fn add(&self, name: Cow<'static, str>, is_task: bool) -> Vital {
        let mut parts = self.lock();
        parts.last_id += 1;
        let part = Arc::new(Part {
            id: parts.last_id,
            name,
            beats: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            is_task,
            asked: Notify::new(),
        });
        parts.all.push(Arc::clone(&part));
        Vital {
            all: self.clone(),
            part,
            retired: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VitalsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vital {
    /// The part works, on this thread.
    pub fn beat(&self) {
        self.part.thread.store(gettid().as_raw_pid(), Relaxed);
        self.part.beats.fetch_add(1, Relaxed);
    }

    /// Waits until the part is asked to beat. Cancel-safe.
    pub async fn asked(&self) {
        self.part.asked.notified().await;
    }

    /// The part has nothing to do any more.
    pub fn retire(mut self) {
        self.retired = true;
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        let mut parts = self.all.lock();
        parts.all.retain(|part| part.id != self.part.id);
        let has_begun = self.part.is_task || self.part.beats.load(Relaxed) > 0;
        if has_begun && !self.retired && !parts.is_closed {
            parts.failed.push(self.part.name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_part_that_ends_without_being_retired_has_failed() {
        let vitals = Vitals::default();
        let (first, second) = (vitals.task("the first"), vitals.task("the second"));
        first.retire();
        assert_eq!(vitals.failed(), Vec::<String>::new());
        let panicked = thread::spawn(move || {
            let _second = second;
            panic!("as it may happen");
        });
        panicked.join().unwrap_err();
        assert_eq!(vitals.failed(), ["the second"]);
    }

    #[test]
    fn a_thread_that_has_not_begun_may_end() {
        let vitals = Vitals::default();
        drop(vitals.thread("one that could not start"));
        assert_eq!(vitals.failed(), Vec::<String>::new());
        let begun = vitals.thread("one that has started");
        begun.beat();
        drop(begun);
        assert_eq!(vitals.failed(), ["one that has started"]);
    }

    #[test]
    fn parts_may_end_when_the_agent_does() {
        let vitals = Vitals::default();
        let task = vitals.task("a task");
        vitals.close();
        drop(task);
        assert_eq!(vitals.failed(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_part_that_was_asked_before_it_waits_is_asked_once() {
        let vitals = Vitals::default();
        let (part, task) = (vitals.thread("a part"), vitals.task("a task"));
        vitals.ask();
        vitals.ask();
        part.asked().now_or_never().unwrap();
        assert_eq!(part.asked().now_or_never(), None);
        assert_eq!(task.asked().now_or_never(), None);
        part.retire();
        task.retire();
    }

    #[test]
    fn beats_are_counted_for_what_has_begun_and_not_ended() {
        let vitals = Vitals::default();
        let (silent, task) = (vitals.thread("silent"), vitals.task("a task"));
        let one = vitals.thread("one");
        one.beat();
        one.beat();
        task.beat();
        let beats = vitals.beats();
        assert_eq!(beats.len(), 1, "{beats:?}");
        let thread = gettid().as_raw_pid();
        assert_eq!(
            (&*beats[0].name, beats[0].count, beats[0].thread),
            ("one", 2, thread)
        );
        one.retire();
        assert_eq!(vitals.beats(), []);
        silent.retire();
        task.retire();
    }
}
