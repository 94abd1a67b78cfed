// SPDX-License-Identifier: GPL-2.0

//! Putting an inode record in order that no engine can have written.
//!
//! Fields that cannot be true get a value that can; sections that cannot be decoded go. What a later
//! version may have written is no damage: an unknown section that must not be ignored, unknown state
//! bits or `FS_XFLAG_*` flags end the repair.
//!
//! Tests: below, `tools/fuzz/tests/repair`.

use ordofs_engine::engine::format::inode::{
    InodeRecord, RootForm, HEADER, MAX_CHANGE, MAX_EXTENT_HINT, STATE_TRUNCATE, XFLAGS,
};
use ordofs_engine::engine::format::{le16, le32, le64, put, NodePtr, Superblock, MAX_INO};
use ordofs_engine::engine::{
    bytes_to_blocks, is_device, is_kind, LINK_MAX, MAX_FILE_BLOCKS, SYMLINK_MAX, S_IFDIR, S_IFLNK,
    S_IFMT, S_IFREG,
};

/// What became of a record.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Mended {
    /// It is in order as it is.
    Good,
    /// It is now this.
    Changed(Vec<u8>),
    /// Nothing can be made of it.
    Hopeless,
    /// A later version may have written it.
    Newer(&'static str),
}

/// A section: type, form, content.
type Section<'a> = (u8, u8, &'a [u8]);

/// The sections that can be decoded, up to the first whose length cannot be true.
fn sections(v: &[u8]) -> Vec<Section<'_>> {
    let (mut all, mut at) = (Vec::new(), HEADER);
    let mut last = 0;
    while let (Some([kind, form]), Some(len)) = (v.get(at..at + 2), le16(v, at + 2)) {
        let end = at + 4 + usize::from(len);
        let Some(body) = v.get(at + 4..end) else {
            break;
        };
        if *kind > last {
            all.push((*kind, *form, body));
            last = *kind;
        }
        at = end;
    }
    all
}

/// Whether a section is possible by itself, in an inode of this type.
fn possible(kind: u32, (section, form, body): &Section<'_>) -> bool {
    let belongs = match section {
        1 => kind == S_IFREG,
        2 => kind == S_IFDIR || kind == S_IFLNK,
        3 => true,
        // Sections that may be ignored, and what this version only knows by name.
        _ => return true,
    };
    belongs
        && match form {
            1 => (3..=320).contains(&body.len()),
            2 => NodePtr::decode(body).is_some() && body.len() == 32,
            _ => false,
        }
}

/// The type of an inode whose mode has none, from what it has.
fn guess(all: &[Section<'_>], parent: u64) -> Option<u32> {
    let has = |kind| all.iter().any(|(k, _, _)| *k == kind);
    Some(match (has(1), has(2)) {
        (true, false) => S_IFREG,
        (false, _) if parent != 0 => S_IFDIR,
        (false, true) => S_IFLNK,
        _ => return None,
    })
}

/// Judges the record of inode `ino`, and puts it in order.
pub(super) fn mend(v: &[u8], sb: &Superblock) -> Mended {
    if InodeRecord::parse(v).is_ok_and(|rec| rec.generation <= sb.generation) {
        return Mended::Good;
    }
    if v.len() < HEADER {
        return Mended::Hopeless;
    }
    let all = sections(v);
    if let Some(why) = newer(v, &all) {
        return Mended::Newer(why);
    }
    let Some(mut head) = v.first_chunk::<HEADER>().copied() else {
        return Mended::Hopeless;
    };
    if fields(&mut head, &all, sb).is_none() {
        return Mended::Hopeless;
    }
    let kind = le32(&head, 0).unwrap_or(0) & S_IFMT;
    let mut out = head.to_vec();
    for s in all.iter().filter(|s| possible(kind, s)) {
        out.extend_from_slice(&[s.0, s.1]);
        out.extend_from_slice(&(s.2.len() as u16).to_le_bytes());
        out.extend_from_slice(s.2);
    }
    let extents = all.iter().any(|s| s.0 == 1 && possible(kind, s));
    if !extents {
        put(&mut out, 32, &0u64.to_le_bytes());
    }
    match InodeRecord::parse(&out) {
        Ok(_) => Mended::Changed(out),
        Err(_) => Mended::Hopeless,
    }
}

/// What a later version may have written.
fn newer(v: &[u8], all: &[Section<'_>]) -> Option<&'static str> {
    let word = |at| le32(v, at).unwrap_or(0);
    Some(if word(52) & !STATE_TRUNCATE != 0 {
        "it has unknown state bits"
    } else if word(140) & !XFLAGS != 0 {
        "it has unknown FS_XFLAG flags"
    } else if all.iter().any(|(k, _, _)| matches!(k, 4 | 8..=0x7f)) {
        "it has an unknown section that must not be ignored"
    } else {
        return None;
    })
}

/// Gives the fields values that are possible. `None` if the type of the inode is not known.
fn fields(h: &mut [u8; HEADER], all: &[Section<'_>], sb: &Superblock) -> Option<()> {
    let mut mode = le32(h, 0)? & 0xffff;
    if !is_kind(mode) {
        mode = guess(all, le64(h, 56)?)? | mode & 0o7777;
    }
    let kind = mode & S_IFMT;
    put(h, 0, &mode.to_le_bytes())?;
    if le32(h, 4)? > LINK_MAX {
        put(h, 4, &1u32.to_le_bytes())?;
    }
    for at in [8, 12, 16] {
        if le32(h, at)? == u32::MAX {
            put(h, at, &0u32.to_le_bytes())?;
        }
    }
    if le32(h, 20)? == 0 {
        put(h, 20, &1u32.to_le_bytes())?;
    }
    let most = if kind == S_IFLNK {
        SYMLINK_MAX as u64
    } else {
        i64::MAX as u64
    };
    // What is mapped behind it raises it again.
    if le64(h, 24)? > most {
        put(h, 24, &0u64.to_le_bytes())?;
    }
    let blocks = le64(h, 32)?.min(MAX_FILE_BLOCKS);
    put(h, 32, &blocks.to_le_bytes())?;
    let rdev = le64(h, 40)?;
    if kind != S_IFREG {
        put(h, 32, &0u64.to_le_bytes())?;
    }
    if rdev > u64::from(u32::MAX) || !is_device(kind) {
        put(h, 40, &0u64.to_le_bytes())?;
    }
    truncation(h, kind)?;
    let parent = match kind {
        S_IFDIR => match le64(h, 56)? {
            p @ 1..MAX_INO => p,
            _ => sb.root_ino,
        },
        _ => 0,
    };
    put(h, 56, &parent.to_le_bytes())?;
    for at in [64, 76, 88, 100] {
        if le32(h, at + 8)? >= 1_000_000_000 {
            put(h, at + 8, &0u32.to_le_bytes())?;
        }
    }
    let change = le64(h, 112)? & MAX_CHANGE;
    put(h, 112, &change.to_le_bytes())?;
    let generation = le64(h, 128)?;
    if generation == 0 || generation > sb.generation {
        put(h, 128, &sb.generation.to_le_bytes())?;
    }
    if le32(h, 136)? >= sb.ag_count {
        put(h, 136, &0u32.to_le_bytes())?;
    }
    if le32(h, 144)? > MAX_EXTENT_HINT {
        put(h, 144, &0u32.to_le_bytes())?;
    }
    put(h, 148, &[0; 12])
}

/// A truncation under way stays, and the place from where on it frees, as far as that is possible.
fn truncation(h: &mut [u8; HEADER], kind: u32) -> Option<()> {
    let under_way = le32(h, 52)? & STATE_TRUNCATE != 0 && kind == S_IFREG;
    let least = bytes_to_blocks(le64(h, 24)?).min(MAX_FILE_BLOCKS - 1);
    let cut = match under_way {
        true => le64(h, 120)?.clamp(least, MAX_FILE_BLOCKS - 1),
        false => 0,
    };
    put(h, 52, &u32::from(under_way).to_le_bytes())?;
    put(h, 120, &cut.to_le_bytes())
}

/// The bytes of the sections of a record that are not trees.
pub(super) fn other_bytes(rec: &InodeRecord<'_>) -> usize {
    let bare = InodeRecord {
        extents: RootForm::Empty,
        dir: RootForm::Empty,
        xattr: RootForm::Empty,
        ..*rec
    };
    let mut v = kernel::prelude::KVec::new();
    match bare.encode(&mut v) {
        Ok(()) => v.len().saturating_sub(HEADER),
        Err(_) => HEADER,
    }
}
