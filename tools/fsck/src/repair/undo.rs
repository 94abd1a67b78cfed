// SPDX-License-Identifier: GPL-2.0

//! The undo file: what a repair overwrites.
//!
//! # Model
//!
//! [`Saving`] is a device that appends the old content of each block to a file, and syncs the file,
//! before it writes the block for the first time. [`restore`] writes that content back. It judges the
//! whole file before it writes anything, and may be repeated.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `ORDOUNDO` |
//! | 8 | 4 | version: 2 |
//! | 12 | 4 | bytes of a block: 4096 |
//! | 16 | 8 | blocks of the device |
//! | 24 | 16 | UUID of the filesystem |
//! | 40 | 8 | its node id |
//! | 48 | 4 | crc32c of the bytes before |
//! | 4096 | .. | records |
//!
//! A record is the address of a block, u64; flags, u32: 1 = the device could not read the block, so
//! there is nothing to restore; crc32c, u32, of address, flags and content; and the content. A record
//! that is not whole can only be at the end: the repair was cut off before it wrote that block, or up
//! to [`RUN`] blocks with it. All else is damage, and is refused.
//!
//! The last record of a repair that came to its end has address 2^64 - 1, flags 2, and as its content
//! the number of records before it, u64, and the generation of the superblock that was left, u64. With
//! it, all records must be whole, and the superblock on the device must not be newer. Without it, it is
//! not known whether the filesystem has been mounted for writing since.
//!
//! Tests: `tools/fsck/tests/repair.rs`, `tools/fuzz/tests/repair`.

use kernel::prelude::{Result as Done, EIO};
use ordofs_engine::engine::format::{le32, le64, Superblock};
use ordofs_engine::os::{crc32c, Backend, Block, Device};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const SIZE: usize = ordofs_engine::engine::BLOCK_SIZE;
const MAGIC: &[u8; 8] = b"ORDOUNDO";
const VERSION: u32 = 2;
const HEAD: usize = 16;
const RECORD: usize = HEAD + SIZE;
const UNREAD: u32 = 1;
const END: u32 = 2;
/// The most blocks that are written after one sync of the file.
pub const RUN: usize = 256;

/// An undo file that is being written.
pub struct Undo {
    file: File,
    saved: BTreeSet<u64>,
    /// A part could not be written: nothing is saved any more, so nothing is overwritten either.
    broken: bool,
}

/// The header of the undo file of a filesystem.
fn header(blocks: u64, uuid: [u8; 16], node_id: u64) -> [u8; SIZE] {
    let mut h = [0; SIZE];
    h[..8].copy_from_slice(MAGIC);
    h[8..12].copy_from_slice(&VERSION.to_le_bytes());
    h[12..16].copy_from_slice(&(SIZE as u32).to_le_bytes());
    h[16..24].copy_from_slice(&blocks.to_le_bytes());
    h[24..40].copy_from_slice(&uuid);
    h[40..48].copy_from_slice(&node_id.to_le_bytes());
    let sum = crc32c(0, &h[..48]);
    h[48..52].copy_from_slice(&sum.to_le_bytes());
    h
}

fn sum(head: &[u8], content: &[u8]) -> u32 {
    crc32c(crc32c(0, &head[..12]), content)
}

impl Undo {
    /// Makes the file, which must not exist, for a device of so many blocks.
    pub fn create(path: &Path, blocks: u64, sb: &Superblock) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(&header(blocks, sb.uuid, sb.node_id))?;
        file.sync_all()?;
        let dir = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        File::open(dir)?.sync_all()?;
        Ok(Self {
            file,
            saved: BTreeSet::new(),
            broken: false,
        })
    }

    /// Notes that the repair has come to its end, with a superblock of this generation.
    fn finish(&mut self, generation: u64) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("a part of it could not be written"));
        }
        let (mut head, mut content) = ([0; HEAD], [0; SIZE]);
        head[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        head[8..12].copy_from_slice(&END.to_le_bytes());
        content[..8].copy_from_slice(&(self.saved.len() as u64).to_le_bytes());
        content[8..16].copy_from_slice(&generation.to_le_bytes());
        let sum = sum(&head, &content);
        head[12..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all(&head)?;
        self.file.write_all(&content)?;
        self.file.sync_all()
    }

    /// Saves those of the blocks that have not been saved yet.
    fn save(&mut self, device: &Device, blocks: impl Iterator<Item = u64>) -> Done {
        let mut out = Vec::new();
        let mut new = Vec::new();
        for block in blocks.filter(|b| !self.saved.contains(b)) {
            let mut content = Block::zeroed()?;
            let flags = match device.read(block, &mut content) {
                Ok(()) => 0,
                Err(_) => UNREAD,
            };
            let mut head = [0; HEAD];
            head[..8].copy_from_slice(&block.to_le_bytes());
            head[8..12].copy_from_slice(&flags.to_le_bytes());
            let sum = sum(&head, &content[..]);
            head[12..].copy_from_slice(&sum.to_le_bytes());
            out.extend_from_slice(&head);
            out.extend_from_slice(&content[..]);
            new.push(block);
        }
        if new.is_empty() {
            return Ok(());
        }
        let whole = (SIZE + self.saved.len() * RECORD) as u64;
        let written = match self.broken {
            true => Err(io::ErrorKind::Other.into()),
            false => self.file.write_all(&out),
        };
        if written.and_then(|()| self.file.sync_data()).is_err() {
            // So it ends where it is good, and can be used.
            self.broken = true;
            let _ = self.file.set_len(whole);
            return Err(EIO);
        }
        self.saved.extend(new);
        Ok(())
    }
}

/// A device that saves what it overwrites.
pub struct Saving {
    base: Device,
    undo: Option<Mutex<Undo>>,
}

impl Saving {
    /// A device in front of `base`; without a file it saves nothing.
    pub fn new(base: Device, undo: Option<Undo>) -> Self {
        let undo = undo.map(Mutex::new);
        Self { base, undo }
    }

    fn save(&self, blocks: impl Iterator<Item = u64>) -> Done {
        match &self.undo {
            None => Ok(()),
            Some(undo) => undo
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .save(&self.base, blocks),
        }
    }
}

/// A [`Saving`] that several devices share.
#[derive(Clone)]
pub struct Shared(std::sync::Arc<Saving>);

impl Shared {
    /// Shares it.
    pub fn new(saving: Saving) -> Self {
        Self(std::sync::Arc::new(saving))
    }

    /// Notes in the file, if there is one, that the repair has come to its end.
    pub fn finish(&self) -> Result<(), String> {
        let Some(undo) = &self.0.undo else {
            return Ok(());
        };
        let sb = Superblock::read(&self.device()).map_err(|e| e.reason.to_owned())?;
        let mut undo = undo.lock().unwrap_or_else(PoisonError::into_inner);
        let done = undo.finish(sb.generation);
        done.map_err(|e| format!("the undo file cannot be written to its end: {e}"))
    }

    /// A device on it.
    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }
}

impl Backend for Shared {
    fn blocks(&self) -> u64 {
        self.0.base.blocks()
    }

    fn readonly(&self) -> bool {
        self.0.base.readonly()
    }

    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Done {
        let mut b = Block::zeroed()?;
        self.0.base.read(block, &mut b)?;
        *buf = *b;
        Ok(())
    }

    fn read_run(&self, first: u64, bufs: &mut [Block]) -> Done {
        self.0.base.read_run(first, bufs)
    }

    fn write(&self, block: u64, data: &[u8; SIZE]) -> Done {
        let mut b = Block::zeroed()?;
        b.copy_from_slice(data);
        self.write_run(&[(block, &b)])
    }

    fn write_run(&self, run: &[(u64, &Block)]) -> Done {
        for part in run.chunks(RUN) {
            self.0.save(part.iter().map(|(at, _)| *at))?;
            self.0.base.write(part)?;
        }
        Ok(())
    }

    fn flush(&self) -> Done {
        self.0.base.flush()
    }

    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Done {
        let mut b = Block::zeroed()?;
        b.copy_from_slice(data);
        self.write_fua_all(&[(block, &b)])
    }

    fn write_fua_all(&self, reqs: &[(u64, &Block)]) -> Done {
        self.0.save(reqs.iter().map(|(at, _)| *at))?;
        self.0.base.write_fua(reqs)
    }

    /// A discarded block could not be restored, so nothing is discarded.
    fn discard(&self, _start: u64, _len: u64) -> Done {
        Ok(())
    }
}

/// What a restore has done.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    /// Blocks that have their old content again.
    pub blocks: u64,
    /// Blocks that the repair could not read, and that stay as they are.
    pub unread: u64,
    /// The file ends in the middle of a record: the repair was cut off.
    pub cut_off: bool,
}

/// Reads the next record: address, flags, content. `None` at the end, an error if it is not whole.
fn record(file: &mut impl Read, buf: &mut [u8]) -> io::Result<Option<(u64, u32)>> {
    let mut n = 0;
    while n < buf.len() {
        match file.read(&mut buf[n..])? {
            0 => break,
            more => n += more,
        }
    }
    if n == 0 {
        return Ok(None);
    }
    let whole = n == buf.len() && le32(buf, 12) == Some(sum(&buf[..HEAD], &buf[HEAD..]));
    match (whole, le64(buf, 0), le32(buf, 8)) {
        (true, Some(block), Some(flags)) if flags <= END => Ok(Some((block, flags))),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Judges the file. Returns the number of whole records.
fn judge(file: &mut File, device: &Device) -> Result<(u64, bool), String> {
    let failed = |e: io::Error| format!("the undo file cannot be read: {e}");
    let mut h = [0; SIZE];
    file.read_exact(&mut h)
        .map_err(|_| "it is no undo file of fsck.ordofs".to_owned())?;
    let known = h.starts_with(MAGIC) && le32(&h, 48) == Some(crc32c(0, &h[..48]));
    if !known {
        return Err("it is no undo file of fsck.ordofs, or it is damaged".into());
    }
    if le32(&h, 8) != Some(VERSION) || le32(&h, 12) != Some(SIZE as u32) {
        return Err("the undo file is of another version".into());
    }
    if le64(&h, 16) != Some(device.blocks()) {
        return Err("the undo file is of a device of another size".into());
    }
    if let Ok(sb) = Superblock::read(device) {
        if h[24..40] != sb.uuid || le64(&h, 40) != Some(sb.node_id) {
            return Err("the undo file is of another filesystem".into());
        }
    }
    let end = end(file).map_err(failed)?;
    if let (Some((_, generation)), Ok(sb)) = (end, Superblock::read(device)) {
        if sb.generation > generation {
            return Err("the filesystem has been mounted for writing since the repair".into());
        }
    }
    file.seek(SeekFrom::Start(SIZE as u64)).map_err(failed)?;
    let n = whole(file, device.blocks())?;
    let len = file.metadata().map_err(failed)?.len();
    let rest = len.saturating_sub(SIZE as u64 + n * RECORD as u64);
    match end {
        Some((records, _)) if records == n => Ok((n, false)),
        None if rest <= (RUN * RECORD) as u64 => Ok((n, true)),
        _ => Err(format!("record {n} of the undo file is damaged")),
    }
}

/// The number of whole records before the last one, or before one that is not whole.
fn whole(file: &mut File, blocks: u64) -> Result<u64, String> {
    let mut reader = io::BufReader::with_capacity(1 << 20, &mut *file);
    let mut buf = vec![0; RECORD];
    let mut n = 0u64;
    loop {
        match record(&mut reader, &mut buf) {
            Ok(None | Some((_, END))) => return Ok(n),
            Ok(Some((block, _))) if block < blocks => n += 1,
            Ok(Some(_)) => return Err("the undo file has an impossible record".into()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(n),
            Err(e) => return Err(format!("the undo file cannot be read: {e}")),
        }
    }
}

/// What the last record of a repair that came to its end says: the number of records before it, and the
/// generation that was left.
fn end(file: &mut File) -> io::Result<Option<(u64, u64)>> {
    let len = file.metadata()?.len();
    let Some(at) = len
        .checked_sub(RECORD as u64)
        .filter(|at| *at >= SIZE as u64)
    else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(at))?;
    let mut buf = vec![0; RECORD];
    let last = record(file, &mut buf).ok().flatten();
    let words = le64(&buf, HEAD).zip(le64(&buf, HEAD + 8));
    Ok(words.filter(|_| last == Some((u64::MAX, END))))
}

/// Writes back what the file has.
pub fn restore(path: &Path, device: &Device) -> Result<Restored, String> {
    let failed = |e: io::Error| format!("the undo file cannot be read: {e}");
    let mut file = File::open(path).map_err(failed)?;
    let (records, cut_off) = judge(&mut file, device)?;
    file.seek(SeekFrom::Start(SIZE as u64)).map_err(failed)?;
    let mut reader = io::BufReader::with_capacity(1 << 20, &mut file);
    let mut done = Restored {
        blocks: 0,
        unread: 0,
        cut_off,
    };
    let mut buf = vec![0; RECORD];
    for _ in 0..records {
        let Some((block, flags)) = record(&mut reader, &mut buf).map_err(failed)? else {
            return Err("the undo file changed while it was read".into());
        };
        if flags & UNREAD != 0 {
            done.unread += 1;
            continue;
        }
        let mut b = Block::zeroed().map_err(|e| format!("{e:?}"))?;
        b.copy_from_slice(&buf[HEAD..]);
        device
            .write(&[(block, &b)])
            .map_err(|e| format!("block {block} cannot be written: {e:?}"))?;
        done.blocks += 1;
    }
    device.flush().map_err(|e| format!("cannot write: {e:?}"))?;
    Ok(done)
}
