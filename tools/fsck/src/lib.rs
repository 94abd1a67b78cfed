// SPDX-License-Identifier: GPL-2.0

//! Checks every invariant of an OrdoFS, from the content of the device alone.
//!
//! | module | what it checks |
//! |---|---|
//! | [`claims`] | that every block has at most one owner |
//! | [`inode`] | inode records, extents, targets of symbolic links, data |
//! | [`names`] | directory entries, link counts, connectivity, orphans |
//! | [`overlay`] | nothing itself: a device that keeps writes in memory, to try out a recovery |
//! | [`repair`] | nothing itself: builds anew what is damaged |
//! | [`reserved`] | trees that this version does not write: snapshots, dead blocks, quotas |
//! | [`xattr`] | extended attributes |
//! | [`space`] | AGs and their groups against the owners of all blocks |
//!
//! The engine's own code reads and checks nodes; this crate judges the items in them. The checker
//! never writes. Addresses and lengths are in blocks, and ranges are half-open.
//!
//! Tests: `tools/engine/tests/checker.rs` (what it must find), `tools/fsck/tests/forged_superblocks.rs`,
//! `tools/fsck/tests/check_cost.rs`.

mod claims;
mod inode;
mod names;
mod overlay;
pub mod repair;
mod reserved;
mod space;
mod xattr;

pub use claims::{Claim, Claims};
pub use overlay::Overlay;

use kernel::prelude::{Error, Result};
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::btree::{NodeInfo, Tree, WalkItem};
use ordofs_engine::engine::format::find::Found;
use ordofs_engine::engine::format::places::{backups, SLOTS};
use ordofs_engine::engine::format::slots::{Doubt, State};
use ordofs_engine::engine::format::superblock::{
    sector_generation, RO_COMPAT_SHARED, SECTOR, SECTORS,
};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::volume::mount::{find_superblock, tree_of, INODE_TREE, ORPHAN_TREE};
use ordofs_engine::engine::MountError;
use ordofs_engine::os::{Block, Device, Shared};
use std::collections::BTreeSet;
use std::fmt::{self, Display};

/// How many problems are kept; more are only counted.
const KEPT: usize = 200;
const CACHED_NODES: usize = 1024;

/// Checks beyond the metadata.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Read all data and compare it with its checksums.
    pub data: bool,
}

/// A problem that the check has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The place, e.g. "inode 5" or "block 300".
    pub place: String,
    /// The problem, in words.
    pub what: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Counts of what the check has seen.
#[derive(Clone, Default, Debug)]
pub struct Stats {
    /// Inodes.
    pub inodes: u64,
    /// Directories, which the inodes include.
    pub directories: u64,
    /// Entries of the orphan tree: inodes without names, and truncations under way.
    pub orphans: u64,
    /// Tree nodes on disk.
    pub nodes: u64,
    /// Extent records.
    pub extents: u64,
    /// Extended attributes.
    pub xattrs: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// Data blocks that were read and compared.
    pub verified_blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Blocks of the filesystem.
    pub blocks: u64,
}

/// The outcome of a check.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// The first problems.
    pub problems: Vec<Problem>,
    /// The number of all problems.
    pub count: u64,
    /// Counts of what the check has seen.
    pub stats: Stats,
    /// Generation of the superblock that was checked.
    pub generation: u64,
    /// Things that are unusual but right.
    pub notes: Vec<String>,
    /// Damage that loses nothing and that the next mount repairs.
    pub mendable: Vec<Problem>,
    /// Copies of nodes that are bad, and for each the block of the other copy, which is good.
    pub bad_copies: Vec<(u64, u64)>,
}

impl Report {
    /// Whether no problem was found.
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }
}

/// The state of an inode, as known after its record was seen.
struct Seen {
    mode: u32,
    nlink: u32,
    state: u32,
    parent: u64,
    /// The number of names that point to it.
    names: u64,
    /// The directory of one of these names.
    named_in: u64,
    /// The number of its entries, for directories.
    entries: u64,
    /// The number of its subdirectories.
    subdirs: u64,
}

/// The inodes seen so far, by number. The walk meets them in ascending order, so an insertion moves
/// nothing, and a vector takes half of a map's memory.
#[derive(Default)]
struct Inodes(Vec<(u64, Seen)>);

impl Inodes {
    fn find(&self, ino: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&ino, |(i, _)| *i)
    }

    fn insert(&mut self, ino: u64, seen: Seen) {
        match self.find(ino) {
            Ok(i) => self.0[i].1 = seen,
            Err(i) => self.0.insert(i, (ino, seen)),
        }
    }

    fn get(&self, ino: u64) -> Option<&Seen> {
        self.find(ino).ok().map(|i| &self.0[i].1)
    }

    fn get_mut(&mut self, ino: u64) -> Option<&mut Seen> {
        self.find(ino).ok().map(|i| &mut self.0[i].1)
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &Seen)> {
        self.0.iter().map(|(ino, seen)| (*ino, seen))
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A directory entry, to be judged when all inodes have been seen.
struct Edge {
    dir: u64,
    child: u64,
    kind: u8,
    cookie: u64,
}

/// A check in progress.
struct Checker<'a> {
    st: &'a NodeStore,
    sb: &'a Superblock,
    options: Options,
    report: Report,
    claims: Claims,
    inodes: Inodes,
    edges: Vec<Edge>,
    orphans: BTreeSet<u64>,
    /// Buffers for data, kept for the next extent.
    data: Vec<Block>,
    /// Whether a block has one owner, and one that this version knows: not with snapshots.
    owners: bool,
}

/// Checks the filesystem on `dev`. An error means that there is no filesystem to check, or no
/// memory.
pub fn check(dev: Device, options: Options) -> Result<Report, MountError> {
    let found = find_superblock(&dev)?;
    let memory = |error| MountError::new(error, "cannot set up the check");
    let shared = Shared::new(dev).map_err(memory)?;
    let st = NodeStore::new(shared, found.sb.node_id, CACHED_NODES).map_err(memory)?;
    let mut c = Checker {
        st: &st,
        sb: &found.sb,
        options,
        report: Report {
            generation: found.sb.generation,
            ..Report::default()
        },
        claims: Claims::default(),
        inodes: Inodes::default(),
        edges: Vec::new(),
        orphans: BTreeSet::new(),
        data: Vec::new(),
        owners: found.sb.unsupported().is_none() && found.sb.ro_compat & RO_COMPAT_SHARED == 0,
    };
    c.superblocks(&found);
    c.backups();
    c.run();
    Ok(c.report)
}

impl<'a> Checker<'a> {
    /// All checks. Names and space come last, because they need all inodes and all claims.
    fn run(&mut self) {
        self.report.stats.blocks = self.sb.blocks;
        if self.sb.used_up() {
            self.problem(
                "superblock",
                "generation, log position or next inode number is used up: it can only be read",
            );
        }
        for (start, len) in self.sb.fixed_areas() {
            let owner = match start == self.sb.log_start {
                true => Claim::Log,
                false => Claim::Reserved,
            };
            self.claim(start, len, owner);
        }
        self.check_inodes();
        self.check_orphans();
        self.check_reserved();
        self.check_names();
        self.check_space();
    }

    /// Reports the copies of superblocks that are not as they should be.
    fn superblocks(&mut self, found: &Found) {
        if !found.sb.is_clean() {
            let note = "the filesystem was not unmounted, or not cleanly".to_owned();
            self.report.notes.push(note);
        }
        let slot = (found.sb.generation & 1) as usize;
        for (at, state) in found.copies {
            let place = format!("superblock slot {} (block {})", at.number, at.block);
            let what = match state {
                State::Intact => continue,
                State::Torn => {
                    let note = format!("{place}: the last write of it was cut off");
                    self.report.notes.push(note);
                    continue;
                }
                State::Damaged(why) => format!("damaged: {why}"),
                State::Unread => "cannot be read".to_owned(),
            };
            match found.doubt {
                Some(doubt) if at.number % 2 != slot => {
                    let why = match doubt {
                        Doubt::Damaged => "no copy is whole, and it may have been the newest",
                        Doubt::Unread => "no copy can be read, and it may have been the newest",
                    };
                    self.problem(place, format_args!("{what}; {why}"));
                }
                _ => self.mendable(place, what),
            }
        }
    }

    /// Reads the backups of the superblock, which only a repair uses.
    fn backups(&mut self) {
        if self.sb.backed_up == 0 {
            return;
        }
        for base in backups(self.sb.blocks) {
            let block = base + SLOTS[0];
            let place = format!("backup of the superblock (block {block})");
            let read = Block::zeroed().and_then(|mut b| {
                self.st.device().read(block, &mut b)?;
                Ok(b)
            });
            let b = match read {
                Ok(b) => b,
                Err(e) => {
                    self.problem(place, format_args!("cannot be read: {e:?}"));
                    continue;
                }
            };
            // A power cut leaves sectors of zeros or of different commits.
            let written = |k| {
                let sector = &b[k * SECTOR..(k + 1) * SECTOR];
                sector_generation(&b, k).is_some() || sector.iter().all(|x| *x == 0)
            };
            match Superblock::decode(&b) {
                Ok(b) if b.node_id == self.sb.node_id && b.uuid == self.sb.uuid => {
                    if b.blocks != self.sb.blocks {
                        self.problem(place, format_args!("it has {} blocks", b.blocks));
                    }
                }
                Ok(_) => self.problem(place, "it belongs to another filesystem"),
                Err(_) if (0..SECTORS).all(written) => {
                    let note = format!("{place}: the last write of it was cut off");
                    self.report.notes.push(note);
                }
                Err(why) => self.problem(place, why.reason),
            }
        }
    }

    /// Notes damage that loses nothing and that the next mount mends.
    fn mendable(&mut self, place: impl Display, what: String) {
        let place = place.to_string();
        self.report.mendable.push(Problem { place, what });
    }

    /// Notes a problem.
    fn problem(&mut self, place: impl Display, what: impl Display) {
        self.report.count += 1;
        if self.report.problems.len() < KEPT {
            let p = Problem {
                place: place.to_string(),
                what: what.to_string(),
            };
            self.report.problems.push(p);
        }
    }

    /// Records that `owner` uses the blocks. A block with two owners is a problem.
    fn claim(&mut self, start: u64, len: u64, owner: Claim) {
        if start
            .checked_add(len)
            .is_none_or(|end| end > self.sb.blocks)
        {
            return self.problem(
                owner,
                format_args!("blocks {start}+{len} are beyond the end"),
            );
        }
        let clash = self.claims.add(start, len, owner);
        if let Some((at, other)) = clash.filter(|_| self.owners) {
            self.problem(
                format_args!("block {at}"),
                format_args!("used by {owner} and by {other}"),
            );
        }
    }

    /// A generation above that of the superblock is a problem.
    fn generation(&mut self, place: &dyn Display, generation: u64) {
        if generation > self.sb.generation {
            let newest = self.sb.generation;
            self.problem(
                place,
                format_args!("generation {generation} is newer than the newest, {newest}"),
            );
        }
    }

    /// Walks a tree: claims its nodes, reports bad ones, passes the items to `item`.
    fn walk(&mut self, tree: &Tree, mut item: impl FnMut(&mut Self, u64, &[u8])) {
        let owner = Claim::Node(tree.id());
        let st = self.st;
        let result = tree.walk_tolerant(st, &mut |w| {
            match w {
                WalkItem::Node(n) => self.node(n, owner),
                WalkItem::Item(key, value) => item(self, key, value),
                WalkItem::Bad(bad) => {
                    let place = match bad.ptr {
                        Some(p) => format!("{owner}, node at block {}", p.addr),
                        None => owner.to_string(),
                    };
                    self.problem(
                        place,
                        format_args!(
                            "unreadable ({:?}); keys {:#x}..={:#x} are lost",
                            bad.error, bad.first_key, bad.last_key
                        ),
                    );
                }
            }
            Ok(())
        });
        if let Err(e) = result {
            self.problem(owner, format_args!("walk failed: {e:?}"));
        }
    }

    /// Claims the blocks of a node that a walk has visited.
    fn node(&mut self, n: NodeInfo, owner: Claim) {
        // Address 0 is a leaf that is inline in the record of an inode or of an AG.
        if n.addr == 0 {
            return;
        }
        self.report.stats.nodes += 1;
        self.claim(n.addr, 1, owner);
        if n.addr2 != 0 {
            self.claim(n.addr2, 1, owner);
            self.copies(&n, owner);
        }
        self.generation(
            &format_args!("{owner}, node at block {}", n.addr),
            n.generation,
        );
    }

    /// Reads both copies of a node. One of them is good, or the walk would not have come to it.
    fn copies(&mut self, n: &NodeInfo, owner: Claim) {
        let Claim::Node(id) = owner else { return };
        let faults = match self.st.faults(&n.ptr(), &id) {
            Ok(faults) => faults,
            Err(e) => return self.problem(owner, format_args!("no memory for a node: {e:?}")),
        };
        for (fault, (which, block, other)) in faults
            .into_iter()
            .zip([("first", n.addr, n.addr2), ("second", n.addr2, n.addr)])
        {
            if let Some(fault) = fault {
                self.report.bad_copies.push((block, other));
                self.problem(
                    format_args!("{owner}, {which} copy of a node at block {block}"),
                    format_args!("{fault}; the other copy is good, and a scrub would restore it"),
                );
            }
        }
    }

    /// Walks the inode tree.
    fn check_inodes(&mut self) {
        let tree = tree_of(INODE_TREE, self.sb.inode_root);
        self.walk(&tree, |c, ino, value| c.check_inode(ino, value));
        self.report.stats.inodes = self.inodes.len() as u64;
        if self.report.stats.inodes != self.sb.inodes {
            let (seen, said) = (self.report.stats.inodes, self.sb.inodes);
            self.problem(
                "superblock",
                format_args!("counts {said} inodes, there are {seen}"),
            );
        }
    }

    /// Walks the orphan tree.
    fn check_orphans(&mut self) {
        let tree = tree_of(ORPHAN_TREE, self.sb.orphan_root);
        self.walk(&tree, |c, ino, value| {
            if value != [1] {
                c.problem(format_args!("orphan {ino}"), "malformed record");
            }
            c.orphans.insert(ino);
        });
        self.report.stats.orphans = self.orphans.len() as u64;
    }
}

/// An error as a sentence.
pub fn describe(e: &MountError) -> String {
    format!("{} ({:?})", e.reason, Error::from_errno(e.error.to_errno()))
}
