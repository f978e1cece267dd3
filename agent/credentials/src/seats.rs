//! Room for callers whom nobody has identified: some for each place that they call from, and not
//! too much for all.
//!
//! A place may have no more seats than are free for others. So the fuller it gets, the less each
//! may have, and there is room for a new one, however many have come before it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use podcreds_types::Origin;

/// A number of seats. Clones are the same ones.
#[derive(Clone)]
pub(super) struct Seats(Arc<Inner>);

struct Inner {
    each: usize,
    all: usize,
    taken: Mutex<HashMap<Origin, usize>>,
}

/// A seat, until it is dropped.
pub(super) struct Seat {
    seats: Seats,
    origin: Origin,
}

impl Seats {
    /// At most `each` for one origin, and `all` for all of them together.
    pub(super) fn new(each: usize, all: usize) -> Self {
        Self(Arc::new(Inner {
            each,
            all,
            taken: Mutex::default(),
        }))
    }

    /// A seat for one more request from there, if there is one left for it.
    pub(super) fn take(&self, origin: Origin) -> Option<Seat> {
        let mut taken = self.lock();
        let free = self.0.all.saturating_sub(taken.values().sum());
        let own = taken.get(&origin).copied().unwrap_or_default();
        if own >= self.0.each || own >= free {
            return None;
        }
        taken.insert(origin, own + 1);
        Some(Seat {
            seats: self.clone(),
            origin,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(own) = taken.get_mut(&self.origin) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_so_many_seats_and_all_have_so_many_together() {
        let (one, two) = (Origin::Unknown, Origin::Pod(2));
        let seats = Seats::new(2, 4);
        let first = seats.take(one).unwrap();
        let _second = seats.take(one).unwrap();
        assert!(seats.take(one).is_none(), "too many of one");
        let _other = seats.take(two).unwrap();
        assert!(seats.take(two).is_none(), "as many as are free");
        drop(first);
        assert!(seats.take(two).is_some());
    }

    #[test]
    fn there_is_room_for_a_new_place_however_many_crowd_the_others() {
        let seats = Seats::new(128, 512);
        let mut taken = Vec::new();
        for place in 0..20 {
            taken.extend((0..1000).map_while(|_| seats.take(Origin::Pod(place))));
            if place < 8 {
                assert!(seats.take(Origin::Unknown).is_some(), "after {place}");
            }
        }
        assert!(taken.len() <= 512);
        // Once those who came first have had their turn, what they may have depends on how many
        // come.
        for _ in 0..10 {
            taken.drain(..taken.len() / 2);
            for _ in 0..1000 {
                taken.extend((0..20).filter_map(|place| seats.take(Origin::Pod(place))));
            }
        }
        let most = seats.lock().values().max().copied().unwrap();
        assert!(most < 40, "{most} of one place");
        assert!(seats.take(Origin::Unknown).is_some());
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let seats = Seats::new(1, 2);
        drop((seats.take(Origin::Unknown), seats.take(Origin::Unknown)));
        assert!(seats.lock().is_empty());
    }
}
