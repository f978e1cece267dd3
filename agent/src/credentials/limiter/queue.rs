//! Who calls EKS Auth next.
//!
//! Pods that wait for credentials come before refreshes. Among the former, namespaces take turns,
//! however many pods each has; a pod stands in line only once. Among the latter, the credentials
//! that expire first come first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::SystemTime,
};

/// How urgent a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits for it.
    Asked,
    /// Nobody will miss it until then.
    Refresh(SystemTime),
}

/// Those who wait, in order.
pub(super) struct Queue<T> {
    /// The waiting, by namespace.
    asked: HashMap<String, VecDeque<T>>,
    /// The namespaces that have someone waiting, in the order of their turns.
    turns: VecDeque<String>,
    /// The refreshes, by when their credentials expire, then by when they came.
    refreshes: BTreeMap<(SystemTime, u64), T>,
    arrivals: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            asked: HashMap::new(),
            turns: VecDeque::new(),
            refreshes: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// Lets someone of a namespace join.
    pub(super) fn push(&mut self, namespace: &str, urgency: Urgency, item: T) {
        match urgency {
            Urgency::Refresh(expiration) => {
                self.arrivals += 1;
                self.refreshes.insert((expiration, self.arrivals), item);
            }
            Urgency::Asked => match self.asked.get_mut(namespace) {
                Some(waiting) => waiting.push_back(item),
                None => {
                    self.turns.push_back(namespace.to_owned());
                    self.asked
                        .insert(namespace.to_owned(), VecDeque::from([item]));
                }
            },
        }
    }

    /// Whoever's turn it is, out of the queue.
    pub(super) fn pop(&mut self) -> Option<T> {
        let Some(namespace) = self.turns.pop_front() else {
            return self.refreshes.pop_first().map(|(_, item)| item);
        };
        let waiting = self.asked.get_mut(&namespace)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.asked.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        item
    }

    /// Drops those who no longer wait.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.asked.retain(|_, waiting| {
            waiting.retain(&keep);
            !waiting.is_empty()
        });
        self.turns
            .retain(|namespace| self.asked.contains_key(namespace));
        self.refreshes.retain(|_, item| keep(item));
    }

    /// Those that somebody waits for, and refreshes.
    pub(super) fn len(&self) -> (usize, usize) {
        let asked = self.asked.values().map(VecDeque::len).sum();
        (asked, self.refreshes.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn drain(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    fn refresh(seconds: u64) -> Urgency {
        Urgency::Refresh(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn those_who_wait_come_before_refreshes_and_near_expiries_before_far_ones() {
        let mut queue = Queue::new();
        queue.push("a", refresh(30), "late");
        queue.push("a", refresh(10), "soon");
        queue.push("b", Urgency::Asked, "now");
        queue.push("b", refresh(10), "soon too");
        assert_eq!(queue.len(), (1, 3));
        assert_eq!(drain(&mut queue), ["now", "soon", "soon too", "late"]);
        assert_eq!(queue.len(), (0, 0));
    }

    #[test]
    fn a_small_namespace_does_not_wait_for_a_large_one() {
        let mut queue = Queue::new();
        for pod in ["big1", "big2", "big3", "big4"] {
            queue.push("big", Urgency::Asked, pod);
        }
        queue.push("small", Urgency::Asked, "small1");
        queue.push("other", Urgency::Asked, "other1");
        queue.push("small", Urgency::Asked, "small2");
        assert_eq!(
            drain(&mut queue),
            ["big1", "small1", "other1", "big2", "small2", "big3", "big4"]
        );
    }

    #[test]
    fn those_who_left_are_not_called() {
        let mut queue = Queue::new();
        queue.push("a", Urgency::Asked, "gone");
        queue.push("b", Urgency::Asked, "here");
        queue.push("b", refresh(1), "gone");
        queue.retain(|who| *who == "here");
        assert_eq!(queue.len(), (1, 0));
        assert_eq!(drain(&mut queue), ["here"]);
    }
}
