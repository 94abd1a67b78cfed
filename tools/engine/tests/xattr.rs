// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: sizes, errors, colliding names, a full disk, the log and power cuts.

mod common;

use common::{file, make, mount, mount_on, regular};
use fastrand::Rng;
use kernel::prelude::{Result, E2BIG, EEXIST, EINVAL, ENODATA, ENOSPC, ERANGE};
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::engine::ops::xattr::{
    ACL_ACCESS, ACL_DEFAULT, SECURITY, TRUSTED, USER, VALUE_MAX,
};
use ordofs_engine::engine::volume::mount::read_superblock;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::Recorder;
use ordofs_engine::os::{Device, Shared};
use std::collections::BTreeMap;

type Values = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let words = (0..len.div_ceil(8)).flat_map(|_| rng.u64(..).to_le_bytes());
    words.take(len).collect()
}

fn get(fs: &Fs, i: &Inode, index: u8, name: &[u8]) -> Option<Vec<u8>> {
    let len = fs.get_xattr(i, index, name, &mut []).expect("size")?;
    let mut v = vec![0xee; len + 3];
    assert_eq!(fs.get_xattr(i, index, name, &mut v), Ok(Some(len)));
    assert!(v[len..] == [0xee; 3], "wrote past the value");
    v.truncate(len);
    Some(v)
}

fn all(fs: &Fs, i: &Inode) -> Values {
    let mut out = Values::new();
    let mut list = vec![];
    fs.list_xattr(i, &mut |index, name, len| {
        list.push((index, name.to_vec(), len));
        Ok(())
    })
    .expect("list");
    for (index, name, len) in list {
        let v = get(fs, i, index, &name).expect("listed");
        assert_eq!(v.len(), len);
        assert!(out.insert((index, name), v).is_none(), "listed twice");
    }
    out
}

fn set(fs: &Fs, i: &Shared<Inode>, index: u8, name: &[u8], value: &[u8]) -> Result {
    fs.set_xattr(i, index, name, Some(value), XattrSet::Any)
}

fn remove(fs: &Fs, i: &Shared<Inode>, index: u8, name: &[u8]) -> Result {
    fs.set_xattr(i, index, name, None, XattrSet::Any)
}

fn clean(dev: Device, place: &str) {
    let r = ordofs_fsck::check(dev, ordofs_fsck::Options { data: true })
        .unwrap_or_else(|e| panic!("{place}: {}", e.reason));
    assert!(r.is_clean(), "{place}: {:?}", r.problems);
}

/// Unmounts, checks, mounts: nothing has changed, no space is lost.
fn again(disk: &MemDisk, fs: Shared<Fs>, inode: Shared<Inode>) -> (Shared<Fs>, Shared<Inode>) {
    let (ino, want, a) = (inode.ino(), all(&fs, &inode), inode.attrs());
    fs.iput(inode);
    fs.sync().expect("sync");
    let before = fs.statfs().bfree;
    fs.unmount().expect("unmount");
    drop(fs);
    clean(disk.device(), "remount");
    let fs = mount(disk);
    assert_eq!(fs.statfs().bfree, before, "reservations leaked");
    let inode = fs.iget(ino).expect("iget");
    assert!(all(&fs, &inode) == want, "other attributes after a remount");
    assert_eq!(inode.attrs().ctime, a.ctime);
    (fs, inode)
}

fn with_file(disk: &MemDisk) -> (Shared<Fs>, Shared<Inode>) {
    let fs = mount(disk);
    let root = fs.iget(fs.root_ino()).expect("root");
    let f = fs.create(&root, b"f", &regular()).expect("create");
    fs.iput(root);
    (fs, f)
}

#[test]
fn every_size_and_every_change_of_size_is_kept() {
    let disk = make(16384);
    let (mut fs, mut f) = with_file(&disk);
    // Around what is inline, what fits in one piece, and whole numbers of pieces.
    let sizes = [
        0, 1, 250, 320, 1000, 1266, 1270, 1273, 1274, 2545, 2553, 2554, 2555, 9000, 40_000, 65_535,
        VALUE_MAX,
    ];
    let mut seed = 1;
    for from in sizes {
        for to in sizes {
            set(&fs, &f, USER, b"n", &bytes(seed, from)).expect("set");
            let value = bytes(seed + 1, to);
            set(&fs, &f, USER, b"n", &value).expect("replace");
            assert!(get(&fs, &f, USER, b"n") == Some(value), "{from} to {to}");
            seed += 2;
        }
        set(&fs, &f, TRUSTED, &[b'x'; 255], &bytes(seed, from)).expect("set");
        (fs, f) = again(&disk, fs, f);
        let bfree = fs.statfs().bfree;
        remove(&fs, &f, USER, b"n").expect("remove");
        (fs, f) = again(&disk, fs, f);
        assert!(fs.statfs().bfree >= bfree);
    }
    remove(&fs, &f, TRUSTED, &[b'x'; 255]).expect("remove");
    assert!(all(&fs, &f).is_empty());
    again(&disk, fs, f);
}

#[test]
fn errors_change_nothing() {
    let disk = make(4096);
    let (fs, f) = with_file(&disk);
    let how = |name: &[u8], how| fs.set_xattr(&f, USER, name, Some(b"v"), how);
    assert_eq!(how(b"n", XattrSet::Replace), Err(ENODATA));
    assert_eq!(how(b"n", XattrSet::Create), Ok(()));
    assert_eq!(how(b"n", XattrSet::Create), Err(EEXIST));
    assert_eq!(how(b"n", XattrSet::Replace), Ok(()));
    assert_eq!(remove(&fs, &f, USER, b"m"), Err(ENODATA));
    assert_eq!(how(&[b'n'; 256], XattrSet::Any), Err(ERANGE));
    assert_eq!(how(b"", XattrSet::Any), Err(EINVAL));
    assert_eq!(how(b"a\0b", XattrSet::Any), Err(EINVAL));
    assert_eq!(set(&fs, &f, 9, b"n", b""), Err(EINVAL));
    assert_eq!(set(&fs, &f, ACL_ACCESS, b"n", b""), Err(EINVAL));
    let long = vec![0; VALUE_MAX + 1];
    assert_eq!(set(&fs, &f, USER, b"n", &long), Err(E2BIG));
    let mut short = [7; 3];
    set(&fs, &f, USER, b"n", b"four").expect("set");
    assert_eq!(fs.get_xattr(&f, USER, b"n", &mut short), Err(ERANGE));
    assert_eq!(short, [7; 3]);
    assert_eq!(fs.get_xattr(&f, TRUSTED, b"n", &mut short), Ok(None));
    // A change, and only that, touches the change time.
    let old = Time { sec: 1, nsec: 2 };
    let back = AttrChange {
        ctime: Some(old),
        ..AttrChange::default()
    };
    fs.set_attrs(&f, &back).expect("set_attrs");
    assert_eq!(how(b"n", XattrSet::Create), Err(EEXIST));
    assert_eq!(f.attrs().ctime, old);
    set(&fs, &f, USER, b"n", b"four").expect("set");
    assert!(f.attrs().ctime.sec > 1);
    // The namespaces are apart.
    set(&fs, &f, TRUSTED, b"n", b"t").expect("set");
    set(&fs, &f, SECURITY, b"n", b"s").expect("set");
    assert_eq!(get(&fs, &f, USER, b"n").as_deref(), Some(&b"four"[..]));
    assert_eq!(get(&fs, &f, TRUSTED, b"n").as_deref(), Some(&b"t"[..]));
    let mut n = 0;
    let stop = fs.list_xattr(&f, &mut |_, _, _| {
        n += 1;
        Err(ERANGE)
    });
    assert_eq!((stop, n), (Err(ERANGE), 1));
    again(&disk, fs, f);
}

#[test]
fn an_acl_and_its_mode_change_together() {
    let disk = make(4096);
    let (fs, f) = with_file(&disk);
    fs.set_acl(&f, ACL_ACCESS, Some(b"acl"), Some(0o640))
        .expect("set");
    assert_eq!(f.attrs().mode, S_IFREG | 0o640);
    fs.set_acl(&f, ACL_DEFAULT, Some(b"default"), None)
        .expect("set");
    fs.set_acl(&f, ACL_ACCESS, None, Some(0o600))
        .expect("remove");
    fs.set_acl(&f, ACL_ACCESS, None, Some(0o604)).expect("none");
    assert_eq!(f.attrs().mode, S_IFREG | 0o604);
    fs.set_acl(&f, ACL_ACCESS, Some(b"acl"), Some(0o664))
        .expect("set");
    // An fsync of another inode records nothing of this one: its mode came with the list.
    let root = fs.iget(fs.root_ino()).expect("root");
    fs.sync_inode(&root).expect("fsync");
    let after = mount(&disk.fork());
    let g = after.iget(f.ino()).expect("iget");
    assert_eq!(g.attrs().mode, S_IFREG | 0o664);
    assert_eq!(
        get(&after, &g, ACL_ACCESS, b"").as_deref(),
        Some(&b"acl"[..])
    );
    drop((g, after));
    fs.set_acl(&f, ACL_ACCESS, None, Some(0o604))
        .expect("remove");
    fs.sync_inode(&f).expect("fsync");
    let fs = mount(&disk.fork());
    let f = fs.iget(f.ino()).expect("iget");
    assert_eq!(f.attrs().mode, S_IFREG | 0o604);
    let want = Values::from([((ACL_DEFAULT, vec![]), b"default".to_vec())]);
    assert_eq!(all(&fs, &f), want);
}

#[test]
fn colliding_names_are_kept_apart() {
    // Found by walking the hash as a sequence: the pairs have the same hash under a key of zeroes.
    let pairs = [
        ["0c427eba5187", "985dd6b6358e"],
        ["e49f1a0d5f28", "ce007db68298"],
    ];
    let disk = make(4096);
    let dev = disk.device();
    let mut sb = read_superblock(&dev).unwrap_or_else(|e| panic!("{}", e.reason));
    sb.hash_key = [0, 0];
    // Both slots: superblocks of one filesystem have the same key.
    for _ in 0..2 {
        sb.write(&dev).expect("superblock");
        sb.generation += 1;
    }
    let (mut fs, mut f) = with_file(&disk);
    for p in pairs {
        let [a, b] = p.map(str::as_bytes);
        assert_eq!(
            xattr::bucket([0, 0], USER, a),
            xattr::bucket([0, 0], USER, b)
        );
        for len in [10, 3000] {
            let (x, y) = (bytes(1, len), bytes(2, len + 1));
            set(&fs, &f, USER, a, &x).expect("set");
            assert_eq!(get(&fs, &f, USER, b), None);
            assert_eq!(remove(&fs, &f, USER, b), Err(ENODATA));
            set(&fs, &f, USER, b, &y).expect("set");
            (fs, f) = again(&disk, fs, f);
            assert!(get(&fs, &f, USER, a).as_ref() == Some(&x));
            assert!(get(&fs, &f, USER, b).as_ref() == Some(&y));
            // The first slot becomes free, and is used again for the other name.
            remove(&fs, &f, USER, a).expect("remove");
            assert!(get(&fs, &f, USER, b).as_ref() == Some(&y));
            (fs, f) = again(&disk, fs, f);
            set(&fs, &f, USER, a, &y).expect("set");
            set(&fs, &f, USER, b, &x).expect("replace");
            assert_eq!(all(&fs, &f).len(), 2);
            (fs, f) = again(&disk, fs, f);
            remove(&fs, &f, USER, b).expect("remove");
            remove(&fs, &f, USER, a).expect("remove");
        }
    }
    again(&disk, fs, f);
}

#[test]
fn thousands_fit_on_one_inode() {
    let disk = make(16384);
    let (fs, f) = with_file(&disk);
    let mut want = Values::new();
    let mut rng = Rng::with_seed(5);
    for i in 0..3000u64 {
        let name = format!("{i}-{}", "y".repeat(rng.u64(..60) as usize)).into_bytes();
        let len = if i % 100 == 0 { 5000 } else { rng.u64(..90) };
        let v = bytes(i, len as usize);
        set(&fs, &f, USER, &name, &v).expect("set");
        want.insert((USER, name), v);
        if i == 1500 {
            fs.sync().expect("sync");
        }
    }
    assert!(all(&fs, &f) == want);
    let (fs, f) = again(&disk, fs, f);
    // All of it goes with the inode.
    let root = fs.iget(fs.root_ino()).expect("root");
    fs.unlink(&root, b"f", &f).expect("unlink");
    fs.delete_inode(f).expect("delete");
    fs.iput(root);
    common::at_rest(&disk, &fs);
}

#[test]
fn a_full_disk_refuses_honestly() {
    let disk = make(4096);
    let (mut fs, mut f) = with_file(&disk);
    let mut want = Values::new();
    let mut rng = Rng::with_seed(3);
    let mut refused = 0;
    for i in 0..4000u64 {
        let name = format!("{}", i % 1600).into_bytes();
        let len = [3, 700, 20_000, VALUE_MAX][rng.u64(..4) as usize];
        let v = bytes(i, len);
        match set(&fs, &f, USER, &name, &v) {
            Ok(()) => {
                want.insert((USER, name), v);
            }
            Err(e) => {
                assert_eq!(e, ENOSPC);
                refused += 1;
                assert!(get(&fs, &f, USER, &name) == want.get(&(USER, name)).cloned());
            }
        }
        if i % 1000 == 999 {
            assert!(all(&fs, &f) == want);
            (fs, f) = again(&disk, fs, f);
        }
    }
    assert!(refused > 100, "{refused} refused: not full");
    // Making room works.
    for (index, name) in want.into_keys() {
        remove(&fs, &f, index, &name).expect("remove on a full disk");
    }
    common::at_rest(&disk, &fs);
    set(&fs, &f, USER, b"n", &bytes(1, VALUE_MAX)).expect("room again");
}

/// A longer value is no way to make room: done to many inodes on a full disk, it would use up what is
/// kept for removing.
#[test]
fn a_value_that_grows_may_be_refused() {
    let disk = make(4096);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let files: Vec<_> = (0..400)
        .map(|i| {
            let f = fs.create(&root, format!("f{i}").as_bytes(), &regular());
            let f = f.unwrap();
            set(&fs, &f, USER, b"n", &bytes(i, 8)).unwrap();
            f
        })
        .collect();
    let filler = fs.create(&root, b"filler", &regular()).unwrap();
    let mut at = 0;
    for n in [256, 16, 1, 1] {
        while fs.preallocate(&filler, at, n, None).is_ok() {
            at += n;
        }
        fs.sync().unwrap();
    }
    let grown = files
        .iter()
        .filter(|f| set(&fs, f, USER, b"n", &bytes(1, 1000)).is_ok());
    assert!(grown.count() < files.len(), "the disk was not full");
    for f in &files {
        set(&fs, f, USER, b"n", &bytes(2, 7)).expect("a shorter value");
    }
    for (i, f) in files.into_iter().enumerate() {
        fs.unlink(&root, format!("f{i}").as_bytes(), &f)
            .expect("unlink on a full disk");
        fs.delete_inode(f).expect("delete");
    }
    fs.iput(filler);
    fs.iput(root);
    common::at_rest(&disk, &fs);
}

/// Replacing a value over and over reserves no more than doing it once.
#[test]
fn what_was_replaced_before_a_commit_costs_nothing() {
    let disk = make(16384);
    let (fs, f) = with_file(&disk);
    set(&fs, &f, USER, b"n", &bytes(1, VALUE_MAX)).expect("set");
    let free = fs.statfs().bfree;
    let generation = fs.durable_generation();
    for i in 0..200 {
        set(&fs, &f, USER, b"n", &bytes(i, VALUE_MAX)).expect("set");
    }
    set(&fs, &f, USER, b"n", &bytes(1, VALUE_MAX)).expect("set");
    assert_eq!(fs.statfs().bfree, free);
    assert_eq!(fs.durable_generation(), generation);
    again(&disk, fs, f);
}

#[test]
fn fsync_logs_what_it_can() {
    let disk = make(16384);
    let (fs, f) = with_file(&disk);
    fs.sync().expect("sync");
    let generation = fs.durable_generation();
    let (x, y) = (bytes(1, VALUE_MAX), bytes(2, 10));
    set(&fs, &f, USER, b"long", &x).expect("set");
    set(&fs, &f, USER, b"short", &y).expect("set");
    set(&fs, &f, USER, b"gone", &y).expect("set");
    remove(&fs, &f, USER, b"gone").expect("remove");
    set(&fs, &f, USER, b"empty", b"").expect("set");
    fs.sync_inode(&f).expect("fsync");
    assert_eq!(fs.durable_generation(), generation, "fsync was a commit");
    let ctime = f.attrs().ctime;
    let copy = disk.fork();
    clean(copy.device(), "with a log");
    let after = mount(&copy);
    let g = after.iget(f.ino()).expect("iget");
    let want = Values::from([
        ((USER, b"long".to_vec()), x),
        ((USER, b"short".to_vec()), y),
        ((USER, b"empty".to_vec()), vec![]),
    ]);
    assert!(all(&after, &g) == want);
    assert_eq!(g.attrs().ctime.sec, ctime.sec);
    drop(g);
    common::at_rest(&copy, &after);
}

/// States of a directory: name, inode's attributes.
type State = BTreeMap<Vec<u8>, Values>;

struct World {
    rec: Recorder,
    fs: Shared<Fs>,
    root: Shared<Inode>,
    files: BTreeMap<Vec<u8>, Shared<Inode>>,
    states: Vec<State>,
    /// Device operations when each state was reached, and when it was acknowledged.
    ends: Vec<usize>,
    acks: Vec<(usize, usize)>,
}

impl World {
    fn new(disk: MemDisk) -> Self {
        let rec = Recorder::new(disk);
        let fs = mount_on(rec.device());
        let root = fs.iget(fs.root_ino()).expect("root");
        Self {
            rec,
            fs,
            root,
            files: BTreeMap::new(),
            states: vec![State::new()],
            ends: vec![0],
            acks: vec![],
        }
    }

    fn step(&mut self, rng: &mut Rng, seed: u64) {
        let mut now = self.states.last().expect("a state").clone();
        let name = vec![b'a' + rng.u64(..4) as u8];
        let attr = (USER, vec![b'0' + rng.u64(..5) as u8]);
        let len = [0, 5, 200, 1300, 5000, 30_000, VALUE_MAX][rng.u64(..7) as usize];
        let value = bytes(seed, len);
        match (rng.u64(..12), self.files.get(&name)) {
            (0 | 1, None) => {
                let xattrs = [
                    NewXattr {
                        index: ACL_ACCESS,
                        name: b"",
                        value: b"access",
                    },
                    NewXattr {
                        index: attr.0,
                        name: &attr.1,
                        value: &value,
                    },
                ];
                let f = self
                    .fs
                    .create_with(&self.root, &name, &file(S_IFREG | 0o600), &xattrs)
                    .expect("create");
                let attrs = xattrs.map(|x| ((x.index, x.name.to_vec()), x.value.to_vec()));
                now.insert(name.clone(), Values::from(attrs));
                self.files.insert(name, f);
            }
            (2, Some(f)) => {
                self.fs.unlink(&self.root, &name, f).expect("unlink");
                now.remove(&name);
                let f = self.files.remove(&name).expect("there");
                self.fs.delete_inode(f).expect("delete");
            }
            (3..=7, Some(f)) => {
                set(&self.fs, f, attr.0, &attr.1, &value).expect("set");
                now.get_mut(&name).expect("there").insert(attr, value);
            }
            (8, Some(f)) => {
                let r = remove(&self.fs, f, attr.0, &attr.1);
                let was = now.get_mut(&name).expect("there").remove(&attr);
                assert_eq!(r, was.map(|_| ()).ok_or(ENODATA));
            }
            (9 | 10, Some(f)) => {
                self.fs.sync_inode(f).expect("fsync");
                self.acks.push((self.rec.len(), self.states.len()));
            }
            (11, _) if rng.u64(..3) == 0 => {
                self.fs.sync().expect("sync");
                self.acks.push((self.rec.len(), self.states.len()));
            }
            _ => {}
        }
        self.states.push(now);
        self.ends.push(self.rec.len());
    }
}

fn found(fs: &Fs) -> State {
    let root = fs.iget(fs.root_ino()).expect("root");
    let mut names = vec![];
    fs.readdir(&root, 0, &mut |n, ino, _, _| {
        names.push((n.to_vec(), ino));
        true
    })
    .expect("readdir");
    fs.iput(root);
    let mut out = State::new();
    for (n, ino) in names {
        let i = fs.iget(ino).expect("iget");
        out.insert(n, all(fs, &i));
        fs.iput(i);
    }
    out
}

/// After a power cut the attributes of all files are those of one moment between the last
/// acknowledgement and the cut.
#[test]
fn power_cuts_leave_whole_attributes() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok());
    for seed in 1..=seeds.unwrap_or(40u64) {
        let mut rng = Rng::with_seed(seed);
        let mut w = World::new(make(8192));
        for i in 0..60 {
            w.step(&mut rng, seed * 1000 + i);
        }
        for cut in 0..40 {
            let at = rng.u64(..w.rec.len() as u64 + 1) as usize;
            let (mode, salt) = (rng.u64(..3), rng.u64(..));
            let disk = w.rec.crash_image(at, |i| match mode {
                0 => true,
                1 => false,
                _ => (salt ^ (i as u64).wrapping_mul(0x9e37_79b9)).count_ones() % 2 == 0,
            });
            let what = format!("seed {seed} cut {cut} at {at} mode {mode}");
            clean(disk.device(), &what);
            let fs = mount(&disk);
            let have = found(&fs);
            let acked = w.acks.iter().rev().find(|a| a.0 <= at).map_or(0, |a| a.1);
            let begun = w.ends.iter().position(|e| *e > at).unwrap_or(w.ends.len());
            let range = acked.min(w.states.len() - 1)..=begun.min(w.states.len() - 1);
            assert!(
                w.states[range.clone()].contains(&have),
                "{what}: of no moment in {range:?}"
            );
            fs.unmount().expect("unmount");
            drop(fs);
            clean(disk.device(), &what);
        }
    }
}
