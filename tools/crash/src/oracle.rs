// SPDX-License-Identifier: GPL-2.0

//! What a reader may see after a power cut: docs/GUARANTEES.md as a program.
//!
//! | module | what is in it |
//! |---|---|
//! | [`object`] | what each object was at each time |
//! | [`view`] | what a reader finds after a power cut |
//! | [`judge`] | whether that is allowed |
//!
//! The oracle knows nothing of the engine. The simulator reports to it what every operation means
//! (POSIX, not OrdoFS), when it began, and which calls that promise durability have returned. For a
//! power cut it computes
//!
//! - the *floor*: what had been promised by then. For names it is the newest promise of all, by
//!   promise 2; for a file's data and attributes it is the newest fsync of that file, or sync
//!   (promises 1 and 3);
//! - the *ceiling*: what had begun by then.
//!
//! Names must be those of one moment between floor and ceiling (promises 2 and 4), and so must the
//! extended attributes of an inode (7). Each block of a file must have the content that it had at
//! the floor, or a later one (promises 5 and 6). So must size, mode, owner and times, each for
//! itself. The change counter is at least that of the floor, and the generation number of an inode
//! never changes. Three rules tie the others together:
//!
//! - a file that a rename put in another's place has brought its data along (promise 4);
//! - an access control list and the permissions are of the same moment (promise 7);
//! - what a truncation cut off does not come back, however the file grows afterwards (promise 5).
//!
//! The filesystem has a size that it had at one moment between floor and ceiling, of which the floor is
//! the newest resize that has returned (promise 11).
//!
//! Times are numbers of operations ([`When`]) and ticks of the device ([`Tick`]); sizes and
//! positions are in bytes.
//!
//! Tests: `scripts/crash mutants`; tools/crash/tests/attributes.rs, recovery.rs.

mod judge;
mod object;
mod view;

pub use object::{acl, Id, Object, When, Xattrs, ACL, NEVER};
pub use view::{Seen, View};

use crate::disk::{Data, Tick, SIZE};
use crate::os::Time;
use object::{Size, Version};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A promise that was made.
#[derive(Clone)]
struct Ack {
    /// When the call returned.
    returned: Tick,
    /// The last operation that it covers.
    time: When,
    /// The object that it covers; `None` for all.
    who: Option<Id>,
    /// Does it cover times? (fdatasync does not.)
    times: bool,
}

/// All names: directory, name, object.
pub type Names = BTreeMap<(Id, &'static str), Id>;

#[derive(Clone)]
struct Moment {
    time: When,
    /// In inode numbers, sorted.
    names: Vec<(u64, &'static str, u64)>,
}

/// The moment of a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Calls that had returned at this tick count as returned.
    pub returned: Tick,
    /// Operations that began before this tick may have left something on the medium; later ones
    /// cannot.
    pub begun: Tick,
}

/// The oracle.
#[derive(Clone)]
pub struct Oracle {
    /// All objects that ever existed.
    pub objects: Vec<Object>,
    /// The present names.
    pub names: Names,
    moments: Vec<Moment>,
    acks: Vec<Ack>,
    /// The sizes of the filesystem, in blocks, and the operations that gave them to it.
    fs_sizes: Vec<(When, u64)>,
    /// When resizes returned, and how far the sizes were then.
    fs_acks: Vec<(Tick, usize)>,
    /// When each operation began.
    began: Vec<Tick>,
    zero: Data,
}

/// The root directory.
pub const ROOT: Id = 0;

impl Oracle {
    /// An oracle that knows the root directory only, of a filesystem of `blocks` blocks.
    pub fn new(
        (root_ino, generation): (u64, u32),
        root_mode: u32,
        mtime: Time,
        blocks: u64,
    ) -> Self {
        let mut o = Self {
            objects: Vec::new(),
            names: Names::new(),
            moments: Vec::new(),
            acks: Vec::new(),
            fs_sizes: vec![(0, blocks)],
            fs_acks: Vec::new(),
            began: vec![0],
            zero: Arc::new([0; SIZE]),
        };
        o.add((root_ino, generation), root_mode, mtime, None);
        o
    }

    /// The number of the present operation.
    pub fn now(&self) -> When {
        (self.began.len() - 1) as When
    }

    /// Begins an operation.
    pub fn begin(&mut self, tick: Tick) -> When {
        self.began.push(tick);
        self.now()
    }

    /// Forgets the history. The present state counts as the one from the beginning.
    pub fn settle(&mut self) {
        self.began = vec![0];
        self.acks.clear();
        self.moments.clear();
        self.fs_acks.clear();
        self.fs_sizes.drain(..self.fs_sizes.len() - 1);
        self.fs_sizes[0].0 = 0;
        for o in &mut self.objects {
            for v in o.blocks.values_mut() {
                v.drain(..v.len() - 1);
                v[0].time = 0;
                v[0].sure = 0;
            }
            o.sizes = vec![Size {
                time: 0,
                sure: 0,
                bytes: o.size,
                grew_from: None,
                cut: false,
            }];
            fn last<T: Clone>(v: &mut Vec<(When, T)>) {
                v.drain(..v.len() - 1);
                v[0].0 = 0;
            }
            last(&mut o.modes);
            last(&mut o.owners);
            last(&mut o.mtimes);
            last(&mut o.xattrs);
            last(&mut o.changes);
            o.brought.clear();
        }
        self.names_changed();
    }

    /// Notes that the names have changed.
    pub fn names_changed(&mut self) {
        let mut names: Vec<_> = self
            .names
            .iter()
            .map(|((dir, name), id)| (self.objects[*dir].ino, *name, self.objects[*id].ino))
            .collect();
        names.sort_unstable();
        let time = self.now();
        self.moments.push(Moment { time, names });
    }

    /// Adds an object with this inode number and generation number.
    pub fn add(
        &mut self,
        (ino, generation): (u64, u32),
        mode: u32,
        mtime: Time,
        target: Option<Vec<u8>>,
    ) -> Id {
        let t = self.now();
        let size = target.as_ref().map_or(0, |t| t.len() as u64);
        self.objects.push(Object {
            ino,
            generation,
            mode,
            size,
            target,
            open: false,
            blocks: BTreeMap::new(),
            sizes: vec![Size {
                time: t,
                sure: t,
                bytes: size,
                grew_from: None,
                cut: false,
            }],
            modes: vec![(t, mode)],
            owners: vec![(t, 0)],
            mtimes: vec![(t, mtime)],
            xattrs: vec![(t, Xattrs::new())],
            changes: vec![(t, 0)],
            brought: Vec::new(),
        });
        self.objects.len() - 1
    }

    /// The number of names of an object.
    pub fn links(&self, id: Id) -> usize {
        self.names.values().filter(|i| **i == id).count()
    }

    /// Does the directory have entries?
    pub fn has_entries(&self, dir: Id) -> bool {
        self.names.keys().any(|(d, _)| *d == dir)
    }

    /// The present content of a block.
    pub fn block(&self, id: Id, block: u64) -> &Data {
        let versions = self.objects[id].blocks.get(&block);
        versions
            .and_then(|v| v.last())
            .map_or(&self.zero, |v| &v.data)
    }

    /// Changes bytes of a file: calls `f(offset in the file, bytes)` for each block of the range.
    /// `sure` is the operation from which the change counts as done, or [`NEVER`] while the write
    /// is in flight.
    pub fn change(
        &mut self,
        id: Id,
        pos: u64,
        len: u64,
        sure: When,
        mut f: impl FnMut(u64, &mut [u8]),
    ) {
        let (time, end) = (self.now(), pos + len);
        let mut at = pos;
        while at < end {
            let block = at / SIZE as u64;
            let from = (at % SIZE as u64) as usize;
            let n = (SIZE - from).min((end - at) as usize);
            let mut data = **self.block(id, block);
            f(at, &mut data[from..from + n]);
            let zero = self.zero.clone();
            let versions = self.objects[id].blocks.entry(block).or_insert_with(|| {
                vec![Version {
                    time: 0,
                    sure: 0,
                    data: zero,
                }]
            });
            versions.push(Version {
                time,
                sure,
                data: Arc::new(data),
            });
            at += n as u64;
        }
    }

    /// Notes that the writes in flight on a file have ended, during the present operation. That
    /// operation promises nothing about them; later ones do.
    pub fn landed(&mut self, id: Id) {
        let now = self.now() + 1;
        let o = &mut self.objects[id];
        let blocks = o.blocks.values_mut().flatten().map(|v| &mut v.sure);
        for sure in blocks.chain(o.sizes.iter_mut().map(|s| &mut s.sure)) {
            if *sure == NEVER {
                *sure = now;
            }
        }
    }

    /// Lets the file grow to this size by a write of data.
    pub fn grow(&mut self, id: Id, bytes: u64) {
        let time = self.now();
        let o = &mut self.objects[id];
        if bytes <= o.size {
            return;
        }
        o.sizes.push(Size {
            time,
            sure: time,
            bytes,
            grew_from: Some(o.size),
            cut: false,
        });
        o.size = bytes;
    }

    /// Gives the file this size. What is cut off is zero if it ever comes back.
    pub fn resize(&mut self, id: Id, bytes: u64) {
        let time = self.now();
        let (old, last) = (self.objects[id].size, self.end_of_blocks(id));
        if bytes < last {
            self.change(id, bytes, last - bytes, time, |_, b| b.fill(0));
        }
        let o = &mut self.objects[id];
        o.sizes.push(Size {
            time,
            sure: time,
            bytes,
            grew_from: None,
            cut: bytes < old,
        });
        o.size = bytes;
    }

    fn end_of_blocks(&self, id: Id) -> u64 {
        let last = self.objects[id].blocks.last_key_value();
        last.map_or(0, |(b, _)| (b + 1) * SIZE as u64)
    }

    /// Sets the permission bits.
    pub fn set_mode(&mut self, id: Id, mode: u32) {
        let t = self.now();
        self.objects[id].mode = mode;
        self.objects[id].modes.push((t, mode));
    }

    /// Sets the owner.
    pub fn set_owner(&mut self, id: Id, uid: u32) {
        let t = self.now();
        self.objects[id].owners.push((t, uid));
    }

    /// Sets the modification time that stat shows from now on.
    pub fn set_mtime(&mut self, id: Id, mtime: Time) {
        let t = self.now();
        self.objects[id].mtimes.push((t, mtime));
    }

    /// Notes the change counter that a user sees from now on.
    pub fn set_change(&mut self, id: Id, change: u64) {
        let t = self.now();
        let all = &mut self.objects[id].changes;
        if all.last().is_none_or(|c| c.1 != change) {
            all.push((t, change));
        }
    }

    /// The present extended attributes.
    pub fn xattrs(&self, id: Id) -> &Xattrs {
        let x = self.objects[id].xattrs.last();
        &x.expect("there is always a first").1
    }

    /// Sets the extended attributes.
    pub fn set_xattrs(&mut self, id: Id, x: Xattrs) {
        let t = self.now();
        self.objects[id].xattrs.push((t, x));
    }

    /// Notes that a rename put the file in another's place.
    pub fn replaced_by(&mut self, id: Id) {
        let t = self.now();
        self.objects[id].brought.push(t);
    }

    /// Notes that a call has returned that promises durability of everything up to `time`.
    pub fn ack(&mut self, returned: Tick, time: When, who: Option<Id>, times: bool) {
        self.acks.push(Ack {
            returned,
            time,
            who,
            times,
        });
    }

    /// Notes that a resize to this size begins.
    pub fn resize_fs(&mut self, blocks: u64) {
        self.fs_sizes.push((self.now(), blocks));
    }

    /// Notes that the resize has returned.
    pub fn ack_size(&mut self, returned: Tick) {
        self.fs_acks.push((returned, self.fs_sizes.len() - 1));
    }

    /// Notes that it has changed nothing.
    pub fn unresized(&mut self) {
        self.fs_sizes.pop();
    }

    /// The sizes that the filesystem has had, or was to get.
    pub fn fs_sizes(&self) -> impl Iterator<Item = u64> + '_ {
        self.fs_sizes.iter().map(|s| s.1)
    }

    /// The sizes that the filesystem can have, each with its operation: that of the newest resize that
    /// has returned, and those of later ones.
    fn allowed_sizes(&self, cut: Cut) -> &[(When, u64)] {
        let promised = self.fs_acks.iter().filter(|a| a.0 <= cut.returned);
        &self.fs_sizes[promised.map(|a| a.1).max().unwrap_or(0)..]
    }

    /// Whether no resize is under way.
    pub fn is_size_settled(&self, cut: Cut) -> bool {
        self.allowed_sizes(cut).len() == 1
    }

    /// The size that was promised last.
    pub fn promised_size(&self, cut: Cut) -> u64 {
        self.allowed_sizes(cut)[0].1
    }

    fn floor(&self, cut: Cut, f: impl Fn(&Ack) -> bool) -> When {
        let made = self.acks.iter().filter(|a| a.returned <= cut.returned);
        made.filter(|a| f(a)).map(|a| a.time).max().unwrap_or(0)
    }

    fn ceiling(&self, cut: Cut) -> When {
        (self.began.partition_point(|b| *b < cut.begun).max(1) - 1) as When
    }

    /// A value that is equal for cuts that allow the same results.
    pub fn window(&self, cut: Cut) -> (usize, When) {
        let acks = self.acks.iter().filter(|a| a.returned <= cut.returned);
        let sizes = self.fs_acks.iter().filter(|a| a.0 <= cut.returned);
        (acks.count() + sizes.count(), self.ceiling(cut))
    }
}
