// SPDX-License-Identifier: GPL-2.0

//! The filesystems that workloads start from, made once and shared by all.
//!
//! Tests: tools/crash/tests/recovery.rs.

use crate::base::Base;
use crate::disk::Recorder;
use crate::engine::Backups;
use crate::os;
use crate::workload::{Op, Start};
use crate::world::World;

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

/// The filesystems that workloads start from: with one copy of each node, and with two.
pub struct Bases([Made; 2]);

/// Those with one number of copies.
struct Made {
    fresh: Base,
    wrap: Base,
}

impl Made {
    fn new(copies: u8) -> Result<Self, String> {
        let fresh = after(&Base::empty(copies)?, &STAGE, Left::Clean)?;
        // Enough fsyncs that the log comes close to the end of its area, without wrapping around.
        let mut ops = Vec::new();
        for i in 0..248 {
            ops.extend([Op::Chmod("B/g", 0o600 | i % 8), Op::Fsync("B/g")]);
        }
        ops.push(Op::Sync);
        Ok(Self {
            wrap: after(&fresh, &ops, Left::Cut)?,
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
            Start::Fresh | Start::Full => &made.fresh,
        }
    }
}
