// SPDX-License-Identifier: GPL-2.0

//! A filesystem with the oracle that knows it: what a workload starts from.
//!
//! Tests: tools/crash/tests/recovery.rs.

use crate::disk::{Image, Recorder};
use crate::engine::volume::mkfs::{format, FormatOptions};
use crate::engine::{Fs, MountOptions};
use crate::oracle::Oracle;
use crate::os;

/// Blocks of a filesystem, and of its device.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Of the filesystem.
    pub fs: u64,
    /// Of the device.
    pub device: u64,
}

/// The smallest filesystem. It can grow within its only AG, and has no backups.
pub const SMALL: Sizes = Sizes {
    fs: 4096,
    device: 8192,
};
/// Blocks of an AG of filesystems of any size but the smallest.
pub const AG: u64 = 1 << 15;
/// One AG, and a small one that is an area of superblocks. It can grow to four AGs.
pub const LARGE: Sizes = Sizes {
    fs: AG + 256,
    device: 4 * AG - 77,
};

/// A filesystem, and what the oracle knows about it.
pub struct Base {
    /// Its device.
    pub image: Image,
    /// What is expected of it.
    pub oracle: Oracle,
    /// The number from which the content of the last write was made; later writes use higher ones.
    pub stamp: u64,
    /// The clock when the filesystem was complete.
    pub clock: u64,
}

impl Base {
    /// An empty filesystem, with so many copies of each node.
    pub fn empty(sizes: Sizes, copies: u8) -> Result<Self, String> {
        os::set_clock(0);
        os::set_random(0);
        let rec = Recorder::new(Image::new(sizes.device));
        let options = FormatOptions {
            uuid: *b"crash simulation",
            label: [0; 64],
            blocks: sizes.fs,
            root_owner: (0, 0),
            copies,
        };
        format(rec.device(), &options).map_err(|e| format!("mkfs: {}", e.reason))?;
        let image = rec.image().flat();
        let fs = Fs::mount(rec.device(), MountOptions::default())
            .map_err(|e| format!("mount: {}", e.reason))?;
        let root = fs.iget(fs.root_ino()).map_err(|e| format!("{e:?}"))?;
        let a = root.attrs();
        Ok(Self {
            image,
            oracle: Oracle::new(
                (root.ino(), a.handle_generation),
                a.mode,
                a.mtime,
                fs.blocks(),
            ),
            stamp: 0,
            clock: os::clock(),
        })
    }
}
