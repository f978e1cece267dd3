//! How many connections may be open, for one caller and for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::IntGauge;

use crate::types::Origin;

/// Counts open connections. Clones count together.
#[derive(Clone)]
pub(super) struct Limits(Arc<Inner>);

struct Inner {
    per_caller: usize,
    overall: usize,
    open: Mutex<Open>,
    gauge: IntGauge,
}

#[derive(Default)]
struct Open {
    overall: usize,
    /// Those of callers that are no known pods.
    strangers: usize,
    /// Who has no connection has no entry.
    by_caller: HashMap<Origin, usize>,
}

/// One open connection. It is given back on drop.
pub(super) struct Slot {
    limits: Limits,
    caller: Origin,
}

impl Limits {
    pub(super) fn new(per_caller: usize, overall: usize, gauge: IntGauge) -> Self {
        Self(Arc::new(Inner {
            per_caller,
            overall,
            open: Mutex::default(),
            gauge,
        }))
    }

    /// Counts one more connection of this caller, if it may have one more. Whoever is no known pod may
    /// have several addresses: half of all is for known pods alone.
    pub(super) fn admit(&self, caller: Origin) -> Option<Slot> {
        let mut open = self.lock();
        let is_stranger = !caller.is_pod();
        if open.overall >= self.0.overall || is_stranger && open.strangers >= self.0.overall / 2 {
            return None;
        }
        let count = open.by_caller.entry(caller).or_default();
        if *count >= self.0.per_caller {
            // Never leaves an empty entry behind, unless nobody may connect at all.
            return None;
        }
        *count += 1;
        open.overall += 1;
        open.strangers += usize::from(is_stranger);
        self.0.gauge.set(gauge_value(open.overall));
        drop(open);
        Some(Slot {
            limits: self.clone(),
            caller,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        open.overall -= 1;
        open.strangers -= usize::from(!self.caller.is_pod());
        if let Some(count) = open.by_caller.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.by_caller.remove(&self.caller);
            }
        }
        self.limits.0.gauge.set(gauge_value(open.overall));
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_caller: usize, overall: usize) -> Limits {
        let gauge = IntGauge::new("open", "open").unwrap();
        Limits::new(per_caller, overall, gauge)
    }

    #[test]
    fn one_caller_cannot_take_anothers_place() {
        let limits = limits(2, 10);
        let _first = limits.admit(Origin::Pod(1)).unwrap();
        let second = limits.admit(Origin::Pod(1)).unwrap();
        assert!(limits.admit(Origin::Pod(1)).is_none());
        let _other = limits.admit(Origin::Pod(2)).unwrap();
        assert_eq!(limits.0.gauge.get(), 3);
        drop(second);
        assert!(limits.admit(Origin::Pod(1)).is_some());
    }

    #[test]
    fn strangers_leave_half_to_pods() {
        let limits = limits(2, 6);
        let address = |last| Origin::Address([10, 0, 0, last].into());
        let strangers = [Origin::Unknown, address(1), address(1)];
        let slots = strangers.map(|origin| limits.admit(origin).unwrap());
        assert!(limits.admit(address(2)).is_none());
        let _pods = [1, 1, 2].map(|pod| limits.admit(Origin::Pod(pod)).unwrap());
        drop(slots);
        assert!(limits.admit(address(2)).is_some());
    }

    #[test]
    fn all_together_have_a_limit() {
        let limits = limits(2, 3);
        let slots: Vec<_> = (1..=3)
            .map(|caller| limits.admit(Origin::Pod(caller)).unwrap())
            .collect();
        assert!(limits.admit(Origin::Pod(4)).is_none());
        drop(slots);
        assert!(limits.admit(Origin::Pod(4)).is_some());
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let limits = limits(2, 10);
        for origin in [Origin::Pod(1), Origin::Unknown] {
            drop([0; 3].map(|_| limits.admit(origin)));
        }
        assert!(limits.lock().by_caller.is_empty());
        assert_eq!(limits.lock().overall, 0);
        assert_eq!(limits.lock().strangers, 0);
        assert_eq!(limits.0.gauge.get(), 0);
    }
}
