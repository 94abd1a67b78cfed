// SPDX-License-Identifier: GPL-2.0

//! The superblock that a repair begins with.
//!
//! # Model
//!
//! If a mount would find one, that is it. Else it is put together from sectors, each of which proves
//! itself: sector 2 has the roots, sector 1 sizes, counts and the place of the log, sector 0 all else
//! (docs/FORMAT.md §3); the others are empty. The newest roots count. The other two sectors come from
//! the same generation if they are left, else from the newest one that is, backups last. Counts are
//! found out anew in any case. Where no slot has roots, the inode tree's is searched for on the device:
//! the newest of its nodes is a root, because each commit that changes the tree writes a new one
//! ([`roots`]).
//!
//! A field that cannot be true gets a value that can, if the repair finds it out anew. Other fields,
//! reserved ones in use, features and other versions are refused, with the reason.
//!
//! Tests: `tools/fsck/tests/repair.rs`, `tools/fuzz/tests/repair`.

use super::gather::gather;
use super::other;
use super::roots;
use super::search::each_node;
use crate::{describe, Claims, Overlay};
use kernel::prelude::{EIO, EUCLEAN};
use ordofs_engine::engine::btree::TreeKind;
use ordofs_engine::engine::format::node::NODE_HEADER;
use ordofs_engine::engine::format::places::{
    areas, backups, slot, twin_base, usable, INNER, SLOTS, TWIN_BASES,
};
use ordofs_engine::engine::format::superblock::{
    label_is_good, seal, sector_generation, LABEL_LEN, SB_MAGIC, SECTOR, SECTORS,
};
use ordofs_engine::engine::format::{le32, le64, put, NodePtr, Superblock, LOG_SEQ_GAP, MAX_INO};
use ordofs_engine::engine::log::header;
use ordofs_engine::engine::volume::mount::find_superblock;
use ordofs_engine::engine::{MountError, BLOCK_SIZE};
use ordofs_engine::os::{Block, Device};
use std::collections::BTreeSet;

/// Sectors whose generations differ by more are not of one filesystem's life: docs/FORMAT.md §2.
const MAX_STEP: u32 = 1 << 20;
const NOTHING_LATER: &str = "nothing later is left";
/// Where the fields are that are mended here.
const O_UUID: usize = 40;
const O_NODE_ID: usize = 56;
const O_LABEL: usize = 72;
const O_TIMES: [usize; 3] = [152, 164, 176];
const O_STATE: usize = 188;
const O_GENERATION: usize = 192;
const O_COPY: usize = 200;
const O_BLOCKS: usize = 512;
const O_LOG_START: usize = 528;
const O_LOG_LEN: usize = 536;
const O_LOG_POS: usize = 544;
const O_LOG_SEQ: usize = 552;
const O_NEXT_INO: usize = 568;
const O_ROOT_INO: usize = 576;
const O_INODES: usize = 584;
const O_FREE: usize = 592;
const O_GOALS: [usize; 2] = [624, 632];
/// The roots of the inode, the orphan, the AG and the deferred tree.
const O_ROOTS: [usize; 4] = [1024, 1056, 1088, 1120];
const ROOT_LEN: usize = 32;

/// Where a repair begins.
pub(super) struct Start {
    pub sb: Superblock,
    /// The generation of the superblock whose slot must survive until the new one is written.
    pub generation: u64,
    /// The least generation of the new superblock.
    pub next: u64,
    /// The log position is not known.
    pub log_lost: bool,
}

/// A sector that proves itself.
struct Sector {
    number: usize,
    generation: u64,
    /// It is in a slot, and not in a backup.
    slot: bool,
    bytes: [u8; SECTOR],
}

/// Finds the superblock to begin with. Afterwards a mount of `view` finds it, too.
pub(super) fn establish(view: &Overlay, said: &mut Vec<String>) -> Result<Start, String> {
    let found = match find_superblock(&view.device()) {
        Ok(found) => found,
        Err(e) => return put_together(view, &e, None, said),
    };
    if let Some(why) = found.sb.unsupported() {
        return Err(why.into());
    }
    if found.sb.read_only_features() {
        return Err("unknown ro_compat features: a later version is needed".into());
    }
    if found.doubt.is_some() {
        // Its empty sectors may be all that is damaged.
        let why = MountError::new(EUCLEAN, "no copy of the newest one is whole");
        let mut lines = Vec::new();
        let later = put_together(view, &why, Some(found.sb.generation), &mut lines);
        match later {
            Ok(start) => {
                said.append(&mut lines);
                return Ok(start);
            }
            Err(why) if why != NOTHING_LATER => return Err(why),
            Err(_) => {}
        }
        said.push(format!(
            "superblock: one newer than generation {} may be lost, and the last commit with it",
            found.sb.generation
        ));
    }
    Ok(Start {
        generation: found.sb.generation,
        next: found.next,
        log_lost: false,
        sb: (*found.sb).clone(),
    })
}

/// The places where a superblock may be: those of slots first. Without a primary superblock, the size
/// of the filesystem is not known, and there are two places for the twins.
fn places(device: &Device) -> Vec<(u64, bool)> {
    let size = SLOTS.iter().find_map(|at| {
        let mut b = Block::zeroed().ok()?;
        device.read(*at, &mut b).ok()?;
        sector_generation(&b, 1)?;
        le64(&b[..], O_BLOCKS)
    });
    let twins = match size {
        Some(blocks) => vec![twin_base(blocks)],
        None => TWIN_BASES.to_vec(),
    };
    let bases = [0].into_iter().chain(twins);
    let slots = bases.flat_map(|base| SLOTS.map(|at| (base + at, true)));
    let sizes = match size {
        Some(blocks) => vec![blocks],
        // The filesystem may be smaller than the device.
        None => vec![device.blocks(), usable(device.blocks())],
    };
    let inner = INNER.into_iter().filter(|_| size.is_none());
    let ends = sizes.into_iter().flat_map(backups);
    let bases: BTreeSet<u64> = inner.chain(ends).collect();
    let backups = bases.into_iter().map(|base| (base + SLOTS[0], false));
    let all = slots.chain(backups);
    all.filter(|(at, _)| *at < device.blocks()).collect()
}

/// The sectors that prove themselves, and whether one of a slot does not.
fn sectors(device: &Device) -> Result<(Vec<Sector>, bool), String> {
    let mut all: Vec<(usize, u32, bool, [u8; SECTOR])> = Vec::new();
    // The generation in a whole sector 0 says what the low halves in the others mean.
    let (mut newest, mut bad) = (None, false);
    // UUID and node id: those of the first one count.
    let mut identity: Option<[u8; 24]> = None;
    for (at, is_slot) in places(device) {
        let mut b = Block::zeroed().map_err(|e| format!("{e:?}"))?;
        if device.read(at, &mut b).is_err() {
            bad |= is_slot;
            continue;
        }
        if sector_generation(&b, 0).is_some() {
            let this = b.get(O_UUID..).and_then(|b| b.first_chunk::<24>()).copied();
            let ours = b.starts_with(&SB_MAGIC) && this == identity.or(this);
            if !ours {
                bad |= is_slot;
                continue;
            }
            identity = this;
        }
        for k in 0..SECTORS {
            let range = k * SECTOR..(k + 1) * SECTOR;
            let bytes = b.get(range).and_then(|s| s.first_chunk::<SECTOR>());
            let (Some(low), Some(bytes)) = (sector_generation(&b, k), bytes) else {
                bad |= is_slot;
                continue;
            };
            if k == 0 && is_slot && b.starts_with(&SB_MAGIC) {
                newest = newest.max(le64(&b[..], O_GENERATION));
            }
            all.push((k, low, is_slot, *bytes));
        }
    }
    // Without one, a backup says it.
    let backup = all
        .iter()
        .filter(|(k, _, _, b)| *k == 0 && b.starts_with(&SB_MAGIC));
    let backup = backup
        .filter_map(|(_, _, _, b)| le64(b, O_GENERATION))
        .max();
    let Some(near) = newest.or(backup) else {
        return Err("nothing of a superblock is left that says which filesystem this was".into());
    };
    let full = all.into_iter().filter_map(|(number, low, slot, bytes)| {
        let step = low.wrapping_sub(near as u32) as i32;
        let generation = near.checked_add_signed(step.into())?;
        (step.unsigned_abs() <= MAX_STEP || !slot).then_some(Sector {
            number,
            generation,
            slot,
            bytes,
        })
    });
    Ok((full.collect(), bad))
}

/// Puts a superblock together.
///
/// With `above`, only of one generation that is later, all of whose fields are left.
fn put_together(
    view: &Overlay,
    why: &MountError,
    above: Option<u64>,
    said: &mut Vec<String>,
) -> Result<Start, String> {
    let device = view.device();
    // A superblock that is whole and not supported must not be replaced.
    let nothing = why.reason.starts_with("there is no OrdoFS");
    if ![EUCLEAN, EIO].contains(&why.error) && !nothing {
        return Err(describe(why));
    }
    let (all, bad) = sectors(&device)?;
    if !all.iter().any(|s| s.slot) {
        other::refuse(&device)?;
    }
    let best = |number: usize, of: Option<u64>| {
        let fits =
            |s: &&Sector| s.number == number && of.is_none_or(|g| s.generation == g && s.slot);
        all.iter()
            .filter(fits)
            .max_by_key(|s| (s.slot, s.generation))
    };
    let roots = best(2, None).filter(|s| s.slot);
    let generation = match roots {
        Some(roots) => roots.generation,
        None => all.iter().map(|s| s.generation).max().unwrap_or(1),
    };
    let whole = [0, 1, 2]
        .into_iter()
        .all(|k| best(k, Some(generation)).is_some());
    if above.is_some_and(|above| generation <= above || !whole) {
        return Err(NOTHING_LATER.into());
    }
    let mut b = [0; BLOCK_SIZE];
    for number in [0, 1] {
        let same = best(number, Some(generation));
        let Some(s) = same.or_else(|| best(number, None)) else {
            return Err(format!(
                "sector {number} of the superblock is lost in all copies"
            ));
        };
        put(&mut b, number * SECTOR, &s.bytes);
        if same.is_none() {
            let (from, at) = (s.generation, if s.slot { "slot" } else { "backup" });
            said.push(format!(
                "superblock: sector {number} of generation {generation} is lost: taken from generation {from}, in a {at}"
            ));
        }
    }
    // The log position of the commit before is as good, if the ring has not come around.
    let log_lost = !best(1, None).is_some_and(|s| s.slot);
    if let Some(roots) = roots {
        put(&mut b, 2 * SECTOR, &roots.bytes);
    }
    put(&mut b, O_GENERATION, &generation.to_le_bytes());
    mend(&mut b, generation);
    if best(0, Some(generation)).is_none() {
        put(&mut b, O_STATE, &0u32.to_le_bytes());
    }
    let newest = all.iter().filter(|s| s.slot).map(|s| s.generation).max();
    let root = find_roots(view, &mut b, newest, said)?;
    let generation = generation.max(root);
    put(&mut b, O_GENERATION, &generation.to_le_bytes());
    if log_lost {
        restart_log(&device, &mut b, said)?;
    }
    seal(&mut b, generation);
    let sb = accept(&b)?;
    if sb.blocks > device.blocks() {
        return Err("the device is smaller than the filesystem on it".into());
    }
    for copy in [0, 1] {
        let mut block = Block::zeroed().map_err(|e| format!("{e:?}"))?;
        sb.encode(copy, &mut block);
        view.put(slot(generation, copy as usize, sb.blocks), &block);
    }
    said.push(format!(
        "superblock: {}; generation {generation} was put together from what is left",
        why.reason
    ));
    let newest = newest.unwrap_or(generation).max(generation);
    Ok(Start {
        next: (newest + 1).max(generation + if bad { 3 } else { 1 }),
        generation,
        log_lost,
        sb,
    })
}

/// Decodes what was put together.
fn accept(b: &[u8; BLOCK_SIZE]) -> Result<Superblock, String> {
    let sb = Superblock::decode(b).map_err(|r| r.reason.to_owned())?;
    if let Some(why) = sb.unsupported() {
        return Err(why.into());
    }
    if sb.read_only_features() {
        return Err("unknown ro_compat features: a later version is needed".into());
    }
    Ok(sb)
}

/// Gives fields that are found out anew, or say nothing of importance, values that are possible.
fn mend(b: &mut [u8; BLOCK_SIZE], generation: u64) {
    let blocks = le64(b, O_BLOCKS).unwrap_or(0);
    put(b, O_COPY, &0u32.to_le_bytes());
    for at in O_TIMES {
        if le32(b, at + 8).is_none_or(|nsec| nsec >= 1_000_000_000) {
            put(b, at, &[0; 12]);
        }
    }
    let label = b.get(O_LABEL..).and_then(|l| l.first_chunk::<LABEL_LEN>());
    if !label.is_some_and(label_is_good) {
        put(b, O_LABEL, &[0; LABEL_LEN]);
    }
    let root_ino = le64(b, O_ROOT_INO).unwrap_or(0);
    let next = le64(b, O_NEXT_INO).unwrap_or(0);
    // Inodes that are found raise it.
    if next > MAX_INO || next <= root_ino {
        put(b, O_NEXT_INO, &root_ino.saturating_add(1).to_le_bytes());
    }
    put(b, O_INODES, &1u64.to_le_bytes());
    put(b, O_FREE, &0u64.to_le_bytes());
    for at in O_GOALS {
        if le64(b, at).is_none_or(|goal| goal >= blocks) {
            put(b, at, &0u64.to_le_bytes());
        }
    }
    for at in O_ROOTS {
        let good = b.get(at..at + ROOT_LEN).and_then(NodePtr::decode);
        let possible =
            |p: &NodePtr| p.addr < blocks && p.addr2 < blocks && p.generation <= generation;
        if !good.is_some_and(|p| possible(&p)) {
            put(b, at, &[0; ROOT_LEN]);
        }
    }
}

/// Searches for the root of the inode tree if there is none, not newer than `newest`, and stands in for
/// the AG tree, which is built anew. Returns the generation of the root of the inode tree.
fn find_roots(
    view: &Overlay,
    b: &mut [u8; BLOCK_SIZE],
    newest: Option<u64>,
    said: &mut Vec<String>,
) -> Result<u64, String> {
    let (device, [inodes, _, ags, _]) = (&view.device(), O_ROOTS);
    let root = |b: &[u8; BLOCK_SIZE], at: usize| b.get(at..at + ROOT_LEN).and_then(NodePtr::decode);
    if root(b, inodes).is_none() {
        let (node_id, blocks) = (le64(b, O_NODE_ID), le64(b, O_BLOCKS).unwrap_or(0));
        let root_ino = le64(b, O_ROOT_INO).unwrap_or(0);
        let mut fixed = Claims::default();
        for base in areas(blocks) {
            fixed.add(base, 256, crate::Claim::Reserved);
        }
        let mut copies = Vec::new();
        let all = [(256, blocks.min(device.blocks()))].into_iter();
        each_node(device, all, &mut |h, ptr, b| {
            let ours = Some(h.node_id) == node_id && h.id.kind == TreeKind::Inode;
            let not_newer = newest.is_none_or(|newest| h.generation <= newest);
            let first = le64(&b[..], NODE_HEADER).is_some_and(|key| key <= root_ino);
            let free = ptr.places().each().all(|at| fixed.owner(at).is_none());
            if ours && first && free && not_newer {
                copies.push(((), ptr));
            }
        })?;
        // Whether another place is a second copy or part of a file is not known yet.
        let nodes = gather(device, node_id.unwrap_or(0), copies);
        let nodes = nodes
            .iter()
            .map(|n| if n.first { n.ptr } else { n.pointer() });
        let nodes = nodes.collect();
        let found = roots::choose(view.device(), node_id.unwrap_or(0), nodes)?;
        said.push(format!(
            "superblock: the root of the inode tree was lost; the newest one on the device is at block {}, of generation {}",
            found.addr, found.generation
        ));
        put(b, inodes, &found.to_bytes());
    }
    if root(b, ags).is_none() {
        if let Some(p) = root(b, inodes) {
            put(b, ags, &p.to_bytes());
        }
    }
    Ok(root(b, inodes).map_or(0, |p| p.generation))
}

/// The log begins behind all batches that are there, with a number above theirs.
fn restart_log(
    device: &Device,
    b: &mut [u8; BLOCK_SIZE],
    said: &mut Vec<String>,
) -> Result<(), String> {
    let word = |at| le64(b, at).unwrap_or(0);
    let (node_id, start, len) = (word(O_NODE_ID), word(O_LOG_START), word(O_LOG_LEN));
    let mut pos = le64(b, O_LOG_POS).unwrap_or(0);
    let mut seq = le64(b, O_LOG_SEQ).unwrap_or(1);
    let mut block = Block::zeroed().map_err(|e| format!("{e:?}"))?;
    for at in start..start.saturating_add(len).min(device.blocks()) {
        if device.read(at, &mut block).is_err() {
            continue;
        }
        let here = le64(&block[..], 24).unwrap_or(0);
        if let Some(h) = header::decode(&block[..], node_id, here) {
            let (p, s) = h.next();
            pos = pos.max(p);
            seq = seq.max(s);
        }
    }
    put(b, O_LOG_POS, &pos.min(1 << 61).to_le_bytes());
    let seq = seq.saturating_add(LOG_SEQ_GAP).min(1 << 61);
    put(b, O_LOG_SEQ, &seq.to_le_bytes());
    said.push(
        "log: its position is lost, and with it what fsync wrote since the last commit".into(),
    );
    Ok(())
}

/// The blocks of the backups that cannot be used, if the filesystem has any.
pub(super) fn bad_backups(view: &Overlay, sb: &Superblock) -> Vec<u64> {
    if sb.backed_up == 0 {
        return Vec::new();
    }
    let device = view.device();
    let bad = |block: &u64| {
        let Ok(mut b) = Block::zeroed() else {
            return false;
        };
        let ours =
            |b: Superblock| (b.node_id, b.uuid, b.blocks) == (sb.node_id, sb.uuid, sb.blocks);
        device.read(*block, &mut b).is_err() || !Superblock::decode(&b).is_ok_and(ours)
    };
    let places = backups(sb.blocks).map(|base| base + SLOTS[0]);
    places.filter(bad).collect()
}
