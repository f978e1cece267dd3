//! The map that a few threads share.

use std::{hash::Hash, ops::Deref};

use dashmap::DashMap;

/// Into how many parts it is locked: no more than a few threads use it at once. Left alone, dashmap
/// makes four for each processor of the machine, with a table for each: on a large node that is
/// more than what most of the agent's maps hold.
const PARTS: usize = 4;

/// A map that is locked in a few parts, whatever the machine.
#[derive(Debug)]
pub struct SharedMap<K: Eq + Hash, V>(DashMap<K, V>);

impl<K: Eq + Hash, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self(DashMap::with_shard_amount(PARTS))
    }
}

impl<K: Eq + Hash, V> Deref for SharedMap<K, V> {
    type Target = DashMap<K, V>;

    fn deref(&self) -> &DashMap<K, V> {
        &self.0
    }
}
