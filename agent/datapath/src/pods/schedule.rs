//! When each pod is to be looked at next.

use std::{collections::BTreeSet, time::Instant};

/// Pods by the time at which they are due. A pod that waits for an event is not in it.
#[derive(Default)]
pub(crate) struct Schedule(BTreeSet<(Instant, u64)>);

impl Schedule {
    /// Moves a pod from one time to another, where `None` stands for never.
    pub(crate) fn change(&mut self, pod: u64, from: Option<Instant>, to: Option<Instant>) {
        if let Some(from) = from {
            self.0.remove(&(from, pod));
        }
        if let Some(to) = to {
            self.0.insert((to, pod));
        }
    }

    /// When the next pod is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// The pods that are due, the longest first. They stay until they are moved.
    pub(crate) fn due(&self, now: Instant) -> Vec<u64> {
        let due = self.0.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, pod)| *pod).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn pods_are_due_in_the_order_of_their_times() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next(), None);
        for (pod, seconds) in [(1, 3), (2, 1), (3, 2)] {
            schedule.change(pod, None, Some(at(seconds)));
        }
        assert_eq!(schedule.next(), Some(at(1)));
        assert_eq!(schedule.due(at(0)), [0; 0]);
        assert_eq!(schedule.due(at(2)), [2, 3]);
        schedule.change(2, Some(at(1)), None);
        schedule.change(3, Some(at(2)), Some(at(9)));
        assert_eq!(schedule.due(at(8)), [1]);
        assert_eq!(schedule.next(), Some(at(3)));
    }
}
