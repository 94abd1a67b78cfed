// SPDX-License-Identifier: GPL-2.0

//! One allocation group (AG) in memory: its record, the tree of its groups of 8192 blocks, and the
//! bitmaps of the groups in use.
//!
//! # Model
//!
//! The record of an AG and the tree of its groups have, for generation N, exactly the blocks that
//! generation N uses, and only commits change them. In memory a group in use has
//!
//! - `used`: the blocks that must not be handed out. A block becomes *used* when it is allocated,
//!   and stops being used when the commit that freed it is durable (R7: freed is not free);
//! - `busy`: how many of the used blocks belong to data I/O in flight. They are in no transaction
//!   until the I/O completes, so a crash gives them back;
//! - `run` and `commit`: what the running and the committing transaction allocate and free.
//!
//! The record is read when the AG is first used, and a group when it is first used, or when a search
//! comes to it. The bitmap of a group leaves memory some time after the group became idle; its free
//! count stays with the AG.
//!
//! # Damage
//!
//! An AG becomes *bad* if its record cannot be read, or if the record of a group that is asked for
//! cannot be, or contradicts what is known. It counts as full from then on, and blocks freed there
//! stay used until the filesystem is repaired ([`Ag::take_leaked`] counts them). What transactions
//! have already done there goes on; beyond that nothing of it is written any more. Nothing is
//! allocated there either, so if everything can be read again one day, it has every block that is in
//! use. A single group cannot be given up instead: a group without a record is free only if all
//! records before it can be read.
//!
//! # Kept blocks
//!
//! Behind the last block of a file that is appended to, blocks are *kept*: another file gets them
//! only if it would get less than it needs, or nothing, without them. That is a hint in memory. Kept
//! blocks count as free everywhere, so nothing depends on the hint ([`Kept`]). Blocks that are being
//! discarded count as free as well, and a search passes over them meanwhile (`trim.rs`).
//!
//! Block numbers are relative to the start of the AG, bits to the start of a group, and ranges are
//! half-open.
//!
//! # Locks
//!
//! Everything is under the AG's mutex. A group stays in memory while it has busy blocks or deltas,
//! and an AG while it has such a group ([`super::table`]). The running commit changes the tree
//! before it is durable, so the tree is read only for groups that no transaction has touched.
//!
//! Tests: `tools/models/tests/rules/r7.rs`, `tools/engine/tests/appends.rs`,
//! `tools/engine/tests/full_disk.rs`, `tools/engine/tests/impossible.rs`,
//! `tools/engine/tests/bulk.rs`.

mod change;
mod close;
mod commit;
mod grow;
mod search;
mod trim;

pub use search::MIN_KEPT;
pub use trim::Span;

use super::bits::Bits;
use crate::engine::btree::NodeStore;
use crate::engine::btree::{Tree, TreeId, TreeKind, ValueBuf};
use crate::engine::format::ag::{run_class, AgRecord, RootForm, NOT_TRUSTED, NO_ALLOCATION};
use crate::engine::format::group::{group_len, GroupRecord};
use crate::engine::format::{corrupt, corrupt_fmt, GROUP_BLOCKS};
use crate::engine::invariant::{broken, check, Invariant};
use crate::os::Map;
use core::ops::Range;
use kernel::prelude::*;

/// A write that finds only shorter runs in an AG looks in others, and then takes what is kept for
/// other files. 256 KiB.
pub const PIECE: u32 = 64;
/// How many idle groups of an AG stay in memory.
const IDLE_GROUPS: usize = 8;
/// Not a group: an empty place among the idle ones.
const NO_GROUP: u64 = u64::MAX;
/// Nodes that the first change of an AG in a transaction may dirty: the leaf with its record, and of
/// the tree of its groups the root and two leaves.
const FIRST_TOUCH: u64 = 4;
/// The most nodes that the first change of a group in a transaction dirties.
pub const GROUP_NODES: u64 = FIRST_TOUCH;
/// The class of a run is not known.
const UNKNOWN: u8 = u8::MAX;
/// Free blocks that are kept for the next appends to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// First block: of the device where the file has it, of the AG where the AG has it.
    pub start: u64,
    /// Number of blocks.
    pub len: u32,
    /// Distinguishes it from others that were kept at the same place before.
    pub(super) id: u64,
}

/// A request for blocks.
#[derive(Clone, Copy)]
pub struct Wish {
    /// How many blocks to allocate in one run.
    pub want: u32,
    /// The block to start the search at.
    pub goal: Option<u64>,
    /// The owner of the blocks.
    pub owner: Owner,
    /// The blocks kept for the file so far.
    pub kept: Option<Kept>,
    /// How many blocks to keep for the file behind the run.
    pub keep: u32,
    /// Any run will do, and one that would come in small pieces takes what is kept for other files.
    /// Otherwise a run that does not begin at the goal must have [`Wish::least`] blocks.
    pub last: bool,
    /// How many blocks to take if a run is longer than what was searched for.
    pub up_to: u32,
}

impl Wish {
    /// How many blocks a run must have, those to be kept included, that is not at the goal and is
    /// not the last resort: a [`PIECE`], or what is wished for if that is less.
    pub fn least(&self) -> u32 {
        let piece = self.want.min(PIECE).saturating_add(self.keep);
        piece.clamp(1, PIECE)
    }
}

/// The blocks that a transaction allocates and frees in a group.
struct Delta {
    set: Bits,
    clear: Bits,
}

impl Delta {
    fn new() -> Result<Self> {
        Ok(Self {
            set: Bits::zeroed()?,
            clear: Bits::zeroed()?,
        })
    }
}

/// A group in memory.
struct Group {
    /// The blocks that must not be handed out.
    used: Bits,
    /// How many of them belong to data I/O in flight.
    busy: u32,
    /// The blocks that the running and the committing transaction allocate (`set`) and free
    /// (`clear`).
    run: Option<Delta>,
    commit: Option<Delta>,
    /// The commit's delta has changed since it was last put into the tree.
    stale: bool,
}

impl Group {
    /// Whether the group may leave memory.
    fn idle(&self) -> bool {
        self.busy == 0 && self.run.is_none() && self.commit.is_none()
    }
}

/// The owner of an allocated block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Data I/O in flight.
    Busy,
    /// The running transaction.
    Running,
    /// The transaction that is being committed.
    Committing,
}

/// The transaction that frees blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FreedBy {
    /// The running one.
    Running,
    /// The one that is being committed.
    Commit,
}

/// What is known of a group, whether or not its bitmap is in memory.
#[derive(Clone, Copy)]
struct Info {
    /// The blocks that are not used; nothing if the group was never read.
    free: Option<u32>,
    /// An upper bound of the free runs. It saves repeated searches for long runs where there are
    /// none.
    longest: u32,
    /// The class of the longest free run of the group in the tree, or [`UNKNOWN`].
    class: u8,
}

/// Whether an AG can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Its record has not been read.
    Unread,
    /// It can be used.
    Good,
    /// Its record cannot be read, or says that it is not to be trusted.
    Bad,
}

/// The state of an AG.
pub struct Ag {
    /// Its number.
    number: u64,
    /// The number of blocks.
    len: u64,
    state: State,
    /// The tree of the groups.
    tree: Tree,
    /// Of the record: flags, the class of the longest run, and the sections to be kept.
    flags: u8,
    longest: u8,
    ignorable: KVec<u8>,
    /// The record must be written again.
    changed: bool,
    /// What is known of each group.
    info: KVec<Info>,
    /// The groups in memory, by number.
    groups: Map<u64, Group>,
    /// The groups that became idle last. Some of them may be in use again, or have left memory.
    idle: [u64; IDLE_GROUPS],
    /// The place in `idle` for the next one.
    next_idle: usize,
    /// The blocks kept for files, at most `KEPT` entries, those that were kept first in front.
    kept: KVec<Kept>,
    /// The id of the last ones.
    next_id: u64,
    /// Scratch: the bitmap of a group, with the blocks kept or withheld in it. Allocated with the
    /// first of these.
    scratch: Option<Bits>,
    /// Free blocks, and others among them, that a search passes over because they are being discarded.
    withheld: Option<Range<u64>>,
    /// Nothing is allocated from this block on.
    closed_from: u64,
    /// What [`Ag::take_closed_gain`] returns next.
    closed_gain: u64,
    /// The blocks there that transactions have freed which are not durable, and how many of them
    /// [`Ag::take_closed_freed`] has told of.
    closed_freed: u64,
    told_freed: u64,
    /// The number of blocks that are not used; 0 if the AG is bad.
    left: u64,
    /// The free blocks of the record, with the commit's deltas that were put there.
    on_disk: u64,
    /// Busy blocks.
    busy: u64,
    /// Blocks that the running transaction has allocated.
    running: u64,
    /// Of a bad AG: the blocks that are not used.
    bad_free: u64,
    /// The block where the next search without a goal starts.
    cursor: u64,
    /// How many groups the running transaction has touched.
    run_groups: u64,
    /// What [`Ag::take_touched`], [`Ag::take_change`], [`Ag::take_lost`] and [`Ag::take_leaked`]
    /// return next.
    touched: u64,
    change: i64,
    lost: u64,
    leaked: u64,
    /// The part of `lost` that was free when the AG became bad.
    condemned: u64,
    /// How many transactions have been frozen here; see [`super::Space::freeze`].
    pub(super) frozen: u64,
}

impl Ag {
    /// AG `number` of `len` blocks, whose record has not been read, so that it seems full. `frozen`
    /// transactions have been frozen so far, and `first_id` is the id of the first kept blocks.
    pub fn new(number: u64, len: u64, frozen: u64, first_id: u64) -> Self {
        Self {
            number,
            len,
            state: State::Unread,
            tree: Tree::empty(Self::tree_id(number)),
            flags: 0,
            longest: 0,
            ignorable: KVec::new(),
            changed: false,
            info: KVec::new(),
            groups: Map::new(),
            idle: [NO_GROUP; IDLE_GROUPS],
            next_idle: 0,
            kept: KVec::new(),
            next_id: first_id,
            scratch: None,
            withheld: None,
            closed_from: u64::MAX,
            closed_gain: 0,
            closed_freed: 0,
            told_freed: 0,
            left: 0,
            on_disk: 0,
            busy: 0,
            running: 0,
            bad_free: 0,
            cursor: 0,
            run_groups: 0,
            touched: 0,
            change: 0,
            lost: 0,
            leaked: 0,
            condemned: 0,
            frozen,
        }
    }

    /// The identity of the tree of the groups of AG `number`.
    pub fn tree_id(number: u64) -> TreeId {
        TreeId::new(TreeKind::Groups, number)
    }

    /// The tree that a record has.
    pub fn tree_of(number: u64, root: &RootForm<'_>) -> Result<Tree> {
        let id = Self::tree_id(number);
        match root {
            RootForm::Empty => Ok(Tree::empty(id)),
            RootForm::Inline(items) => Tree::from_inline(id, items),
            RootForm::Ptr(p) => Ok(Tree::from_ptr(id, *p)),
        }
    }

    /// Whether the AG can be used.
    pub fn state(&self) -> State {
        self.state
    }

    /// Fills an AG that was not read with its record. EUCLEAN if that cannot be true, ENOMEM; the AG
    /// is not read then.
    pub fn fill(&mut self, record: &[u8]) -> Result {
        let rec = AgRecord::decode(self.number, self.len, record)?;
        if !rec.shared.is_empty() {
            let what = "it has shared blocks, which this version does not support";
            return Err(corrupt("allocation group", self.number, what));
        }
        let tree = Self::tree_of(self.number, &rec.groups)?;
        let groups = self.len.div_ceil(GROUP_BLOCKS);
        let mut info = KVec::with_capacity(groups as usize, GFP_KERNEL)?;
        for g in 0..groups {
            let len = group_len(self.len, g);
            // All groups of an AG that is free as a whole are known.
            let known = u64::from(rec.free) == self.len;
            let one = Info {
                free: known.then_some(len),
                longest: len,
                class: if known {
                    run_class(len.into())
                } else {
                    UNKNOWN
                },
            };
            info.push(one, GFP_KERNEL)?;
        }
        let mut ignorable = KVec::new();
        ignorable.extend_from_slice(rec.ignorable, GFP_KERNEL)?;
        (self.tree, self.info, self.ignorable) = (tree, info, ignorable);
        (self.flags, self.longest) = (rec.flags, rec.longest);
        self.on_disk = rec.free.into();
        self.left = self.on_disk;
        self.state = State::Good;
        if rec.flags & NOT_TRUSTED != 0 {
            self.condemn();
        }
        Ok(())
    }

    /// Makes the AG bad, and what is free there lost.
    pub fn condemn(&mut self) {
        if self.state == State::Bad {
            return;
        }
        self.state = State::Bad;
        self.bad_free = core::mem::take(&mut self.left);
        self.change -= self.bad_free as i64;
        self.lost += self.bad_free;
        self.condemned += self.bad_free;
        pr_err!(
            "allocation group {}: damaged: nothing is allocated or freed there any more\n",
            self.number
        );
    }

    /// Whether the AG is bad because its record could not be read.
    pub fn has_no_record(&self) -> bool {
        self.state == State::Bad && self.info.is_empty()
    }

    /// The record of an AG that has none can be read now, perhaps: it is to be read again.
    pub fn read_again(&mut self) {
        self.state = State::Unread;
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of blocks of group `g`.
    fn group_len(&self, g: u64) -> u32 {
        group_len(self.len, g)
    }

    /// The number of blocks that are not used.
    pub fn free_blocks(&self) -> u64 {
        self.left
    }

    /// Whether blocks may be allocated here.
    fn allocates(&self) -> bool {
        self.state == State::Good
            && self.flags & NO_ALLOCATION == 0
            && self.left > 0
            && self.closed_from > 0
    }

    /// Whether the AG may leave memory: it has nothing that its record has not.
    pub fn is_idle(&self) -> bool {
        let mut idle = self.state != State::Bad && self.busy == 0 && !self.changed;
        idle &= self.lost == 0 && self.change == 0 && self.withheld.is_none();
        self.groups.for_each(|_, group| idle &= group.idle());
        idle
    }

    /// What is free is what the record says, but for what was allocated since and what bad groups
    /// have. Holds while no commit is under way.
    fn check_free(&self) -> Result {
        let taken = self.busy + self.running + self.bad_free;
        check(
            Invariant::FreeCount,
            self.info.is_empty() || self.left + taken == self.on_disk,
            format_args!(
                "AG {}: {} free, {} on disk, {} busy, {} allocated, {} bad",
                self.number, self.left, self.on_disk, self.busy, self.running, self.bad_free
            ),
        )
    }

    fn info_mut(&mut self, g: u64) -> Option<&mut Info> {
        self.info.get_mut(usize::try_from(g).ok()?)
    }

    fn info(&self, g: u64) -> Option<&Info> {
        self.info.get(usize::try_from(g).ok()?)
    }

    /// Changes the free count of group `g`, which is known, by `by`.
    fn add_free(&mut self, g: u64, by: i32) {
        let cap = self.group_len(g);
        let Some(info) = self.info_mut(g) else { return };
        let old = info.free.unwrap_or(0);
        let new = old.saturating_add_signed(by).min(cap);
        info.free = Some(new);
        let by = i64::from(new) - i64::from(old);
        if self.state == State::Bad {
            self.bad_free = self.bad_free.saturating_add_signed(by);
            // What a replay claims there was lost before.
            self.lost += by.max(0) as u64;
            return;
        }
        self.left = self.left.saturating_add_signed(by);
        self.change += by;
    }

    /// Sets `bits` to the used blocks of group `g` in the tree; the bits past the end of the group
    /// are set. Returns the groups that share a record with it because they are full. EUCLEAN if the
    /// record is damaged.
    fn disk_bits(
        &self,
        node_store: &NodeStore,
        g: u64,
        bits: &mut Bits,
    ) -> Result<Option<Range<u64>>> {
        let cap = self.group_len(g);
        let mut v = ValueBuf::new();
        bits.clear(0, GROUP_BLOCKS as u32);
        bits.set(cap, GROUP_BLOCKS as u32 - cap);
        let Some(key) = self.tree.find_le(node_store, g, &mut v)? else {
            return Ok(None);
        };
        let rec = self.parse(key, &v)?;
        let end = key.saturating_add(rec.groups().into());
        if g >= end {
            return Ok(None);
        }
        bits.clear(0, GROUP_BLOCKS as u32);
        rec.load(cap, bits);
        Ok(matches!(rec, GroupRecord::Full { .. }).then_some(key..end))
    }

    /// The record of groups with key `key` and the value `v`. EUCLEAN.
    fn parse<'v>(&self, key: u64, v: &'v [u8]) -> Result<GroupRecord<'v>> {
        GroupRecord::parse(self.len, key, v).map_err(|what| self.bad_record(key, what))
    }

    fn bad_record(&self, key: u64, what: &str) -> Error {
        corrupt_fmt(format_args!(
            "allocation group {}: record of group {key}: {what}",
            self.number
        ))
    }

    /// Full groups before the record of group `g`, or the last one before it, do not go on behind it.
    /// EUCLEAN.
    fn check_before(&self, node_store: &NodeStore, g: u64) -> Result {
        let mut v = ValueBuf::new();
        let Some(key) = self.tree.find_le(node_store, g, &mut v)? else {
            return Ok(());
        };
        let Some(before) = key.checked_sub(1) else {
            return Ok(());
        };
        let Some(first) = self.tree.find_le(node_store, before, &mut v)? else {
            return Ok(());
        };
        match key < first.saturating_add(self.parse(first, &v)?.groups().into()) {
            true => Err(self.bad_record(key, "it is in the record before, too")),
            false => Ok(()),
        }
    }

    /// The blocks of superblocks and log in group `g` must be among the used blocks. EUCLEAN.
    fn check_fixed(&self, node_store: &NodeStore, g: u64, used: &Bits) -> Result {
        let room = node_store.space();
        let first = room.ag_start(self.number).saturating_add(g * GROUP_BLOCKS);
        let end = first.saturating_add(self.group_len(g).into());
        for (start, len) in room.fixed_areas() {
            let from = start.clamp(first, end);
            let to = start.saturating_add(len).clamp(first, end);
            let (at, n) = ((from - first) as u32, (to - from) as u32);
            if used.count_range(at, n) != n {
                return Err(corrupt_fmt(format_args!(
                    "allocation group {}: group {g} says that blocks of superblocks or of the log are free",
                    self.number
                )));
            }
        }
        Ok(())
    }

    /// Group `g`, read from the tree if it is not in memory. If it is damaged, the AG becomes bad, and
    /// a bad AG has only the groups in memory: EUCLEAN.
    fn group(&mut self, node_store: &NodeStore, g: u64) -> Result<&mut Group> {
        if self.groups.get(&g).is_none() {
            if self.state != State::Good {
                return Err(EUCLEAN);
            }
            if let Err(e) = self.load_group(node_store, g) {
                if e != ENOMEM {
                    self.condemn();
                }
                return Err(e);
            }
            self.park(g);
        }
        self.groups
            .get_mut(&g)
            .ok_or_else(|| broken(Invariant::Contents, format_args!("group {g} left")))
    }

    /// Reads the used blocks of group `g`, which is not in memory, into `used`, and notes what is
    /// known from that. EUCLEAN if it contradicts what was known before.
    fn read_group(&mut self, node_store: &NodeStore, g: u64, used: &mut Bits) -> Result {
        let full = self.disk_bits(node_store, g, used)?;
        self.check_before(node_store, g)?;
        self.check_fixed(node_store, g, used)?;
        // A group that is not known was never changed, so what the tree says of it is true.
        for other in full.into_iter().flatten().filter(|other| *other != g) {
            let info = self.info_mut(other).filter(|i| i.free.is_none());
            if let Some(info) = info {
                (info.free, info.longest, info.class) = (Some(0), 0, run_class(0));
            }
        }
        self.note_group(g, used)
    }

    /// Notes what is known of group `g` from its used blocks. EUCLEAN if it contradicts what was
    /// known before.
    fn note_group(&mut self, g: u64, used: &Bits) -> Result {
        let cap = self.group_len(g);
        let free = cap - used.count_range(0, cap);
        let run = used.find_clear(0, cap, cap).map_or(0, |f| f.1);
        let left = self.left;
        let number = self.number;
        let info = self.info_mut(g).ok_or(EUCLEAN)?;
        if info.free.is_some_and(|f| f != free) {
            return Err(corrupt_fmt(format_args!(
                "allocation group {number}: group {g} has another number of free blocks than before"
            )));
        }
        let new = info.free.is_none();
        (info.free, info.longest) = (Some(free), run);
        info.class = run_class(run.into());
        if !new {
            return Ok(());
        }
        let (known, all) = self.known_free();
        if known > left || (all && known != left) {
            return Err(corrupt(
                "allocation group",
                number,
                "its groups have another number of free blocks than its record",
            ));
        }
        Ok(())
    }

    /// The free blocks of the groups that are known, and whether all are.
    fn known_free(&self) -> (u64, bool) {
        self.info.iter().fold((0, true), |(sum, all), i| {
            let free = u64::from(i.free.unwrap_or(0));
            (sum + free, all && i.free.is_some())
        })
    }

    /// Reads group `g` into memory.
    fn load_group(&mut self, node_store: &NodeStore, g: u64) -> Result {
        let mut used = Bits::zeroed()?;
        self.read_group(node_store, g, &mut used)?;
        self.add_group(g, used)
    }

    /// As [`Self::load_group`], in a new filesystem: the fixed areas are not in use yet.
    fn load_new_group(&mut self, node_store: &NodeStore, g: u64) -> Result {
        let mut used = Bits::zeroed()?;
        self.disk_bits(node_store, g, &mut used)?;
        self.note_group(g, &used)?;
        self.add_group(g, used)
    }

    fn add_group(&mut self, g: u64, used: Bits) -> Result {
        self.groups.insert(
            g,
            Group {
                used,
                busy: 0,
                run: None,
                commit: None,
                stale: false,
            },
        )?;
        Ok(())
    }

    /// Whether group `g` can be used, which is so if the AG is not bad. Reads its record if it is not
    /// in memory.
    fn is_good(&mut self, node_store: &NodeStore, g: u64) -> Result<bool> {
        if self.state != State::Good {
            return Ok(false);
        }
        let r = self.group(node_store, g).map(|_| true);
        match r {
            Err(_) if self.state != State::Good => Ok(false),
            r => r,
        }
    }

    /// Notes that group `g` is idle. It takes the place of the group that became idle
    /// [`IDLE_GROUPS`] groups ago, and that group leaves memory if it is still idle. Every group
    /// gets a place whenever it becomes idle, so there are never more idle groups than places.
    /// Needs no memory, and takes the same time however many groups are in use.
    fn park(&mut self, g: u64) {
        let Some(place) = self.idle.get_mut(self.next_idle) else {
            return;
        };
        let old = core::mem::replace(place, g);
        self.next_idle = (self.next_idle + 1) % IDLE_GROUPS;
        if old != g && self.groups.get(&old).is_some_and(Group::idle) {
            self.groups.remove(&old);
        }
    }

    /// Notes that the running transaction has touched `fresh` groups first.
    fn touch(&mut self, fresh: u64) {
        if fresh > 0 && self.run_groups == 0 {
            self.touched += FIRST_TOUCH - 1;
        }
        self.run_groups += fresh;
        self.touched += fresh;
    }

    /// How many nodes the running transaction has to reserve for groups that it touched first since
    /// the last call.
    pub fn take_touched(&mut self) -> u64 {
        core::mem::take(&mut self.touched)
    }

    /// By how much the number of blocks that are not used has changed since the last call.
    pub fn take_change(&mut self) -> i64 {
        core::mem::take(&mut self.change)
    }

    /// How many free blocks became unusable since the last call.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
    }

    /// The part of what [`Ag::take_lost`] returns that was free when the AG became bad.
    pub fn take_condemned(&mut self) -> u64 {
        core::mem::take(&mut self.condemned)
    }

    /// How many blocks were freed since the last call and stay used, because the AG is bad.
    pub fn take_leaked(&mut self) -> u64 {
        core::mem::take(&mut self.leaked)
    }

    /// The number of groups in memory.
    pub fn groups_in_memory(&self) -> usize {
        self.groups.len()
    }
}

/// The delta in `slot`. Makes one if there is none, and counts it in `fresh`.
fn delta<'a>(slot: &'a mut Option<Delta>, fresh: &mut u64) -> Result<&'a mut Delta> {
    if slot.is_none() {
        *slot = Some(Delta::new()?);
        *fresh += 1;
    }
    slot.as_mut().ok_or(ENOMEM)
}
