// SPDX-License-Identifier: GPL-2.0

//! What must be in the file. All workers of a round share it.
//!
//! Every page is divided into *cells*. One writer stores to each cell, or several in contested
//! zones. Each cell has four numbers:
//!
//! - `started`: sequence number of the newest store that has begun;
//! - `done`: sequence number of the newest store that has ended;
//! - `floor`: `done` when the last removal (punch, zero, truncate) of this cell began. All stores
//!   up to it happened before the removal, so none of them may be seen again;
//! - `ceil`: `started` when that removal had ended. All later stores happened after the removal, so
//!   none of them may be missing.
//!
//! Stores in between overlap with the removal: either outcome is right.

use crate::shm::SharedWords;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Kinds of operations that are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Op {
    /// Stores into a mapping.
    Fault,
    /// Stores into a mapping by a system call.
    CopyFault,
    /// write(2).
    Write,
    /// write(2) with O_DIRECT.
    Direct,
    /// Holes punched.
    Punch,
    /// Ranges zeroed.
    Zero,
    /// Truncations.
    Truncate,
    /// Preallocations.
    Falloc,
    /// fsync, fdatasync, msync.
    Sync,
    /// Pages read back and checked during the round.
    Read,
}

/// Names of [`Op`]s, in order.
pub const OPS: [&str; 10] = [
    "fault",
    "copyfault",
    "write",
    "direct",
    "punch",
    "zero",
    "truncate",
    "falloc",
    "sync",
    "read",
];

const STOP: usize = 0;
const FAILED: usize = 1;
const READY: usize = 2;
const WRITERS_DONE: usize = 3;
const OP_BASE: usize = 8;
const STEP_BASE: usize = OP_BASE + OPS.len();
const MAX_WORKERS: usize = 64;
const CELL_BASE: usize = STEP_BASE + MAX_WORKERS;

/// What is expected of one file, and the bookkeeping of the round.
pub struct Table {
    words: SharedWords,
    cells: usize,
    per_page: usize,
}

/// The four numbers of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The newest store that has begun.
    pub started: u64,
    /// The newest store that has ended.
    pub done: u64,
    /// See the module's description.
    pub floor: u64,
    /// See the module's description.
    pub ceil: u64,
}

impl Table {
    /// A table for `pages` pages of `per_page` cells.
    pub fn new(pages: usize, per_page: usize) -> io::Result<Self> {
        let cells = pages * per_page;
        Ok(Self {
            words: SharedWords::new(CELL_BASE + 4 * cells)?,
            cells,
            per_page,
        })
    }

    fn word(&self, what: usize, cell: usize) -> &AtomicU64 {
        &self.words[CELL_BASE + what * self.cells + cell]
    }

    /// The index of cell `slot` of `page`.
    pub fn index(&self, page: u64, slot: usize) -> usize {
        page as usize * self.per_page + slot
    }

    /// Begins a store to the cell; returns its sequence number.
    pub fn begin(&self, cell: usize) -> u64 {
        self.word(0, cell).fetch_add(1, SeqCst) + 1
    }

    /// Ends the store.
    pub fn end(&self, cell: usize, seq: u64) {
        self.word(1, cell).fetch_max(seq, SeqCst);
    }

    /// Begins a removal of these cells. The caller passes the result to [`removed`](Self::removed).
    pub fn removing(&self, cells: std::ops::Range<usize>) -> Vec<u64> {
        cells.map(|c| self.word(1, c).load(SeqCst)).collect()
    }

    /// Ends the removal.
    pub fn removed(&self, cells: std::ops::Range<usize>, floors: &[u64]) {
        for (c, floor) in cells.zip(floors) {
            self.word(2, c).store(*floor, SeqCst);
            self.word(3, c).store(self.word(0, c).load(SeqCst), SeqCst);
        }
    }

    /// The four numbers of a cell.
    pub fn cell(&self, cell: usize) -> Cell {
        let get = |what| self.word(what, cell).load(SeqCst);
        Cell {
            started: get(0),
            done: get(1),
            floor: get(2),
            ceil: get(3),
        }
    }

    /// Counts an operation.
    pub fn count(&self, op: Op) {
        self.words[OP_BASE + op as usize].fetch_add(1, SeqCst);
    }

    /// The operations so far, by kind.
    pub fn counts(&self) -> [u64; OPS.len()] {
        std::array::from_fn(|i| self.words[OP_BASE + i].load(SeqCst))
    }

    /// Asks all workers to end.
    pub fn stop(&self) {
        self.words[STOP].store(1, SeqCst);
    }

    /// Must this worker end?
    pub fn stopped(&self) -> bool {
        self.words[STOP].load(SeqCst) != 0
    }

    /// Notes that a worker has failed, after it said why, and asks all workers to end.
    pub fn fail(&self) {
        self.words[FAILED].store(1, SeqCst);
        self.stop();
    }

    /// Has a worker failed?
    pub fn failed(&self) -> bool {
        self.words[FAILED].load(SeqCst) != 0
    }

    /// Waits until all `n` workers have arrived.
    pub fn rendezvous(&self, n: usize) {
        self.words[READY].fetch_add(1, SeqCst);
        while self.words[READY].load(SeqCst) < n as u64 && !self.stopped() {
            std::thread::yield_now();
        }
    }

    /// Notes that a writer has ended.
    pub fn writer_done(&self) {
        self.words[WRITERS_DONE].fetch_add(1, SeqCst);
    }

    /// The number of writers that have ended.
    pub fn writers_done(&self) -> usize {
        self.words[WRITERS_DONE].load(SeqCst) as usize
    }

    /// Called by writer `w` before step `n`: waits a little for the other `writers`, so that they
    /// meet on the same page.
    pub fn pace(&self, w: usize, writers: usize, n: u64) {
        let steps = &self.words[STEP_BASE..STEP_BASE + MAX_WORKERS];
        steps[w].store(n, SeqCst);
        for _ in 0..64 {
            if steps[..writers].iter().all(|s| s.load(SeqCst) >= n) {
                return;
            }
            std::thread::yield_now();
        }
    }
}
