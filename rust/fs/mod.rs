// SPDX-License-Identifier: GPL-2.0

//! OrdoFS as the VFS sees it: the traits of [`crate::vfs`], implemented with [`crate::engine`].
//!
//! # Model
//!
//! Every method is a translation: arguments of the VFS into arguments of the engine, and one call.
//! The engine's allocations are made in a NOFS scope: reclaim may call back into the filesystem
//! (shrinker, eviction) and must not meet a lock that the allocating task holds.

#[cfg(ordofs_debug)]
mod errortag_files;
mod inode;
mod namei;
#[allow(unreachable_pub)]
pub(crate) mod os;
mod params;
mod probe;
mod resize;
mod scrub;
mod stats;
mod super_;
mod words;
mod xattr;

mod data;

use kernel::prelude::*;

use crate::{
    engine,
    fs::os::{atomic::AtomicBool, Mutex, Shared, Tags, BLOCK_BYTES},
    vfs::{object::types::Types, os::kthread::KThread, os::workqueue::IoQueues, SuperBlock},
};

pub(crate) use params::Params;

/// Bytes of a block.
const BLOCK: u64 = BLOCK_BYTES as u64;

const _: () = assert!(BLOCK_BYTES == engine::BLOCK_SIZE);

/// A mounted OrdoFS.
pub(crate) struct OrdoFs {
    engine: Shared<engine::Fs>,
    io: IoQueues,
    /// What holds the windows of races open.
    tags: Tags,
    /// Commits every few seconds, or when the engine asks for it; there is none on a read-only
    /// mount.
    committer: Mutex<Option<KThread>>,
    /// Deletes large inodes in the background; there is none on a read-only mount.
    reaper: Mutex<Option<KThread>>,
    /// The thread of the scrub that runs, or of the last one.
    scrubber: Mutex<Option<KThread>>,
    /// Commits hold this; while it is true there are none.
    frozen: Shared<Mutex<bool>>,
    /// What a crash left is still to be cleaned up: mounted read-only so far.
    uncleaned: AtomicBool,
    norecovery: bool,
    /// Data is handed out although it does not match its checksum. The mount is read-only.
    rescue_data: bool,
    /// The generation that the mount began with.
    first_generation: u64,
    /// Access control lists are in force.
    acl: AtomicBool,
}

impl Types for OrdoFs {
    type InodeData = InodeData;

    const BLOCK_SIZE: u64 = BLOCK;
}

impl OrdoFs {
    /// The engine.
    pub(crate) fn engine(&self) -> &Shared<engine::Fs> {
        &self.engine
    }
}

/// Runs an operation that needs space. Dirty pages hold blocks for metadata that most of them turn out not
/// to need when they are written back. So before there is no space, they are, and the operation is
/// tried once more: it must be such that it can be.
fn with_space<R>(sb: &SuperBlock<OrdoFs>, mut op: impl FnMut() -> Result<R>) -> Result<R> {
    match op() {
        Err(e) if e == ENOSPC => {
            let held = sb.fs().engine.held_for_dirty_data() > 0;
            if held && sb.write_dirty_data() {
                op()
            } else {
                Err(e)
            }
        }
        r => r,
    }
}

/// What is kept with every VFS inode.
pub(crate) struct InodeData {
    /// The engine's inode; one user of it in the engine's count.
    pub(crate) engine: Shared<engine::Inode>,
}

/// The module's registration with the VFS.
pub(crate) type Registration = crate::vfs::registration::Registration<OrdoFs>;

/// Registers the filesystem type.
pub(crate) fn register(module: &'static ThisModule) -> Result<Registration> {
    Registration::new(module)
}
