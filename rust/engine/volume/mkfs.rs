// SPDX-License-Identifier: GPL-2.0

//! Making a filesystem: an empty superblock in memory, then two ordinary commits, the second of them
//! that of an unmount, so that both slots are valid and no code writes a filesystem in a second way.
//!
//! Sizes are in blocks. Needs the device for itself; takes no locks but those of the operations it
//! runs.
//!
//! Tests: tools/engine/tests/smoke.rs, format.rs, full_disk.rs (large devices);
//! tools/mkfs/tests; tests/vm/t/034-mkfs-over-others.sh.

use crate::engine::format::places::{areas, log_place, twin_base, AREA_BLOCKS, TWIN_BASES};
use crate::engine::format::superblock::{ag_geometry, MAX_COPIES, SPARE_ROOTS};
use crate::engine::format::{Superblock, MIN_BLOCKS};
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::ops::namei::new_generation;
use crate::engine::txn::marks::Backups;
use crate::engine::types::*;
use crate::os::{now, Block, Device, Shared};
use kernel::prelude::*;

/// Inode number of the root directory.
pub const ROOT_INO: u64 = 2;

/// The most blocks of a filesystem that can be made: 1 PiB. The AG tree is in memory until the first
/// commit, at about 50 MB for this size.
const MOST_BLOCKS: u64 = 1 << 38;

/// What the caller of [`format()`] may choose.
pub struct FormatOptions {
    /// UUID.
    pub uuid: [u8; 16],
    /// Label, NUL-padded UTF-8.
    pub label: [u8; 64],
    /// Blocks to use; 0 means the whole device.
    pub blocks: u64,
    /// Owner and group of the root directory.
    pub root_owner: (u32, u32),
    /// How many copies of each node are written, 1 or 2; 0 means [`default_copies`].
    pub copies: u8,
}

/// The copies of nodes in a filesystem of `blocks` blocks, unless the caller chooses: two if it
/// has at least two whole AGs, so that the copies can be apart.
pub fn default_copies(blocks: u64) -> u8 {
    let (_, ag_blocks) = ag_geometry(blocks);
    match blocks >= 2 * ag_blocks {
        true => 2,
        false => 1,
    }
}

/// Makes a filesystem on `dev` and destroys whatever is on it. Overwrites the areas of superblocks
/// and what the commits write; the caller has discarded the rest if it should be discarded. ENOSPC for
/// too few blocks, EFBIG for too many, EROFS.
pub fn format(dev: Device, o: &FormatOptions) -> Result<(), MountError> {
    let total = if o.blocks == 0 {
        dev.blocks()
    } else {
        o.blocks
    };
    if total > dev.blocks() {
        return Err(MountError::new(
            ENOSPC,
            "the device is smaller than the size asked for",
        ));
    }
    if total < MIN_BLOCKS {
        return Err(MountError::new(
            ENOSPC,
            "too small: an OrdoFS needs at least 16 MiB",
        ));
    }
    if total > crate::engine::format::MAX_BLOCKS {
        return Err(MountError::new(EFBIG, "too large"));
    }
    if total > MOST_BLOCKS {
        let reason = "too large: mkfs makes filesystems of up to 1 PiB so far";
        return Err(MountError::new(EFBIG, reason));
    }
    if dev.readonly() {
        return Err(MountError::new(EROFS, "the device is read-only"));
    }
    if o.copies > MAX_COPIES {
        return Err(MountError::new(EINVAL, "nodes have one copy or two"));
    }
    let failed = |error| MountError::new(error, "writing failed");
    // Where twins would be if the filesystem had another size, those of an older one may be.
    let twins = TWIN_BASES
        .into_iter()
        .filter(|at| *at != twin_base(total) && at + AREA_BLOCKS <= total);
    for base in Iterator::chain(areas(total), twins) {
        wipe(&dev, base).map_err(failed)?;
    }
    let sb = KBox::new(superblock(o, total), GFP_KERNEL).map_err(|e| failed(e.into()))?;
    let fs = Fs::from_superblock(dev, sb, MountOptions::default(), None).map_err(failed)?;
    populate(&fs, o).map_err(failed)
}

/// Overwrites an area of superblocks with zeroes.
fn wipe(dev: &Device, base: u64) -> Result {
    let zero = Block::zeroed()?;
    let mut reqs = KVec::with_capacity(AREA_BLOCKS as usize, GFP_KERNEL)?;
    for b in 0..AREA_BLOCKS {
        reqs.push((base + b, &zero), GFP_KERNEL)?;
    }
    dev.write(&reqs)
}

/// The superblock of generation 0, which only exists in memory.
fn superblock(o: &FormatOptions, total: u64) -> Superblock {
    let (ag_count, ag_blocks) = ag_geometry(total);
    let (log_start, log_len) = log_place(total);
    Superblock {
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        uuid: o.uuid,
        node_id: crate::os::random_u64(),
        backed_up: 0,
        label: o.label,
        hash_key: [crate::os::random_u64(), crate::os::random_u64()],
        generation: 0,
        copies: match o.copies {
            0 => default_copies(total),
            n => n,
        },
        blocks: total,
        ag_count,
        ag_blocks,
        state: 0,
        log_start,
        log_len,
        log_pos: 0,
        // Random, so that no batch of an earlier filesystem with the same UUID continues this log.
        log_seq: (crate::os::random_u64() >> 8).max(1),
        log2_start: 0,
        next_ino: ROOT_INO + 1,
        root_ino: ROOT_INO,
        inodes: 0,
        free: total,
        free_slots: 0,
        dead_blocks: 0,
        epoch: 1,
        node_goal: 0,
        data_goal: 0,
        casefold: 0,
        created: now(),
        mounted: Time::default(),
        mounts: 0,
        committed: Time::default(),
        inode_root: None,
        orphan_root: None,
        ag_root: None,
        deferred_root: None,
        snapshot_root: None,
        dead_root: None,
        quota_root: None,
        spare_roots: [None; SPARE_ROOTS],
    }
}

/// Makes the root directory, and commits twice.
fn populate(fs: &Shared<Fs>, o: &FormatOptions) -> Result {
    let areas = fs.commit.lock().sb.clone();
    for (start, len) in areas.fixed_areas() {
        fs.space.reserve_fixed(&fs.node_store, start, len)?;
    }
    let t = now();
    let attrs = Attrs {
        mode: S_IFDIR | 0o755,
        nlink: 2,
        uid: o.root_owner.0,
        gid: o.root_owner.1,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        handle_generation: new_generation(),
        change: 1,
        ..Attrs::default()
    };
    let root = fs
        .itable
        .add(Shared::new(Inode::new(ROOT_INO, attrs, ROOT_INO)?)?)?;
    fs.inodes.fetch_add(1, crate::os::atomic::Ordering::Relaxed);
    fs.begin(8, crate::engine::alloc::Priority::Reclaim)?
        .dirty(&root)?;
    fs.sync()?;
    fs.iput(root);
    fs.mark_clean(Backups::Now)?;
    fs.unmount()
}
