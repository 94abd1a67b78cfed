// SPDX-License-Identifier: GPL-2.0

//! Stamps: what is written into the files.
//!
//! A file is a sequence of units of 32 bytes. Each has four little-endian words: which worker wrote
//! it into which file, where in the file it belongs, the sequence number of the store, and a mix of
//! the three. So a unit that is read back shows exactly what went wrong.

/// Bytes of a unit.
pub const UNIT: usize = 32;
/// Words of a unit.
pub const WORDS: usize = UNIT / 8;
const MAGIC: u64 = 0x7ace;

/// One store's mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Random number of the file.
    pub file: u32,
    /// The worker that stored it.
    pub writer: u16,
    /// Byte offset of the unit in the file.
    pub offset: u64,
    /// Number of the store to this cell, from 1.
    pub seq: u64,
}

/// What a unit holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// All zeroes: a hole, or lost.
    Zero,
    /// A stamp that is whole.
    Stamp(Stamp),
    /// Anything else; the four words.
    Garbage([u64; WORDS]),
}

fn mix(a: u64, b: u64, c: u64) -> u64 {
    let mut z = a ^ b.rotate_left(17) ^ c.rotate_left(41) ^ 0x9e37_79b9_7f4a_7c15;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stamp {
    /// The words of the unit.
    pub fn words(&self) -> [u64; WORDS] {
        let head = MAGIC << 48 | u64::from(self.writer) << 32 | u64::from(self.file);
        [
            head,
            self.offset,
            self.seq,
            mix(head, self.offset, self.seq),
        ]
    }
}

impl Unit {
    /// Decodes four words.
    pub fn decode(w: [u64; WORDS]) -> Self {
        if w == [0; WORDS] {
            return Self::Zero;
        }
        let [head, offset, seq, check] = w;
        if head >> 48 != MAGIC || mix(head, offset, seq) != check {
            return Self::Garbage(w);
        }
        Self::Stamp(Stamp {
            file: head as u32,
            writer: (head >> 32) as u16,
            offset,
            seq,
        })
    }

    /// Decodes 32 bytes.
    pub fn from_bytes(b: &[u8]) -> Self {
        let mut w = [0; WORDS];
        for (w, c) in w.iter_mut().zip(b.chunks_exact(8)) {
            *w = c.try_into().map_or(0, u64::from_le_bytes);
        }
        Self::decode(w)
    }
}

/// Fills `buf`, which belongs at `offset`, with the stamps of one store.
pub fn fill(buf: &mut [u8], file: u32, writer: u16, offset: u64, seq: u64) {
    for (i, unit) in buf.chunks_exact_mut(UNIT).enumerate() {
        let stamp = Stamp {
            file,
            writer,
            offset: offset + (i * UNIT) as u64,
            seq,
        };
        for (dst, w) in unit.chunks_exact_mut(8).zip(stamp.words()) {
            dst.copy_from_slice(&w.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_says_what_it_is() {
        let mut b = [0u8; 64];
        assert_eq!(Unit::from_bytes(&b[..32]), Unit::Zero);
        fill(&mut b, 7, 3, 8192, 5);
        let want = Stamp {
            file: 7,
            writer: 3,
            offset: 8224,
            seq: 5,
        };
        assert_eq!(Unit::from_bytes(&b[32..]), Unit::Stamp(want));
        b[40] ^= 1;
        assert!(matches!(Unit::from_bytes(&b[32..]), Unit::Garbage(_)));
    }
}
