//! Ends the process when a vital part of it has stopped, or does nothing any more.
//!
//! An agent that stands still is worse for pods than none: the kernel goes on sending them there.
//! When the process ends, the kernel detaches the programs, and kubelet starts the next agent.
//!
//! The watchdog asks each part for a sign of life, and looks for it the next time. Nothing else
//! wakes a part that has nothing to do.
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

use podcreds_types::{Beats, Vital, Vitals};
use rustix::{param::clock_ticks_per_second, thread::CapabilitySet};

use super::privileges;

/// How often the watchdog looks, as long as all parts answer. Each look wakes four threads, which
/// makes less than 60 wake-ups a minute.
const TICK: Duration = Duration::from_millis(4500);
/// How often it looks while a part does not answer.
const CLOSE_TICK: Duration = Duration::from_millis(500);
/// How long a part may take to answer before `/healthz` says so.
const NOTICED: Duration = Duration::from_secs(2);
/// How long a part may take to answer. One that stops right after an answer is asked after a tick,
/// so with this and a close tick, pods wait for less than ten seconds.
const LIMIT: Duration = Duration::from_secs(5);
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
    health: VitalsHealth,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the watchdog thinks of the vital parts. Clones are the same.
#[derive(Clone, Default)]
pub struct VitalsHealth {
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
        let health = VitalsHealth::of(vitals);
        let watched = health.clone();
        let (stop, stopped) = mpsc::channel();
        // So that /healthz fails when nobody watches any more.
        let own = health.vitals.task("the watchdog");
        let thread = named("watchdog").spawn(move || {
            if let Err(error) = privileges::keep(CapabilitySet::empty()) {
                tracing::error!(thread = "watchdog", %error, "cannot give up capabilities");
            }
            let mut watch = Watch::default();
            let mut next = CLOSE_TICK;
            while stopped.recv_timeout(next) == Err(RecvTimeoutError::Timeout) {
                if let Some(stalled) = watch.tick(&watched, next, thread_state) {
                    end(stalled, on_stall);
                }
                watched.vitals.ask();
                next = watch.next_tick();
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
    pub fn health(&self) -> VitalsHealth {
        self.health.clone()
    }
}

/// Shows whenever it is asked, for ever, that the runtime on which this runs does its work.
pub async fn beat(vital: Vital) {
    loop {
        vital.beat();
        vital.asked().await;
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

impl VitalsHealth {
    /// That of these parts, as far as nobody watches them yet: whether one has ended.
    pub fn of(vitals: Vitals) -> Self {
        Self {
            vitals,
            silent: Arc::default(),
        }
    }

    /// Whether all vital parts work, as far as the watchdog has seen.
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
struct Watch(HashMap<u64, SeenPart>);

/// What it remembers of a part.
#[derive(Default)]
struct SeenPart {
    count: u64,
    /// Whether it has beaten since it was asked.
    is_answered: bool,
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
    /// A tick of this length has passed. Notes what is to be said of the parts, and returns what
    /// has stopped by now.
    fn tick(
        &mut self,
        health: &VitalsHealth,
        passed: Duration,
        state: impl Fn(i32) -> Option<ThreadState>,
    ) -> Option<Stalled> {
        let parts = health.vitals.beats();
        self.0
            .retain(|id, _| parts.iter().any(|part| part.id == *id));
        for part in &parts {
            let seen = self.0.entry(part.id).or_default();
            seen.tick(part, passed, &state);
        }
        *health.lock() = self.most_silent(&parts, NOTICED);
        match health.check() {
            Err(Stalled::Silent(..)) => self.most_silent(&parts, LIMIT),
            ended => ended.err(),
        }
    }

    /// How long to wait until the next tick.
    fn next_tick(&self) -> Duration {
        match self.0.values().all(|seen| seen.is_answered) {
            true => TICK,
            false => CLOSE_TICK,
        }
    }

    fn most_silent(&self, parts: &[Beats], limit: Duration) -> Option<Stalled> {
        let silent = |part: &Beats| Some((self.0.get(&part.id)?.silent, part.name.to_string()));
        let (time, name) = parts.iter().filter_map(silent).max()?;
        (time >= limit).then_some(Stalled::Silent(name, time))
    }
}

impl SeenPart {
    fn tick(&mut self, part: &Beats, passed: Duration, state: impl Fn(i32) -> Option<ThreadState>) {
        if self.count != part.count {
            *self = Self {
                count: part.count,
                is_answered: true,
                ..Self::default()
            };
            return;
        }
        self.is_answered = false;
        let state = state(part.thread);
        let cpu = state.map(|state| state.cpu);
        self.silent += match (state, self.cpu) {
            // The machine has others to run. What a thread did not get it could not use.
            (Some(state), Some(before)) if state.is_runnable => {
                state.cpu.saturating_sub(before).min(passed)
            }
            (Some(state), None) if state.is_runnable => Duration::ZERO,
            _ => passed,
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
    parse_stat(&stat, clock_ticks_per_second())
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
mod tests;
