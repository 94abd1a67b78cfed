// SPDX-License-Identifier: GPL-2.0

//! The plain types of the engine's interface.
//!
//! Offsets and lengths are in blocks of 4096 bytes unless a name or a comment says bytes. Ranges
//! are half-open. Nothing here takes a lock.
//!
//! Tests: `tools/engine/tests/smoke.rs` and `tools/engine/tests/attrs.rs` use the types through the
//! engine's interface.

pub use crate::os::Time;

/// Size of a block in bytes.
pub const BLOCK_SIZE: usize = 4096;
/// log2 of [`BLOCK_SIZE`].
pub const BLOCK_SHIFT: u32 = 12;
/// The longest name of a directory entry, in bytes.
pub const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub const SYMLINK_MAX: usize = 4095;
/// The limit of file blocks, exclusive: a file has at most 2^63 - 1 bytes.
pub const MAX_FILE_BLOCKS: u64 = 1 << 51;

/// The type bits of a mode.
pub const S_IFMT: u32 = 0o170000;
/// Mode type: directory.
pub const S_IFDIR: u32 = 0o040000;
/// Mode type: regular file.
pub const S_IFREG: u32 = 0o100000;
/// Mode type: symbolic link.
pub const S_IFLNK: u32 = 0o120000;
/// Mode type: character device.
pub const S_IFCHR: u32 = 0o020000;
/// Mode type: block device.
pub const S_IFBLK: u32 = 0o060000;
/// The most names of an inode, and the most subdirectories of a directory; beyond it EMLINK.
pub const LINK_MAX: u32 = 1 << 30;

/// Whether a mode has the type bits of one of the seven file types, and no bit that no mode has.
pub const fn is_kind(mode: u32) -> bool {
    matches!(mode >> 12, 1 | 2 | 4 | 6 | 8 | 10 | 12)
}

/// Whether type bits are those of a device node.
pub const fn is_device(kind: u32) -> bool {
    matches!(kind, S_IFCHR | S_IFBLK)
}

/// Directory entry type (`DT_*`) of a mode.
pub const fn mode_to_kind(mode: u32) -> u8 {
    ((mode & S_IFMT) >> 12) as u8
}

/// The attributes of an inode. `size` is in bytes and is the size *on disk*: the VFS inode's
/// `i_size` may be ahead of it while appended data is dirty or in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attrs {
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number in the kernel's `new_encode_dev` form, for device nodes.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// `FS_*_FL` flags.
    pub flags: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
    /// Project.
    pub project: u32,
    /// Generation number, for file handles: a random number, chosen with the inode number
    /// ([`NewId`]), never changed, and never 0.
    pub handle_generation: u32,
    /// Change counter: raised by every change of the data or of the attributes, except the access
    /// time.
    pub change: u64,
    /// The allocation group in which the files of a directory begin, and in which a file begins.
    pub home_ag: u32,
    /// `FS_XFLAG_*` flags without an `FS_*_FL` flag.
    pub xflags: u32,
    /// Extent size hint in blocks.
    pub extent_hint: u32,
}

impl Attrs {
    /// Whether the inode is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }
}

/// The attributes that [`crate::engine::Fs::set_attrs`] changes. `None` leaves an attribute as it
/// is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct AttrChange {
    /// Permission bits (the type bits are ignored).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of the content.
    pub mtime: Option<Time>,
    /// Last change of the inode.
    pub ctime: Option<Time>,
    /// `FS_*_FL` flags.
    pub flags: Option<u32>,
    /// What the VFS has raised the change counter to, from the value that it was last shown.
    pub change: Option<u64>,
}

impl AttrChange {
    /// Whether the change is empty.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// For the mutant `AttrsEarly`: a change that carries attributes and times read some time ago.
    pub(crate) fn stale(t: &Times, a: &Attrs) -> Self {
        Self {
            mode: Some(a.mode),
            uid: Some(a.uid),
            gid: Some(a.gid),
            atime: Some(t.atime),
            mtime: Some(t.mtime),
            ctime: Some(t.ctime),
            flags: Some(a.flags),
            change: Some(t.change),
        }
    }

    /// Applies the change to `t`, except that of the change counter. The type bits of the mode never
    /// change.
    pub(crate) fn apply(&self, t: &mut Attrs) {
        if let Some(v) = self.mode {
            t.mode = (t.mode & S_IFMT) | (v & !S_IFMT);
        }
        // As chown(2) has it: no id is 2^32 - 1.
        let id = |new: Option<u32>, old| new.filter(|id| *id != u32::MAX).unwrap_or(old);
        t.uid = id(self.uid, t.uid);
        t.gid = id(self.gid, t.gid);
        t.atime = self.atime.unwrap_or(t.atime);
        t.mtime = self.mtime.unwrap_or(t.mtime);
        t.ctime = self.ctime.unwrap_or(t.ctime);
        t.flags = self.flags.unwrap_or(t.flags);
    }
}

/// The times and the change counter that the VFS keeps in its inode. It changes them by itself when
/// a file is read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Change counter.
    pub change: u64,
}

/// The lasting identity of an inode, chosen before the inode exists
/// ([`crate::engine::Fs::new_id`]). Security modules label an inode before any task can find it,
/// and sign the identity along with the label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewId {
    /// Inode number.
    pub ino: u64,
    /// Birth time, and the time of the whole operation.
    pub born: Time,
    /// Generation number, not 0: differs, but for a chance of 2^-32, from that of any other inode
    /// that has had the number.
    pub generation: u32,
}

/// An extended attribute of a new inode.
#[derive(Clone, Copy)]
pub struct NewXattr<'a> {
    /// Namespace.
    pub index: u8,
    /// Name without the namespace's prefix.
    pub name: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

/// The initial state of a new inode.
#[derive(Clone, Copy, Default)]
pub struct NewInode<'a> {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, for device nodes.
    pub rdev: u64,
    /// `FS_*_FL` flags.
    pub flags: u32,
    /// Project.
    pub project: u32,
    /// Target, for symbolic links.
    pub symlink: Option<&'a [u8]>,
    /// Number, birth time and generation number; with `None` the engine chooses them.
    pub id: Option<NewId>,
    /// Extended attributes. After a crash the inode has all of them, or it does not exist.
    pub xattrs: &'a [NewXattr<'a>],
}

/// The result of a look-up of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Inode number.
    pub ino: u64,
    /// `DT_*`.
    pub kind: u8,
}

/// Flags of a rename.
#[derive(Clone, Copy, Default)]
pub struct RenameFlags {
    /// Fail with EEXIST when the new name exists.
    pub noreplace: bool,
    /// Swap the two names.
    pub exchange: bool,
}

/// State of a range of file blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapKind {
    /// No blocks; reads as zeroes.
    Hole,
    /// Dirty in the page cache, with space reserved and no address yet.
    Delalloc,
    /// Allocated and never written; reads as zeroes.
    Unwritten,
    /// Allocated and written.
    Written,
}

/// A range of file blocks `[start, start + len)` in one state. Those that are `Unwritten` or
/// `Written` are in the disk blocks `[phys, phys + len)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First file block.
    pub start: u64,
    /// Number of blocks, at least 1.
    pub len: u64,
    /// State.
    pub kind: MapKind,
    /// First disk block; without meaning for `Hole` and `Delalloc`.
    pub phys: u64,
    /// The sequence number of the inode's maps at the time of the look-up (R5).
    pub cookie: u64,
}

/// The mapping that a buffered write uses.
#[derive(Clone, Copy, Debug)]
pub struct WriteMap {
    /// `Delalloc` or `Unwritten`.
    pub map: Mapping,
    /// The written blocks under a delalloc range. A write of part of a block reads the rest from
    /// there.
    pub src: Option<Mapping>,
    /// The range was a hole, so the caller zeroes what the write does not cover.
    pub new: bool,
}

/// The result of verifying data that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The data is what was written.
    Good,
    /// The data is damaged. The value is the expected checksum.
    Bad(u32),
    /// The block has moved since it was mapped: map it and read it again.
    Moved,
}

/// Numbers for statfs(2), in blocks and inodes.
#[derive(Clone, Copy, Default, Debug)]
pub struct StatFs {
    /// Size of the filesystem.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for users.
    pub bavail: u64,
    /// Inodes, used and possible.
    pub files: u64,
    /// Possible further inodes.
    pub ffree: u64,
}

/// Mount options.
#[derive(Clone, Copy, Debug)]
pub struct MountOptions {
    /// Write nothing to the device; orphans stay until a mount that may write.
    pub read_only: bool,
    /// Seconds between commits.
    pub commit_secs: u32,
    /// Discard freed blocks once the commit that freed them is durable.
    pub discard: bool,
    /// Replay the log, and log operations for fsync.
    pub recovery: bool,
    /// Go on without the batches from the first damaged one on if acknowledged ones are damaged.
    pub rescue_log: bool,
    /// Go on from an older superblock if the newest one may be lost, with its commit.
    pub rescue_older: bool,
    /// A thread will delete large inodes in the background ([`crate::engine::Fs::reap_step`]).
    pub reaper: bool,
    /// Leave out records of the log that do not fit the state before them, and count them. Only
    /// fsck.ordofs does so, after a repair that has lost inodes or names.
    pub rescue_records: bool,
    /// The most nodes (of 4 KiB) in the node cache. In the kernel the shrinker limits the cache;
    /// user space has no shrinker.
    pub cache_nodes: u64,
}

impl MountOptions {
    /// The most nodes in the node cache of a filesystem of `blocks` blocks: few for one of few.
    pub fn cache_limit(&self, blocks: u64) -> usize {
        usize::try_from(self.cache_nodes.min(blocks / 8)).unwrap_or(usize::MAX)
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            commit_secs: 5,
            discard: false,
            recovery: true,
            rescue_log: false,
            rescue_older: false,
            reaper: false,
            rescue_records: false,
            cache_nodes: 16384,
        }
    }
}

/// Why a mount was refused: an error code and a sentence.
#[derive(Clone, Copy, Debug)]
pub struct MountError {
    /// The code for mount(2).
    pub error: kernel::prelude::Error,
    /// A sentence for the user.
    pub reason: &'static str,
}

impl MountError {
    /// Pairs a code with its reason.
    pub fn new(error: kernel::prelude::Error, reason: &'static str) -> Self {
        Self { error, reason }
    }
}

/// The byte offset of a file block, at most 2^63 - 1.
pub fn block_to_bytes(block: u64) -> u64 {
    block.saturating_mul(BLOCK_SIZE as u64).min(i64::MAX as u64)
}

/// The number of blocks that hold `bytes` bytes, rounded up.
pub fn bytes_to_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE as u64)
}
