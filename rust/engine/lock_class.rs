// SPDX-License-Identifier: GPL-2.0

//! What the engine's locks are called, in the order in which they are taken.
//!
//! # Model
//!
//! A class is what lockdep tells a kind of lock by; its name is what a report shows. The order is that of
//! docs/DESIGN.md §7, outermost first: a lock may be waited for only by somebody who holds none of those
//! below it. lockdep learns it from what happens, and not from this list.
//!
//! No two locks of one class are ever held by one task: operations on two inodes change one after the other.

use crate::os::LockClass;

/// Of an inode: tasks that turn dirty pages into writes in flight; outside of folio locks.
pub(crate) static SUBMITTING: LockClass = LockClass::new(c"ordofs_submitting");

/// The one batch of the log at a time; never taken inside a transaction. Its holder waits for
/// ordered extents.
pub(crate) static LOG_WRITER: LockClass = LockClass::new(c"ordofs_log_writer");

/// No lock: the wait for an ordered extent, which folio locks may be held in, but no transaction and no
/// `maps`. Whoever has to finish one has it.
pub(crate) static ORDERED_WAIT: LockClass = LockClass::new(c"ordofs_ordered_wait");

/// The one commit at a time, and what only commits work on.
pub(crate) static COMMIT: LockClass = LockClass::new(c"ordofs_commit");

/// No lock: the barrier between operations (shared) and the snapshot of a commit (exclusive).
pub(crate) static BARRIER: LockClass = LockClass::new(c"ordofs_barrier");

/// Of an inode: what the commit under way takes of it; taken with none of its other locks held.
pub(crate) static SNAP: LockClass = LockClass::new(c"ordofs_snap");

/// Of an inode: ordered extents and extent maps are made together, or collected by an fsync (R1).
pub(crate) static ORDERED_SEM: LockClass = LockClass::new(c"ordofs_ordered_sem");

/// Of an inode: extent maps, delalloc, the extent tree.
pub(crate) static MAPS: LockClass = LockClass::new(c"ordofs_maps");

/// Of a directory: its tree.
pub(crate) static DIR: LockClass = LockClass::new(c"ordofs_dir");

/// Of an inode: the tree of its extended attributes.
pub(crate) static XATTR: LockClass = LockClass::new(c"ordofs_xattr");

/// Of an inode: attributes, and what the next commit has to know of it.
pub(crate) static META: LockClass = LockClass::new(c"ordofs_meta");

/// Of an inode: its ordered extents.
pub(crate) static ORDERED: LockClass = LockClass::new(c"ordofs_ordered");

/// A shard of the table of inodes in memory.
pub(crate) static INODE_SHARD: LockClass = LockClass::new(c"ordofs_inode_shard");

/// The tree of all inodes; taken with none of an inode's locks held.
pub(crate) static INODE_TREE: LockClass = LockClass::new(c"ordofs_inode_tree");

/// An allocation group.
pub(crate) static AG: LockClass = LockClass::new(c"ordofs_ag");

/// A shard of the cache of clean nodes.
pub(crate) static NODE_SHARD: LockClass = LockClass::new(c"ordofs_node_shard");

/// Where in the log the next batch goes, and what is still needed.
pub(crate) static LOG_STATE: LockClass = LockClass::new(c"ordofs_log_state");

// Innermost: nothing is taken under these.

/// The list of dirty inodes.
pub(crate) static DIRTY: LockClass = LockClass::new(c"ordofs_dirty");

/// The data that renames owe.
pub(crate) static OWED: LockClass = LockClass::new(c"ordofs_owed");

/// The mount options.
pub(crate) static OPTIONS: LockClass = LockClass::new(c"ordofs_options");

/// The time that replay takes for its own.
pub(crate) static REPLAY_TIME: LockClass = LockClass::new(c"ordofs_replay_time");

/// What replay reports.
pub(crate) static REPLAYED: LockClass = LockClass::new(c"ordofs_replayed");
