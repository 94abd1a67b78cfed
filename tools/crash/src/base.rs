// SPDX-License-Identifier: GPL-2.0

//! The filesystems that workloads start from; made once, shared by all.

use crate::disk::{Image, Recorder};
use crate::engine::volume::mkfs::{format, FormatOptions};
use crate::engine::{Fs, MountOptions};
use crate::oracle::Oracle;
use crate::os;
use crate::workload::{Op, Start};
use crate::world::World;

/// Blocks of the device: the smallest filesystem there is.
const BLOCKS: u64 = 4096;

/// A filesystem, and what is known of it.
pub struct Base {
    /// Its device.
    pub image: Image,
    /// What is expected of it.
    pub oracle: Oracle,
    /// The content of further writes is made from numbers after this one.
    pub stamp: u64,
    /// The clock when it was ready.
    pub clock: u64,
}

/// What the stage of [`crate::workload`] is made with.
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

impl Base {
    /// An empty filesystem.
    fn empty() -> Result<Self, String> {
        os::set_clock(0);
        os::set_random(0);
        let rec = Recorder::new(Image::new(BLOCKS));
        let options = FormatOptions {
            uuid: *b"crash simulation",
            label: [0; 64],
            blocks: 0,
            root_owner: (0, 0),
        };
        format(rec.device(), &options).map_err(|e| format!("mkfs: {}", e.reason))?;
        let image = rec.image().flat();
        let fs = Fs::mount(rec.device(), MountOptions::default())
            .map_err(|e| format!("mount: {}", e.reason))?;
        let root = fs.iget(fs.root_ino()).map_err(|e| format!("{e:?}"))?;
        let a = root.attrs();
        Ok(Self {
            image,
            oracle: Oracle::new(root.ino(), a.mode, a.mtime),
            stamp: 0,
            clock: os::clock(),
        })
    }

    /// What is there after more operations, the last of which makes them durable.
    fn after(&self, ops: &[Op]) -> Result<Self, String> {
        let rec = Recorder::new(self.image.clone());
        let mut w = World::new(self, &rec, None)?;
        w.steps(ops)?;
        w.oracle.settle();
        Ok(Self {
            image: rec.image().flat(),
            stamp: w.stamp(),
            oracle: w.oracle,
            clock: os::clock(),
        })
    }
}

/// All of them.
pub struct Bases {
    fresh: Base,
    wrap: Base,
}

impl Bases {
    /// Makes them.
    pub fn new() -> Result<Self, String> {
        let fresh = Base::empty()?.after(&STAGE)?;
        // So many fsyncs that the log comes close to the end of its area, which it has never wrapped.
        let mut ops = Vec::new();
        for i in 0..248 {
            ops.extend([Op::Chmod("B/g", 0o600 | i % 8), Op::Fsync("B/g")]);
        }
        ops.push(Op::Sync);
        Ok(Self {
            wrap: fresh.after(&ops)?,
            fresh,
        })
    }

    /// The one for a start.
    pub fn of(&self, start: Start) -> &Base {
        match start {
            Start::Wrap => &self.wrap,
            Start::Fresh | Start::Full => &self.fresh,
        }
    }
}
