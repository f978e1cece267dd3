//! Who calls EKS Auth next.
//!
//! Pods that wait for credentials come before refreshes, and tokens that EKS Auth has just refused
//! come last: a pod in a crash loop shows the same one for hours. Still, every few calls one goes to
//! those who come later, so that none of them waits for ever.
//!
//! Pods that wait take turns by namespace, however many pods each has; a pod stands in line only
//! once. Of the refreshes, the credentials that expire first come first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::SystemTime,
};

use crate::types::PodUid;

/// One call in so many is not for those who are the most urgent.
const FOR_OTHERS: u64 = 4;

/// How urgent a call is, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Somebody waits for it.
    Asked,
    /// Nobody will miss it until then.
    Refresh(SystemTime),
    /// It has been refused, and probably will be again.
    Doubtful,
}

/// Who takes turns with whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Turn {
    /// The pods of one namespace.
    Namespace(String),
    /// One pod, whose namespace nobody vouches for.
    Pod(PodUid),
    /// All whom nobody vouches for, where others are vouched for.
    Unverified,
}

/// How many wait, by urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) asked: usize,
    pub(super) refreshes: usize,
    pub(super) doubtful: usize,
}

/// Those who wait, in order.
pub(super) struct Queue<T> {
    /// Those that somebody waits for, by whose turn it is.
    asked: HashMap<Turn, VecDeque<T>>,
    /// The turns that have someone waiting, in order.
    turns: VecDeque<Turn>,
    /// The refreshes, by when their credentials expire, then by when they came.
    refreshes: BTreeMap<(SystemTime, u64), T>,
    /// Those that have been refused, as they came.
    doubtful: VecDeque<T>,
    arrivals: u64,
    departures: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            asked: HashMap::new(),
            turns: VecDeque::new(),
            refreshes: BTreeMap::new(),
            doubtful: VecDeque::new(),
            arrivals: 0,
            departures: 0,
        }
    }

    /// Lets someone join.
    pub(super) fn push(&mut self, turn: &Turn, urgency: Urgency, item: T) {
        match urgency {
            Urgency::Doubtful => self.doubtful.push_back(item),
            Urgency::Refresh(expiration) => {
                self.arrivals += 1;
                self.refreshes.insert((expiration, self.arrivals), item);
            }
            Urgency::Asked => match self.asked.get_mut(turn) {
                Some(waiting) => waiting.push_back(item),
                None => {
                    self.turns.push_back(turn.clone());
                    self.asked.insert(turn.clone(), VecDeque::from([item]));
                }
            },
        }
    }

    /// Whoever's turn it is, out of the queue.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.departures += 1;
        if self.departures.is_multiple_of(FOR_OTHERS) {
            self.pop_other().or_else(|| self.pop_asked())
        } else {
            self.pop_asked().or_else(|| self.pop_other())
        }
    }

    fn pop_asked(&mut self) -> Option<T> {
        let turn = self.turns.pop_front()?;
        let waiting = self.asked.get_mut(&turn)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.asked.remove(&turn);
        } else {
            self.turns.push_back(turn);
        }
        item
    }

    fn pop_other(&mut self) -> Option<T> {
        let refresh = self.refreshes.pop_first().map(|(_, item)| item);
        refresh.or_else(|| self.doubtful.pop_front())
    }

    /// Drops those who no longer wait.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.asked.retain(|_, waiting| {
            waiting.retain(&keep);
            !waiting.is_empty()
        });
        self.turns.retain(|turn| self.asked.contains_key(turn));
        self.refreshes.retain(|_, item| keep(item));
        self.doubtful.retain(keep);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            asked: self.asked.values().map(VecDeque::len).sum(),
            refreshes: self.refreshes.len(),
            doubtful: self.doubtful.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn drain(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    fn of(namespace: &str) -> Turn {
        Turn::Namespace(namespace.to_owned())
    }

    fn refresh(seconds: u64) -> Urgency {
        Urgency::Refresh(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn those_who_wait_come_before_refreshes_and_near_expiries_before_far_ones() {
        let mut queue = Queue::new();
        queue.push(&of("a"), Urgency::Doubtful, "refused");
        queue.push(&of("a"), refresh(30), "late");
        queue.push(&of("a"), refresh(10), "soon");
        queue.push(&of("b"), Urgency::Asked, "now");
        queue.push(&of("b"), refresh(10), "soon too");
        let waiting = queue.waiting();
        assert_eq!(
            (waiting.asked, waiting.refreshes, waiting.doubtful),
            (1, 3, 1)
        );
        assert_eq!(
            drain(&mut queue),
            ["now", "soon", "soon too", "late", "refused"]
        );
        assert_eq!(queue.waiting(), Waiting::default());
    }

    #[test]
    fn those_who_come_later_get_one_call_in_four() {
        let mut queue = Queue::new();
        for _ in 0..9 {
            queue.push(&of("a"), Urgency::Asked, "now");
        }
        queue.push(&of("a"), refresh(10), "soon");
        queue.push(&of("a"), Urgency::Doubtful, "refused");
        let order = drain(&mut queue);
        assert_eq!((order[3], order[7]), ("soon", "refused"));
        assert_eq!(order.len(), 11);
    }

    #[test]
    fn a_small_namespace_does_not_wait_for_a_large_one() {
        let mut queue = Queue::new();
        for pod in ["big1", "big2", "big3", "big4"] {
            queue.push(&of("big"), Urgency::Asked, pod);
        }
        queue.push(&of("small"), Urgency::Asked, "small1");
        queue.push(&of("other"), Urgency::Asked, "other1");
        queue.push(&of("small"), Urgency::Asked, "small2");
        assert_eq!(
            drain(&mut queue),
            ["big1", "small1", "other1", "big2", "small2", "big3", "big4"]
        );
    }

    #[test]
    fn those_who_left_are_not_called() {
        let mut queue = Queue::new();
        queue.push(&of("a"), Urgency::Asked, "gone");
        queue.push(&of("b"), Urgency::Asked, "here");
        queue.push(&of("b"), refresh(1), "gone");
        queue.push(&of("b"), Urgency::Doubtful, "gone");
        queue.retain(|who| *who == "here");
        assert_eq!(queue.waiting().refreshes + queue.waiting().doubtful, 0);
        assert_eq!(drain(&mut queue), ["here"]);
    }
}
