//! How many connections may be open, for one caller and for all, and which one makes room for
//! another.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use podcreds_types::{Origin, Refusal};

use super::{Config, Metrics, connection_state::ConnectionState, scheduler::Share};

/// Counts open connections. Clones count together.
#[derive(Clone)]
pub(super) struct ConnectionLimits(Arc<Inner>);

struct Inner {
    per_caller: usize,
    overall: usize,
    open: Mutex<OpenCounts>,
    metrics: Metrics,
}

#[derive(Default)]
struct OpenCounts {
    overall: usize,
    /// Those of callers that the kernel has not identified.
    unidentified: usize,
    /// Callers without a connection have no entry.
    callers: HashMap<Origin, CallerConnections>,
    /// The order of the next connection among its caller's.
    next: u64,
}

/// The connections of one caller.
#[derive(Default)]
struct CallerConnections {
    share: Arc<Share>,
    /// By their order: the longest idle comes first, but for some that have been of use since they
    /// got it.
    connections: BTreeMap<u64, Arc<ConnectionState>>,
}

/// One open connection. It is given back on drop.
pub(super) struct Slot {
    limits: ConnectionLimits,
    caller: Origin,
    state: Arc<ConnectionState>,
    share: Arc<Share>,
}

impl ConnectionLimits {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            per_caller: config.max_connections_per_pod,
            overall: config.max_connections,
            open: Mutex::default(),
            metrics,
        }))
    }

    /// Counts one more connection of this caller, if it may have one more.
    ///
    /// When there is no room for one more, the caller that has most connections loses its longest
    /// idle one. So a caller has its share of the room whenever it wants it, and what nobody else
    /// wants besides. Callers that are no known pods may have several addresses: half of the room
    /// is for known pods alone.
    pub(super) fn admit(&self, caller: Origin, state: &Arc<ConnectionState>) -> Option<Slot> {
        let mut open = self.lock();
        let count = open.count(caller);
        if count >= self.0.per_caller {
            return None;
        }
        let is_full = open.overall >= self.0.overall;
        let is_full_of_unidentified = !caller.is_pod() && open.unidentified >= self.0.overall / 2;
        if is_full || is_full_of_unidentified {
            let evicted = open.make_room(count, is_full_of_unidentified)?;
            self.0.metrics.refused(Refusal::Evicted);
            evicted.close();
        }
        let share = open.add(caller, state);
        self.show(&open);
        drop(open);
        Some(Slot {
            limits: self.clone(),
            caller,
            state: Arc::clone(state),
            share,
        })
    }

    fn show(&self, open: &OpenCounts) {
        let count = i64::try_from(open.overall).unwrap_or(i64::MAX);
        self.0.metrics.connections.set(count);
    }

    fn lock(&self) -> MutexGuard<'_, OpenCounts> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenCounts {
    fn count(&self, caller: Origin) -> usize {
        let caller = self.callers.get(&caller);
        caller.map_or(0, |caller| caller.connections.len())
    }

    fn add(&mut self, origin: Origin, state: &Arc<ConnectionState>) -> Arc<Share> {
        let caller = self.callers.entry(origin).or_default();
        state.set_order(self.next);
        caller.connections.insert(self.next, Arc::clone(state));
        self.next += 1;
        self.overall += 1;
        self.unidentified += usize::from(!origin.is_pod());
        Arc::clone(&caller.share)
    }

    /// Forgets a connection, if it is there.
    fn remove(&mut self, origin: Origin, order: u64) -> Option<Arc<ConnectionState>> {
        let caller = self.callers.get_mut(&origin)?;
        let state = caller.connections.remove(&order)?;
        if caller.connections.is_empty() {
            self.callers.remove(&origin);
        }
        self.overall -= 1;
        self.unidentified -= usize::from(!origin.is_pod());
        Some(state)
    }

    /// Takes a connection from the caller that has most, for one that has `count`. Callers that
    /// would have as many take nothing from each other.
    fn make_room(
        &mut self,
        count: usize,
        among_unidentified: bool,
    ) -> Option<Arc<ConnectionState>> {
        let callers = self.callers.iter_mut();
        let (origin, largest) = callers
            .filter(|(origin, _)| !among_unidentified || !origin.is_pod())
            .max_by_key(|(_, caller)| caller.connections.len())?;
        if largest.connections.len() <= count + 1 {
            return None;
        }
        let (origin, order) = (*origin, largest.longest_idle(&mut self.next)?);
        self.remove(origin, order)
    }
}

impl CallerConnections {
    /// The order of the connection that has been of no use for the longest time. Those that have
    /// been of use since they were last passed over are put last.
    fn longest_idle(&mut self, next: &mut u64) -> Option<u64> {
        for _ in 0..self.connections.len() {
            let first = self.connections.first_entry()?;
            if !first.get().take_activity() {
                return Some(*first.key());
            }
            let state = first.remove();
            state.set_order(*next);
            self.connections.insert(*next, state);
            *next += 1;
        }
        self.connections.first_key_value().map(|(order, _)| *order)
    }
}

impl Slot {
    /// The share that the connection's caller has of the serving thread.
    pub(super) fn share(&self) -> &Arc<Share> {
        &self.share
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        // One that had to make room is no longer there.
        let _removed = open.remove(self.caller, self.state.order());
        self.limits.show(&open);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn limits(per_caller: usize, overall: usize) -> ConnectionLimits {
        let config = Config {
            max_connections_per_pod: per_caller,
            max_connections: overall,
            ..Config::default()
        };
        ConnectionLimits::new(&config, Metrics::register(&Registry::new()).unwrap())
    }

    fn admit(limits: &ConnectionLimits, caller: Origin) -> Option<Slot> {
        limits.admit(caller, &Arc::default())
    }

    fn admit_many<const N: usize>(limits: &ConnectionLimits, caller: Origin) -> [Slot; N] {
        [(); N].map(|()| admit(limits, caller).unwrap())
    }

    fn count(limits: &ConnectionLimits, caller: Origin) -> usize {
        limits.lock().count(caller)
    }

    const POD: Origin = Origin::Pod(1);
    const OTHER: Origin = Origin::Pod(2);

    #[test]
    fn a_caller_at_its_limit_gets_no_connection_and_another_one_does() {
        let limits = limits(2, 10);
        let _first = admit(&limits, POD).unwrap();
        let second = admit(&limits, POD).unwrap();
        assert!(admit(&limits, POD).is_none());
        let _other = admit(&limits, OTHER).unwrap();
        assert_eq!(limits.0.metrics.connections.get(), 3);
        drop(second);
        assert!(admit(&limits, POD).is_some());
    }

    #[test]
    fn unidentified_callers_leave_half_to_pods() {
        let limits = limits(2, 6);
        let address = |last| Origin::Address([10, 0, 0, last].into());
        let unidentified = [Origin::Unknown, address(1), address(3)];
        let slots = unidentified.map(|origin| admit(&limits, origin).unwrap());
        assert!(admit(&limits, address(2)).is_none());
        let _pods = [1, 1, 2].map(|pod| admit(&limits, Origin::Pod(pod)).unwrap());
        drop(slots);
        assert!(admit(&limits, address(2)).is_some());
    }

    #[test]
    fn an_unidentified_caller_takes_no_connection_from_a_pod() {
        let limits = limits(10, 8);
        let address = |last| Origin::Address([10, 0, 0, last].into());
        let _pod = admit_many::<4>(&limits, POD);
        let _unidentified = admit_many::<4>(&limits, address(1));
        let _newcomer = admit(&limits, address(2)).unwrap();
        assert_eq!(count(&limits, address(1)), 3);
        assert_eq!(count(&limits, POD), 4);
    }

    #[test]
    fn the_caller_with_most_connections_makes_room_for_one_with_fewer() {
        let limits = limits(100, 9);
        // Several pods of one tenant have taken all that there is.
        let _greedy = [1, 2, 3].map(|pod| admit_many::<3>(&limits, Origin::Pod(pod)));
        let newcomer = Origin::Pod(4);
        let _slots = admit_many::<2>(&limits, newcomer);
        assert_eq!(count(&limits, newcomer), 2);
        assert_eq!(limits.lock().overall, 9);
        // Now all of them have their share, and none takes anything from another.
        for pod in 1..=4 {
            assert!(admit(&limits, Origin::Pod(pod)).is_none(), "{pod}");
        }
    }

    #[test]
    fn the_longest_idle_connection_is_closed_first() {
        let limits = limits(100, 4);
        let connections: [Arc<ConnectionState>; 4] = Default::default();
        let slots = connections
            .each_ref()
            .map(|state| limits.admit(POD, state).unwrap());
        // The first one has got an answer, and the second one waits for its own.
        connections[0].answered(http::StatusCode::OK);
        connections[1].begin_answer();
        let is_open = |slot: &Slot| {
            let open = limits.lock();
            let connections = &open.callers[&POD].connections;
            connections.contains_key(&slot.state.order())
        };
        let _newcomer = admit(&limits, OTHER).unwrap();
        assert_eq!(slots.each_ref().map(is_open), [true, true, false, true]);
        let _second = admit(&limits, OTHER).unwrap();
        assert_eq!(slots.each_ref().map(is_open), [true, true, false, false]);
        drop(slots);
        assert_eq!(limits.lock().overall, 2);
    }

    #[test]
    fn no_entry_is_left_of_callers_without_connections() {
        let limits = limits(2, 10);
        for origin in [POD, Origin::Unknown] {
            drop([0; 3].map(|_| admit(&limits, origin)));
        }
        assert!(limits.lock().callers.is_empty());
        assert_eq!(limits.lock().overall, 0);
        assert_eq!(limits.lock().unidentified, 0);
        assert_eq!(limits.0.metrics.connections.get(), 0);
    }
}
