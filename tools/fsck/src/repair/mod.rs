// SPDX-License-Identifier: GPL-2.0

//! Repairing a filesystem: what is damaged is built anew from what is intact.
//!
//! # Model
//!
//! [`plan`] only reads. It returns the blocks that a repair writes ([`Plan`]), and [`apply`] writes
//! them: first those that neither the old nor the new filesystem needs for anything else, then a
//! flush, then the superblock of a new generation, in the slot of the older one, then once more in the
//! other slot. So a crash at any point leaves the old filesystem or the new one. Copies of nodes that are
//! bad, and belong to the new filesystem, are written in place, at the end. What the new one still has
//! to do (orphans, truncations) a mount does afterwards.
//!
//! 1. A superblock: the newest whole one, or one put together ([`superblock`]).
//! 2. If the log holds anything, it is replayed. A replay needs the trees of space, so the trees are
//!    first put in order in memory, at the old generation, and blocks of the old state count as used
//!    there. Then the engine mounts that and commits once, in memory.
//! 3. The trees are read, put in order and written ([`forest`], [`inodes`], [`names`], [`contested`],
//!    [`mod@write`]), and the trees of space are built from the owners of all blocks ([`space`]).
//! 4. The checker judges the outcome, still in memory. If it finds anything, nothing is written.
//!
//! Unknown features are no damage: they are refused by name, and nothing is written.
//!
//! Memory: see [`forest`]; and all blocks that are to be written.
//!
//! | module | what it does |
//! |---|---|
//! | [`superblock`], [`other`], [`roots`] | the superblock to begin with |
//! | [`forest`] | trees that may be damaged; what is known during a repair |
//! | [`search`], [`found`], [`gather`], [`stale`], [`peek`] | leaves whose interior nodes are lost |
//! | [`inodes`], [`record`] | inode records, and what they lead to |
//! | [`names`] | directories, link counts, orphans |
//! | [`contested`] | blocks with two owners |
//! | [`mod@write`], [`space`], [`room`] | the new trees, and blocks for them |
//! | [`undo`] | the file with which a repair can be taken back |
//!
//! Tests: `tools/fsck/tests/repair.rs`, `tools/fuzz/tests/repair`.

mod contested;
mod forest;
mod found;
mod gather;
mod inodes;
mod names;
mod other;
mod peek;
mod record;
mod room;
mod roots;
mod search;
mod space;
mod stale;
mod superblock;
pub mod undo;
mod write;

use crate::overlay::Blocks;
use crate::{check, describe, Claim, Claims, Options, Overlay};
use forest::Work;
use kernel::prelude::{Error, EIO, ENOMEM, ENOSPC, EOPNOTSUPP};
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::format::superblock::{STATE_CLEAN, STATE_REPAIR};
use ordofs_engine::engine::format::{Superblock, MAX_INO};
use ordofs_engine::engine::log::ahead::Ahead;
use ordofs_engine::engine::log::record::{decode, Record};
use ordofs_engine::engine::log::replayed::Replayed;
use ordofs_engine::engine::log::ring::{self, Area, Found};
use ordofs_engine::engine::volume::mount::read_superblock;
use ordofs_engine::engine::{Fs, MountError, MountOptions};
use ordofs_engine::os::{now, Block, Device, Shared};
use std::collections::{BTreeMap, BTreeSet};

/// How many nodes are cached.
const CACHED_NODES: usize = 4096;
/// How often a plan is made at most, if blocks that could not be read can be read later.
const READS: usize = 3;
/// How many blocks are written at once.
const BATCH: usize = 256;
/// How often a rebuild begins anew at most, because blocks belong to files, or because of a lack of room.
const ATTEMPTS: usize = 8;

/// What a repair is going to write.
pub struct Plan {
    /// Sentences about what is lost and what is put in order.
    pub said: Vec<String>,
    /// Blocks to be written before the superblock.
    blocks: Blocks,
    /// The superblock of the new generation.
    sb: Superblock,
    /// Copies of nodes that are bad, with the content of the good ones, to be written at the end.
    copies: Blocks,
    /// Backups of the superblock are damaged, and written anew.
    backups: bool,
}

impl Plan {
    /// The superblock that the repair writes.
    pub fn superblock(&self) -> &Superblock {
        &self.sb
    }
}

/// The options of a mount that goes on without what is lost.
pub fn rescue() -> MountOptions {
    MountOptions {
        rescue_log: true,
        rescue_older: true,
        rescue_records: true,
        ..MountOptions::default()
    }
}

/// What the device could not read.
#[derive(Default)]
struct Unread {
    blocks: Vec<u64>,
    /// A node can be read by now.
    retry: bool,
}

/// Finds out what has to be written to repair the filesystem on `device`. The error is a sentence:
/// the filesystem cannot be repaired, and why.
pub fn plan(device: Device) -> Result<Plan, String> {
    let device = Overlay::new(device);
    for _ in 0..READS {
        let (plan, unread) = one_plan(device.device())?;
        let mut b = Block::zeroed().map_err(|e| format!("{e:?}"))?;
        let mut readable = |at: &u64| device.device().read(*at, &mut b).is_ok();
        // What can be read by now is not lost.
        if !unread.retry && !unread.blocks.iter().any(&mut readable) {
            return Ok(plan);
        }
    }
    Err("the device cannot read some blocks at one time, and can at another".into())
}

/// A plan, and what the device could not read.
fn one_plan(device: Device) -> Result<(Plan, Unread), String> {
    let view = Overlay::new(device);
    let mut said = Vec::new();
    let mut unread = Unread::default();
    let start = superblock::establish(&view, &mut said)?;
    let mut sb = start.sb;
    let mut avoid = Claims::default();
    let mut log_used = false;
    let mut lost_log = start.log_lost;
    if !sb.is_clean() && !lost_log {
        match replay(&view, &sb, &mut said) {
            Ok(Some((commit, old, bad))) => {
                unread = bad;
                commit.iter().for_each(|(at, b)| view.put(*at, b));
                sb = read(&view)?;
                avoid = old;
                log_used = true;
            }
            Ok(None) => {}
            Err(e) if e.refuse => return Err(format!("log: it cannot be replayed: {}", e.why)),
            Err(e) => {
                let why = e.why;
                said.push(format!("log: it cannot be replayed, and is lost: {why}"));
                lost_log = true;
            }
        }
    }
    let generation = start.next.max(sb.generation + 1);
    let generation = generation + (1 ^ ((generation ^ start.generation) & 1));
    let given = Given {
        view: &view,
        sb: &sb,
        avoid,
        logged: Vec::new(),
        generation,
        hold: false,
    };
    let mut made = match rebuild(&given) {
        Ok(made) => made,
        Err(why) if log_used => {
            return Err(format!("with the log: {why}"));
        }
        Err(why) => return Err(why),
    };
    said.append(&mut made.said);
    if lost_log {
        made.sb.state |= STATE_CLEAN;
    }
    let mut plan = Plan {
        said,
        blocks: made.blocks,
        sb: made.sb,
        copies: Blocks::new(),
        backups: false,
    };
    for block in superblock::bad_backups(&view, &plan.sb) {
        plan.backups = true;
        let what = "it is damaged, all backups are written anew";
        plan.said
            .push(format!("backup of the superblock (block {block}): {what}"));
    }
    if plan.backups {
        plan.sb.backed_up = u64::try_from(now().sec).unwrap_or(0).max(1);
    }
    // What the replay has written, as far as it is still part of the filesystem.
    if log_used {
        for (at, b) in view.written_blocks() {
            if matches!(made.claims.owner(at), Some(Claim::Node(_))) {
                plan.blocks.entry(at).or_insert(b);
            }
        }
    }
    judge(&view, &mut plan)?;
    unread.blocks.extend(made.unread);
    unread.retry |= made.retry;
    Ok((plan, unread))
}

/// The superblock of a view.
fn read(view: &Overlay) -> Result<Superblock, String> {
    let sb = read_superblock(&view.device()).map_err(|e| describe(&e))?;
    Ok((*sb).clone())
}

/// Checks what a plan makes, in memory. Adds the bad copies of nodes that are part of it.
fn judge(view: &Overlay, plan: &mut Plan) -> Result<(), String> {
    let outcome = Overlay::new(view.device());
    plan.blocks.iter().for_each(|(at, b)| outcome.put(*at, b));
    write_superblocks(plan, &outcome.device())?;
    let checked = || check(outcome.device(), Options::default()).map_err(|e| describe(&e));
    let mut report = checked()?;
    if !report.bad_copies.is_empty() {
        let (n, failed) = (report.bad_copies.len(), |e| format!("{e:?}"));
        for (bad, good) in &report.bad_copies {
            let mut b = Block::zeroed().map_err(failed)?;
            outcome.device().read(*good, &mut b).map_err(failed)?;
            plan.copies.insert(*bad, Box::new(*b));
        }
        plan.copies.iter().for_each(|(at, b)| outcome.put(*at, b));
        plan.said.push(format!(
            "{n} copies of nodes are bad, and are written again from the other copies"
        ));
        report = checked()?;
    }
    match report.problems.first() {
        None => Ok(()),
        Some(p) => Err(format!(
            "a repair would leave {} problems, so nothing is written; the first one: {p}",
            report.count
        )),
    }
}

/// What a rebuild begins with.
struct Given<'v> {
    view: &'v Overlay,
    sb: &'v Superblock,
    /// Blocks that are free, and not to be written.
    avoid: Claims,
    /// Blocks that records of the log map, and the inodes that they map them for: start, length, inode.
    logged: Vec<(u64, u64, u64)>,
    generation: u64,
    /// What only the old filesystem has counts as used.
    hold: bool,
}

/// What a rebuild has made.
struct Made {
    blocks: Blocks,
    sb: Superblock,
    said: Vec<String>,
    claims: Claims,
    /// Blocks that the old filesystem has, and maybe the new one.
    old: Claims,
    /// Blocks that the device could not read, and that would have been of use.
    unread: Vec<u64>,
    /// The device could not read a node, and can by now.
    retry: bool,
}

/// The end of an attempt to rebuild.
enum Attempt {
    Made(Made),
    /// These blocks are not of the nodes that have them by their pointers, but of files.
    Foreign(BTreeSet<u64>),
}

/// Why an attempt to rebuild has failed.
struct Failed {
    why: String,
    /// There was no room for new nodes.
    full: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, full: false }
    }
}

/// Puts all trees in order. If there is no room for two copies of each new node, they get one.
fn rebuild(given: &Given<'_>) -> Result<Made, String> {
    let (mut foreign, mut copies) = (BTreeSet::new(), given.sb.copies);
    for _ in 0..ATTEMPTS {
        match attempt(given, &foreign, copies) {
            Ok(Attempt::Made(mut made)) => {
                if copies < given.sb.copies {
                    let what = "new nodes have one copy, because there is no room for two";
                    made.said.push(what.into());
                }
                return Ok(made);
            }
            Ok(Attempt::Foreign(more)) => foreign.extend(more),
            Err(f) if f.full && copies > 1 => copies = 1,
            Err(f) => return Err(f.why),
        }
    }
    Err("the owners of some blocks cannot be told apart".into())
}

/// The same with so many copies of each new node, if these blocks are not of the nodes that name them.
fn attempt(given: &Given<'_>, foreign: &BTreeSet<u64>, copies: u8) -> Result<Attempt, Failed> {
    let failed = |e| format!("{e:?}");
    let sb = given.sb;
    let shared = Shared::new(given.view.device()).map_err(failed)?;
    let st = NodeStore::new(shared, sb.node_id, CACHED_NODES).map_err(failed)?;
    let st = st.confine(sb);
    let mut work = Work::new(&st, sb, given.avoid.clone(), foreign.clone());
    for (start, len) in sb.fixed_areas() {
        work.claims.add(start, len, Claim::Reserved);
    }
    work.inodes()?;
    work.read_orphans()?;
    let foreign = work.settle(&given.logged)?;
    if !foreign.is_empty() {
        return Ok(Attempt::Foreign(foreign));
    }
    work.names()?;
    if given.hold && work.lost {
        // Below nodes that cannot be read now there is something, for all that is known.
        let (used, unknown) = search::used(&work);
        for (start, len, _) in used.runs() {
            work.old.add(start, len, Claim::Deferred);
        }
        for (start, len, _) in unknown.runs() {
            work.old.remove(start, len);
        }
    }
    let kept = work.read_space();
    let mut room = room::Room::new(&work, copies);
    let blocks = write_all(&mut work, given, &kept, &mut room).map_err(|why| Failed {
        why,
        full: room.is_full(),
    })?;
    work.sb.generation = given.generation;
    work.sb.state &= !(STATE_CLEAN | STATE_REPAIR);
    work.sb.committed = now();
    Ok(Attempt::Made(Made {
        blocks,
        sb: work.sb,
        said: work.said,
        claims: work.claims,
        old: work.old,
        unread: work.unread,
        retry: work.retry,
    }))
}

/// Writes the trees that have changed, and those of space.
fn write_all(
    work: &mut Work<'_>,
    given: &Given<'_>,
    kept: &BTreeMap<u64, space::Kept>,
    room: &mut room::Room,
) -> Result<Blocks, String> {
    let mut blocks = Blocks::new();
    work.write_inodes(room, &mut blocks, given.generation)?;
    work.write_space(kept, room, &mut blocks, given.generation, given.hold)?;
    Ok(blocks)
}

/// Why the log was not replayed.
struct NotReplayed {
    why: String,
    /// It is not the log that is damaged: records of a later version, or an error of this machine.
    refuse: bool,
}

impl From<String> for NotReplayed {
    fn from(why: String) -> Self {
        Self { why, refuse: true }
    }
}

impl From<MountError> for NotReplayed {
    fn from(e: MountError) -> Self {
        Self {
            why: describe(&e),
            refuse: [EOPNOTSUPP, ENOSPC, ENOMEM, EIO].contains(&e.error),
        }
    }
}

/// Replays the log in memory. Returns what its commit wrote, and the blocks of the filesystem
/// before it; nothing if there was nothing to commit.
fn replay(
    view: &Overlay,
    sb: &Superblock,
    said: &mut Vec<String>,
) -> Result<Option<(Blocks, Claims, Unread)>, NotReplayed> {
    let (logged, next_ino) = named_by_log(view, sb)?;
    let mut named = Claims::default();
    for (start, len, _) in &logged {
        named.add(*start, *len, Claim::Log);
    }
    let of_log: Vec<_> = named.runs().collect();
    // What the repair makes, too, must not have a number that the log gives to another inode.
    let mut first = sb.clone();
    first.next_ino = first.next_ino.max(next_ino);
    let mut made = rebuild(&Given {
        view,
        sb: &first,
        avoid: named,
        logged,
        generation: sb.generation,
        hold: true,
    })?;
    let base = Overlay::new(view.device());
    made.blocks.iter().for_each(|(at, b)| base.put(*at, b));
    made.sb
        .write(&base.device())
        .map_err(|e| format!("{e:?}"))?;
    let trial = Overlay::of_one_commit(base.device());
    let fs = Fs::mount(trial.device(), rescue())?;
    let log = fs.replayed();
    drop(fs);
    let commit = trial.into_commit();
    if commit.is_some() {
        // The next rebuild finds this in order.
        said.append(&mut made.said);
    }
    say_replayed(&log, said);
    let Some(mut commit) = commit else {
        return Ok(None);
    };
    // The commit refers to nodes of the base.
    for (at, b) in made.blocks {
        commit.entry(at).or_insert(b);
    }
    let mut old = made.old;
    for (start, len, owner) in made.claims.runs().chain(of_log) {
        old.add(start, len, owner);
    }
    let unread = Unread {
        blocks: made.unread,
        retry: made.retry,
    };
    Ok(Some((commit, old, unread)))
}

/// Says what of the log is lost.
pub fn say_replayed(log: &Replayed, said: &mut Vec<String>) {
    if log.batches > 0 {
        said.push(format!("log: {} batches were replayed", log.batches));
    }
    if log.skipped > 0 {
        said.push(format!(
            "log: {} operations are left out, because what they change is lost",
            log.skipped
        ));
    }
    if let Some(newer) = log.newer {
        said.push(format!(
            "log: superblock {newer} was durable and is missing: what came after it is lost"
        ));
    }
    match (log.lost, log.damaged) {
        (Some(lost), _) => said.push(format!(
            "log: batches {}..={} are damaged, and what fsync acknowledged in them is lost",
            lost.seq, lost.newest
        )),
        (None, Some(seq)) => said.push(format!(
            "log: batch {seq} is cut off or damaged, and is left out"
        )),
        (None, None) => {}
    }
}

/// The blocks that records of the log map, which are free on disk and whose content counts: start, length
/// and inode; and the least number above those of the inodes that it makes.
fn named_by_log(view: &Overlay, sb: &Superblock) -> Result<(Vec<(u64, u64, u64)>, u64), String> {
    let failed = |e| format!("log: {e:?}");
    let shared = Shared::new(view.device()).map_err(failed)?;
    let st = NodeStore::new(shared, sb.node_id, 0).map_err(failed)?;
    let mut ahead = Ahead::new(st.device()).map_err(failed)?;
    let area = Area {
        start: sb.log_start,
        len: sb.log_len,
    };
    let (mut at, mut named) = ((sb.log_pos, sb.log_seq), Vec::new());
    let mut next_ino = 0;
    let mut payload = kernel::prelude::KVVec::new();
    while at.0 < sb.log_pos + sb.log_len {
        let found = ring::read(&st, area, &mut ahead, at, &mut payload).map_err(failed)?;
        let Found::Whole(header) = found else { break };
        let mut rest = &payload[..];
        while let Some((r, next)) = decode(rest) {
            rest = next;
            // The commit has those that it has overtaken.
            if r.generation <= sb.generation {
                continue;
            }
            let (start, len, ino) = match r.record {
                Record::Write {
                    ino, phys, csums, ..
                } => (phys, csums.len() as u64 / 4, ino),
                Record::Preallocate { ino, phys, len, .. } => (phys, len, ino),
                Record::Create { ino, .. } if ino < MAX_INO - 1 => {
                    next_ino = next_ino.max(ino + 1);
                    continue;
                }
                _ => continue,
            };
            if start.checked_add(len).is_some_and(|end| end <= sb.blocks) {
                named.push((start, len, ino));
            }
        }
        at = header.next();
    }
    Ok((named, next_ino))
}

/// Carries a plan out. Returns what could not be written, and is of no importance.
pub fn apply(plan: &Plan, device: &Device) -> Result<Vec<String>, String> {
    let failed = |e| format!("cannot write: {e:?}");
    write_blocks(&plan.blocks, device, |_, e| Err(e)).map_err(failed)?;
    device.flush().map_err(failed)?;
    let mut unwritten = write_superblocks(plan, device)?;
    let mut left = 0;
    // A block that cannot be written keeps none of the others from it.
    let copies = write_blocks(&plan.copies, device, |batch, _| {
        let one = |(at, b): &(u64, Block)| device.write(&[(*at, b)]);
        left += batch.iter().filter(|copy| one(copy).is_err()).count();
        Ok(())
    });
    if let Err(e) = copies.and_then(|()| device.flush()) {
        unwritten.push(format!("copies of nodes cannot be written: {e:?}"));
    } else if left > 0 {
        unwritten.push(format!("{left} bad copies of nodes cannot be written"));
    }
    Ok(unwritten)
}

/// Writes blocks, many at once. `otherwise` decides what becomes of those of a write that has failed.
fn write_blocks(
    blocks: &Blocks,
    device: &Device,
    mut otherwise: impl FnMut(&[(u64, Block)], Error) -> kernel::prelude::Result,
) -> kernel::prelude::Result {
    let mut all = blocks.iter();
    loop {
        let mut batch = Vec::new();
        for (at, b) in all.by_ref().take(BATCH) {
            let mut copy = Block::zeroed()?;
            copy.copy_from_slice(&b[..]);
            batch.push((*at, copy));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let reqs: Vec<(u64, &Block)> = batch.iter().map(|(at, b)| (*at, b)).collect();
        if let Err(e) = device.write(&reqs) {
            otherwise(&batch, e)?;
        }
    }
}

/// Writes the superblock of the new generation, and the same of the next one into the other slot.
fn write_superblocks(plan: &Plan, device: &Device) -> Result<Vec<String>, String> {
    let failed = |e| format!("a superblock cannot be written: {e:?}");
    let mut sb = plan.sb.clone();
    sb.write(device).map_err(failed)?;
    sb.generation += 1;
    sb.write(device).map_err(failed)?;
    // The filesystem is as good without them.
    match plan.backups.then(|| sb.write_backups(device)) {
        Some(Err(e)) => Ok(vec![format!(
            "a backup of the superblock cannot be written: {e:?}"
        )]),
        _ => Ok(Vec::new()),
    }
}
