//! Ends the process when a vital part of it has stopped, or does nothing any more.
//!
//! An agent that stands still is worse for pods than none: the kernel goes on sending them there.
//! When the process ends, the kernel detaches the programs, and kubelet starts the next agent.
//!
//! A machine that is slow or was suspended is not the agent's fault. So time counts only as far as
//! the watchdog itself saw it pass, tick by tick, and where a thread wants to run and the machine
//! does not let it, only the processor time that it got.

use std::{
    collections::HashMap,
    fs, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};
use podcreds_types::{Beats, Vital, Vitals};
use tokio::time::sleep;

use super::privileges;

/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(500);
/// How often a runtime shows that it works.
const BEAT: Duration = Duration::from_secs(1);
/// How long a part may do nothing before `/healthz` says so. Pods' SDKs give up after 1 to 2 s.
const NOTICED: Duration = Duration::from_secs(2);
/// How long a part may do nothing. With a tick before and one after, pods wait for less than ten
/// seconds.
const LIMIT: Duration = Duration::from_secs(7);
/// How long writing the last log line may take: the log may be what stands still.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Room for a few calls and a few lines of text.
const STACK: usize = 256 * 1024;

/// A part that has stopped, and with it the use of the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    /// It has ended, most likely by a panic.
    #[error("{0} has ended, and should not have")]
    Ended(String),
    /// It has done nothing for so long.
    #[error("{0} has done nothing for {1:?}")]
    Silent(String, Duration),
}

/// What is done when a part has stopped.
pub struct OnStall {
    /// The exit code of the process.
    pub code: i32,
    /// Says why. It gets a moment, on a thread of its own, and the process ends when that is over.
    pub say: Box<dyn FnOnce(&Stalled) + Send>,
}

/// Watches until it is dropped.
pub struct Watchdog {
    health: Health,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the watchdog thinks of the vital parts. Clones are the same.
#[derive(Clone, Default)]
pub struct Health {
    vitals: Vitals,
    silent: Arc<Mutex<Option<Stalled>>>,
}

impl Watchdog {
    /// Watches from here on.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(vitals: Vitals, on_stall: OnStall) -> io::Result<Self> {
        let health = Health::of(vitals);
        let watched = health.clone();
        let (stop, stopped) = mpsc::channel();
        // So that /healthz fails when nobody watches any more.
        let own = health.vitals.task("the watchdog");
        let thread = named("watchdog").spawn(move || {
            if let Err(error) = privileges::keep(&[]) {
                tracing::error!(thread = "watchdog", %error, "cannot give up capabilities");
            }
            let mut watch = Watch::default();
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if let Some(stalled) = watch.tick(&watched, thread_state) {
                    end(stalled, on_stall);
                }
            }
            own.retire();
        })?;
        Ok(Self {
            health,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What it thinks of the vital parts, at any time.
    pub fn health(&self) -> Health {
        self.health.clone()
    }
}

/// Shows, for ever, that the runtime on which this runs does its work.
pub async fn beat(vital: Vital) {
    loop {
        vital.beat();
        sleep(BEAT).await;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watchdog's thread panicked");
        }
    }
}

impl Health {
    /// That of these parts, as far as nobody watches them yet: whether one has ended.
    pub fn of(vitals: Vitals) -> Self {
        Self {
            vitals,
            silent: Arc::default(),
        }
    }

    /// Whether all vital parts work.
    ///
    /// # Errors
    ///
    /// Which one does not.
    pub fn check(&self) -> Result<(), Stalled> {
        let ended = self.vitals.failed().into_iter().next();
        let ended = ended.map(|name| Stalled::Ended(name.into_owned()));
        ended.or_else(|| self.lock().clone()).map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stalled>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the watchdog remembers from one tick to the next.
#[derive(Default)]
struct Watch(HashMap<u64, Seen>);

/// What it remembers of a part.
#[derive(Default)]
struct Seen {
    count: u64,
    silent: Duration,
    /// Its thread's processor time at the last tick, if that was looked at.
    cpu: Option<Duration>,
}

/// What a thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThreadState {
    /// Whether it runs, or would if it were let.
    is_runnable: bool,
    /// How long it has run since it started.
    cpu: Duration,
}

impl Watch {
    /// One tick has passed. Notes what is to be said of the parts, and returns what has stopped by
    /// now.
    fn tick(
        &mut self,
        health: &Health,
        state: impl Fn(i32) -> Option<ThreadState>,
    ) -> Option<Stalled> {
        let parts = health.vitals.beats();
        self.0
            .retain(|id, _| parts.iter().any(|part| part.id == *id));
        for part in &parts {
            self.0.entry(part.id).or_default().tick(part, &state);
        }
        *health.lock() = self.most_silent(&parts, NOTICED);
        match health.check() {
            Err(Stalled::Silent(..)) => self.most_silent(&parts, LIMIT),
            ended => ended.err(),
        }
    }

    fn most_silent(&self, parts: &[Beats], limit: Duration) -> Option<Stalled> {
        let silent = |part: &Beats| Some((self.0.get(&part.id)?.silent, part.name.to_string()));
        let (time, name) = parts.iter().filter_map(silent).max()?;
        (time >= limit).then_some(Stalled::Silent(name, time))
    }
}

impl Seen {
    fn tick(&mut self, part: &Beats, state: impl Fn(i32) -> Option<ThreadState>) {
        if self.count != part.count {
            *self = Self {
                count: part.count,
                ..Self::default()
            };
            return;
        }
        let state = state(part.thread);
        let cpu = state.map(|state| state.cpu);
        self.silent += match (state, self.cpu) {
            // The machine has others to run. What a thread did not get it could not use.
            (Some(state), Some(before)) if state.is_runnable => {
                state.cpu.saturating_sub(before).min(TICK)
            }
            (Some(state), None) if state.is_runnable => Duration::ZERO,
            _ => TICK,
        };
        self.cpu = cpu;
    }
}

/// Says why, and ends the process, whatever else stands still in it.
fn end(stalled: Stalled, OnStall { code, say }: OnStall) -> ! {
    let (said, heard) = mpsc::channel::<()>();
    // On a thread of its own: the log may be what stands still.
    let words = named("last words").spawn(move || {
        say(&stalled);
        drop(said);
    });
    if words.is_ok() {
        // Either way there is no more to be done.
        let _timeout = heard.recv_timeout(LAST_WORDS);
    }
    std::process::exit(code)
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
}

/// What a thread of this process is at; `None` if the kernel does not say.
fn thread_state(thread: i32) -> Option<ThreadState> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    parse_stat(&stat, sysconf(SysconfVar::CLK_TCK).ok()??.try_into().ok()?)
}

/// Reads a line of proc(5)'s `stat`. The name comes second, and may hold anything.
fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<ThreadState> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // The state is the third field, the times are the 14th and the 15th.
    let time = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    let ticks = time(14)?.checked_add(time(15)?)?;
    Some(ThreadState {
        is_runnable: *fields.first()? == "R",
        cpu: Duration::from_millis(ticks.checked_mul(1000)? / ticks_per_second.max(1)),
    })
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use nix::unistd::gettid;

    use super::*;

    /// As many ticks as make a part count as stopped.
    const TICKS: u32 = (LIMIT.as_millis() / TICK.as_millis()) as u32;

    const WAITING: Option<ThreadState> = state(false, Duration::ZERO);

    const fn state(is_runnable: bool, cpu: Duration) -> Option<ThreadState> {
        Some(ThreadState { is_runnable, cpu })
    }

    /// How many ticks it takes until a part counts as stopped, if it does.
    fn ticks_until_stalled(mut state: impl FnMut(u32) -> Option<ThreadState>) -> Option<u32> {
        let (health, mut watch) = (Health::default(), Watch::default());
        let part = health.vitals.thread("a part");
        part.beat();
        let found = (0..100 * TICKS).find(|tick| {
            let state = state(*tick);
            watch.tick(&health, |_| state).is_some()
        });
        part.retire();
        found
    }

    #[test]
    fn a_part_that_waits_for_too_long_has_stopped() {
        assert_eq!(ticks_until_stalled(|_| WAITING), Some(TICKS));
        // Where the kernel does not say what a thread is at.
        assert_eq!(ticks_until_stalled(|_| None), Some(TICKS));
    }

    #[test]
    fn a_part_that_runs_in_a_circle_has_stopped() {
        let busy = |tick| state(true, tick * TICK);
        let ticks = ticks_until_stalled(busy).unwrap();
        assert!((TICKS..TICKS + 3).contains(&ticks), "{ticks}");
    }

    #[test]
    fn a_part_that_gets_no_processor_is_not_at_fault() {
        assert_eq!(ticks_until_stalled(|_| state(true, Duration::ZERO)), None);
        // One that gets a hundredth of it has a hundred times as long.
        let starved = |tick| state(true, tick * TICK / 100);
        let ticks = ticks_until_stalled(starved).unwrap_or(100 * TICKS);
        assert!(ticks > 90 * TICKS, "{ticks}");
    }

    #[test]
    fn a_beat_makes_good_for_all_silence_before_it() {
        let (health, mut watch) = (Health::default(), Watch::default());
        let part = health.vitals.thread("a part");
        for _ in 0..3 {
            part.beat();
            for _ in 0..TICKS {
                assert_eq!(watch.tick(&health, |_| WAITING), None);
            }
            let said = health.check().unwrap_err().to_string();
            assert!(said.contains("a part has done nothing for"), "{said}");
        }
        part.beat();
        assert_eq!(watch.tick(&health, |_| WAITING), None);
        assert_eq!(health.check(), Ok(()));
        part.retire();
    }

    #[test]
    fn a_part_that_has_ended_is_noticed_at_once() {
        let (health, mut watch) = (Health::default(), Watch::default());
        drop(health.vitals.task("accepting"));
        let ended = Some(Stalled::Ended("accepting".to_owned()));
        assert_eq!(watch.tick(&health, |_| WAITING), ended);
    }

    #[test]
    fn a_part_that_retired_is_not_watched() {
        let (health, mut watch) = (Health::default(), Watch::default());
        let part = health.vitals.thread("a part");
        part.beat();
        assert_eq!(watch.tick(&health, |_| WAITING), None);
        part.retire();
        assert!((0..2 * TICKS).all(|_| watch.tick(&health, |_| WAITING).is_none()));
        assert!(watch.0.is_empty());
    }

    #[test]
    fn the_kernel_says_what_a_thread_is_at() {
        let me = gettid().as_raw();
        let before = thread_state(me).unwrap();
        assert!(before.is_runnable);
        let start = Instant::now();
        while thread_state(me).unwrap().cpu < before.cpu + Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(60));
        }
        assert_eq!(thread_state(0), None);
    }

    #[test]
    fn a_thread_name_with_a_bracket_is_parsed() {
        let stat = "7 (a) R) S 1 7 7 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 1 0 9 9 9";
        let expected = state(false, Duration::from_secs(2));
        assert_eq!(parse_stat(stat, 100), expected);
        assert_eq!(parse_stat("7 (a", 100), None);
        assert_eq!(parse_stat("7 (a) S 1", 100), None);
    }

    /// Ends this process, in a run of its own.
    const ENDS: &str = "watchdog::tests::the_process_ends_though_its_last_words_are_not_read";

    #[test]
    fn the_process_ends_though_its_last_words_are_not_read() {
        if std::env::var_os("PODCREDS_TEST_ENDS").is_some() {
            let say = Box::new(|_: &_| thread::sleep(Duration::from_secs(600)));
            end(Stalled::Ended("x".to_owned()), OnStall { code: 70, say });
        }
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ENDS])
            .env("PODCREDS_TEST_ENDS", "1")
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(70));
    }
}
