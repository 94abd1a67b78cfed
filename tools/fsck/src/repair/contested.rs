// SPDX-License-Identifier: GPL-2.0

//! Blocks with two owners.
//!
//! A block that is a node, or in a fixed area, is no data: a node proves what it is by its checksum.
//! Of two inodes, one whose checksum is not that of the content loses it. If both may have it, one that
//! was read from an intact tree keeps it before one whose nodes were searched for; then the one whose
//! record a later commit wrote, because blocks go from deleted files to new ones; then the one with the
//! lower number. The others lose it: there is a hole now.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::{open, Work};
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
}

impl Work<'_> {
    /// Leaves each contested block to one owner.
    pub fn settle(&mut self) -> Result<(), String> {
        if self.contested.is_empty() {
            return Ok(());
        }
        let holders = self.holders()?;
        let mut loses: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (block, mut all) in holders {
            all.sort_unstable();
            let solid = self.contested.get(&block).copied().unwrap_or(false);
            for h in all.into_iter().skip(usize::from(!solid)) {
                loses.entry(h.ino).or_default().insert(h.at);
            }
        }
        for (ino, blocks) in loses {
            self.cut(ino, &blocks)?;
        }
        Ok(())
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
