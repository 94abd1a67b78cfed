// SPDX-License-Identifier: GPL-2.0

//! No operation uses more nodes than it has reserved: else a commit on a full disk would have to find
//! blocks that do not exist.
//!
//! The engine is compiled into this test once more, on locks that watch the reservations ([`os`]). Random
//! operations run on small trees and on trees of several levels with few, long items to a node, where a
//! change dirties most. Commits between the operations make nodes clean again, and write no more than was
//! reserved for them, but for a few. All of it with one copy of each node, and with two.

#[path = "../../../../rust/engine/mod.rs"]
#[allow(dead_code, clippy::all)]
mod engine;
mod os;

use engine::alloc::Priority;
use engine::ops::xattr::{ACL_ACCESS, USER, VALUE_MAX};
use engine::volume::mkfs::{format, FormatOptions};
use engine::*;
use kernel::prelude::Result;
use ordofs_engine::os::mem::MemDisk;
use os::{crc32c, Block, Shared};
use proptest::prelude::*;
use std::sync::OnceLock;

const BLOCKS: u64 = 1 << 17;
/// What an operation on names leaves for each tree that it changes, since it does not ask for the height:
/// the trees here have up to three levels, a directory of a hundred million names has six, and a change
/// may dirty two nodes on each.
const ROOM: i64 = 2 * 3;
/// Nodes that a commit may write without a reservation, out of what is kept for it: of the upper levels of the
/// inode tree, the orphan tree and the space trees. In these tests there are five at most.
const UNRESERVED: u64 = 16;
/// Names in each directory of the large filesystem.
const NAMES: u64 = 2500;
/// Blocks of its file: records of the greatest length, and of single blocks.
const LONG: u64 = 40 * 300;
const SINGLE: u64 = 4000;

#[derive(Clone, Debug)]
enum What {
    File,
    Dir,
    Symlink(usize),
    /// With attributes of these lengths.
    Xattrs(usize, usize),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Plain,
    Exchange,
    Whiteout,
}

/// A name: directory and number.
type At = (usize, u64);

#[derive(Clone, Debug)]
enum Op {
    Create(At, What),
    Tmpfile(usize),
    Remove(At),
    Link(At, At),
    Rename(At, At, How),
    Chmod(At),
    /// Number and length; none removes it.
    Xattr(At, u8, Option<usize>),
    Acl(At, Option<usize>),
    Write(u64, u64),
    Punch(u64, u64),
    Allocate(u64, u64),
    Zero(u64, u64),
    Truncate(u64),
    Commit,
}

struct World {
    disk: MemDisk,
    fs: Shared<Fs>,
    dirs: [Shared<Inode>; 2],
    file: Shared<Inode>,
    /// Bytes that names have at least.
    pad: usize,
    /// Copies of a node.
    copies: i64,
}

fn new(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        ..Default::default()
    }
}

impl World {
    fn mount(disk: MemDisk, pad: usize) -> Self {
        let fs = Fs::mount(disk.device(), MountOptions::default());
        let fs = fs.unwrap_or_else(|e| panic!("mount: {}", e.reason));
        let root = fs.iget(fs.root_ino()).expect("root");
        let get = |name: &[u8], mode| match fs.lookup(&root, name).expect("lookup") {
            Some(e) => fs.iget(e.ino).expect("iget"),
            None => fs.create(&root, name, &new(mode)).expect("create"),
        };
        let dirs = [get(b"d", S_IFDIR | 0o755), get(b"e", S_IFDIR | 0o755)];
        let file = get(b"file", S_IFREG | 0o644);
        fs.iput(root);
        let copies = fs.space.copies() as i64;
        Self {
            disk,
            fs,
            dirs,
            file,
            pad,
            copies,
        }
    }

    fn small(copies: u8) -> Self {
        let disk = MemDisk::new(BLOCKS);
        let o = FormatOptions {
            uuid: [7; 16],
            label: [0; 64],
            blocks: 0,
            root_owner: (0, 0),
            copies,
        };
        format(disk.device(), &o).unwrap_or_else(|e| panic!("format: {}", e.reason));
        Self::mount(disk, 0)
    }

    /// Several levels in every tree; made once.
    fn large(copies: u8) -> Self {
        static DISKS: [OnceLock<MemDisk>; 2] = [const { OnceLock::new() }; 2];
        let disk = DISKS[usize::from(copies) - 1].get_or_init(|| {
            let mut w = Self::small(copies);
            w.pad = 250;
            for k in 0..NAMES {
                w.apply(&Op::Create((0, k), What::File));
                w.apply(&Op::Create((1, k), What::File));
                w.apply(&Op::Xattr((0, 0), (k % 250) as u8, Some(1000)));
                if k % 500 == 0 {
                    w.apply(&Op::Commit);
                }
            }
            for n in (0..LONG).step_by(300) {
                w.apply(&Op::Write(n, 299));
            }
            for n in (0..SINGLE).step_by(2) {
                w.apply(&Op::Write(LONG + n, 1));
            }
            w.fs.unmount().expect("unmount");
            w.disk
        });
        Self::mount(disk.fork(), 250)
    }

    fn name(&self, k: u64) -> Vec<u8> {
        format!("{k}{}", "n".repeat(self.pad)).into_bytes()
    }

    fn find(&self, (d, k): At) -> Option<Shared<Inode>> {
        let e = self.fs.lookup(&self.dirs[d], &self.name(k));
        let e = e.expect("lookup")?;
        Some(self.fs.iget(e.ino).expect("iget"))
    }

    /// Compares what the transactions in `f` use with what they have reserved; `room` nodes must be left.
    fn measured<R>(&self, what: &str, room: i64, f: impl FnOnce() -> R) -> R {
        os::watch(Some(self.fs.clone()));
        let r = f();
        let tightest = os::tightest();
        let room = room * self.copies;
        os::watch(None);
        if let Some((used, reserved)) = tightest {
            assert!(
                used + room <= reserved,
                "{what}: {used} blocks of {reserved}, {room} of them have to be left"
            );
        }
        r
    }

    /// The VFS drops its last reference to an inode.
    fn put(&self, i: Shared<Inode>) {
        match i.attrs().nlink {
            0 => self
                .measured("delete", 0, || self.fs.delete_inode(i))
                .expect("delete"),
            _ => self.fs.iput(i),
        }
    }

    fn create(&self, at: At, what: &What) -> Result {
        let name = self.name(at.1);
        let text = vec![b'x'; VALUE_MAX];
        let (x, y) = match what {
            What::Xattrs(x, y) => (*x, *y),
            _ => (0, 0),
        };
        let xattrs = [
            NewXattr {
                index: ACL_ACCESS,
                name: b"",
                value: &text[..x],
            },
            NewXattr {
                index: USER,
                name: b"inherited",
                value: &text[..y],
            },
        ];
        let (new, xattrs) = match what {
            What::File => (new(S_IFREG), &[][..]),
            What::Dir => (new(S_IFDIR), &[][..]),
            What::Symlink(len) => {
                let mut link = new(S_IFLNK);
                link.symlink = Some(&text[..*len]);
                (link, &[][..])
            }
            What::Xattrs(..) => (new(S_IFREG), &xattrs[..]),
        };
        let i = self.measured("create", ROOM, || {
            self.fs.create_with(&self.dirs[at.0], &name, &new, xattrs)
        })?;
        self.fs.iput(i);
        Ok(())
    }

    fn rename(&self, from: At, to: At, how: How) -> Result {
        let (Some(inode), target) = (self.find(from), self.find(to)) else {
            return Ok(());
        };
        let is_dir = |i: &Shared<Inode>| i.kind() == S_IFDIR;
        let allowed = match (&target, how) {
            (Some(t), How::Exchange) => t.ino() != inode.ino(),
            (None, How::Exchange) => false,
            (Some(t), _) => is_dir(t) == is_dir(&inode),
            (None, _) => true,
        };
        // A character device of number 0.
        let white = new(0o020000);
        let rename = Rename {
            old_dir: &self.dirs[from.0],
            old_name: &self.name(from.1),
            inode: &inode,
            new_dir: &self.dirs[to.0],
            new_name: &self.name(to.1),
            target: target.as_ref(),
            flags: RenameFlags {
                noreplace: false,
                exchange: matches!(how, How::Exchange),
            },
            whiteout: matches!(how, How::Whiteout).then_some(&white),
        };
        let r = match (allowed, &target) {
            (false, _) => Ok(()),
            // Nothing happens.
            (_, Some(t)) if t.ino() == inode.ino() => self.fs.rename(&rename),
            _ => self.measured("rename", 2 * ROOM, || self.fs.rename(&rename)),
        };
        if let Some(t) = target {
            self.put(t);
        }
        self.put(inode);
        r
    }

    fn write(&self, start: u64, len: u64) -> Result {
        let data = Block::zeroed()?;
        let crcs = vec![crc32c(0, &data[..]); len as usize];
        let (mut at, end) = (start, start + len);
        while at < end {
            at += self.fs.map_write(&self.file, at, end - at)?.map.len;
        }
        at = start;
        while at < end {
            let rest = &crcs[(at - start) as usize..];
            let s = self.fs.start_write(&self.file, at, rest, false)?;
            for k in 0..s.len {
                self.disk.device().write(&[(s.phys + k, &data)])?;
            }
            at += s.len;
            self.fs.finish_write(s.ordered, at * 4096, Ok(()))?;
        }
        Ok(())
    }

    fn tmpfile(&self, len: usize) -> Result {
        let value = vec![0; len];
        let x = NewXattr {
            index: USER,
            name: b"n",
            value: &value,
        };
        let i = self.measured("tmpfile", 0, || self.fs.tmpfile_with(&new(S_IFREG), &[x]));
        self.put(i?);
        Ok(())
    }

    fn xattr(&self, i: &Shared<Inode>, n: u8, len: Option<usize>) -> Result {
        let value = len.map(|n| vec![0; n]);
        let name = format!("{n}");
        let (name, value) = (name.as_bytes(), value.as_deref());
        let set = self.measured("xattr", 0, || {
            self.fs.set_xattr(i, USER, name, value, XattrSet::Any)
        });
        // Without a length it is removed, and there may be none.
        if len.is_some() {
            set
        } else {
            Ok(())
        }
    }

    fn commit(&self) -> Result {
        let reserved = self.fs.reserved_for_commit();
        os::committed();
        self.fs.sync()?;
        if let Some(written) = os::committed() {
            assert!(
                written <= reserved + UNRESERVED * self.copies as u64,
                "a commit took {written} blocks, and {reserved} were reserved for it"
            );
        }
        Ok(())
    }

    fn run(&self, op: &Op) -> Result {
        let with = |at: At, f: &dyn Fn(&Shared<Inode>) -> Result| match self.find(at) {
            Some(i) => {
                let r = f(&i);
                self.put(i);
                r
            }
            None => Ok(()),
        };
        match op {
            Op::Create(at, what) => match self.find(*at) {
                Some(i) => {
                    self.fs.iput(i);
                    Ok(())
                }
                None => self.create(*at, what),
            },
            Op::Tmpfile(len) => self.tmpfile(*len),
            Op::Remove(at) => with(*at, &|i| {
                self.measured("unlink", ROOM, || {
                    self.fs.unlink(&self.dirs[at.0], &self.name(at.1), i)
                })
            }),
            Op::Link(at, to) => with(*at, &|i| match self.find(*to) {
                None if i.kind() != S_IFDIR => self.measured("link", ROOM, || {
                    self.fs.link(&self.dirs[to.0], &self.name(to.1), i)
                }),
                None => Ok(()),
                Some(t) => {
                    self.fs.iput(t);
                    Ok(())
                }
            }),
            Op::Rename(from, to, how) => self.rename(*from, *to, *how),
            Op::Chmod(at) => with(*at, &|i| {
                let mode = AttrChange {
                    mode: Some(0o600),
                    ..AttrChange::default()
                };
                self.measured("chmod", 0, || self.fs.set_attrs(i, &mode))
            }),
            Op::Xattr(at, n, len) => with(*at, &|i| self.xattr(i, *n, *len)),
            Op::Acl(at, len) => with(*at, &|i| {
                let value = len.map(|n| vec![0; n]);
                let set = || {
                    self.fs
                        .set_acl(i, ACL_ACCESS, value.as_deref(), Some(0o640))
                };
                self.measured("acl", 0, set)
            }),
            Op::Write(start, len) => self.measured("write", 0, || self.write(*start, *len)),
            Op::Punch(start, len) => {
                self.measured("punch", 0, || self.fs.punch(&self.file, *start, *len))
            }
            Op::Allocate(start, len) => self.measured("allocate", 0, || {
                self.fs.preallocate(&self.file, *start, *len, None)
            }),
            Op::Zero(start, len) => {
                let size = (start + len) * 4096;
                self.measured("zero", 0, || {
                    self.fs.zero_range(&self.file, *start, *len, Some(size))
                })
            }
            Op::Truncate(size) => {
                self.measured("truncate", 0, || self.fs.set_size(&self.file, *size))
            }
            Op::Commit => self.commit(),
        }
    }

    fn apply(&self, op: &Op) {
        self.run(op).unwrap_or_else(|e| panic!("{op:?}: {e:?}"));
    }
}

fn at() -> impl Strategy<Value = At> {
    let number = prop_oneof![3 => 0..NAMES, 2 => NAMES..NAMES + 200, 5 => 0u64..30];
    (0usize..2, number)
}

fn value() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..100, 1000usize..1400, 0usize..=VALUE_MAX]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        2 => Just(What::File),
        1 => Just(What::Dir),
        2 => (1usize..=SYMLINK_MAX).prop_map(What::Symlink),
        2 => (value(), value()).prop_map(|(x, y)| What::Xattrs(x, y)),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        2 => Just(How::Plain),
        1 => Just(How::Exchange),
        1 => Just(How::Whiteout),
    ]
}

/// Blocks: start and length.
fn range() -> impl Strategy<Value = (u64, u64)> {
    (
        0..LONG + SINGLE,
        prop_oneof![1u64..4, 1u64..400, 1u64..3000],
    )
}

fn op() -> impl Strategy<Value = Op> {
    let small = (0..LONG + SINGLE, prop_oneof![1u64..4, 1u64..700]);
    prop_oneof![
        6 => (at(), what()).prop_map(|(a, w)| Op::Create(a, w)),
        1 => value().prop_map(Op::Tmpfile),
        6 => at().prop_map(Op::Remove),
        2 => (at(), at()).prop_map(|(a, b)| Op::Link(a, b)),
        6 => (at(), at(), how()).prop_map(|(a, b, h)| Op::Rename(a, b, h)),
        1 => at().prop_map(Op::Chmod),
        4 => (at(), any::<u8>(), prop::option::of(value())).prop_map(|(a, n, v)| Op::Xattr(a, n, v)),
        1 => (at(), prop::option::of(value())).prop_map(|(a, v)| Op::Acl(a, v)),
        4 => small.prop_map(|(s, n)| Op::Write(s, n)),
        2 => range().prop_map(|(s, n)| Op::Punch(s, n)),
        2 => range().prop_map(|(s, n)| Op::Allocate(s, n)),
        1 => range().prop_map(|(s, n)| Op::Zero(s, n)),
        1 => (0..(LONG + SINGLE) * 4096).prop_map(Op::Truncate),
        8 => Just(Op::Commit),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn on_small_trees(ops in prop::collection::vec(op(), 1..60), copies in 1u8..=2) {
        let w = World::small(copies);
        ops.iter().for_each(|o| w.apply(o));
    }

    #[test]
    fn on_trees_of_several_levels(ops in prop::collection::vec(op(), 1..60), copies in 1u8..=2) {
        let w = World::large(copies);
        ops.iter().for_each(|o| w.apply(o));
    }
}

fn removal() -> impl Strategy<Value = Op> {
    let few = (0..LONG + SINGLE, prop_oneof![1u64..4, 1u64..400]);
    prop_oneof![
        few.prop_map(|(s, n)| Op::Punch(s, n)),
        range().prop_map(|(s, n)| Op::Punch(s, n)),
        (0..(LONG + SINGLE) * 4096).prop_map(Op::Truncate),
    ]
}

proptest! {
    #![proptest_config(config(40))]

    /// Making room goes on, in smaller steps, when there is next to nothing left to reserve.
    #[test]
    fn on_a_full_disk(ops in prop::collection::vec((removal(), 16u64..40), 1..20), copies in 1u8..=2) {
        let w = World::large(copies);
        for (op, left) in &ops {
            let left = left * u64::from(copies);
            let mut held = 0;
            for n in (0..20).rev().map(|bit| 1 << bit) {
                while w.fs.space.reserve(n, Priority::Reclaim).is_ok() {
                    held += n;
                }
            }
            w.fs.space.unreserve(left);
            w.apply(op);
            w.fs.space.unreserve(held - left);
        }
    }
}

/// The measure itself: a transaction that is charged more than it reserved is noticed.
#[test]
fn the_scale_notices_one_node_too_many() {
    let w = World::small(1);
    for (charge, reserved) in [(3, 3), (4, 3)] {
        os::watch(Some(w.fs.clone()));
        let mut txn = w.fs.begin_forced(reserved).expect("begin");
        w.fs.dirty.is_empty();
        txn.charge(charge);
        // The engine's own assertion comes after its accounts are closed.
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(txn)));
        assert_eq!(
            dropped.is_err(),
            cfg!(debug_assertions) && charge > reserved
        );
        assert_eq!(os::tightest(), Some((charge as i64, reserved as i64)));
    }
}
