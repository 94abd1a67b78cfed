// SPDX-License-Identifier: GPL-2.0

//! Log records: one operation each, or one extent with its checksums.
//!
//! A record begins with its length u32 (of the whole record, in bytes), kind u8, three zero bytes,
//! generation u64 (of the transaction that made the change), time (i64 seconds, u32 nanoseconds,
//! u32 zero). The body follows. A string has its length before it, as u16. Integers are
//! little-endian; file and disk blocks are 4096 bytes.
//!
//! | kind | body |
//! |---|---|
//! | 1 create | dir u64 (0: no name), ino u64, mode, uid, gid, flags u32, rdev u64, generation number, project u32, name, target |
//! | 2 link | dir, ino u64, name |
//! | 3 unlink | dir, ino u64, name |
//! | 4 rename | old dir, new dir, ino, target ino (0: none) u64, exchange u32, old name, new name |
//! | 5 attrs | ino, size (2^64 - 1: stays) u64, mode, uid, gid, flags, project, xflags u32, change counter u64, atime, mtime, ctime (12 bytes each) |
//! | 6 size | ino, bytes u64 |
//! | 7 punch | ino, first file block, blocks u64 |
//! | 8 preallocate | ino, first file block, first disk block, blocks u64 |
//! | 9 write | ino, first file block, first disk block u64, crc32c of each block |
//! | 10 xattr | ino u64, namespace u32, bytes of the value u32 (2^32 - 1: removed), name, value |
//! | 11 grow | ino, bytes u64 |
//! | 12 bytes | ino, offset in bytes, size behind it u64, data |
//! | 13 share | source ino, first file block, ino, first file block, blocks, size behind it u64 |
//! | 14 shift | ino, first file block, blocks u64, direction u32 (0 collapse, 1 insert) |
//! | 15 swap | ino, first file block, ino, first file block, blocks u64 |
//!
//! Kinds 12 to 15 are reserved: this code never writes them, and replay refuses a log that has one,
//! because without it the records behind it would mean something else. A kind that is not in the
//! table makes the batch damaged.
//!
//! Decoding checks lengths and value ranges within the record, that its zero bytes are zero, and that
//! nothing is left behind the body, so no input makes it panic. Whether a record fits the filesystem
//! is checked by replay (`engine/volume/replay.rs`). No locks.
//!
//! Tests: tools/engine/tests/records.rs (bytes), log_recovery.rs (forged and damaged records),
//! log_format.rs (what is no record), impossible.rs (records that contradict the filesystem),
//! crash.rs.

use crate::engine::format::{le16, le32, le64, MAX_INO};
use crate::engine::types::{Attrs, MAX_FILE_BLOCKS};
use crate::os::Time;
use kernel::prelude::*;

/// Bytes before the body of a record.
pub const HEADER: usize = 32;
// Length, kind, generation, time.
const _: () = assert!(HEADER == 8 + 8 + 16);
/// The largest generation that a record may name. No filesystem gets as far, and arithmetic on
/// smaller ones cannot overflow.
const MAX_GENERATION: u64 = 1 << 63;
/// The most bytes of data in a [`Record::Bytes`].
pub const MAX_BYTES: usize = 3500;
/// Stands in place of the length of an attribute's value in a record that removes the attribute.
const REMOVED: u32 = u32::MAX;

/// The size of a [`Record::Attrs`] that leaves the size alone. A size that writes have raised goes
/// into the log only in the same batch as their extents, or a crash could leave a hole below it.
pub const SAME_SIZE: u64 = u64::MAX;

/// A record. Strings and checksums borrow from the caller or from the payload.
#[derive(Clone, Copy)]
pub enum Record<'a> {
    /// A new inode; it has a name unless `dir` is 0.
    Create {
        dir: u64,
        ino: u64,
        attrs: Attrs,
        name: &'a [u8],
        target: &'a [u8],
    },
    /// A further name of an inode.
    Link { dir: u64, ino: u64, name: &'a [u8] },
    /// A name removed.
    Unlink { dir: u64, ino: u64, name: &'a [u8] },
    /// A name moved, replacing `target` if that is not 0, or two names exchanged.
    Rename {
        old_dir: u64,
        new_dir: u64,
        ino: u64,
        target: u64,
        exchange: bool,
        old_name: &'a [u8],
        new_name: &'a [u8],
    },
    /// All attributes that can change, but the link count. The size may be [`SAME_SIZE`].
    Attrs { ino: u64, attrs: Attrs },
    /// The size set to `bytes`. Replay unmaps what lies behind it.
    Size { ino: u64, bytes: u64 },
    /// The size raised to at least `bytes`. Preallocated blocks behind it stay.
    Grow { ino: u64, bytes: u64 },
    /// File blocks `[start, start + len)` unmapped.
    Punch { ino: u64, start: u64, len: u64 },
    /// File blocks `[start, start + len)` mapped to disk blocks from `phys` on, unwritten.
    Preallocate {
        ino: u64,
        start: u64,
        phys: u64,
        len: u64,
    },
    /// File blocks from `start` on mapped to written disk blocks from `phys` on. `csums` has a
    /// little-endian crc32c of 4 bytes for each, which also says how many blocks there are.
    Write {
        ino: u64,
        start: u64,
        phys: u64,
        csums: &'a [u8],
    },
    /// Bytes written at `offset`. The size is `size` afterwards.
    Bytes {
        ino: u64,
        offset: u64,
        size: u64,
        data: &'a [u8],
    },
    /// File blocks mapped to those of another place. The size is `size` afterwards.
    Share {
        from: FilePlace,
        to: FilePlace,
        len: u64,
        size: u64,
    },
    /// File blocks `[start, start + len)` inserted or removed; all behind them move.
    Shift {
        ino: u64,
        start: u64,
        len: u64,
        insert: bool,
    },
    /// The mappings of two ranges of `len` file blocks exchanged.
    Swap {
        one: FilePlace,
        other: FilePlace,
        len: u64,
    },
    /// An extended attribute set, or removed if `value` is `None`.
    Xattr {
        ino: u64,
        index: u8,
        name: &'a [u8],
        value: Option<&'a [u8]>,
    },
}

/// A file block of an inode, where a range of the record begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilePlace {
    /// The inode number.
    pub ino: u64,
    /// The first file block.
    pub start: u64,
}

impl FilePlace {
    /// Whether `len` blocks from here on are blocks that a file can have.
    fn is_range(&self, len: u64) -> bool {
        is_file_range(self.ino, self.start, len)
    }

    /// Whether `len` blocks from here on meet as many from another place on.
    fn meets(&self, other: &Self, len: u64) -> bool {
        self.ino == other.ino && self.start.abs_diff(other.start) < len
    }
}

/// Whether `[start, start + len)` are file blocks that a file with this number can have.
fn is_file_range(ino: u64, start: u64, len: u64) -> bool {
    let end = start.checked_add(len);
    (1..MAX_INO).contains(&ino) && len > 0 && end.is_some_and(|end| end <= MAX_FILE_BLOCKS)
}

/// A record with the fields that all kinds have.
pub struct Stamped<'a> {
    /// Generation of the transaction that made the change.
    pub generation: u64,
    /// Time of the operation.
    pub time: Time,
    /// The change.
    pub record: Record<'a>,
}

/// Encodes the fields of a record.
struct Writer<'a>(&'a mut KVVec<u8>);

impl Writer<'_> {
    fn bytes(&mut self, b: &[u8]) -> Result {
        Ok(self.0.extend_from_slice(b, GFP_KERNEL)?)
    }
    fn u32s(&mut self, v: &[u32]) -> Result {
        v.iter().try_for_each(|x| self.bytes(&x.to_le_bytes()))
    }
    fn u64s(&mut self, v: &[u64]) -> Result {
        v.iter().try_for_each(|x| self.bytes(&x.to_le_bytes()))
    }
    fn text(&mut self, s: &[u8]) -> Result {
        let n = u16::try_from(s.len()).map_err(|_| ENAMETOOLONG)?;
        self.bytes(&n.to_le_bytes())?;
        self.bytes(s)
    }
    fn time(&mut self, t: Time) -> Result {
        self.bytes(&t.sec.to_le_bytes())?;
        self.u32s(&[t.nsec])
    }
}

impl Record<'_> {
    /// The record of an inode's attributes without its size ([`SAME_SIZE`]).
    pub fn attrs_but_size(ino: u64, attrs: &Attrs) -> Record<'static> {
        Record::Attrs {
            ino,
            attrs: Attrs {
                size: SAME_SIZE,
                ..*attrs
            },
        }
    }

    /// Encodes the record and appends it to `out`. On error (ENOMEM, ENAMETOOLONG) `out` is as
    /// before.
    pub fn append(&self, out: &mut KVVec<u8>, generation: u64, time: Time) -> Result {
        let at = out.len();
        let r = self.put(&mut Writer(out), generation, time);
        if r.is_err() {
            out.truncate(at);
            return r;
        }
        let len = (out.len() - at) as u32;
        if let Some(slot) = out.get_mut(at..at + 4) {
            slot.copy_from_slice(&len.to_le_bytes());
        }
        Ok(())
    }

    /// The number of its kind on disk.
    fn kind(&self) -> u8 {
        match self {
            Record::Create { .. } => 1,
            Record::Link { .. } => 2,
            Record::Unlink { .. } => 3,
            Record::Rename { .. } => 4,
            Record::Attrs { .. } => 5,
            Record::Size { .. } => 6,
            Record::Punch { .. } => 7,
            Record::Preallocate { .. } => 8,
            Record::Write { .. } => 9,
            Record::Xattr { .. } => 10,
            Record::Grow { .. } => 11,
            Record::Bytes { .. } => 12,
            Record::Share { .. } => 13,
            Record::Shift { .. } => 14,
            Record::Swap { .. } => 15,
        }
    }

    /// The name of a kind that this code cannot replay.
    pub fn unsupported(&self) -> Option<&'static str> {
        Some(match self {
            Record::Bytes { .. } => "bytes",
            Record::Share { .. } => "share",
            Record::Shift { .. } => "shift",
            Record::Swap { .. } => "swap",
            _ => return None,
        })
    }

    fn put(&self, w: &mut Writer<'_>, generation: u64, time: Time) -> Result {
        w.bytes(&[0, 0, 0, 0, self.kind(), 0, 0, 0])?;
        w.u64s(&[generation])?;
        w.time(time)?;
        w.u32s(&[0])?;
        self.put_body(w)
    }

    fn put_body(&self, w: &mut Writer<'_>) -> Result {
        match *self {
            Record::Create {
                dir,
                ino,
                attrs: a,
                name,
                target,
            } => {
                w.u64s(&[dir, ino])?;
                w.u32s(&[a.mode, a.uid, a.gid, a.flags])?;
                w.u64s(&[a.rdev])?;
                w.u32s(&[a.handle_generation, a.project])?;
                w.text(name)?;
                w.text(target)
            }
            Record::Link { dir, ino, name } | Record::Unlink { dir, ino, name } => {
                w.u64s(&[dir, ino])?;
                w.text(name)
            }
            Record::Rename {
                old_dir,
                new_dir,
                ino,
                target,
                exchange,
                old_name,
                new_name,
            } => {
                w.u64s(&[old_dir, new_dir, ino, target])?;
                w.u32s(&[u32::from(exchange)])?;
                w.text(old_name)?;
                w.text(new_name)
            }
            Record::Attrs { ino, attrs } => put_attrs(w, ino, &attrs),
            Record::Size { ino, bytes } | Record::Grow { ino, bytes } => w.u64s(&[ino, bytes]),
            Record::Punch { ino, start, len } => w.u64s(&[ino, start, len]),
            Record::Preallocate {
                ino,
                start,
                phys,
                len,
            } => w.u64s(&[ino, start, phys, len]),
            Record::Write {
                ino,
                start,
                phys,
                csums,
            } => {
                w.u64s(&[ino, start, phys])?;
                w.bytes(csums)
            }
            Record::Xattr {
                ino,
                index,
                name,
                value,
            } => put_xattr(w, ino, index, name, value),
            _ => self.put_reserved(w),
        }
    }

    /// The body of a record of a reserved kind.
    fn put_reserved(&self, w: &mut Writer<'_>) -> Result {
        match *self {
            Record::Bytes {
                ino,
                offset,
                size,
                data,
            } => {
                w.u64s(&[ino, offset, size])?;
                w.bytes(data)
            }
            Record::Share {
                from,
                to,
                len,
                size,
            } => w.u64s(&[from.ino, from.start, to.ino, to.start, len, size]),
            Record::Shift {
                ino,
                start,
                len,
                insert,
            } => {
                w.u64s(&[ino, start, len])?;
                w.u32s(&[u32::from(insert)])
            }
            Record::Swap { one, other, len } => {
                w.u64s(&[one.ino, one.start, other.ino, other.start, len])
            }
            _ => Err(EINVAL),
        }
    }
}

fn put_attrs(w: &mut Writer<'_>, ino: u64, a: &Attrs) -> Result {
    w.u64s(&[ino, a.size])?;
    w.u32s(&[a.mode, a.uid, a.gid, a.flags, a.project, a.xflags])?;
    w.u64s(&[a.change])?;
    [a.atime, a.mtime, a.ctime]
        .iter()
        .try_for_each(|t| w.time(*t))
}

fn put_xattr(w: &mut Writer<'_>, ino: u64, index: u8, name: &[u8], value: Option<&[u8]>) -> Result {
    let len = value.map_or(REMOVED, |v| v.len() as u32);
    w.u64s(&[ino])?;
    w.u32s(&[u32::from(index), len])?;
    w.text(name)?;
    w.bytes(value.unwrap_or(&[]))
}

/// Decodes the fields of a record. `None` where it ends too early.
struct Reader<'a> {
    b: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let v = le32(self.b, self.at)?;
        self.at += 4;
        Some(v)
    }
    fn u64(&mut self) -> Option<u64> {
        let v = le64(self.b, self.at)?;
        self.at += 8;
        Some(v)
    }
    fn text(&mut self) -> Option<&'a [u8]> {
        let n = usize::from(le16(self.b, self.at)?);
        let s = self.b.get(self.at + 2..self.at + 2 + n)?;
        self.at += 2 + n;
        Some(s)
    }
    fn flag(&mut self) -> Option<bool> {
        match self.u32()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn place(&mut self) -> Option<FilePlace> {
        Some(FilePlace {
            ino: self.u64()?,
            start: self.u64()?,
        })
    }
    fn time(&mut self) -> Option<Time> {
        let sec = self.u64()? as i64;
        let nsec = self.u32()?;
        (nsec < 1_000_000_000).then_some(Time { sec, nsec })
    }

    /// The body of a record of this kind.
    fn body(&mut self, kind: u8) -> Option<Record<'a>> {
        Some(match kind {
            1 => self.create()?,
            2 => Record::Link {
                dir: self.u64()?,
                ino: self.u64()?,
                name: self.text()?,
            },
            3 => Record::Unlink {
                dir: self.u64()?,
                ino: self.u64()?,
                name: self.text()?,
            },
            4 => Record::Rename {
                old_dir: self.u64()?,
                new_dir: self.u64()?,
                ino: self.u64()?,
                target: self.u64()?,
                exchange: self.flag()?,
                old_name: self.text()?,
                new_name: self.text()?,
            },
            5 => self.attrs()?,
            6 => Record::Size {
                ino: self.u64()?,
                bytes: self.u64()?,
            },
            7 => Record::Punch {
                ino: self.u64()?,
                start: self.u64()?,
                len: self.u64()?,
            },
            8 => Record::Preallocate {
                ino: self.u64()?,
                start: self.u64()?,
                phys: self.u64()?,
                len: self.u64()?,
            },
            9 => self.write()?,
            10 => self.xattr()?,
            11 => Record::Grow {
                ino: self.u64()?,
                bytes: self.u64()?,
            },
            12 => self.inline_bytes()?,
            13 => self.share()?,
            14 => self.shift()?,
            15 => self.swap()?,
            _ => return None,
        })
    }

    fn create(&mut self) -> Option<Record<'a>> {
        let (dir, ino) = (self.u64()?, self.u64()?);
        let attrs = Attrs {
            mode: self.u32()?,
            uid: self.u32()?,
            gid: self.u32()?,
            flags: self.u32()?,
            rdev: self.u64()?,
            handle_generation: self.u32()?,
            project: self.u32()?,
            ..Attrs::default()
        };
        Some(Record::Create {
            dir,
            ino,
            attrs,
            name: self.text()?,
            target: self.text()?,
        })
    }

    fn attrs(&mut self) -> Option<Record<'a>> {
        let (ino, size) = (self.u64()?, self.u64()?);
        let attrs = Attrs {
            size,
            mode: self.u32()?,
            uid: self.u32()?,
            gid: self.u32()?,
            flags: self.u32()?,
            project: self.u32()?,
            xflags: self.u32()?,
            change: self.u64()?,
            atime: self.time()?,
            mtime: self.time()?,
            ctime: self.time()?,
            ..Attrs::default()
        };
        Some(Record::Attrs { ino, attrs })
    }

    fn write(&mut self) -> Option<Record<'a>> {
        let (ino, start, phys) = (self.u64()?, self.u64()?, self.u64()?);
        let csums = self.b.get(self.at..)?;
        self.at = self.b.len();
        let whole = !csums.is_empty() && csums.len() % 4 == 0;
        whole.then_some(Record::Write {
            ino,
            start,
            phys,
            csums,
        })
    }

    fn inline_bytes(&mut self) -> Option<Record<'a>> {
        let (ino, offset, size) = (self.u64()?, self.u64()?, self.u64()?);
        let data = self.b.get(self.at..)?;
        self.at = self.b.len();
        let end = offset.checked_add(data.len() as u64)?;
        let possible = (1..MAX_INO).contains(&ino)
            && (1..=MAX_BYTES).contains(&data.len())
            && end <= size
            && size <= i64::MAX as u64;
        possible.then_some(Record::Bytes {
            ino,
            offset,
            size,
            data,
        })
    }

    fn share(&mut self) -> Option<Record<'a>> {
        let (from, to) = (self.place()?, self.place()?);
        let (len, size) = (self.u64()?, self.u64()?);
        let possible = from.is_range(len)
            && to.is_range(len)
            && !from.meets(&to, len)
            && size <= i64::MAX as u64;
        possible.then_some(Record::Share {
            from,
            to,
            len,
            size,
        })
    }

    fn shift(&mut self) -> Option<Record<'a>> {
        let (ino, start, len) = (self.u64()?, self.u64()?, self.u64()?);
        let insert = self.flag()?;
        is_file_range(ino, start, len).then_some(Record::Shift {
            ino,
            start,
            len,
            insert,
        })
    }

    fn swap(&mut self) -> Option<Record<'a>> {
        let (one, other, len) = (self.place()?, self.place()?, self.u64()?);
        let possible = one.is_range(len) && other.is_range(len) && !one.meets(&other, len);
        possible.then_some(Record::Swap { one, other, len })
    }

    fn xattr(&mut self) -> Option<Record<'a>> {
        let (ino, index, len) = (self.u64()?, self.u32()?, self.u32()?);
        let name = self.text()?;
        let value = if len == REMOVED {
            None
        } else {
            let start = self.at;
            self.at = start.checked_add(len as usize)?;
            Some(self.b.get(start..self.at)?)
        };
        Some(Record::Xattr {
            ino,
            index: u8::try_from(index).ok()?,
            name,
            value,
        })
    }
}

/// Decodes the record at the start of `b`; returns it and the bytes behind it. `None` if the record
/// is malformed.
pub fn decode(b: &[u8]) -> Option<(Stamped<'_>, &[u8])> {
    let len = le32(b, 0)? as usize;
    let (b, rest) = (b.get(..len)?, b.get(len..)?);
    let kind = *b.get(4)?;
    let mut r = Reader { b, at: 8 };
    let generation = r.u64()?;
    if generation > MAX_GENERATION {
        return None;
    }
    let time = r.time()?;
    let zero = b.get(5..8)? == [0; 3] && r.u32()? == 0;
    let record = r.body(kind)?;
    if !zero || r.at != b.len() {
        return None;
    }
    let stamped = Stamped {
        generation,
        time,
        record,
    };
    Some((stamped, rest))
}

/// The number of data blocks that the records of a payload name. Stops at the first malformed
/// record.
pub fn data_blocks(payload: &[u8]) -> u64 {
    let (mut n, mut rest) = (0, payload);
    while let Some((r, next)) = decode(rest) {
        if let Record::Write { csums, .. } = r.record {
            n += csums.len() as u64 / 4;
        }
        rest = next;
    }
    n
}
