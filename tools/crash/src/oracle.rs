// SPDX-License-Identifier: GPL-2.0

//! What a reader may see after a power cut: docs/GUARANTEES.md as a program.
//!
//! The oracle hears what every operation means (POSIX, not OrdoFS), when it began and which calls that
//! promise something have returned. It knows nothing of the engine. For a power cut it computes
//!
//! - the *floor*: what had been promised by then. Promise 2 makes it one for all names; for a file's data
//!   and attributes it is the newest fsync of that file, or sync (promises 1 and 3);
//! - the *ceiling*: what had begun by then.
//!
//! Names must be those of one moment between floor and ceiling (promises 2 and 4), and so must the
//! extended attributes of an inode (7). Each block of a
//! file must be what it was at the floor, or became later (promises 5 and 6), and so must size, mode, owner and
//! times, each for itself. Three things tie them together:
//!
//! - a file that a rename put in another's place has brought its data along (promise 4);
//! - an access control list and the permissions are of the same moment (promise 7);
//! - what a truncation cut off does not come back, however the file grows afterwards (promise 5).

use crate::disk::{Data, Tick, SIZE};
use crate::os::Time;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Number of an object (file, directory, link) of a workload.
pub type Id = usize;
/// Number of an operation; 0 is before the first.
pub type When = u32;
/// Not yet.
pub const NEVER: When = When::MAX;

/// A file's block at some time.
#[derive(Clone)]
struct Version {
    time: When,
    /// Until then it may be missing in spite of promises: the write was still in flight.
    sure: When,
    data: Data,
}

/// A file's size at some time.
#[derive(Clone)]
struct Size {
    time: When,
    sure: When,
    bytes: u64,
    /// It grew by a write of data, from this size: parts of the write may be there.
    grew_from: Option<u64>,
    /// It was cut.
    cut: bool,
}

/// What there is to know about an object.
#[derive(Clone)]
pub struct Object {
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Size in bytes.
    pub size: u64,
    /// Is there a handle that keeps it alive without a name?
    pub open: bool,
    blocks: BTreeMap<u64, Vec<Version>>,
    sizes: Vec<Size>,
    modes: Vec<(When, u32)>,
    owners: Vec<(When, u32)>,
    mtimes: Vec<(When, Time)>,
    xattrs: Vec<(When, Xattrs)>,
    /// Since then, at the latest, its data is no older: it replaced another file by rename.
    brought: Vec<When>,
}

/// The name of the access control list among the extended attributes. The workloads' lists begin with the
/// permissions that go with them: [`acl`].
pub const ACL: &str = "";

/// An access control list that goes with these permissions.
pub fn acl(mode: u32) -> Vec<u8> {
    [&(mode & 0o777).to_le_bytes()[..], b"list"].concat()
}

/// Extended attributes: name to value.
pub type Xattrs = BTreeMap<&'static str, Vec<u8>>;

/// A promise that was made.
#[derive(Clone)]
struct Ack {
    /// When the call returned.
    returned: Tick,
    /// What had happened by then.
    time: When,
    /// Which object; none: all.
    who: Option<Id>,
    /// Times too (not with fdatasync).
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

/// What was found of an inode after a power cut.
#[derive(Default)]
pub struct Seen {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change.
    pub mtime: Time,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Blocks with data; others are zero.
    pub blocks: Vec<(u64, [u8; SIZE])>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What was found after a power cut.
#[derive(Default)]
pub struct View {
    /// Names: directory, name, inode.
    pub names: Vec<(u64, String, u64)>,
    /// Inodes by number.
    pub inodes: BTreeMap<u64, Seen>,
}

/// When the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Calls that returned up to then have returned.
    pub returned: Tick,
    /// Operations that began before have begun: later ones can have left nothing on the medium.
    pub begun: Tick,
}

/// The oracle.
#[derive(Clone)]
pub struct Oracle {
    /// Everything that ever was.
    pub objects: Vec<Object>,
    /// The names now.
    pub names: Names,
    moments: Vec<Moment>,
    acks: Vec<Ack>,
    /// When each operation began.
    began: Vec<Tick>,
    zero: Data,
}

/// The root directory.
pub const ROOT: Id = 0;

impl Oracle {
    /// Knows the root directory only.
    pub fn new(root_ino: u64, root_mode: u32, mtime: Time) -> Self {
        let mut o = Self {
            objects: Vec::new(),
            names: Names::new(),
            moments: Vec::new(),
            acks: Vec::new(),
            began: vec![0],
            zero: Arc::new([0; SIZE]),
        };
        o.add(root_ino, root_mode, mtime, None);
        o
    }

    /// The present operation.
    pub fn now(&self) -> When {
        (self.began.len() - 1) as When
    }

    /// An operation begins.
    pub fn begin(&mut self, tick: Tick) -> When {
        self.began.push(tick);
        self.now()
    }

    /// Forgets how it came to this: all that is now was always so.
    pub fn settle(&mut self) {
        self.began = vec![0];
        self.acks.clear();
        self.moments.clear();
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
            o.brought.clear();
        }
        self.names_changed();
    }

    /// The names have changed.
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

    /// A new object.
    pub fn add(&mut self, ino: u64, mode: u32, mtime: Time, target: Option<Vec<u8>>) -> Id {
        let t = self.now();
        let size = target.as_ref().map_or(0, |t| t.len() as u64);
        self.objects.push(Object {
            ino,
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
            brought: Vec::new(),
        });
        self.objects.len() - 1
    }

    /// How many names it has.
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

    /// Bytes of a file change: `f(offset in the block, bytes)` for each block of the range. `sure`: when
    /// that is certain; [`NEVER`] while the write is in flight.
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

    /// Writes that were in flight on a file have ended, while the present operation was under way: it
    /// promises nothing about them, later ones do.
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

    /// The file grows to this size by a write of data.
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

    /// The file has this size now; what is cut off is zero if it ever comes back.
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

    /// New permission bits.
    pub fn set_mode(&mut self, id: Id, mode: u32) {
        let t = self.now();
        self.objects[id].mode = mode;
        self.objects[id].modes.push((t, mode));
    }

    /// Another owner.
    pub fn set_owner(&mut self, id: Id, uid: u32) {
        let t = self.now();
        self.objects[id].owners.push((t, uid));
    }

    /// The modification time that stat shows from now on.
    pub fn set_mtime(&mut self, id: Id, mtime: Time) {
        let t = self.now();
        self.objects[id].mtimes.push((t, mtime));
    }

    /// The extended attributes now.
    pub fn xattrs(&self, id: Id) -> &Xattrs {
        let x = self.objects[id].xattrs.last();
        &x.expect("there is always a first").1
    }

    /// New extended attributes.
    pub fn set_xattrs(&mut self, id: Id, x: Xattrs) {
        let t = self.now();
        self.objects[id].xattrs.push((t, x));
    }

    /// A rename put the file in another's place.
    pub fn replaced_by(&mut self, id: Id) {
        let t = self.now();
        self.objects[id].brought.push(t);
    }

    /// A call that promises durability of what had happened up to `time` has returned.
    pub fn ack(&mut self, returned: Tick, time: When, who: Option<Id>, times: bool) {
        self.acks.push(Ack {
            returned,
            time,
            who,
            times,
        });
    }

    fn floor(&self, cut: Cut, f: impl Fn(&Ack) -> bool) -> When {
        let made = self.acks.iter().filter(|a| a.returned <= cut.returned);
        made.filter(|a| f(a)).map(|a| a.time).max().unwrap_or(0)
    }

    fn ceiling(&self, cut: Cut) -> When {
        (self.began.partition_point(|b| *b < cut.begun).max(1) - 1) as When
    }

    /// What a cut allows: equal for cuts that allow the same.
    pub fn window(&self, cut: Cut) -> (usize, When) {
        let acks = self.acks.iter().filter(|a| a.returned <= cut.returned);
        (acks.count(), self.ceiling(cut))
    }

    /// Is what was found allowed? Else what is wrong.
    pub fn judge(&self, cut: Cut, view: &View) -> Result<(), String> {
        let floor = self.floor(cut, |_| true);
        let ceiling = self.ceiling(cut).max(floor);
        let from = self
            .moments
            .iter()
            .rposition(|m| m.time <= floor)
            .unwrap_or(0);
        let found = |m: &Moment| {
            m.names.len() == view.names.len()
                && m.names
                    .iter()
                    .zip(&view.names)
                    .all(|(a, b)| a.0 == b.0 && a.1 == b.1 && a.2 == b.2)
        };
        let moment = self.moments[from..]
            .iter()
            .take_while(|m| m.time <= ceiling)
            .find(|m| found(m));
        let Some(moment) = moment else {
            return Err(self.names_text(from, ceiling, view));
        };
        for (_, name, ino) in &moment.names {
            let id = self.objects.iter().rposition(|o| o.ino == *ino);
            let (Some(id), Some(seen)) = (id, view.inodes.get(ino)) else {
                return Err(format!("{name}: inode {ino} was not read"));
            };
            self.judge_inode(id, seen, cut, moment.time)
                .map_err(|e| format!("{name} (inode {ino}): {e}"))?;
        }
        Ok(())
    }

    fn names_text(&self, from: usize, ceiling: When, view: &View) -> String {
        let mut s = format!("names are of no allowed moment: {:?}; allowed:", view.names);
        for m in self.moments[from..]
            .iter()
            .take_while(|m| m.time <= ceiling)
        {
            let _ = write!(s, "\n    after operation {}: {:?}", m.time, m.names);
        }
        s
    }

    fn judge_inode(&self, id: Id, seen: &Seen, cut: Cut, names: When) -> Result<(), String> {
        let o = &self.objects[id];
        let mine = |a: &Ack| a.who.is_none_or(|w| w == id);
        let floor = self.floor(cut, mine);
        let timely = self.floor(cut, |a| mine(a) && a.times);
        // What changed nothing (zeroes over a hole) leaves nothing on the medium and is promised all the
        // same: what is there is what it was before, and what it is after.
        let promised = self.floor(cut, |_| true);
        let ceiling = self.ceiling(cut).max(promised);
        if seen.mode & 0o170000 != o.mode & 0o170000 || seen.target != o.target {
            return Err(format!("is something else: mode {:o}", seen.mode));
        }
        allowed(&o.modes, floor, ceiling, |m| *m == seen.mode)
            .map_err(|v| format!("mode {:o}, allowed {v:?}", seen.mode))?;
        allowed(&o.owners, floor, ceiling, |u| *u == seen.uid)
            .map_err(|v| format!("owner {}, allowed {v:?}", seen.uid))?;
        let list = seen.xattrs.iter().find(|x| x.0 == ACL.as_bytes());
        if list.is_some_and(|l| l.1 != acl(seen.mode)) {
            return Err(format!("mode {:o} with a list of another one", seen.mode));
        }
        let same = |x: &Xattrs| {
            x.len() == seen.xattrs.len()
                && x.iter()
                    .zip(&seen.xattrs)
                    .all(|(a, b)| a.0.as_bytes() == b.0 && *a.1 == b.1)
        };
        // They have their place in the order of names (promise 7): any promise covers them.
        allowed(&o.xattrs, promised, ceiling, same).map_err(|v| {
            let seen = values(seen.xattrs.iter().map(|(n, v)| (&n[..], &v[..])));
            let v = v.iter().map(|(t, x)| {
                let x = x.iter().map(|(n, v)| (n.as_bytes(), &v[..]));
                (*t, values(x))
            });
            format!("xattrs {seen:?}, allowed {:?}", v.collect::<Vec<_>>())
        })?;
        allowed(&o.mtimes, timely, ceiling, |t| *t == seen.mtime)
            .map_err(|v| format!("mtime {:?}, allowed {v:?}", seen.mtime))?;
        if o.mode & 0o170000 != 0o100000 {
            return Ok(());
        }
        let brought = o.brought.iter().filter(|b| **b <= names).max();
        let floor = floor.max(brought.copied().unwrap_or(0));
        let size_at = self.judge_size(o, seen, floor, ceiling)?;
        for b in 0..seen.size.div_ceil(SIZE as u64) {
            self.judge_block(o, seen, b, floor, ceiling, size_at)?;
        }
        Ok(())
    }

    /// Checks the size, and answers since when the file can have had it.
    fn judge_size(
        &self,
        o: &Object,
        seen: &Seen,
        floor: When,
        ceiling: When,
    ) -> Result<When, String> {
        let base = o.sizes.iter().rposition(|s| s.sure <= floor).unwrap_or(0);
        let ok = |s: &&Size| {
            let part =
                |from: u64| (from..s.bytes).contains(&seen.size) && seen.size % SIZE as u64 == 0;
            s.time <= ceiling && (s.bytes == seen.size || s.grew_from.is_some_and(part))
        };
        let found = o.sizes[base..].iter().find(ok);
        found.map(|s| s.time).ok_or_else(|| {
            let v: Vec<_> = o.sizes[base..].iter().map(|s| (s.time, s.bytes)).collect();
            format!(
                "size {}, floor {floor}, ceiling {ceiling}, allowed {v:?}",
                seen.size
            )
        })
    }

    fn judge_block(
        &self,
        o: &Object,
        seen: &Seen,
        block: u64,
        floor: When,
        ceiling: When,
        size_at: When,
    ) -> Result<(), String> {
        let start = block * SIZE as u64;
        let n = (seen.size - start).min(SIZE as u64) as usize;
        let data = seen.blocks.iter().find(|b| b.0 == block);
        let data = data.map_or(&self.zero[..n], |b| &b.1[..n]);
        let Some(versions) = o.blocks.get(&block) else {
            if *data == self.zero[..n] {
                return Ok(());
            }
            return Err(format!("block {block}: {}, was never written", text(data)));
        };
        // A truncation that must have happened, and cut into this block or before it.
        let cut = o.sizes.iter().rev().find(|s| {
            s.cut && s.time <= size_at && s.sure <= size_at && s.bytes < start + n as u64
        });
        let floor = floor.max(cut.map_or(0, |s| s.time));
        let base = versions.iter().rposition(|v| v.sure <= floor).unwrap_or(0);
        let ok = |v: &&Version| v.time <= ceiling && v.data[..n] == *data;
        if versions[base..].iter().any(|v| ok(&v)) {
            return Ok(());
        }
        let v: Vec<_> = versions[base..]
            .iter()
            .map(|v| (v.time, text(&v.data[..n])))
            .collect();
        let first = versions.iter().position(|v| v.data[..n] == *data);
        Err(format!(
            "block {block}: {} ({}), floor {floor}, ceiling {ceiling}, allowed {v:?}",
            text(data),
            match first {
                Some(i) => format!("as of operation {}", versions[i].time),
                None => "which it never was".to_owned(),
            }
        ))
    }
}

fn allowed<T: Clone>(
    v: &[(When, T)],
    floor: When,
    ceiling: When,
    ok: impl Fn(&T) -> bool,
) -> Result<(), Vec<(When, T)>> {
    let base = v.iter().rposition(|x| x.0 <= floor).unwrap_or(0);
    let all = v[base..].iter().filter(|x| x.0 <= ceiling);
    if all.clone().any(|x| ok(&x.1)) {
        return Ok(());
    }
    Err(all.cloned().collect())
}

/// Extended attributes in few characters.
fn values<'a>(x: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<String> {
    x.map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        format!("{name}: {} bytes, {}", value.len(), text(value))
    })
    .collect()
}

/// A block in few characters: where its content changes kind.
fn text(b: &[u8]) -> String {
    let zeroes = b.iter().take_while(|c| **c == 0).count();
    if zeroes == b.len() {
        return "zero".to_owned();
    }
    let end = b.iter().rposition(|c| *c != 0).map_or(0, |i| i + 1);
    format!(
        "bytes {zeroes}..{end} = {:02x?}..",
        &b[zeroes..end.min(zeroes + 8)]
    )
}
