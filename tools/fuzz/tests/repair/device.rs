// SPDX-License-Identifier: GPL-2.0

//! Devices that fail.

use crate::album::*;
use crate::support::*;
use kernel::prelude::{Result, EIO};
use ordofs_engine::engine::btree::TreeKind;
use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Backend, Block, Device};
use ordofs_fsck::repair::{self};
use std::sync::atomic::{AtomicU64, Ordering};

/// A device that fails.
struct Flaky {
    disk: Device,
    blocks: Vec<u64>,
    /// How many reads of these blocks fail.
    reads: AtomicU64,
    /// Whether writes of them fail.
    writes: bool,
}

impl Flaky {
    fn of(disk: &MemDisk, blocks: &[u64], reads: u64, writes: bool) -> Device {
        Device::new(Self {
            disk: disk.device(),
            blocks: blocks.to_vec(),
            reads: AtomicU64::new(reads),
            writes,
        })
    }
}

impl Backend for Flaky {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn readonly(&self) -> bool {
        false
    }

    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        let left = self.reads.load(Ordering::Relaxed);
        if left > 0 && self.blocks.contains(&block) {
            self.reads.store(left - 1, Ordering::Relaxed);
            return Err(EIO);
        }
        let mut b = Block::zeroed()?;
        self.disk.read(block, &mut b)?;
        *buf = *b;
        Ok(())
    }

    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        if self.writes && self.blocks.contains(&block) {
            return Err(EIO);
        }
        let mut b = Block::zeroed()?;
        b.copy_from_slice(data);
        self.disk.write(&[(block, &b)])
    }

    fn flush(&self) -> Result {
        self.disk.flush()
    }

    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.write(block, data)
    }

    fn discard(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }
}

/// If one copy of a node is damaged, an error on the other one that goes away loses nothing, and one that
/// stays does not keep the rest from being repaired.
#[test]
fn an_error_on_the_other_copy_is_tried_again() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.copies == 2).expect("an image");
    for n in o.structure.nodes.iter().filter(|n| n.ptr.addr2 != 0) {
        let (first, second) = (n.ptr.addr, n.ptr.addr2);
        for (damaged, failing) in [(first, second), (second, first)] {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            garbage(&disk, damaged, 0, 4096);
            let lost = |reads| {
                let plan = repair::plan(Flaky::of(&disk, &[failing], reads, false));
                let said = plan.unwrap_or_else(|e| panic!("{n:?}: {e}")).said;
                said.iter().any(|s| s.contains("cannot be read"))
            };
            assert!(!lost(1), "{n:?}");
            // The trees of space are built anew in any case, and so is that of orphans.
            assert!(lost(u64::MAX) || !of_use(o, n.block), "{n:?}");
        }
    }
}

/// Whether something is lost with a node.
fn of_use(o: &Original, block: u64) -> bool {
    let kind = NodeHeader::decode(&o.image[&block])
        .expect("a node")
        .0
        .id
        .kind;
    use TreeKind::{Dir, Extent, Inode, Orphan, Xattr};
    matches!(kind, Dir | Extent | Inode | Orphan | Xattr)
}

/// An error of the device that goes away loses nothing. Superblocks that cannot be read are put
/// together from a backup, and a backup that cannot be written does not end the repair.
#[test]
fn errors_of_the_device_lose_no_more_than_they_must() {
    silent();
    let all = originals();
    for o in &all {
        for n in o.structure.nodes.iter().take(10) {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            let plan = repair::plan(Flaky::of(&disk, &[n.block], 1, false));
            let said = plan.unwrap_or_else(|e| panic!("{e}")).said;
            assert!(
                !said.iter().any(|s| s.contains("cannot be read")),
                "{said:#?}"
            );
        }
    }
    let o = all.iter().find(|o| o.name == "large").expect("an image");
    let copies = superblocks(o.blocks);
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let plan = repair::plan(Flaky::of(&disk, &copies, u64::MAX, false));
    plan.unwrap_or_else(|e| panic!("{e}"));
    let backup = ordofs_engine::engine::format::places::backups(o.blocks).next();
    let backup = backup.expect("a backup") + 16;
    garbage(&disk, backup, 0, 4096);
    let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
    let done = repair::apply(&plan, &Flaky::of(&disk, &[backup], 0, true));
    assert_eq!(done.expect("no error").len(), 1);
}
