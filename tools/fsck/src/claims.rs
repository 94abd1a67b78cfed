// SPDX-License-Identifier: GPL-2.0

//! The owner of each block. Ranges are half-open. Tests: below, and
//! `tools/engine/tests/checker.rs`.

use ordofs_engine::engine::btree::TreeId;
use std::collections::BTreeMap;
use std::fmt;

/// The use of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// An area of superblocks.
    Reserved,
    /// The log area.
    Log,
    /// A node of a tree.
    Node(TreeId),
    /// Data of an inode.
    Data(u64),
    /// An old node of a tree of space, which the next commit frees.
    Deferred,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved => f.write_str("an area of superblocks"),
            Self::Log => f.write_str("the log"),
            Self::Node(id) => write!(f, "{} tree of {}", id.kind.name(), id.owner),
            Self::Deferred => f.write_str("the deferred tree"),
            Self::Data(ino) => write!(f, "data of inode {ino}"),
        }
    }
}

/// All claims, as runs that do not overlap.
#[derive(Clone, Default)]
pub struct Claims(BTreeMap<u64, (u64, Claim)>);

impl Claims {
    /// Adds a claim. If part of the range has an owner already, that part keeps its owner, and the
    /// first such block and its owner are returned.
    pub fn add(&mut self, start: u64, len: u64, owner: Claim) -> Option<(u64, Claim)> {
        let end = start + len;
        let mut at = start;
        let mut clash = None;
        while at < end {
            let (free_end, next) = match self.at_or_after(at) {
                Some((s, l, o)) if s <= at => {
                    clash = clash.or(Some((at, o)));
                    at = s + l;
                    continue;
                }
                Some((s, _, _)) => (s.min(end), s),
                None => (end, u64::MAX),
            };
            self.put(at, free_end - at, owner);
            at = free_end.max(next.min(end));
        }
        clash
    }

    /// Adds a run that has no owner yet, joined to the one before it if that has the same owner.
    fn put(&mut self, start: u64, len: u64, owner: Claim) {
        if let Some((s, (l, o))) = self.0.range_mut(..start).next_back() {
            if *o == owner && s + *l == start {
                *l += len;
                return;
            }
        }
        self.0.insert(start, (len, owner));
    }

    /// Takes the claims of a range back, whatever owner they have.
    pub fn remove(&mut self, start: u64, len: u64) {
        let end = start + len;
        while let Some((s, l, owner)) = self.at_or_after(start).filter(|(s, _, _)| *s < end) {
            self.0.remove(&s);
            if s < start {
                self.0.insert(s, (start - s, owner));
            }
            if s + l > end {
                self.0.insert(end, (s + l - end, owner));
            }
        }
    }

    /// The claims that overlap with a range, cut to it: start, length, owner.
    pub fn within(&self, start: u64, len: u64) -> Vec<(u64, u64, Claim)> {
        let (mut at, end) = (start, start + len);
        let mut found = Vec::new();
        while at < end {
            let Some((s, l, owner)) = self.at_or_after(at).filter(|(s, _, _)| *s < end) else {
                break;
            };
            let (from, to) = (s.max(at), (s + l).min(end));
            found.push((from, to - from, owner));
            at = to;
        }
        found
    }

    /// The first claim that ends after `block`: start, length, owner.
    pub fn at_or_after(&self, block: u64) -> Option<(u64, u64, Claim)> {
        let before = self
            .0
            .range(..=block)
            .next_back()
            .filter(|(s, (l, _))| **s + l > block);
        let found = before.or_else(|| self.0.range(block..).next());
        found.map(|(s, (l, o))| (*s, *l, *o))
    }

    /// All claims in ascending order: start, length, owner.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64, Claim)> + '_ {
        self.0.iter().map(|(s, (l, o))| (*s, *l, *o))
    }

    /// The owner of a block.
    pub fn owner(&self, block: u64) -> Option<Claim> {
        self.at_or_after(block)
            .filter(|(s, _, _)| *s <= block)
            .map(|(_, _, o)| o)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clashes_are_found_and_the_rest_is_kept() {
        let mut c = Claims::default();
        assert_eq!(c.add(10, 10, Claim::Data(1)), None);
        assert_eq!(c.add(20, 5, Claim::Data(1)), None);
        assert_eq!(c.0.len(), 1);
        assert_eq!(c.add(0, 30, Claim::Data(2)), Some((10, Claim::Data(1))));
        assert_eq!(c.owner(9), Some(Claim::Data(2)));
        assert_eq!(c.owner(24), Some(Claim::Data(1)));
        assert_eq!(c.owner(29), Some(Claim::Data(2)));
        assert_eq!(c.owner(30), None);
    }

    #[test]
    fn what_is_taken_back_has_no_owner() {
        let mut c = Claims::default();
        c.add(10, 10, Claim::Data(1));
        c.add(30, 10, Claim::Data(2));
        assert_eq!(
            c.within(15, 20),
            [(15, 5, Claim::Data(1)), (30, 5, Claim::Data(2))]
        );
        c.remove(12, 20);
        let left: Vec<_> = c.runs().collect();
        assert_eq!(left, [(10, 2, Claim::Data(1)), (32, 8, Claim::Data(2))]);
        c.remove(33, 1);
        assert_eq!((c.owner(33), c.owner(34)), (None, Some(Claim::Data(2))));
        assert_eq!(c.within(40, 5), []);
        assert_eq!(c.within(36, 2), [(36, 2, Claim::Data(2))]);
    }
}
