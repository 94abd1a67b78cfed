// SPDX-License-Identifier: GPL-2.0

//! [`Map`]: an ordered map. It counts its operations, so that tests can compare costs by numbers
//! that are the same on every machine.

use kernel::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

std::thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// How many look-ups, insertions and removals this thread has done in maps. Each item that
/// [`Map::for_each`] visits counts.
pub fn steps() -> u64 {
    STEPS.get()
}

fn step() {
    STEPS.set(STEPS.get().wrapping_add(1));
}

/// An ordered map with `Copy` keys.
pub struct Map<K, V>(BTreeMap<K, V>);

impl<K: Ord + Copy, V> Map<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Inserts or replaces; returns the old value. On error (ENOMEM) the map is as before.
    pub fn insert(&mut self, k: K, v: V) -> Result<Option<V>> {
        step();
        if kernel::fault::should_fail() {
            return Err(ENOMEM);
        }
        Ok(self.0.insert(k, v))
    }

    /// The value of `k`.
    pub fn get(&self, k: &K) -> Option<&V> {
        step();
        self.0.get(k)
    }

    /// The value of `k`, for changes.
    pub fn get_mut(&mut self, k: &K) -> Option<&mut V> {
        step();
        self.0.get_mut(k)
    }

    /// Removes `k`.
    pub fn remove(&mut self, k: &K) -> Option<V> {
        step();
        self.0.remove(k)
    }

    /// The first item with a key at or after `k`.
    pub fn first_ge(&self, k: K) -> Option<(K, &V)> {
        step();
        self.0.range(k..).next().map(|(k, v)| (*k, v))
    }

    /// The last item with a key at or before `k`.
    pub fn last_le(&self, k: K) -> Option<(K, &V)> {
        step();
        self.0.range(..=k).next_back().map(|(k, v)| (*k, v))
    }

    /// The first item.
    pub fn first(&self) -> Option<(K, &V)> {
        step();
        self.0.first_key_value().map(|(k, v)| (*k, v))
    }

    /// The last item.
    pub fn last(&self) -> Option<(K, &V)> {
        step();
        self.0.last_key_value().map(|(k, v)| (*k, v))
    }

    /// Removes and returns the first item.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        step();
        self.0.pop_first()
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls `f` with every item, in order.
    pub fn for_each(&self, mut f: impl FnMut(K, &V)) {
        self.0.iter().for_each(|(k, v)| {
            step();
            f(*k, v);
        });
    }
}

impl<K: Ord + Copy, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
