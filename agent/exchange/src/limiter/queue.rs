//! Who calls EKS Auth next.
//!
//! Pods that wait for credentials come before renewals and before tokens that EKS Auth has just
//! refused: a pod in a crash loop shows the same one for hours. Still, one call in four is for
//! these two kinds, in turns, so that neither waits for ever. Both have a rate of their own, and
//! wait for it without holding up anybody else.
//!
//! Parties take turns, however many calls each has waiting: namespaces, pods, or addresses. Of the
//! renewals, the credentials that expire first come first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use podcreds_types::{Origin, PodUid};

use super::round_robin::{Lane, RoundRobin};

/// One call in so many is not for those who are the most urgent.
const FOR_OTHERS: u64 = 4;

/// How urgent a call is, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// A request waits for it.
    Asked,
    /// Nobody will miss it until then.
    Renewal(SystemTime),
    /// It has been refused, and probably will be again.
    Doubtful,
}

impl Urgency {
    /// The kind of call.
    pub(crate) fn kind(self) -> CallKind {
        match self {
            Self::Asked => CallKind::Asked,
            Self::Renewal(_) => CallKind::Renewal,
            Self::Doubtful => CallKind::Doubtful,
        }
    }
}

/// The three kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// A request waits for it.
    Asked,
    /// It renews credentials that are good still.
    Renewal,
    /// It is for a token that was refused.
    Doubtful,
}

/// Who takes turns with the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    /// The pods of one namespace, by tokens that a key has verified.
    Namespace(String),
    /// One pod, by the kernel's word.
    Pod(PodUid),
    /// Unidentified callers at one place: a pod, or an address on the node path.
    Origin(Origin),
}

/// Whose turn a call needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CallShare {
    /// One of this party's own.
    Own(Party),
    /// One of the turns that all unverified callers share, where other callers are verified.
    Unverified(Party),
}

impl CallShare {
    /// The party that takes turns with all others, which for shared turns is nobody in particular,
    /// and the one that takes turns with those that it shares them with.
    fn split(&self) -> (Option<Party>, Party) {
        match self {
            Self::Own(party) => (Some(party.clone()), party.clone()),
            Self::Unverified(party) => (None, party.clone()),
        }
    }
}

/// How many wait, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) asked: usize,
    pub(super) renewals: usize,
    pub(super) doubtful: usize,
}

impl Waiting {
    /// How many wait of one kind.
    pub(super) fn of(&mut self, kind: CallKind) -> &mut usize {
        match kind {
            CallKind::Asked => &mut self.asked,
            CallKind::Renewal => &mut self.renewals,
            CallKind::Doubtful => &mut self.doubtful,
        }
    }
}

/// Which of the kinds that nobody waits for may have a call now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) renewal: bool,
    pub(super) doubtful: bool,
}

type Parties<T> = RoundRobin<Option<Party>, RoundRobin<Party, VecDeque<T>>>;

/// Those who wait, in order.
pub(super) struct CallQueue<T> {
    /// Those that a request waits for.
    asked: Parties<T>,
    /// The renewals, by when their credentials expire, then by when they came.
    renewals: BTreeMap<(SystemTime, u64), T>,
    /// Those that have been refused.
    doubtful: Parties<T>,
    waiting: Waiting,
    arrivals: u64,
    departures: u64,
    /// Whose turn it is among the kinds that nobody waits for.
    is_doubtfuls_turn: bool,
}

impl<T> CallQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            asked: RoundRobin::default(),
            renewals: BTreeMap::new(),
            doubtful: RoundRobin::default(),
            waiting: Waiting::default(),
            arrivals: 0,
            departures: 0,
            is_doubtfuls_turn: false,
        }
    }

    /// Adds a call.
    pub(super) fn push(&mut self, share: &CallShare, urgency: Urgency, item: T) {
        *self.waiting.of(urgency.kind()) += 1;
        let parties = match urgency {
            Urgency::Asked => &mut self.asked,
            Urgency::Doubtful => &mut self.doubtful,
            Urgency::Renewal(expiration) => {
                self.arrivals += 1;
                self.renewals.insert((expiration, self.arrivals), item);
                return;
            }
        };
        let (outer, inner) = share.split();
        parties.line(outer).line(inner).push_back(item);
    }

    /// Takes out the call whose turn it is.
    pub(super) fn pop(&mut self, allowed: Allowed) -> Option<(CallKind, T)> {
        let is_for_others = (self.departures + 1).is_multiple_of(FOR_OTHERS);
        let next = match is_for_others {
            true => self.pop_other(allowed).or_else(|| self.pop_asked()),
            false => self.pop_asked().or_else(|| self.pop_other(allowed)),
        };
        if let Some((kind, _)) = &next {
            self.departures += 1;
            *self.waiting.of(*kind) -= 1;
        }
        next
    }

    fn pop_asked(&mut self) -> Option<(CallKind, T)> {
        Some((CallKind::Asked, self.asked.pop()?))
    }

    /// renewals and refused tokens take turns.
    fn pop_other(&mut self, allowed: Allowed) -> Option<(CallKind, T)> {
        for _ in 0..2 {
            let is_doubtful = self.is_doubtfuls_turn;
            self.is_doubtfuls_turn = !is_doubtful;
            let next = match is_doubtful {
                true if allowed.doubtful => self.doubtful.pop().map(|it| (CallKind::Doubtful, it)),
                false if allowed.renewal => {
                    let first = self.renewals.pop_first();
                    first.map(|(_, item)| (CallKind::Renewal, item))
                }
                true | false => None,
            };
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// Drops those who no longer wait.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.asked.retain(&keep);
        self.doubtful.retain(&keep);
        self.renewals.retain(|_, item| keep(item));
        self.waiting = Waiting {
            asked: self.asked.len(),
            renewals: self.renewals.len(),
            doubtful: self.doubtful.len(),
        };
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// How many of a kind go before the one that `is_it` picks, if nobody else comes. It takes as
    /// long as there are parties.
    pub(super) fn ahead(&self, kind: CallKind, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        match kind {
            CallKind::Asked => self.asked.ahead(&is_it),
            CallKind::Renewal => self.renewals.values().position(is_it),
            CallKind::Doubtful => self.doubtful.ahead(&is_it),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const ALL: Allowed = Allowed {
        renewal: true,
        doubtful: true,
    };

    fn drain(queue: &mut CallQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop(ALL).map(|(_, item)| item)).collect()
    }

    fn of(namespace: &str) -> CallShare {
        CallShare::Own(Party::Namespace(namespace.to_owned()))
    }

    fn renewal(seconds: u64) -> Urgency {
        Urgency::Renewal(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn those_who_wait_come_before_renewals_and_near_expiries_before_far_ones() {
        let mut queue = CallQueue::new();
        queue.push(&of("a"), renewal(30), "late");
        queue.push(&of("a"), renewal(10), "soon");
        queue.push(&of("b"), Urgency::Asked, "now");
        queue.push(&of("b"), renewal(10), "soon too");
        let waiting = queue.waiting();
        assert_eq!((waiting.asked, waiting.renewals), (1, 3));
        assert_eq!(drain(&mut queue), ["now", "soon", "soon too", "late"]);
        assert_eq!(queue.waiting(), Waiting::default());
    }

    #[test]
    fn renewals_and_refused_tokens_share_one_call_in_four() {
        let mut queue = CallQueue::new();
        for _ in 0..14 {
            queue.push(&of("a"), Urgency::Asked, "now");
        }
        for _ in 0..100 {
            queue.push(&of("a"), renewal(10), "soon");
        }
        queue.push(&of("a"), Urgency::Doubtful, "refused");
        queue.push(&of("a"), Urgency::Doubtful, "refused");
        let order = drain(&mut queue);
        assert_eq!(order[3], "soon");
        assert_eq!(order[7], "refused", "it does not wait for the renewals");
        assert_eq!((order[11], order[15]), ("soon", "refused"));
        assert_eq!(order.len(), 116);
    }

    #[test]
    fn a_kind_that_waits_for_its_rate_holds_up_no_other() {
        let mut queue = CallQueue::new();
        queue.push(&of("a"), renewal(10), "soon");
        queue.push(&of("a"), Urgency::Doubtful, "refused");
        queue.push(&of("a"), Urgency::Asked, "now");
        let none = Allowed {
            renewal: false,
            doubtful: false,
        };
        assert_eq!(queue.pop(none), Some((CallKind::Asked, "now")));
        assert_eq!(queue.pop(none), None);
        let doubtful = Allowed {
            doubtful: true,
            ..none
        };
        assert_eq!(queue.pop(doubtful), Some((CallKind::Doubtful, "refused")));
        assert_eq!(queue.pop(doubtful), None);
        assert_eq!(drain(&mut queue), ["soon"]);
    }

    #[test]
    fn a_small_namespace_does_not_wait_for_a_large_one() {
        for urgency in [Urgency::Asked, Urgency::Doubtful] {
            let mut queue = CallQueue::new();
            for pod in ["big1", "big2", "big3", "big4"] {
                queue.push(&of("big"), urgency, pod);
            }
            queue.push(&of("small"), urgency, "small1");
            queue.push(&of("other"), urgency, "other1");
            queue.push(&of("small"), urgency, "small2");
            assert_eq!(
                drain(&mut queue),
                ["big1", "small1", "other1", "big2", "small2", "big3", "big4"]
            );
        }
    }

    #[test]
    fn an_address_does_not_wait_for_another_one() {
        let at = |host| Party::Origin(Origin::Address([10, 0, 0, host].into()));
        let mut queue = CallQueue::new();
        for call in ["flood1", "flood2", "flood3"] {
            queue.push(&CallShare::Own(at(1)), Urgency::Asked, call);
        }
        queue.push(&CallShare::Own(at(2)), Urgency::Asked, "cold");
        assert_eq!(drain(&mut queue), ["flood1", "cold", "flood2", "flood3"]);
        // Unverified tokens share one turn, and take turns in it.
        for call in ["flood1", "flood2"] {
            queue.push(&CallShare::Unverified(at(1)), Urgency::Asked, call);
        }
        queue.push(&CallShare::Unverified(at(2)), Urgency::Asked, "cold");
        queue.push(&of("a"), Urgency::Asked, "a1");
        queue.push(&of("a"), Urgency::Asked, "a2");
        assert_eq!(drain(&mut queue), ["flood1", "a1", "cold", "a2", "flood2"]);
    }

    #[test]
    fn calls_that_left_the_queue_do_not_go_out() {
        let mut queue = CallQueue::new();
        queue.push(&of("a"), Urgency::Asked, "gone");
        queue.push(&of("b"), Urgency::Asked, "here");
        queue.push(&of("b"), renewal(1), "gone");
        queue.push(&of("b"), Urgency::Doubtful, "gone");
        queue.retain(|who| *who == "here");
        assert_eq!(queue.waiting().renewals + queue.waiting().doubtful, 0);
        assert_eq!(drain(&mut queue), ["here"]);
    }

    #[test]
    fn each_can_be_told_how_many_go_first() {
        let mut queue = CallQueue::new();
        queue.push(&of("a"), Urgency::Asked, "a1");
        queue.push(&of("a"), Urgency::Asked, "a2");
        queue.push(&of("b"), Urgency::Asked, "b1");
        queue.push(&of("a"), Urgency::Doubtful, "refused");
        queue.push(&of("a"), renewal(2), "late");
        queue.push(&of("a"), renewal(1), "soon");
        let ahead = |kind, item: &str| queue.ahead(kind, |it| *it == item);
        assert_eq!(ahead(CallKind::Asked, "b1"), Some(1));
        assert_eq!(ahead(CallKind::Asked, "a2"), Some(2));
        assert_eq!(ahead(CallKind::Doubtful, "refused"), Some(0));
        assert_eq!(ahead(CallKind::Renewal, "late"), Some(1));
        assert_eq!(ahead(CallKind::Asked, "nobody"), None);
    }
}
