// SPDX-License-Identifier: GPL-2.0

//! Recognises the present content of a device by magic numbers.
//!
//! Tests: `tests/vm/t/034-mkfs-over-others.sh`.

pub use ordofs_cli::magics::MAGICS;
use ordofs_engine::engine::format::places::{SLOTS, TWIN_BASES};
use ordofs_engine::engine::format::superblock::SB_MAGIC;
use ordofs_engine::engine::BLOCK_SIZE;
use ordofs_engine::os::file::FileDisk;
use std::io;

/// The content of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing known.
    Nothing,
    /// An OrdoFS.
    Ours,
    /// Another format, by its name.
    Foreign(&'static str),
}

/// Whether the device has these bytes at byte `at`.
pub fn has(disk: &FileDisk, at: u64, magic: &[u8]) -> io::Result<bool> {
    let mut buf = [0; 16];
    let Some(buf) = buf.get_mut(..magic.len()) else {
        return Ok(false);
    };
    Ok(disk.read_at(at, buf)? == magic.len() && buf == magic)
}

/// A DOS partition table: the boot signature and four plausible entries, one of them in use.
fn dos_table(disk: &FileDisk) -> io::Result<bool> {
    let mut sector = [0u8; 512];
    if disk.read_at(0, &mut sector)? < sector.len() {
        return Ok(false);
    }
    let entries = || sector[446..510].chunks_exact(16);
    Ok(sector[510..] == [0x55, 0xaa]
        && entries().all(|e| e[0] & 0x7f == 0)
        && entries().any(|e| e[4] != 0 && e[12..16] != [0; 4]))
}

/// Recognises formats with a magic number at the end of the device.
pub fn probe_end(disk: &FileDisk) -> io::Result<Option<&'static str>> {
    let bytes = disk.bytes();
    let raid = b"\xfc\x4e\x2b\xa9";
    let old_raid = (bytes & !0xffff).checked_sub(0x10000);
    let new_raid = bytes.checked_sub(8192).map(|at| at & !0xfff);
    for at in [old_raid, new_raid].into_iter().flatten() {
        if has(disk, at, raid)? {
            return Ok(Some("Linux RAID member"));
        }
    }
    if let Some(at) = bytes.checked_sub(512) {
        if has(disk, at, b"EFI PART")? {
            return Ok(Some("partition table (GPT backup)"));
        }
    }
    Ok(None)
}

/// Recognises the content of a device.
pub fn probe(disk: &FileDisk) -> io::Result<Content> {
    for (what, at, magic) in MAGICS {
        if has(disk, *at, magic)? {
            return Ok(Content::Foreign(what));
        }
    }
    if dos_table(disk)? {
        return Ok(Content::Foreign("partition table (DOS)"));
    }
    if let Some(what) = probe_end(disk)? {
        return Ok(Content::Foreign(what));
    }
    for base in std::iter::once(0).chain(TWIN_BASES) {
        for slot in SLOTS {
            // The last byte of the magic number is the version of the format.
            if has(disk, (base + slot) * BLOCK_SIZE as u64, &SB_MAGIC[..7])? {
                return Ok(Content::Ours);
            }
        }
    }
    Ok(Content::Nothing)
}
