// SPDX-License-Identifier: GPL-2.0

//! Judging the other superblock slot, if its checksum is wrong: a write that a power cut tore, an
//! older superblock that is damaged (harmless), or damage that may have hit the newest superblock.
//!
//! # Model
//!
//! Let A be the intact superblock, of generation g. The other slot held X, which is older, and the
//! next commit writes Y over it, which is newer. A torn write leaves some sectors (512 bytes) of X
//! and some of Y. If all sectors are Y's, the commit was complete and may have been acknowledged,
//! so a wrong checksum is damage. The question is therefore from which superblock each sector can
//! be.
//!
//! - Sector 0 has the generation. The fields that never change are equal to A's; positions and
//!   counters that only grow are on the right side of A's.
//! - Sectors 1 to 3 have pointers to roots, with the generation of the commit that wrote the root.
//!   A root of X is A's, or A replaced it (A's has generation g). A root of Y is A's, or has Y's
//!   generation.
//! - All else is zero.
//!
//! Y need not be the first attempt. A mount after a torn write commits at once, with a generation
//! that no part of the slot carries ([`Other::newest`]). So a mixture of two attempts differs from
//! one attempt that is damaged.
//!
//! One case cannot be told apart: a sector of roots that A did not change equals A's and can belong
//! to X as well as to Y. If there is one, the slot passes for torn, unless a single flipped bit
//! explains the checksum; the checksum itself shows which bit. docs/FORMAT.md §2 has the reasoning
//! in full.
//!
//! Tests: `tools/engine/tests/superblocks.rs`, `tests/vm/t/067-damage.sh`.

use super::superblock::{is_intact, O_ROOT_AGS, O_ROOT_INODE, O_ROOT_SPARE, SB_MAGIC};
use super::{le32, le64, NodePtr, Superblock, BLOCK_SIZE, LOG_SEQ_GAP, NODE_PTR_LEN, SB_SLOTS};
use crate::os::crc32c;
use core::ops::Range;

/// Bytes of a sector, which a device writes whole or not at all.
const SECTOR: usize = 512;
/// Sectors that are not all zero: one of fields and three of roots.
const SECTORS: usize = 4;
/// Generations of superblocks written one after the other differ by less than this: by 1 or 3, and
/// by 2 more for each torn attempt.
const MAX_STEP: u64 = 64;
/// The polynomial of CRC-32C, reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The bytes of sector 0 that are the same in all superblocks of a filesystem.
const FIXED: [Range<usize>; 6] = [0..8, 12..144, 152..172, 176..192, 216..224, 240..272];

/// The state of the slot that does not hold the newest intact superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Other {
    /// Intact, and older.
    Intact,
    /// The device cannot read it.
    Unread,
    /// A write that a power cut tore, or that never began.
    Torn {
        /// The newest generation that a part of it carries; 0 if none is newer than the intact one.
        newest: u64,
    },
    /// Damaged, but not a complete superblock newer than the intact one.
    Older {
        /// As for `Torn`.
        newest: u64,
        /// The damage, in words.
        why: &'static str,
    },
    /// Damaged, and perhaps the newest.
    Damaged {
        /// The damage, in words.
        why: &'static str,
    },
}

impl Other {
    /// The newest generation that a part of the slot carries; 0 if none matters.
    pub fn newest(&self) -> u64 {
        match *self {
            Self::Torn { newest } | Self::Older { newest, .. } => newest,
            _ => 0,
        }
    }

    /// Whether the next commit should come soon, because only one slot is good.
    pub fn heals(&self) -> bool {
        matches!(self, Self::Torn { .. } | Self::Older { .. })
    }
}

/// The superblocks that a sector can be from.
#[derive(Clone, Copy, Default)]
struct Origin {
    /// X, which is older than A.
    x: bool,
    /// Y, which is newer than A.
    y: bool,
    /// The generation of Y, where the sector has it; else 0.
    generation: u64,
}

/// A, the intact superblock.
struct Intact<'a> {
    sb: &'a Superblock,
    bytes: &'a [u8],
}

/// Judges a block `b` from slot `slot`, with magic number and checksum right, that is not the
/// newest superblock `sb` (bytes `a`).
pub(super) fn judge_intact(slot: usize, sb: &Superblock, a: &[u8], b: &[u8]) -> Other {
    let generation = le64(b, super::superblock::O_GENERATION).unwrap_or(0);
    if generation & 1 != slot as u64 {
        let why = "it holds a superblock that belongs in the other slot";
        return Other::Damaged { why };
    }
    if !same_filesystem(a, b) {
        let why = "it belongs to another filesystem";
        return Other::Damaged { why };
    }
    if generation >= sb.generation || sb.generation - generation > MAX_STEP {
        let why = "its generation does not fit that of the other slot";
        return Other::Older { newest: 0, why };
    }
    Other::Intact
}

/// Whether the fields that never change are equal.
fn same_filesystem(a: &[u8], b: &[u8]) -> bool {
    FIXED.iter().all(|r| a.get(r.clone()) == b.get(r.clone()))
}

fn is_zero(b: &[u8]) -> bool {
    b.iter().all(|x| *x == 0)
}

/// Judges a block `b` with a wrong magic number or checksum, beside the superblock `sb` with the
/// bytes `a`. May repair a flipped bit of `b`.
pub(super) fn judge(sb: &Superblock, a: &[u8; BLOCK_SIZE], b: &mut [u8; BLOCK_SIZE]) -> Other {
    let a = Intact { sb, bytes: a };
    let found = a.sectors(b);
    if let Some(generation) = repaired(b) {
        // By chance, one torn write in 130,000 has the checksum of a flipped bit. But without that
        // bit it is still not a superblock of one generation.
        if !a.sectors(b).is_mixture() {
            let why = "a single bit of it is flipped";
            return match generation < sb.generation {
                true => Other::Older { newest: 0, why },
                false => Other::Damaged { why },
            };
        }
    }
    let newest = found.newest;
    match (found.x, found.wrong) {
        // Without a sector of X it may have been complete.
        (false, Some(why)) => Other::Damaged { why },
        (false, None) if !found.attempts && !found.either => Other::Damaged {
            why: "it is of one generation, but its checksum is wrong",
        },
        (true, Some(why)) => Other::Older { newest, why },
        (true, None) if newest == 0 && sb.generation > 1 => Other::Older {
            newest,
            why: "it is of one generation, but its checksum is wrong",
        },
        _ => Other::Torn { newest },
    }
}

/// The superblocks that the sectors of a slot can be from.
struct Sectors {
    /// A sector can be from X only.
    x: bool,
    /// A sector can be from X or Y.
    either: bool,
    /// The newest generation after A's that a sector has; 0 if none has one.
    newest: u64,
    /// Two sectors have different generations after A's.
    attempts: bool,
    /// Why a sector can be from neither.
    wrong: Option<&'static str>,
}

impl Sectors {
    /// Whether some sectors are from X and others from Y.
    fn is_mixture(&self) -> bool {
        self.x && self.newest != 0
    }
}

impl Intact<'_> {
    /// The superblocks that the sectors of `b` can be from.
    fn sectors(&self, b: &[u8; BLOCK_SIZE]) -> Sectors {
        let mut wrong = None;
        let mut x = false;
        let mut y = [0u64; SECTORS];
        let mut either = false;
        for k in 0..SECTORS {
            let from = match k {
                0 => self.fields(b),
                _ => self.roots(b, k),
            };
            let from = from.unwrap_or_else(|why| {
                wrong = wrong.or(Some(why));
                Origin::default()
            });
            x |= from.x && !from.y;
            either |= from.x && from.y;
            if let (true, Some(slot)) = (from.y && !from.x, y.get_mut(k)) {
                // A removed root has no generation: assume the greatest that a first attempt can
                // have.
                *slot = match from.generation {
                    0 => self.sb.generation.saturating_add(3),
                    g => g,
                };
            }
        }
        if !b.get(SECTORS * SECTOR..).is_some_and(is_zero) {
            wrong = wrong.or(Some("what must be zero is not"));
        }
        let newest = y.iter().copied().max().unwrap_or(0);
        Sectors {
            x,
            either,
            newest,
            attempts: y.iter().any(|g| *g != 0 && *g != newest),
            wrong,
        }
    }

    /// Whether the sector is as mkfs left it: mkfs wipes the slots, and the first commit went to
    /// the other one.
    fn never_written(&self, sector: &[u8]) -> bool {
        self.sb.generation == 1 && is_zero(sector)
    }

    /// The superblocks that sector 0 can be from.
    fn fields(&self, b: &[u8]) -> Result<Origin, &'static str> {
        if self.never_written(b.get(..SECTOR).unwrap_or(&[])) {
            return Ok(Origin {
                x: true,
                ..Origin::default()
            });
        }
        if b.get(..SB_MAGIC.len()) != Some(&SB_MAGIC[..]) {
            return Err("there is no superblock in it");
        }
        if !same_filesystem(self.bytes, b) || !b.get(288..SECTOR).is_some_and(is_zero) {
            return Err("a field that never changes differs from that of the other slot");
        }
        let f = Superblock::variable_fields(b).ok_or("malformed field")?;
        let a = self.sb;
        let newer = f.generation > a.generation;
        let (old, new) = match newer {
            true => (
                (a.log_pos, a.log_seq, a.next_ino),
                (f.log_pos, f.log_seq, f.next_ino),
            ),
            false => (
                (f.log_pos, f.log_seq, f.next_ino),
                (a.log_pos, a.log_seq, a.next_ino),
            ),
        };
        let step = f.generation.abs_diff(a.generation);
        let grown = |old: u64, new: u64, most: u64| new >= old && new - old <= most;
        let good = step & 1 == 1
            && step <= MAX_STEP
            && f.inodes != 0
            && f.inodes < f.next_ino
            && f.free <= a.blocks
            && grown(old.0, new.0, a.log_len)
            && grown(old.1, new.1, a.log_len + LOG_SEQ_GAP)
            && old.2 <= new.2;
        if !good {
            return Err("a field does not fit that of the other slot");
        }
        Ok(Origin {
            x: !newer,
            y: newer,
            generation: f.generation,
        })
    }

    /// The superblocks that sector `k`, 1 to 3, can be from.
    fn roots(&self, b: &[u8], k: usize) -> Result<Origin, &'static str> {
        let range = k * SECTOR..(k + 1) * SECTOR;
        let sector = b.get(range.clone()).unwrap_or(&[]);
        let mut from = Origin {
            x: true,
            y: true,
            generation: 0,
        };
        let mut roots = 0;
        for at in range.step_by(NODE_PTR_LEN) {
            let (old, new) = (root(self.bytes, at)?, root(b, at)?);
            if !self.has_root(at) {
                // Zero in all superblocks.
                if new.is_some() || !b.get(at..at + NODE_PTR_LEN).is_some_and(is_zero) {
                    return Err("what must be zero is not");
                }
                continue;
            }
            roots += 1;
            self.root(&mut from, old, new)?;
            // There is a root directory, and AG 0 has the superblocks.
            if [O_ROOT_INODE, O_ROOT_AGS].contains(&at) && new.is_none() {
                (from.x, from.y) = (false, false);
            }
        }
        if self.never_written(sector) {
            from.x = true;
        }
        match from {
            // No root is ever there, so the sector shows nothing.
            _ if roots == 0 => Ok(Origin::default()),
            Origin {
                x: false, y: false, ..
            } => Err("a root that no possible generation can have"),
            from => Ok(from),
        }
    }

    /// Whether there can be a root at byte `at`.
    fn has_root(&self, at: usize) -> bool {
        match at {
            O_ROOT_INODE..O_ROOT_SPARE => true,
            O_ROOT_AGS.. => (at - O_ROOT_AGS) / NODE_PTR_LEN < self.sb.ag_count as usize,
            _ => false,
        }
    }

    /// Narrows `from` by one root: `old` is A's, `new` that of the slot.
    fn root(
        &self,
        from: &mut Origin,
        old: Option<NodePtr>,
        new: Option<NodePtr>,
    ) -> Result<(), &'static str> {
        let g = self.sb.generation;
        // A wrote it, so X had another root there, or none.
        let replaced = old.is_none_or(|p| p.generation == g);
        if old == new {
            from.x &= old.is_none_or(|p| p.generation != g);
            return Ok(());
        }
        let Some(p) = new else {
            from.x &= replaced;
            return Ok(());
        };
        if p.addr >= self.sb.blocks || p.addr2 >= self.sb.blocks || p.generation == g {
            return Err("an impossible root of a tree");
        }
        if p.generation < g {
            from.x &= replaced;
            from.y = false;
            return Ok(());
        }
        let fits = (p.generation - g) & 1 == 1
            && p.generation - g <= MAX_STEP
            && [0, p.generation].contains(&from.generation);
        if !fits {
            return Err("an impossible root of a tree");
        }
        from.x = false;
        from.generation = p.generation;
        Ok(())
    }
}

/// The pointer at byte `at`; `None` for zeroes.
fn root(b: &[u8], at: usize) -> Result<Option<NodePtr>, &'static str> {
    let p = b.get(at..at + NODE_PTR_LEN).unwrap_or(&[]);
    match is_zero(p) {
        true => Ok(None),
        false => NodePtr::decode(p)
            .map(Some)
            .ok_or("an impossible root of a tree"),
    }
}

/// If one flipped bit explains what is wrong with `b`, flips it back and returns the generation.
/// The checksum shows which bit: each gives another difference (CRC-32C has Hamming distance 4 at
/// this length).
fn repaired(b: &mut [u8; BLOCK_SIZE]) -> Option<u64> {
    let (stored, magic) = (le32(b, 8)?, le64(b, 0)?);
    let difference = stored ^ crc32c(0, b.get(12..)?);
    let wrong_magic = (magic ^ u64::from_le_bytes(SB_MAGIC)).count_ones();
    if difference == 0 {
        // The checksum does not cover the magic number, so damage to the magic number leaves the
        // rest readable.
        return (wrong_magic > 0).then_some(le64(b, super::superblock::O_GENERATION)?);
    }
    if wrong_magic > 0 {
        return None;
    }
    let generation = |b: &[u8]| le64(b, super::superblock::O_GENERATION);
    if difference.count_ones() == 1 {
        return generation(b);
    }
    // The difference that each flipped bit of the last byte makes, then of the byte before it, and
    // so on.
    let mut bits: [u32; 8] = core::array::from_fn(|i| next_byte(1 << i));
    for at in (12..BLOCK_SIZE).rev() {
        if let Some(i) = bits.iter().position(|d| *d == difference) {
            let byte = b.get_mut(at)?;
            *byte ^= 1 << i;
            return is_intact(&b[..]).ok().and_then(|()| generation(b));
        }
        bits = bits.map(next_byte);
    }
    None
}

/// Shifts eight more zero bits through the register of the checksum.
fn next_byte(mut r: u32) -> u32 {
    for _ in 0..8 {
        r = if r & 1 != 0 {
            r >> 1 ^ POLYNOMIAL
        } else {
            r >> 1
        };
    }
    r
}

/// The name of a slot, for messages.
pub fn place(slot: usize) -> &'static str {
    match slot {
        0 => "superblock slot 0 (block 16)",
        _ => "superblock slot 1 (block 128)",
    }
}

const _: () = assert!(SB_SLOTS[0] == 16 && SB_SLOTS[1] == 128);
