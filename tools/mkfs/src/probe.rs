// SPDX-License-Identifier: GPL-2.0

//! Recognises what is on a device already, by magic numbers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a device holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing that is known.
    Nothing,
    /// An OrdoFS.
    Ours,
    /// Something else; its name.
    Foreign(&'static str),
}

/// (what, byte offset, magic)
const MAGICS: &[(&str, u64, &[u8])] = &[
    ("XFS filesystem", 0, b"XFSB"),
    ("XFS log", 0, b"\xfe\xed\xba\xbe"),
    ("LUKS volume", 0, b"LUKS\xba\xbe"),
    ("LUKS volume", 0, b"SKUL\xba\xbe"),
    ("LUKS volume", 16384, b"SKUL\xba\xbe"),
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

/// Copies of superblocks far from both ends: (offset, magic offset, magic).
const FAR: &[(u64, u64, &[u8])] = &[(64 << 20, 64, b"_BHRfS_M"), (256 << 30, 64, b"_BHRfS_M")];

/// Bytes at the end of the device in which other formats keep copies.
const TAIL: u64 = 1 << 20;

fn has(file: &File, at: u64, magic: &[u8]) -> io::Result<bool> {
    let mut buf = [0; 16];
    let Some(buf) = buf.get_mut(..magic.len()) else {
        return Ok(false);
    };
    match file.read_exact_at(buf, at) {
        Ok(()) => Ok(buf == magic),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// A DOS partition table: the boot signature and four plausible entries, one of them in use.
fn dos_table(file: &File) -> io::Result<bool> {
    let mut sector = [0u8; 512];
    match file.read_exact_at(&mut sector, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        r => r?,
    }
    let entries = || sector[446..510].chunks_exact(16);
    Ok(sector[510..] == [0x55, 0xaa]
        && entries().all(|e| e[0] & 0x7f == 0)
        && entries().any(|e| e[4] != 0 && e[12..16] != [0; 4]))
}

/// Looks at a device of `bytes` bytes.
pub fn probe(file: &File, bytes: u64) -> io::Result<Content> {
    for (what, at, magic) in MAGICS {
        if has(file, *at, magic)? {
            return Ok(Content::Foreign(what));
        }
    }
    let raid = b"\xfc\x4e\x2b\xa9";
    let old_raid = (bytes & !0xffff).checked_sub(0x10000);
    let new_raid = bytes.checked_sub(8192).map(|at| at & !0xfff);
    for at in [old_raid, new_raid].into_iter().flatten() {
        if has(file, at, raid)? {
            return Ok(Content::Foreign("Linux RAID member"));
        }
    }
    if dos_table(file)? {
        return Ok(Content::Foreign("partition table (DOS)"));
    }
    if let Some(at) = bytes.checked_sub(512) {
        if has(file, at, b"EFI PART")? {
            return Ok(Content::Foreign("partition table (GPT backup)"));
        }
    }
    for slot in ordofs_engine::engine::format::SB_SLOTS {
        let at = slot * ordofs_engine::engine::BLOCK_SIZE as u64;
        if has(
            file,
            at,
            &ordofs_engine::engine::format::superblock::SB_MAGIC,
        )? {
            return Ok(Content::Ours);
        }
    }
    Ok(Content::Nothing)
}

/// Removes what other formats keep where making an OrdoFS does not write anyway: the end of the
/// device and copies in the middle.
pub fn wipe_foreign(file: &File, bytes: u64) -> io::Result<()> {
    let zeroes = vec![0u8; TAIL as usize];
    let start = bytes.saturating_sub(TAIL);
    let tail = zeroes.get(..(bytes - start) as usize).unwrap_or(&zeroes);
    file.write_all_at(tail, start)?;
    for (at, off, magic) in FAR {
        if at + 4096 <= bytes && has(file, at + off, magic)? {
            file.write_all_at(&zeroes[..4096], *at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, bytes: u64) -> (std::path::PathBuf, File) {
        let path = std::env::temp_dir().join(format!("mkfs.ordofs.{}.{name}", std::process::id()));
        let opts = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let file = opts.expect("temporary file");
        file.set_len(bytes).expect("size");
        (path, file)
    }

    #[test]
    fn foreign_signatures_are_seen_and_wiped() {
        let bytes = 80 << 20;
        let (path, f) = image("probe", bytes);
        assert_eq!(probe(&f, bytes).unwrap(), Content::Nothing);
        f.write_all_at(b"\x53\xef", 1080).unwrap();
        assert_eq!(
            probe(&f, bytes).unwrap(),
            Content::Foreign("ext2/3/4 filesystem")
        );
        f.write_all_at(&[0; 2], 1080).unwrap();
        f.write_all_at(b"EFI PART", bytes - 512).unwrap();
        f.write_all_at(b"_BHRfS_M", (64 << 20) + 64).unwrap();
        assert_eq!(
            probe(&f, bytes).unwrap(),
            Content::Foreign("partition table (GPT backup)")
        );
        wipe_foreign(&f, bytes).unwrap();
        assert_eq!(probe(&f, bytes).unwrap(), Content::Nothing);
        assert!(!has(&f, (64 << 20) + 64, b"_BHRfS_M").unwrap());
        f.write_all_at(b"OrdoFS\0\x01", 16 * 4096).unwrap();
        assert_eq!(probe(&f, bytes).unwrap(), Content::Ours);
        std::fs::remove_file(path).unwrap();
    }
}
