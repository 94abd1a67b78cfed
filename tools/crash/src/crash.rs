// SPDX-License-Identifier: GPL-2.0

//! The crash states of a record: what may be on the medium after a power cut.
//!
//! The medium has all writes that a completed flush covers, and all completed FUA writes. Any other
//! write may be missing, whatever came after it, or be there in part: a sector of 512 bytes is
//! written as a whole or not at all. So the states of the time between two flushes are the subsets
//! of the writes that are not durable before the second flush has ended. The power cut happened,
//! within that time, at the latest moment that the subset allows (for what had been promised by
//! then) and at the earliest (for what can have begun by then).
//!
//! A discard is like a write: until a flush covers it, it may have happened or not, or in part. What
//! the blocks have after it is garbage. "Write" below means either.
//!
//! For few writes all subsets are tried. For more, the prefixes are tried, the sets with one write
//! missing or one write alone, and random sets. Each write is torn in several ways, among complete
//! ones.
//!
//! Tests: tools/crash/tests/recovery.rs; `scripts/crash mutants`.

use crate::disk::{gone, Blocks, Data, Image, Io, Tick, What, SECTOR, SIZE};
use crate::oracle::Cut;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// All sectors of a block.
const WHOLE: u8 = 0xff;
/// The most open writes of which all subsets are tried.
const SUBSETS: usize = 5;
/// The number of random subsets for more writes.
const RANDOM: usize = 24;

/// The time between two completed flushes.
struct Epoch {
    /// Its last tick.
    end: Tick,
    /// Writes that are durable, in order.
    durable: Vec<usize>,
    /// Writes that may be missing, in order.
    open: Vec<usize>,
}

/// A crash state: an epoch, and the sectors of its open writes that reached the medium.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    epoch: usize,
    kept: Vec<(usize, u8)>,
}

/// All crash states of a record.
pub struct Crashes {
    ios: Vec<Io>,
    epochs: Vec<Epoch>,
    /// The medium at each epoch without its open writes, and a hash of that.
    images: Vec<(Image, u64)>,
    hashes: Vec<u64>,
    base: Image,
}

fn hash_of(block: u64, data: &[u8; SIZE]) -> u64 {
    let mut h = DefaultHasher::new();
    block.hash(&mut h);
    h.write(data);
    h.finish()
}

impl Crashes {
    /// The crash states of a record, over the image at its beginning.
    pub fn new(base: Image, ios: Vec<Io>) -> Self {
        let hashes = ios.iter().map(|io| match &io.what {
            What::Write { block, data, .. } => hash_of(*block, data),
            What::Flush | What::Discard { .. } => 0,
        });
        let mut c = Self {
            hashes: hashes.collect(),
            epochs: Vec::new(),
            images: Vec::new(),
            ios,
            base,
        };
        let mut ends: Vec<Tick> = c
            .ios
            .iter()
            .filter(|io| io.ends())
            .map(|io| io.done - 1)
            .collect();
        ends.push(Tick::MAX - 1);
        ends.sort_unstable();
        ends.dedup();
        for end in ends {
            c.add_epoch(end);
        }
        c
    }

    fn add_epoch(&mut self, end: Tick) {
        let flushes = self
            .ios
            .iter()
            .filter(|io| matches!(io.what, What::Flush) && io.done <= end);
        let covered = flushes.map(|io| io.issued).max().unwrap_or(0);
        let (mut durable, mut open) = (Vec::new(), Vec::new());
        for (i, io) in self.ios.iter().enumerate() {
            let fua = match io.what {
                What::Write { fua, .. } => fua,
                What::Discard { .. } => false,
                What::Flush => continue,
            };
            if io.done < covered || (fua && io.done <= end) {
                durable.push(i);
            } else if io.issued <= end {
                open.push(i);
            }
        }
        let mut blocks = Blocks::default();
        let mut hash = 0;
        for i in &durable {
            let mut put = |block, data: Data, new| {
                if let Some(old) = blocks.insert(block, data) {
                    hash ^= hash_of(block, &old);
                }
                hash ^= new;
            };
            match &self.ios[*i].what {
                What::Write { block, data, .. } => put(*block, data.clone(), self.hashes[*i]),
                What::Discard { start, len } => {
                    let range = *start..start + len;
                    // What was never written has nothing to lose.
                    let there = self.written(&durable, *i, range);
                    for block in there {
                        let data = gone(block);
                        let new = hash_of(block, &data);
                        put(block, data, new);
                    }
                }
                What::Flush => {}
            }
        }
        self.images.push((self.base.with(blocks), hash));
        self.epochs.push(Epoch { end, durable, open });
    }

    /// The blocks of a range that the base has, or that those of the operations `list` have written that
    /// came before operation `before`.
    fn written(&self, list: &[usize], before: usize, range: Range<u64>) -> BTreeSet<u64> {
        let in_base = range.clone().filter(|b| self.base.get(*b).is_some());
        let earlier = list.iter().take_while(|i| **i < before);
        let later = earlier.filter_map(|i| match self.ios[*i].what {
            What::Write { block, .. } if range.contains(&block) => Some(block),
            _ => None,
        });
        in_base.chain(later).collect()
    }

    /// The states to try, at most `max`, with those first that are most likely to show an error.
    pub fn states(&self, max: usize, r: &mut fastrand::Rng) -> Vec<State> {
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for (epoch, e) in self.epochs.iter().enumerate() {
            let state = |kept| State { epoch, kept };
            let n = e.open.len();
            let some = |f: &dyn Fn(usize) -> bool| -> Vec<(usize, u8)> {
                let kept = (0..n).filter(|k| f(*k));
                kept.map(|k| (e.open[k], WHOLE)).collect()
            };
            for k in 0..=n {
                first.push(state(some(&|i| i < k)));
                if n <= SUBSETS {
                    continue;
                }
                if k < n {
                    first.push(state(some(&|i| i != k)));
                    rest.push(state(some(&|i| i == k)));
                }
            }
            if n <= SUBSETS {
                rest.extend((0..1usize << n).map(|m| state(some(&|i| m >> i & 1 != 0))));
            } else {
                for _ in 0..RANDOM {
                    let m = r.u64(..);
                    rest.push(state(some(&|i| m >> (i % 64) & 1 != 0)));
                }
            }
            for (k, io) in e.open.iter().enumerate() {
                for mask in [0x01, 0x0f, 0x7f, 0xfe, r.u8(1..WHOLE)] {
                    let mut all = some(&|_| true);
                    all[k].1 = mask;
                    rest.push(state(all));
                    let mut before = some(&|i| i < k);
                    before.push((*io, mask));
                    rest.push(state(before));
                }
            }
        }
        // The last state of an epoch is the first one of the next, but more was promised then, so
        // both are kept.
        r.shuffle(&mut rest);
        if first.len() > max / 2 {
            r.shuffle(&mut first);
        }
        let keep = first.len().min(max.saturating_sub(rest.len().min(max / 3)));
        first.truncate(keep);
        first.extend(rest);
        let mut seen = std::collections::HashSet::new();
        first.retain(|s| seen.insert(s.clone()));
        first.truncate(max);
        first
    }

    /// The latest and the earliest moment of a power cut that leaves this state.
    pub fn cut(&self, s: &State) -> Cut {
        let e = &self.epochs[s.epoch];
        let there = s.kept.iter().map(|k| k.0).chain(e.durable.iter().copied());
        Cut {
            returned: e.end,
            begun: there.map(|i| self.ios[i].issued).max().unwrap_or(0),
        }
    }

    /// The medium, and a hash of its content.
    pub fn image(&self, s: &State) -> (Image, u64) {
        let (image, mut hash) = self.images[s.epoch].clone();
        let mut over = Blocks::default();
        for (i, mask) in &s.kept {
            match &self.ios[*i].what {
                What::Write { block, data, .. } => {
                    let old = over.get(block).or_else(|| image.get(*block)).cloned();
                    let data = match *mask {
                        WHOLE => data.clone(),
                        mask => torn(old.as_ref(), data, mask),
                    };
                    hash ^= self.put(s.epoch, &mut over, old, *block, data);
                }
                What::Discard { start, len } => {
                    // The n-th bit is for the n-th eighth of the blocks.
                    let range = *start..start + len;
                    for block in range.filter(|b| mask >> ((b - start) * 8 / len) & 1 != 0) {
                        let old = over.get(&block).or_else(|| image.get(block)).cloned();
                        if old.is_some() {
                            hash ^= self.put(s.epoch, &mut over, old, block, gone(block));
                        }
                    }
                }
                What::Flush => {}
            }
        }
        (image.with(over), hash)
    }

    /// Puts a block over the image of an epoch, where it was `old`. Returns the change of the hash,
    /// which leaves out what the base has, but includes a block that was written back to its base
    /// content.
    fn put(
        &self,
        epoch: usize,
        over: &mut Blocks,
        old: Option<Data>,
        block: u64,
        data: Data,
    ) -> u64 {
        let was = over.contains_key(&block) || self.changed(epoch, block);
        let before = old.filter(|_| was).map_or(0, |old| hash_of(block, &old));
        let new = hash_of(block, &data);
        over.insert(block, data);
        before ^ new
    }

    /// Was the block written or discarded by a durable operation of the epoch?
    fn changed(&self, epoch: usize, block: u64) -> bool {
        let changes = |i: &usize| match self.ios[*i].what {
            What::Write { block: b, .. } => b == block,
            What::Discard { start, len } => (start..start + len).contains(&block),
            What::Flush => false,
        };
        self.epochs[epoch].durable.iter().any(changes)
    }

    /// Describes a state.
    pub fn describe(&self, s: &State) -> String {
        let e = &self.epochs[s.epoch];
        let name = |i: &usize| match &self.ios[*i].what {
            What::Write { block, fua, .. } => format!("{i}:{block}{}", if *fua { "!" } else { "" }),
            What::Flush => format!("{i}:flush"),
            What::Discard { start, len } => format!("{i}:discard {start}+{len}"),
        };
        let kept: Vec<String> = s
            .kept
            .iter()
            .map(|(i, m)| match *m {
                WHOLE => name(i),
                m => format!("{} (sectors {m:08b})", name(i)),
            })
            .collect();
        let lost: Vec<String> = e
            .open
            .iter()
            .filter(|i| s.kept.iter().all(|k| k.0 != **i))
            .map(name)
            .collect();
        format!(
            "{} of {} writes and flushes durable; arrived: [{}]; lost: [{}]",
            e.durable.len(),
            self.ios.len(),
            kept.join(" "),
            lost.join(" ")
        )
    }
}

impl Io {
    /// Does something become durable when this operation is done?
    fn ends(&self) -> bool {
        let ends = match self.what {
            What::Write { fua, .. } => fua,
            What::Flush => true,
            What::Discard { .. } => false,
        };
        ends && self.done != Tick::MAX
    }
}

/// The old block with the sectors of `mask` from the new one.
fn torn(old: Option<&Data>, new: &Data, mask: u8) -> Data {
    let mut data = old.map_or([0; SIZE], |d| **d);
    for (i, (to, from)) in data
        .chunks_exact_mut(SECTOR)
        .zip(new.chunks_exact(SECTOR))
        .enumerate()
    {
        if mask >> i & 1 != 0 {
            to.copy_from_slice(from);
        }
    }
    Arc::new(data)
}
