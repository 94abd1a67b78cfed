// SPDX-License-Identifier: GPL-2.0

//! Blocks with two owners.
//!
//! A block that is a node, or in a fixed area, is no data: a node proves what it is by its checksum. But a
//! pointer to two copies proves only that one of them is there. If there is no node in the other block,
//! and a file has it whose checksum is right, or that was read from an intact tree, it is the file's: the
//! repair begins anew with that knowledge.
//!
//! Of a block that a record of the log maps for an inode, no other inode has it: it was free when the
//! superblock was written.
//!
//!
//! Of two inodes, one whose checksum is not that of the content loses it. If both may have it, one that
//! was read from an intact tree keeps it before one whose nodes were searched for; then the one whose
//! record a later commit wrote, because blocks go from deleted files to new ones; then the one with the
//! lower number. The others lose it: there is a hole now.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::{open, Work};
use super::peek::node_at;
use crate::Claim;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::os::{crc32c, Block};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A mapping of a block. The least one keeps it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    /// It has a checksum, which is not that of the content.
    wrong: bool,
    /// Its record or its extents were searched for.
    doubtful: bool,
    /// The commit that wrote its record.
    generation: Reverse<u64>,
    ino: u64,
    /// The file block.
    at: u64,
    /// It has a checksum.
    summed: bool,
}

impl Holder {
    /// Whether the block is this file's, if there is no node in it.
    fn is_plain(&self) -> bool {
        !self.wrong && (self.summed || !self.doubtful)
    }
}

impl Work<'_> {
    /// Leaves each contested block to one owner. The blocks that `logged` gives to inodes (start, length,
    /// inode) are theirs. Returns blocks that are of files although nodes claim them: if there are any,
    /// nothing else is done.
    pub fn settle(&mut self, logged: &[(u64, u64, u64)]) -> Result<BTreeSet<u64>, String> {
        let of_log = self.contest_for_log(logged);
        if self.contested.is_empty() {
            return Ok(BTreeSet::new());
        }
        let (mut holders, mut foreign) = (self.holders()?, BTreeSet::new());
        for (block, all) in &mut holders {
            all.sort_unstable();
            let solid = self.contested.get(block) == Some(&true);
            let file = all.first().is_some_and(Holder::is_plain);
            if solid && file && self.has_no_node(*block) {
                foreign.insert(*block);
            }
        }
        if !foreign.is_empty() {
            return Ok(foreign);
        }
        let mut loses: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (block, all) in holders {
            let solid = self.contested.get(&block) == Some(&true);
            let mut keeps = !solid;
            for h in all {
                let may = of_log.get(&block).is_none_or(|ino| *ino == h.ino);
                if !(may && std::mem::take(&mut keeps)) {
                    loses.entry(h.ino).or_default().insert(h.at);
                }
            }
            // The log takes it when it is replayed.
            if keeps && of_log.contains_key(&block) {
                self.claims.remove(block, 1);
            }
        }
        for (ino, blocks) in loses {
            self.cut(ino, &blocks)?;
        }
        Ok(foreign)
    }

    /// Blocks that an inode has, and that the log gives to another one, are contested. Returns them, with
    /// the latter.
    fn contest_for_log(&mut self, logged: &[(u64, u64, u64)]) -> BTreeMap<u64, u64> {
        let mut of_log = BTreeMap::new();
        for (start, len, ino) in logged {
            for (at, n, owner) in self.claims.within(*start, *len) {
                let other = matches!(owner, Claim::Data(o) if o != *ino);
                for block in at..at + if other { n } else { 0 } {
                    self.contested.entry(block).or_insert(false);
                    of_log.insert(block, *ino);
                }
            }
        }
        of_log
    }

    /// Whether a block that a node claims is not of a node, and not in a fixed area.
    fn has_no_node(&self, block: u64) -> bool {
        let fixed = |c: Claim| !matches!(c, Claim::Node(_) | Claim::Data(_));
        !self.claims.owner(block).is_some_and(fixed)
            && node_at(self.st.device(), self.sb.node_id, block).is_none()
    }

    /// The mappings of the contested blocks.
    fn holders(&self) -> Result<BTreeMap<u64, Vec<Holder>>, String> {
        let mut holders: BTreeMap<u64, Vec<Holder>> = BTreeMap::new();
        let sums = self.contents()?;
        let all: Vec<u64> = self.inodes.iter().map(|k| k.ino).collect();
        for ino in all {
            let doubtful = self.search.doubtful.contains(&ino);
            let Some((changed, record)) = self.extents_of(ino)? else {
                continue;
            };
            let rec = InodeRecord::parse(&record).map_err(|e| format!("inode {ino}: {e}"))?;
            let generation = rec.generation;
            let id = TreeId::new(TreeKind::Extent, ino);
            let on_disk = open(id, &rec.extents).unwrap_or_else(|| Tree::empty(id));
            let tree = changed.unwrap_or(&on_disk);
            let (sb, contested) = (&self.sb, &self.contested);
            let walked = tree.walk(self.st, &mut |w| {
                let WalkItem::Item(key, value) = w else {
                    return Ok(());
                };
                let Ok(e) = Extent::parse(key, value, sb) else {
                    return Ok(());
                };
                for (block, _) in contested.range(e.phys..e.phys + e.len) {
                    let sum = e.csum(value, block - e.phys)?;
                    let holder = Holder {
                        wrong: sum.is_some() && sums.get(block) != sum.as_ref(),
                        doubtful,
                        generation: Reverse(generation),
                        ino,
                        at: e.start + (block - e.phys),
                        summed: sum.is_some(),
                    };
                    holders.entry(*block).or_default().push(holder);
                }
                Ok(())
            });
            walked.map_err(|e| format!("inode {ino}: {e:?}"))?;
        }
        Ok(holders)
    }

    /// The checksums of the contested blocks that can be read.
    fn contents(&self) -> Result<BTreeMap<u64, u32>, String> {
        let mut b = Block::zeroed().map_err(|e| format!("{e:?}"))?;
        let mut sums = BTreeMap::new();
        for block in self.contested.keys() {
            if self.st.device().read(*block, &mut b).is_ok() {
                sums.insert(*block, crc32c(0, &b[..]));
            }
        }
        Ok(sums)
    }

    /// The extents of an inode, if they have changed, and its record.
    fn extents_of(&self, ino: u64) -> Result<Option<(Option<&Tree>, Vec<u8>)>, String> {
        if let Some(p) = self.pending.get(&ino) {
            return Ok(Some((p.extents.as_ref(), p.record.clone())));
        }
        let record = self
            .itree
            .get_with(self.st, ino, <[u8]>::to_vec)
            .map_err(|e| format!("inode {ino}: {e:?}"))?;
        Ok(record.map(|r| (None, r)))
    }

    /// Takes file blocks from an inode.
    fn cut(&mut self, ino: u64, blocks: &BTreeSet<u64>) -> Result<(), String> {
        let failed = |e| format!("inode {ino}: {e:?}");
        let (st, sb) = (self.st, self.sb.clone());
        let p = self.change(ino)?;
        let rec = InodeRecord::parse(&p.record).map_err(|e| format!("inode {ino}: {e}"))?;
        let had = p.blocks.unwrap_or(rec.blocks);
        let id = TreeId::new(TreeKind::Extent, ino);
        let mut tree = match p.extents.take() {
            Some(tree) => tree,
            None => open(id, &rec.extents).unwrap_or_else(|| Tree::empty(id)),
        };
        let mut v = kernel::prelude::KVec::new();
        for at in blocks {
            let Some(key) = tree.find_le(st, *at, &mut v).map_err(failed)? else {
                continue;
            };
            let old = v.to_vec();
            let Some(e) = Extent::parse(key, &old, &sb).ok().filter(|e| *at < e.end()) else {
                continue;
            };
            tree.remove(st, key).map_err(failed)?;
            for part in [e.slice(e.start, *at), e.slice(at + 1, e.end())] {
                if part.len > 0 {
                    let sums = e.csum_slice(&old, part.start, part.end());
                    part.encode(sums, &mut v).map_err(failed)?;
                    tree.insert(st, part.start, &v).map_err(failed)?;
                }
            }
        }
        p.extents = Some(tree);
        p.blocks = Some(had.saturating_sub(blocks.len() as u64));
        let (mut runs, mut rest) = (Vec::new(), blocks.iter().copied().peekable());
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            runs.push((first, last));
        }
        for (first, last) in runs {
            self.say(
                format_args!("inode {ino}"),
                format_args!("file blocks {first}..={last}: another owner has their blocks, they read as zeros"),
            );
        }
        if let Some(mut tree) = self.pending.get_mut(&ino).and_then(|p| p.extents.take()) {
            self.retire_dead(&mut tree);
            self.change(ino)?.extents = Some(tree);
        }
        Ok(())
    }
}
