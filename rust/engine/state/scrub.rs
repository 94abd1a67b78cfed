// SPDX-License-Identifier: GPL-2.0

//! The report of a scrub: how far it is, and what it has found. The scrub itself is in
//! `engine/ops/scrub/`.
//!
//! # Model
//!
//! There is one report for a mount. It describes the scrub that runs, or else the last one; a new
//! scrub clears it. The counts are exact. The list of damage is bounded ([`MAX_LISTED`]): what comes
//! later is only counted.
//!
//! Locks: the report has a mutex, innermost, which is never held across I/O.
//!
//! Tests: `tools/engine/tests/scrub.rs`, `tools/engine/tests/scrub_errors.rs`.

use crate::engine::lock_class;
use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::{Mutex, Time, WaitQueue};
use kernel::prelude::*;

/// The most entries in the list of damage.
pub const MAX_LISTED: usize = 1024;

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum DamageKind {
    /// A node of a tree: `start` and `end` are the keys that may be under it, both inclusive.
    #[default]
    Node = 1,
    /// Data of a file: `start` and `end` are the range in the file, in bytes, half-open.
    Data = 2,
    /// A record in a good node that cannot be true: `start` and `end` are its key.
    Record = 3,
}

/// Something that the scrub has found damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Damage {
    /// What it is.
    pub kind: DamageKind,
    /// The kind of the tree, as on disk; 0 for data.
    pub tree: u8,
    /// Of a node: its level, 0 for a leaf.
    pub level: u8,
    /// Of a node: [`Damage::FIRST`] and [`Damage::SECOND`] for the bad copies, [`Damage::LOST`] if
    /// there is no good one.
    pub copies: u8,
    /// The owner of the tree: an inode number, the number of an allocation group, or 0.
    pub owner: u64,
    /// The block of the node, or the first one of the data.
    pub block: u64,
    /// See [`DamageKind`].
    pub start: u64,
    /// See [`DamageKind`].
    pub end: u64,
}

impl Damage {
    /// The first copy of the node is bad.
    pub const FIRST: u8 = 1;
    /// The second copy of the node is bad.
    pub const SECOND: u8 = 2;
    /// No copy of the node is good.
    pub const LOST: u8 = 4;
}

/// The state of the scrub.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Phase {
    /// None has run since the mount.
    #[default]
    Never = 0,
    /// It runs.
    Running = 1,
    /// It has come to its end.
    Finished = 2,
    /// It was cancelled, or the filesystem was unmounted; it can be resumed.
    Cancelled = 3,
    /// The filesystem has shut down, or an internal error has ended it.
    Failed = 4,
}

/// What a scrub is reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Stage {
    /// The AG tree. The key is an AG.
    #[default]
    Ags = 0,
    /// The tree of the groups of an AG, the owner.
    Groups = 1,
    /// The deferred tree.
    Deferred = 2,
    /// The orphan tree.
    Orphans = 3,
    /// The inode tree. The key is the next inode.
    Inodes = 4,
    /// The extent tree and the data of an inode, the owner. The key is a file block.
    Extents = 5,
    /// The directory of an inode.
    Dir = 6,
    /// The extended attributes of an inode.
    Xattr = 7,
    /// Nothing is left.
    End = 8,
}

/// How far a scrub is. All before it has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// What it is reading.
    pub stage: Stage,
    /// The owner of the tree: an AG or an inode; else 0.
    pub owner: u64,
    /// The next key in the tree.
    pub key: u64,
    /// In [`Stage::Extents`]: how many blocks of the record with that key have been read.
    pub done: u64,
}

/// The numbers of a scrub. Resuming one goes on counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrubStatus {
    /// Its state.
    pub phase: Phase,
    /// How far it is.
    pub cursor: Cursor,
    /// The most bytes that it reads in a second; 0 is no limit.
    pub rate: u64,
    /// Blocks that were in use when it began.
    pub total_blocks: u64,
    /// Copies of nodes that it has read.
    pub nodes: u64,
    /// Blocks of data that it has read.
    pub data_blocks: u64,
    /// Inodes that it has come to.
    pub inodes: u64,
    /// Bad copies of nodes.
    pub bad_copies: u64,
    /// Nodes without a good copy.
    pub lost_nodes: u64,
    /// Records in good nodes that cannot be true, or of inodes: cannot be used.
    pub bad_records: u64,
    /// Blocks of data that are damaged or cannot be read.
    pub bad_blocks: u64,
    /// Inodes with damage in their data or their trees.
    pub bad_inodes: u64,
    /// Inodes that were left out: this code cannot use them, or their records could be read at one
    /// time and not at another.
    pub left_out: u64,
    /// Blocks of data that did not match because they had been written anew meanwhile.
    pub moved_blocks: u64,
    /// Bad copies of nodes that it has written anew from the other copy.
    pub healed: u64,
    /// Entries in the list of damage.
    pub listed: u64,
    /// Entries that did not fit into the list.
    pub unlisted: u64,
    /// The next inode number when it began.
    pub next_ino: u64,
    /// There is damage in the inode at the cursor, which `bad_inodes` does not count yet.
    pub bad_inode_at_hand: bool,
    /// The number of the scrub since the mount. Resuming one does not change it.
    pub run: u64,
    /// When it began.
    pub started: Time,
    /// When it ended; zero while it runs.
    pub ended: Time,
}

/// The numbers and the list.
pub struct Report {
    /// The numbers.
    pub status: ScrubStatus,
    /// The list of damage, at most [`MAX_LISTED`] entries.
    pub list: KVVec<Damage>,
}

impl Report {
    /// Adds an entry to the list if there is room. Data right behind the last entry joins it.
    pub fn add(&mut self, d: Damage) {
        if let Some(last) = self.list.last_mut() {
            let joins = d.kind == DamageKind::Data
                && (last.kind, last.owner, last.end) == (d.kind, d.owner, d.start);
            if joins {
                last.end = d.end;
                return;
            }
        }
        // The list was made with its room, so nothing is allocated here.
        if self.list.len() < MAX_LISTED && self.list.push(d, GFP_KERNEL).is_ok() {
            self.status.listed = self.list.len() as u64;
        } else {
            self.status.unlisted += 1;
        }
    }
}

/// What a mount keeps of its scrub.
pub struct ScrubState {
    /// What it has found.
    pub report: Mutex<Report>,
    /// It is to end.
    pub cancel: AtomicBool,
    /// The queue on which it pauses.
    pub pause: WaitQueue,
    /// Blocks read to heal what it has found, which its rate does not know of yet.
    pub healing: AtomicU64,
}

impl ScrubState {
    /// None has run. ENOMEM.
    pub fn new() -> Result<Self> {
        let report = Report {
            status: ScrubStatus::default(),
            list: KVVec::new(),
        };
        Ok(Self {
            report: Mutex::new(&lock_class::SCRUB, report)?,
            cancel: AtomicBool::new(false),
            pause: WaitQueue::new()?,
            healing: AtomicU64::new(0),
        })
    }

    /// Whether the scrub is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }
}
