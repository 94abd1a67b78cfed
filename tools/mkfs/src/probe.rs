// SPDX-License-Identifier: GPL-2.0

//! Recognises the present content of a device by magic numbers.
//!
//! Tests: `tests/vm/t/034-mkfs-over-others.sh`.

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

/// (name, byte offset, magic number)
pub const MAGICS: &[(&str, u64, &[u8])] = &[
    ("XFS filesystem", 0, b"XFSB"),
    ("XFS log", 0, b"\xfe\xed\xba\xbe"),
    ("LUKS volume", 0, b"LUKS\xba\xbe"),
    ("LUKS volume", 0, b"SKUL\xba\xbe"),
    // The second header of LUKS 2 follows the first, which may have any of these sizes.
    ("LUKS volume", 0x4000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x8000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x10000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x20000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x40000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x80000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x100000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x200000, b"SKUL\xba\xbe"),
    ("LUKS volume", 0x400000, b"SKUL\xba\xbe"),
    ("squashfs filesystem", 0, b"hsqs"),
    ("cramfs filesystem", 0, b"\x45\x3d\xcd\x28"),
    ("romfs filesystem", 0, b"-rom1fs-"),
    ("BitLocker volume", 3, b"-FVE-FS-"),
    ("NTFS filesystem", 3, b"NTFS    "),
    ("exFAT filesystem", 3, b"EXFAT   "),
    ("FAT filesystem", 54, b"FAT1"),
    ("FAT filesystem", 82, b"FAT32   "),
    ("FAT filesystem", 82, b"MSWIN"),
    ("LVM physical volume", 512, b"LABELONE"),
    ("LVM physical volume", 0, b"LABELONE"),
    ("LVM physical volume", 1024, b"LABELONE"),
    ("partition table (GPT)", 512, b"EFI PART"),
    ("partition table (GPT)", 4096, b"EFI PART"),
    ("ext2/3/4 filesystem", 1080, b"\x53\xef"),
    ("f2fs filesystem", 1024, b"\x10\x20\xf5\xf2"),
    ("erofs filesystem", 1024, b"\xe2\xe1\xf5\xe0"),
    ("HFS+ filesystem", 1024, b"H+"),
    ("HFS+ filesystem", 1024, b"HX"),
    ("HFS filesystem", 1024, b"BD"),
    ("nilfs2 filesystem", 1030, b"\x34\x34"),
    ("minix filesystem", 1040, b"\x7f\x13"),
    ("minix filesystem", 1040, b"\x8f\x13"),
    ("minix filesystem", 1040, b"\x68\x24"),
    ("minix filesystem", 1040, b"\x78\x24"),
    ("minix filesystem", 1048, b"\x5a\x4d"),
    ("APFS container", 32, b"NXSB"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("swap space", 4086, b"SWAP-SPACE"),
    ("suspend image", 4086, b"S1SUSPEND"),
    ("suspend image", 4086, b"S2SUSPEND"),
    ("Linux RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("Linux RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    (
        "bcache device",
        4120,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    (
        "bcachefs filesystem",
        4120,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    ("ocfs2 filesystem", 8192, b"OCFSV2"),
    ("UFS filesystem", 9564, b"\x19\x01\x54\x19"),
    ("JFS filesystem", 32768, b"JFS1"),
    ("ISO 9660 filesystem", 32769, b"CD001"),
    ("UDF filesystem", 32769, b"BEA01"),
    ("UDF filesystem", 32769, b"NSR0"),
    ("btrfs filesystem", 65600, b"_BHRfS_M"),
    ("gfs2 filesystem", 65536, b"\x01\x16\x19\x70"),
    ("reiserfs filesystem", 65588, b"ReIsEr"),
    ("reiser4 filesystem", 65536, b"ReIsEr4"),
    ("UFS filesystem", 66908, b"\x19\x01\x54\x19"),
    ("ZFS member", 131072, b"\x0c\xb1\xba\x00\x00\x00\x00\x00"),
    ("ZFS member", 131072, b"\x00\x00\x00\x00\x00\xba\xb1\x0c"),
    ("VMFS volume", 0x100000, b"\x0d\xd0\x01\xc0"),
];

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
