// SPDX-License-Identifier: GPL-2.0

//! The filesystems that workloads start from, made once and shared by all.
//!
//! Tests: tools/crash/tests/recovery.rs, grow.rs.

use crate::base::{Base, LARGE, SMALL};
use crate::disk::Recorder;
use crate::engine::{Backups, Fs, Inode};
use crate::os::{self, Shared};
use crate::workload::{Op, Start};
use crate::world::World;
use kernel::prelude::{Result as Done, ENOSPC};

/// The operations that make the files of [`crate::workload`].
const STAGE: [Op; 12] = [
    Op::Mkdir("A"),
    Op::Mkdir("B"),
    Op::Mkdir("A/d"),
    Op::Create("A/f"),
    Op::Append("A/f", 10240),
    Op::Create("B/g"),
    Op::Append("B/g", 4096),
    Op::Allocate("B/g", 4096, 12288, false),
    Op::Fsync("A/f"),
    Op::Fsync("B/g"),
    Op::Chmod("A/f", 0o640),
    Op::Sync,
];

/// How a filesystem was left.
#[derive(PartialEq, Eq)]
enum Left {
    /// Unmounted cleanly.
    Clean,
    /// By a power cut after its last commit.
    Cut,
}

/// The filesystem after more operations, the last of which makes all durable.
fn after(base: &Base, ops: &[Op], left: Left) -> Result<Base, String> {
    let rec = Recorder::new(base.image.clone());
    let mut w = World::new(base, &rec, None)?;
    w.steps(ops)?;
    leave(w, &rec, left)
}

fn leave(mut w: World, rec: &Recorder, left: Left) -> Result<Base, String> {
    if left == Left::Clean {
        let marked = w.fs().mark_clean(Backups::Daily);
        marked.map_err(|e| format!("unmount: {e:?}"))?;
    }
    w.oracle.settle();
    Ok(Base {
        image: rec.image().flat(),
        stamp: w.stamp(),
        oracle: w.oracle,
        clock: os::clock(),
    })
}

/// The file that [`crowded`] makes.
const BALLAST: &str = "B/ballast";
/// Every so many blocks of it there is a hole.
const HOLES: u64 = 16;

/// The filesystem after another file has got its blocks, but for some that lie alone.
fn crowded(base: &Base) -> Result<Base, String> {
    let rec = Recorder::new(base.image.clone());
    let mut w = World::new(base, &rec, None)?;
    w.steps(&[Op::Create(BALLAST), Op::Sync])?;
    let ballast = w.inode_of(BALLAST).ok_or("no ballast")?;
    crowd(w.fs(), &ballast).map_err(|e| format!("ballast: {e:?}"))?;
    w.steps(&[Op::Chmod(BALLAST, 0o600), Op::Sync])?;
    leave(w, &rec, Left::Cut)
}

fn crowd(fs: &Fs, f: &Shared<Inode>) -> Done {
    let mut at = 0;
    for step in [4096, 256, 16, 1] {
        loop {
            match fs.preallocate(f, at, step, None) {
                Ok(()) => at += step,
                Err(ENOSPC) => break,
                Err(e) => return Err(e),
            }
        }
        at += step;
        fs.sync()?;
    }
    for i in 0..fs.blocks() / HOLES {
        fs.punch(f, HOLES * i, 1)?;
    }
    fs.sync()?;
    // The pool is free, too, and in a few pieces. Then the old nodes are, which commits free.
    for _ in 0..8 {
        loop {
            fs.preallocate(f, at, HOLES, None)?;
            at += HOLES;
            if fs.map_read(f, at - HOLES, HOLES)?.len == 1 {
                break;
            }
        }
        fs.sync()?;
    }
    Ok(())
}

/// The crowded filesystem after it has grown, and what needed room has got it in the new blocks. Then
/// the ballast gives its blocks back.
fn roomy(crowded: &Base) -> Result<Base, String> {
    let rec = Recorder::new(crowded.image.clone());
    let mut w = World::new(crowded, &rec, None)?;
    w.steps(&[
        Op::Grow(1 << 20, usize::MAX),
        Op::Append("A/f", 60_000),
        Op::Append("B/g", 9000),
        Op::Allocate("B/g", 1 << 20, 1 << 18, false),
        Op::SetXattr("A/f", 1, 5000),
        Op::Sync,
    ])?;
    let ballast = w.inode_of(BALLAST).ok_or("no ballast")?;
    let blocks = w.fs().blocks();
    let punched = w.fs().punch(&ballast, 0, blocks);
    punched.map_err(|e| format!("ballast: {e:?}"))?;
    w.steps(&[Op::Chmod(BALLAST, 0o640), Op::Sync, Op::Sync])?;
    leave(w, &rec, Left::Cut)
}

/// The filesystems that workloads start from: with one copy of each node, and with two.
pub struct Bases([Made; 2]);

/// Those with one number of copies.
struct Made {
    fresh: Base,
    wrap: Base,
    crowded: Base,
    roomy: Base,
}

impl Made {
    fn new(copies: u8) -> Result<Self, String> {
        let fresh = after(&Base::empty(SMALL, copies)?, &STAGE, Left::Clean)?;
        let large = after(&Base::empty(LARGE, copies)?, &STAGE, Left::Clean)?;
        // Enough fsyncs that the log comes close to the end of its area, without wrapping around.
        let mut ops = Vec::new();
        for i in 0..248 {
            ops.extend([Op::Chmod("B/g", 0o600 | i % 8), Op::Fsync("B/g")]);
        }
        ops.push(Op::Sync);
        let crowded = crowded(&large)?;
        Ok(Self {
            wrap: after(&fresh, &ops, Left::Cut)?,
            roomy: roomy(&crowded)?,
            crowded,
            fresh,
        })
    }
}

impl Bases {
    /// Makes them.
    pub fn new() -> Result<Self, String> {
        Ok(Self([Made::new(1)?, Made::new(2)?]))
    }

    /// The filesystem for this kind of start. Every second seed gets two copies of each node.
    pub fn of(&self, start: Start, seed: u64) -> &Base {
        let [one, two] = &self.0;
        let made = if seed % 2 == 0 { two } else { one };
        match start {
            Start::Wrap => &made.wrap,
            Start::Crowded => &made.crowded,
            Start::Roomy => &made.roomy,
            Start::Fresh | Start::Full => &made.fresh,
        }
    }
}
