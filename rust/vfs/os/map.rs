// SPDX-License-Identifier: GPL-2.0

//! Ordered maps.

use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

/// An ordered map on the kernel's red-black tree.
pub struct Map<K: Ord + Copy, V> {
    tree: RBTree<K, V>,
    len: usize,
}

impl<K: Ord + Copy, V> Map<K, V> {
    /// Makes an empty map; allocates nothing.
    pub fn new() -> Self {
        Self {
            tree: RBTree::new(),
            len: 0,
        }
    }

    /// Inserts, and returns the value that was there. Changes nothing on error.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>> {
        let old = self.tree.try_create_and_insert(key, value, GFP_KERNEL)?;
        if old.is_none() {
            self.len = self.len.saturating_add(1);
        }
        Ok(old.map(|node| node.to_key_value().1))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.tree.get(key)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.tree.get_mut(key)
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.tree.remove(key);
        if value.is_some() {
            self.len = self.len.saturating_sub(1);
        }
        value
    }

    // A cursor's references end with the cursor, so the value of a key that a cursor found is
    // looked up again.
    fn entry(&self, key: K) -> Option<(K, &V)> {
        Some((key, self.tree.get(&key)?))
    }

    /// The first entry with a key of `key` or more.
    pub fn first_ge(&self, key: K) -> Option<(K, &V)> {
        let found = *self.tree.cursor_lower_bound(&key)?.current().0;
        self.entry(found)
    }

    /// The last entry with a key of `key` or less.
    pub fn last_le(&self, key: K) -> Option<(K, &V)> {
        let found = match self.tree.cursor_lower_bound(&key) {
            Some(cursor) if *cursor.current().0 == key => key,
            Some(cursor) => *cursor.peek_prev()?.0,
            None => *self.tree.cursor_back()?.current().0,
        };
        self.entry(found)
    }

    /// The entry with the lowest key.
    pub fn first(&self) -> Option<(K, &V)> {
        let found = *self.tree.cursor_front()?.current().0;
        self.entry(found)
    }

    /// The entry with the highest key.
    pub fn last(&self) -> Option<(K, &V)> {
        let found = *self.tree.cursor_back()?.current().0;
        self.entry(found)
    }

    /// Removes the entry with the lowest key.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let (_, node) = self.tree.cursor_front_mut()?.remove_current();
        self.len = self.len.saturating_sub(1);
        Some(node.to_key_value())
    }

    /// Calls `f` for every entry in order.
    pub fn for_each(&self, mut f: impl FnMut(K, &V)) {
        for (key, value) in self.tree.iter() {
            f(*key, value);
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K: Ord + Copy, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
