//! Parties that take turns, however much each of them has waiting.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Something that waits in an order.
pub(super) trait Lane: Default {
    /// What waits.
    type Item;

    /// Takes out what is next.
    fn pop(&mut self) -> Option<Self::Item>;

    /// How much waits.
    fn len(&self) -> usize;

    /// Whether nothing waits.
    fn is_empty(&self) -> bool;

    /// Keeps only what `keep` picks.
    fn retain(&mut self, keep: &impl Fn(&Self::Item) -> bool);

    /// How much is taken out before the item that `is_it` picks, if nothing else comes.
    fn ahead(&self, is_it: &impl Fn(&Self::Item) -> bool) -> Option<usize>;
}

/// First come, first served.
impl<T> Lane for VecDeque<T> {
    type Item = T;

    fn pop(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn retain(&mut self, keep: &impl Fn(&T) -> bool) {
        self.retain(keep);
    }

    fn ahead(&self, is_it: &impl Fn(&T) -> bool) -> Option<usize> {
        self.iter().position(is_it)
    }
}

/// One line for each party, from which one item each is taken in turns.
pub(super) struct RoundRobin<K, L> {
    lines: HashMap<K, L>,
    /// The parties that have something waiting, in order.
    order: VecDeque<K>,
}

impl<K, L> Default for RoundRobin<K, L> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, L: Lane> RoundRobin<K, L> {
    /// A party's line, to add something to it.
    pub(super) fn line(&mut self, party: K) -> &mut L {
        let order = &mut self.order;
        self.lines.entry(party).or_insert_with_key(|party| {
            order.push_back(party.clone());
            L::default()
        })
    }
}

impl<K: Clone + Eq + Hash, L: Lane> Lane for RoundRobin<K, L> {
    type Item = L::Item;

    fn pop(&mut self) -> Option<L::Item> {
        let party = self.order.pop_front()?;
        let line = self.lines.get_mut(&party)?;
        let item = line.pop();
        if line.is_empty() {
            self.lines.remove(&party);
        } else {
            self.order.push_back(party);
        }
        item
    }

    fn len(&self) -> usize {
        self.lines.values().map(Lane::len).sum()
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn retain(&mut self, keep: &impl Fn(&L::Item) -> bool) {
        self.lines.retain(|_, line| {
            line.retain(keep);
            !line.is_empty()
        });
        self.order.retain(|party| self.lines.contains_key(party));
    }

    fn ahead(&self, is_it: &impl Fn(&L::Item) -> bool) -> Option<usize> {
        let lines = || self.order.iter().filter_map(|party| self.lines.get(party));
        let (own, rounds) = lines()
            .enumerate()
            .find_map(|(at, line)| Some((at, line.ahead(is_it)?)))?;
        let others = lines().enumerate().filter(|(at, _)| *at != own);
        // Those before it in the order have had one turn more by then.
        let ahead = others.map(|(at, line)| line.len().min(rounds + usize::from(at < own)));
        Some(rounds + ahead.sum::<usize>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Nested = RoundRobin<&'static str, RoundRobin<u8, VecDeque<&'static str>>>;

    fn nested() -> Nested {
        let mut turns = Nested::default();
        for (outer, inner, item) in [
            ("a", 1, "a1"),
            ("a", 1, "a2"),
            ("b", 1, "b1"),
            ("a", 2, "a3"),
            ("b", 1, "b2"),
            ("c", 1, "c1"),
            ("b", 2, "b3"),
        ] {
            turns.line(outer).line(inner).push_back(item);
        }
        turns
    }

    const ORDER: [&str; 7] = ["a1", "b1", "c1", "a3", "b3", "a2", "b2"];

    #[test]
    fn parties_take_turns_and_so_do_those_within_them() {
        let mut turns = nested();
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, ORDER);
        assert_eq!(turns.len(), 0);
    }

    #[test]
    fn what_is_ahead_of_an_item_comes_out_before_it() {
        let turns = nested();
        for (at, item) in ORDER.into_iter().enumerate() {
            assert_eq!(turns.ahead(&|it: &&str| *it == item), Some(at), "{item}");
        }
        assert_eq!(turns.ahead(&|it: &&str| *it == "nobody"), None);
    }

    #[test]
    fn nothing_is_left_of_a_party_that_has_left() {
        let mut turns = nested();
        turns.retain(&|it: &&str| it.starts_with('b'));
        assert_eq!(turns.len(), 3);
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, ["b1", "b3", "b2"]);
        assert!(turns.lines.is_empty() && turns.order.is_empty());
    }
}
