// SPDX-License-Identifier: GPL-2.0

//! The classes of the engine's locks, in lock order.
//!
//! # Model
//!
//! lockdep knows each kind of lock as a class and shows the class's name in its reports. The order
//! is that of docs/DESIGN.md §7, outermost first: a task may wait for a lock only while it holds
//! none of those listed below it. lockdep does not read this list; it learns the order from the
//! acquisitions that it sees.
//!
//! A task never holds two locks of one class: an operation on two inodes changes one after the
//! other.
//!
//! Tests: `make test KERNEL=debug` runs the VM tests under lockdep; `tools/engine/tests/threads.rs` and
//! `tools/engine/tests/stress.rs` take the locks from many threads.

use crate::os::LockClass;

/// Held by the task that frees a part of what a deleted inode had. Its holder begins transactions and
/// may commit.
pub(crate) static REAPER: LockClass = LockClass::new(c"ordofs_reaper");

/// Held while a piece of free space is discarded. Taken with none of the other locks held.
pub(crate) static TRIM: LockClass = LockClass::new(c"ordofs_trim");

/// Of an inode: held shared by tasks that turn dirty pages into writes in flight. Taken outside of
/// folio locks.
pub(crate) static SUBMITTING: LockClass = LockClass::new(c"ordofs_submitting");

/// Serializes writes of batches to the log. Never taken inside a transaction, because its holder
/// waits for ordered extents.
pub(crate) static LOG_WRITER: LockClass = LockClass::new(c"ordofs_log_writer");

/// Not a lock: the wait for an ordered extent, reported to lockdep. A task may wait with folio
/// locks held, but neither inside a transaction nor with `maps` held. A task that completes an
/// ordered extent counts as its holder.
pub(crate) static ORDERED_WAIT: LockClass = LockClass::new(c"ordofs_ordered_wait");

/// Serializes commits and protects the state that only commits use.
pub(crate) static COMMIT: LockClass = LockClass::new(c"ordofs_commit");

/// Not a lock of the kernel: the barrier, shared for operations and exclusive for the moment in
/// which a commit freezes its transaction.
pub(crate) static BARRIER: LockClass = LockClass::new(c"ordofs_barrier");

/// Of an inode: the snapshot that the running commit takes of it. Taken with none of the inode's
/// other locks held.
pub(crate) static SNAP: LockClass = LockClass::new(c"ordofs_snap");

/// Of an inode: shared to insert an ordered extent and its extent map, exclusive for an fsync that
/// collects them (R1).
pub(crate) static ORDERED_SEM: LockClass = LockClass::new(c"ordofs_ordered_sem");

/// Of an inode: extent maps, delalloc and the extent tree.
pub(crate) static MAPS: LockClass = LockClass::new(c"ordofs_maps");

/// Of a directory: the tree of its entries.
pub(crate) static DIR: LockClass = LockClass::new(c"ordofs_dir");

/// Of an inode: the tree of its extended attributes.
pub(crate) static XATTR: LockClass = LockClass::new(c"ordofs_xattr");

/// Of an inode: attributes, and the state that goes into the inode record with them.
pub(crate) static META: LockClass = LockClass::new(c"ordofs_meta");

/// Of an inode: the set of ordered extents.
pub(crate) static ORDERED: LockClass = LockClass::new(c"ordofs_ordered");

/// A shard of the table of inodes in memory.
pub(crate) static INODE_SHARD: LockClass = LockClass::new(c"ordofs_inode_shard");

/// The inode tree. Taken with none of an inode's locks held.
pub(crate) static INODE_TREE: LockClass = LockClass::new(c"ordofs_inode_tree");

/// The table of allocation groups in memory. Nothing is waited for or read from the device under it.
pub(crate) static AG_TABLE: LockClass = LockClass::new(c"ordofs_ag_table");

/// An allocation group.
pub(crate) static AG: LockClass = LockClass::new(c"ordofs_ag");

/// The AG tree.
pub(crate) static AG_TREE: LockClass = LockClass::new(c"ordofs_ag_tree");

/// The ranges of allocation groups of which the records cannot be read.
pub(crate) static AGS_LOST: LockClass = LockClass::new(c"ordofs_ags_lost");

/// A shard of the node cache.
pub(crate) static NODE_SHARD: LockClass = LockClass::new(c"ordofs_node_shard");

/// The state of the log: where the next batch goes, and which batches are still needed.
pub(crate) static LOG_STATE: LockClass = LockClass::new(c"ordofs_log_state");

// Innermost: a task that holds one of these takes no other lock.

/// The label.
pub(crate) static LABEL: LockClass = LockClass::new(c"ordofs_label");

/// The list of dirty inodes.
pub(crate) static DIRTY: LockClass = LockClass::new(c"ordofs_dirty");

/// The debts of renames.
pub(crate) static OWED: LockClass = LockClass::new(c"ordofs_owed");

/// The mount options.
pub(crate) static OPTIONS: LockClass = LockClass::new(c"ordofs_options");

/// The time at which the operation being replayed happened.
pub(crate) static REPLAY_TIME: LockClass = LockClass::new(c"ordofs_replay_time");

/// The report of the replay at mount.
pub(crate) static REPLAYED: LockClass = LockClass::new(c"ordofs_replayed");

/// The queue of inodes that are deleted in the background.
pub(crate) static REAP_QUEUE: LockClass = LockClass::new(c"ordofs_reap_queue");

/// The bad copies of nodes that readers have found.
pub(crate) static BAD_COPIES: LockClass = LockClass::new(c"ordofs_bad_copies");

/// The report of the scrub.
pub(crate) static SCRUB: LockClass = LockClass::new(c"ordofs_scrub");
