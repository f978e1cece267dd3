//! The ports of our listeners, as the programs know them.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap as BpfMap, MapData};
use podcreds_common::port_key;

use crate::programs::map_error;

/// Has the programs know which ports have a listener of ours, in which namespace.
pub(crate) struct HeldPorts(Arc<Mutex<Held>>);

struct Held {
    /// The value is 1 once an application wants the port.
    map: BpfMap<MapData, u64, u32>,
    /// How many listeners each port has: one of each family.
    counts: HashMap<u64, usize>,
}

/// One listener's port. Dropping it has the programs forget it, unless another one is there.
pub(crate) struct HeldPort {
    held: Arc<Mutex<Held>>,
    key: u64,
}

impl HeldPorts {
    pub(crate) fn new(map: BpfMap<MapData, u64, u32>) -> Self {
        Self(Arc::new(Mutex::new(Held {
            map,
            counts: HashMap::new(),
        })))
    }

    /// Has the programs know the port of a listener.
    pub(crate) fn hold(&self, netns: u64, port: u16) -> io::Result<HeldPort> {
        let key = port_key(netns, port);
        let mut held = lock(&self.0);
        if !held.counts.contains_key(&key) {
            held.map.insert(key, 0, 0).map_err(map_error)?;
        }
        *held.counts.entry(key).or_default() += 1;
        Ok(HeldPort {
            held: Arc::clone(&self.0),
            key,
        })
    }
}

impl Drop for HeldPort {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        let count = held.counts.remove(&self.key).unwrap_or_default();
        if count > 1 {
            held.counts.insert(self.key, count - 1);
        } else {
            // An entry that stays costs some bytes, and has connects recorded that need not be.
            let _removed = held.map.remove(&self.key);
        }
    }
}

impl fmt::Debug for HeldPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("HeldPort").field(&self.key).finish()
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
