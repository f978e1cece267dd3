//! How often a log line is written, however often something provokes it.
//!
//! Most lines can be provoked by a pod, and a log that a pod can fill hides what matters. So each
//! line has its share, and the next one that is written says how many like it were left out.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level,
    callsite::Identifier,
    field::{Field, Visit},
};

/// The fields that say which pod or peer has provoked a line, and by what.
const ABOUT: [&str; 5] = ["peer", "pod_uid", "process", "refusal", "subject"];
/// For how long a line about one and the same pod is not repeated.
const PERIOD: Duration = Duration::from_secs(60);
/// How many lines of one kind are written in that time, about any of them.
const LINES: usize = 20;

/// What was written lately. It remembers a few numbers for each place in the code that logs, and
/// nothing for pods that were quiet for a while.
pub(super) struct Repeats {
    callsites: Mutex<HashMap<Identifier, Callsite>>,
    hasher: RandomState,
}

/// A place in the code that logs.
#[derive(Default)]
struct Callsite {
    /// Its lines of the last [`PERIOD`]: what they were about, and when they were written.
    written: Vec<(Option<u64>, Instant)>,
    left_out: u64,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            callsites: Mutex::default(),
            hasher: RandomState::new(),
        }
    }
}

impl Repeats {
    /// How many lines like this one were left out since the last one, if it is to be written. What
    /// is logged to find a mistake (`debug` and below) always is.
    pub(super) fn admit(&self, event: &Event<'_>, now: Instant) -> Option<u64> {
        if *event.metadata().level() > Level::INFO {
            return Some(0);
        }
        let mut callsites = self
            .callsites
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let callsite = callsites.entry(event.metadata().callsite()).or_default();
        callsite.admit(self.about(event), now)
    }

    /// A number for the pod or peer that the event is about, if it says so.
    fn about(&self, event: &Event<'_>) -> Option<u64> {
        let mut about = About(String::new());
        event.record(&mut about);
        (!about.0.is_empty()).then(|| self.hasher.hash_one(about.0))
    }
}

impl Callsite {
    fn admit(&mut self, about: Option<u64>, now: Instant) -> Option<u64> {
        let is_young = |at: &Instant| now.saturating_duration_since(*at) < PERIOD;
        self.written.retain(|(_, at)| is_young(at));
        let is_repeated =
            about.is_some() && self.written.iter().any(|(written, _)| *written == about);
        if is_repeated || self.written.len() >= LINES {
            self.left_out += 1;
            return None;
        }
        self.written.push((about, now));
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Collects the values that say what an event is about.
struct About(String);

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if ABOUT.contains(&field.name()) {
            self.0.push_str(&format!("{}={value:?} ", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a line is written, and after how many that were left out.
    fn admit(callsite: &mut Callsite, about: impl Into<Option<u64>>, at: Instant) -> Option<u64> {
        callsite.admit(about.into(), at)
    }

    #[test]
    fn a_line_about_the_same_pod_is_written_once_in_a_period() {
        let (mut callsite, now) = (Callsite::default(), Instant::now());
        assert_eq!(admit(&mut callsite, 1, now), Some(0));
        for _ in 0..1000 {
            assert_eq!(admit(&mut callsite, 1, now), None);
        }
        // Another pod's is no repetition. It says what was left out.
        assert_eq!(admit(&mut callsite, 2, now), Some(1000));
        assert_eq!(admit(&mut callsite, 1, now + PERIOD / 2), None);
        assert_eq!(admit(&mut callsite, 1, now + PERIOD), Some(1));
    }

    #[test]
    fn a_line_is_written_20_times_in_a_period_however_many_pods_provoke_it() {
        let (mut callsite, now) = (Callsite::default(), Instant::now());
        let written = (0..1000).filter_map(|about| admit(&mut callsite, about, now));
        assert_eq!(written.count(), LINES);
        assert_eq!(callsite.written.len(), LINES);
        assert_eq!(admit(&mut callsite, 5000, now + PERIOD), Some(980));
    }

    #[test]
    fn a_line_about_no_pod_is_written_20_times_in_a_period() {
        let (mut callsite, now) = (Callsite::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(admit(&mut callsite, None, now), Some(0));
        }
        assert_eq!(admit(&mut callsite, None, now), None);
        assert_eq!(admit(&mut callsite, None, now + PERIOD), Some(1));
    }
}
