// SPDX-License-Identifier: GPL-2.0

//! Remains of earlier filesystems, in places where OrdoFS does not write by itself.
//!
//! # Model
//!
//! Making an OrdoFS zeroes the first MiB. That is not enough: other formats keep copies of their
//! superblocks elsewhere, and their tools look for them. If blkid(8) does not recognise a device,
//! fsck(8) runs e2fsck on it; e2fsck finds a backup superblock where a group of blocks usually
//! begins, and destroys the new filesystem by "repairing" the old one.
//!
//! So [`find`] lists those places before anything is changed, because their number and distance are
//! written in blocks that will be gone. [`Remains::wipe`] zeroes them, and the end of the space. It
//! does so after the discard, because a discarded block may read as its old content at one time and
//! as zeroes at another.
//!
//! Only the space of the new filesystem is touched, and only single blocks are read. The cost
//! depends on the number of copies, not on the size of the device.
//!
//! | format | copies |
//! |---|---|
//! | ext2/3/4 | the start of group 1 and of powers of 3, 5 and 7; of all groups without `sparse_super`; of the groups that `sparse_super2` names |
//! | XFS | the start of every allocation group |
//! | btrfs, ocfs2, bcachefs, LUKS, VMFS | fixed places |
//! | md, GPT, ZFS, NTFS, HFS+, nilfs2, firmware RAID | the end of the device |
//!
//! Tests: `tools/mkfs/tests/nothing_remains.rs`, `tests/vm/t/034-mkfs-over-others.sh`.

use crate::probe::{has, MAGICS};
use ordofs_engine::engine::format::places::AREA_BLOCKS;
use ordofs_engine::engine::format::{le16, le32, le64};
use ordofs_engine::engine::BLOCK_SIZE;
use ordofs_engine::os::file::FileDisk;
use std::collections::BTreeSet;
use std::io;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// The bytes at the start that mkfs overwrites anyway.
const HEAD: u64 = AREA_BLOCKS * BLOCK;

/// Bytes at the end in which other formats keep copies.
const TAIL: u64 = 1 << 20;

/// The most copies of one filesystem to look for. XFS has one for each allocation group, and has a
/// few hundred groups unless a tiny filesystem was grown a thousandfold.
const MOST: u64 = 1 << 14;

/// Copies of superblocks far from both ends: (offset of the magic number, magic number).
const FAR: &[(u64, &[u8])] = &[
    // btrfs: the second and third superblock.
    ((64 << 20) + 64, b"_BHRfS_M"),
    ((256 << 30) + 64, b"_BHRfS_M"),
    // bcachefs: the second superblock behind a first one of the usual size.
    (
        (1 << 20) + 4096 + 24,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    // ocfs2: backups.
    (1 << 30, b"OCFSV2"),
    (4 << 30, b"OCFSV2"),
    (16 << 30, b"OCFSV2"),
    (64 << 30, b"OCFSV2"),
    (256 << 30, b"OCFSV2"),
    (1 << 40, b"OCFSV2"),
];

/// Blocks of 4096 bytes to be zeroed, by their first byte.
pub struct Remains(BTreeSet<u64>);

/// Looks for copies in the first `bytes` bytes of a device.
pub fn find(disk: &FileDisk, bytes: u64) -> io::Result<Remains> {
    let mut finder = Finder {
        disk,
        bytes,
        found: BTreeSet::new(),
    };
    let magics = MAGICS.iter().map(|(_, at, magic)| (*at, *magic));
    for (at, magic) in magics.chain(FAR.iter().copied()) {
        finder.note(at, magic)?;
    }
    finder.ext()?;
    finder.xfs()?;
    Ok(Remains(finder.found))
}

impl Remains {
    /// Zeroes the copies, and the end of the first `bytes` bytes of the device.
    pub fn wipe(&self, disk: &FileDisk, bytes: u64) -> io::Result<()> {
        for at in &self.0 {
            disk.zero(*at, (at + BLOCK).min(bytes))?;
        }
        let start = bytes.saturating_sub(TAIL) / BLOCK * BLOCK;
        disk.zero(start, bytes)
    }
}

/// The geometry of an ext2/3/4.
struct Ext {
    block_size: u64,
    first_block: u64,
    group_blocks: u64,
    groups: u64,
    /// `sparse_super` or `sparse_super2`.
    is_sparse: bool,
    /// The groups with copies that `sparse_super2` names.
    named: [u64; 2],
}

const EXT_MAGIC: &[u8] = b"\x53\xef";
const EXT_MAGIC_AT: u64 = 56;

impl Ext {
    /// Decodes an ext superblock.
    fn decode(sb: &[u8]) -> Option<Self> {
        const COMPAT_SPARSE_SUPER2: u32 = 0x200;
        const INCOMPAT_64BIT: u32 = 0x80;
        const RO_COMPAT_SPARSE_SUPER: u32 = 1;
        if le16(sb, EXT_MAGIC_AT as usize)?.to_le_bytes() != EXT_MAGIC {
            return None;
        }
        let block_size = 1024u64
            .checked_shl(le32(sb, 24)?)
            .filter(|s| *s <= 1 << 16)?;
        let (compat, incompat, ro_compat) = (le32(sb, 92)?, le32(sb, 96)?, le32(sb, 100)?);
        let high = if incompat & INCOMPAT_64BIT != 0 {
            u64::from(le32(sb, 0x150)?) << 32
        } else {
            0
        };
        let blocks = u64::from(le32(sb, 4)?) | high;
        let group_blocks = u64::from(le32(sb, 32)?);
        let sparse2 = compat & COMPAT_SPARSE_SUPER2 != 0;
        Some(Self {
            block_size,
            first_block: u64::from(le32(sb, 20)?),
            group_blocks,
            groups: blocks.checked_div(group_blocks)?.saturating_add(1),
            is_sparse: sparse2 || ro_compat & RO_COMPAT_SPARSE_SUPER != 0,
            named: match sparse2 {
                true => [u64::from(le32(sb, 0x24c)?), u64::from(le32(sb, 0x250)?)],
                false => [0, 0],
            },
        })
    }

    /// The groups that may have a copy, without the first one, which has the superblock itself.
    fn copies(&self) -> BTreeSet<u64> {
        let mut out = BTreeSet::from([1]);
        out.extend(self.named);
        if !self.is_sparse {
            out.extend(1..self.groups.min(MOST));
        }
        for base in [3u64, 5, 7] {
            let powers = std::iter::successors(Some(base), |g| g.checked_mul(base));
            out.extend(powers.take_while(|g| *g < self.groups));
        }
        out.remove(&0);
        out
    }

    /// The offset of group `g`, in bytes.
    fn group_start(&self, g: u64) -> Option<u64> {
        let block = self.group_blocks.checked_mul(g)?;
        block
            .checked_add(self.first_block)?
            .checked_mul(self.block_size)
    }
}

struct Finder<'a> {
    disk: &'a FileDisk,
    bytes: u64,
    found: BTreeSet<u64>,
}

impl Finder<'_> {
    /// Notes the block if the magic number is there.
    fn note(&mut self, at: u64, magic: &[u8]) -> io::Result<()> {
        let block = at / BLOCK * BLOCK;
        if block >= HEAD && block < self.bytes && has(self.disk, at, magic)? {
            self.found.insert(block);
        }
        Ok(())
    }

    fn ext(&mut self) -> io::Result<()> {
        // The place of the superblock, and the places where e2fsck looks if it is gone, for each
        // block size.
        let usual = (10..=16).map(|shift| match shift {
            10 => 8193 << 10,
            _ => 8u64 << (2 * shift),
        });
        let mut sb = [0; 1024];
        for at in std::iter::once(1024).chain(usual) {
            if at >= self.bytes || self.disk.read_at(at, &mut sb)? < sb.len() {
                continue;
            }
            let Some(ext) = Ext::decode(&sb) else {
                continue;
            };
            self.note(at + EXT_MAGIC_AT, EXT_MAGIC)?;
            for start in ext.copies().into_iter().filter_map(|g| ext.group_start(g)) {
                if start < self.bytes {
                    self.note(start + EXT_MAGIC_AT, EXT_MAGIC)?;
                }
            }
        }
        Ok(())
    }

    fn xfs(&mut self) -> io::Result<()> {
        const MAGIC: &[u8] = b"XFSB";
        let mut sb = [0; 512];
        if self.disk.read_at(0, &mut sb)? < sb.len() || !sb.starts_with(MAGIC) {
            return Ok(());
        }
        // XFS is big-endian.
        let be32 = |at: usize| le32(&sb, at).map_or(0, u32::swap_bytes);
        let dblocks = le64(&sb, 8).map_or(0, u64::swap_bytes);
        let (block_size, ag_blocks) = (u64::from(be32(4)), u64::from(be32(84)));
        // The number of allocation groups in the superblock is no more reliable than this.
        let ags = dblocks.checked_div(ag_blocks).unwrap_or(0);
        for ag in 1..=ags.min(MOST) {
            match (ag * ag_blocks).checked_mul(block_size) {
                Some(at) if at < self.bytes => self.note(at, MAGIC)?,
                _ => break,
            }
        }
        Ok(())
    }
}
