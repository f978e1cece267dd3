//! Room for callers whom nobody has identified: some for each of them, and not too much for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::types::Origin;

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
    /// `each` for one origin, and `all` for all of them together.
    pub(super) fn new(each: usize, all: usize) -> Self {
        Self(Arc::new(Inner {
            each,
            all,
            taken: Mutex::default(),
        }))
    }

    /// A seat for one more request from there, if there is one left.
    pub(super) fn take(&self, origin: Origin) -> Option<Seat> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.0.all {
            return None;
        }
        let own = taken.entry(origin).or_default();
        // Who has as many as allowed has an entry, so none is left behind that is empty.
        if *own >= self.0.each {
            return None;
        }
        *own += 1;
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
    fn one_caller_leaves_room_for_others() {
        let (one, two) = (Origin::Unknown, Origin::Pod(2));
        let seats = Seats::new(2, 3);
        let first = seats.take(one).unwrap();
        let _second = seats.take(one).unwrap();
        assert!(seats.take(one).is_none(), "too many of one");
        let _other = seats.take(two).unwrap();
        assert!(seats.take(two).is_none(), "too many in all");
        drop(first);
        assert!(seats.take(two).is_some());
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let seats = Seats::new(1, 2);
        drop((seats.take(Origin::Unknown), seats.take(Origin::Unknown)));
        assert!(seats.lock().is_empty());
    }
}
