//! Room for what nobody has verified: some for each owner, and not too much for all.
//!
//! An owner may have no more than is free for others. So the fuller it gets, the less each may
//! have, and there is room for a new one, however many have come before it.

use std::{collections::HashMap, hash::Hash};

/// How much there may be.
pub(crate) struct SharedLimit<K> {
    each: usize,
    all: usize,
    taken: HashMap<K, usize>,
    total: usize,
}

impl<K: Copy + Eq + Hash> SharedLimit<K> {
    /// At most `each` for one owner, and `all` for all of them together.
    pub(crate) fn new(each: usize, all: usize) -> Self {
        Self {
            each,
            all,
            taken: HashMap::new(),
            total: 0,
        }
    }

    /// Takes room for one more of an owner. False if there is none left for it.
    pub(crate) fn take(&mut self, owner: K) -> bool {
        let own = self.taken.get(&owner).copied().unwrap_or_default();
        if own >= self.each || own >= self.all.saturating_sub(self.total) {
            return false;
        }
        self.taken.insert(owner, own + 1);
        self.total += 1;
        true
    }

    /// Gives that back.
    pub(crate) fn release(&mut self, owner: K) {
        if let Some(own) = self.taken.get_mut(&owner) {
            *own -= 1;
            self.total -= 1;
            if *own == 0 {
                self.taken.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use podcreds_types::Origin;

    use super::*;

    #[test]
    fn an_owner_is_held_to_its_own_limit_and_to_what_is_free() {
        let (one, two) = (Origin::Unknown, Origin::Pod(2));
        let mut limits = SharedLimit::new(2, 4);
        assert!(limits.take(one) && limits.take(one));
        assert!(!limits.take(one), "too many of one");
        assert!(limits.take(two));
        assert!(!limits.take(two), "as many as are free");
        limits.release(one);
        assert!(limits.take(two));
    }

    #[test]
    fn a_new_owner_finds_room_however_many_crowd_the_others() {
        let mut limits = SharedLimit::new(128, 512);
        let mut taken = Vec::new();
        let fill = |limits: &mut SharedLimit<Origin>, taken: &mut Vec<Origin>, place| {
            while limits.take(Origin::Pod(place)) {
                taken.push(Origin::Pod(place));
            }
        };
        for place in 0..20 {
            fill(&mut limits, &mut taken, place);
            if place < 8 {
                assert!(limits.take(Origin::Unknown), "after {place}");
                limits.release(Origin::Unknown);
            }
        }
        assert!(taken.len() <= 512);
        // Once the first have been served, the share of each depends on how many there are.
        for _ in 0..10 {
            let half = taken.len() / 2;
            taken.drain(..half).for_each(|owner| limits.release(owner));
            for _ in 0..1000 {
                for place in 0..20 {
                    if limits.take(Origin::Pod(place)) {
                        taken.push(Origin::Pod(place));
                    }
                }
            }
        }
        let most = limits.taken.values().max().copied().unwrap();
        assert!(most < 40, "{most} of one place");
        assert!(limits.take(Origin::Unknown));
    }

    #[test]
    fn an_owner_that_gave_everything_back_takes_no_memory() {
        let mut limits = SharedLimit::new(1, 2);
        assert!(limits.take(Origin::Unknown));
        limits.release(Origin::Unknown);
        assert!(limits.taken.is_empty());
    }
}
