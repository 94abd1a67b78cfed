// SPDX-License-Identifier: GPL-2.0

//! The log where things go wrong: devices whose flush fails, damaged and forged batches, blocks that
//! cannot be read, and replays that are longer than a transaction may be.

mod common;

use common::hooked::{hooked, Ask, Gate};
use common::log::*;
use common::*;
use kernel::prelude::{Result, EIO, ENODEV, EUCLEAN};
use ordofs_engine::engine::format::superblock::SB_MAGIC;
use ordofs_engine::engine::ops::namei::Rename;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::{Op, Recorder};
use ordofs_engine::os::{Backend, Device};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A device with a volatile cache. A flush that fails loses what is in it.
#[derive(Clone)]
struct Lossy(Arc<LossyState>);

struct LossyState {
    disk: MemDisk,
    cache: Mutex<BTreeMap<u64, Box<[u8; SIZE]>>>,
    fail: AtomicBool,
    error: kernel::error::Error,
    /// Called by the next write of a block that begins with this.
    meanwhile: Mutex<Option<(&'static [u8], Meanwhile)>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

impl Lossy {
    fn new(error: kernel::error::Error) -> Self {
        Self(Arc::new(LossyState {
            disk: make(1 << 14),
            cache: Mutex::default(),
            fail: AtomicBool::new(false),
            error,
            meanwhile: Mutex::default(),
        }))
    }
}

impl Backend for Lossy {
    fn blocks(&self) -> u64 {
        self.0.disk.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result {
        match self.0.cache.lock().unwrap().get(&block) {
            Some(b) => *buf = **b,
            None => self.0.disk.read(block, buf)?,
        }
        Ok(())
    }
    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        let meanwhile = {
            let mut m = self.0.meanwhile.lock().unwrap();
            m.take_if(|m| data.starts_with(m.0))
        };
        self.0.cache.lock().unwrap().insert(block, Box::new(*data));
        if let Some((_, call)) = meanwhile {
            call();
        }
        Ok(())
    }
    fn flush(&self) -> Result {
        let cache = std::mem::take(&mut *self.0.cache.lock().unwrap());
        if self.0.fail.swap(false, Ordering::SeqCst) {
            return Err(self.0.error);
        }
        cache.iter().try_for_each(|(b, d)| self.0.disk.write(*b, d))
    }
    /// As the block layer does it for devices that have none.
    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write(block, data)?;
        self.flush()
    }
    fn discard(&self, _: u64, _: u64) -> Result {
        Ok(())
    }
}

/// Whatever error a device returns, and for whichever flush: no fsync that lost its data succeeds.
#[test]
fn a_flush_that_fails_is_an_error() {
    for error in [EIO, ENODEV] {
        for blocks in [1, ordofs_engine::engine::log::state::MAX_UNFLUSHED + 1] {
            let lossy = Lossy::new(error);
            let dev = Device::new(lossy.clone());
            let fs = mount_on(Device::new(lossy.clone()));
            let root = fs.iget(fs.root_ino()).unwrap();
            let f = fs.create(&root, b"f", &regular()).unwrap();
            fs.sync().unwrap();
            let seeds: Vec<u64> = (0..blocks).map(|i| 1000 + i).collect();
            write(&dev, &fs, &f, 0, &seeds).unwrap();
            lossy.0.fail.store(true, Ordering::SeqCst);
            let answer = fs.sync_inode(&f);
            assert!(answer.is_err(), "{error:?}, {blocks} blocks");
            assert!(fs.is_shutdown(), "{error:?}, {blocks} blocks");
        }
    }
}

/// While one task writes, a flush of another one's fails, and the device drops what it had from both. The
/// flush of the first one succeeds, and proves nothing.
#[test]
fn a_flush_that_fails_elsewhere_is_an_error() {
    // In the cache is a batch of the log; a node of a commit; its superblock.
    for (what, magic) in [
        ("fsync", &b"ORDL"[..]),
        ("commit", b""),
        ("superblock", &SB_MAGIC),
    ] {
        let lossy = Lossy::new(EIO);
        let fs = Arc::new(mount_on(Device::new(lossy.clone())));
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        fs.sync().unwrap();
        write(&Device::new(lossy.clone()), &fs, &f, 0, &[1]).unwrap();
        let (l, other) = (lossy.clone(), fs.clone());
        let call = Box::new(move || {
            l.0.fail.store(true, Ordering::SeqCst);
            assert!(other.node_store().device().flush().is_err());
        });
        *lossy.0.meanwhile.lock().unwrap() = Some((magic, call));
        let answer = match what {
            "fsync" => fs.sync_inode(&f),
            _ => fs.sync(),
        };
        assert!(lossy.0.meanwhile.lock().unwrap().is_none(), "{what}");
        assert!(answer.is_err() && fs.is_shutdown(), "{what}");
        // What is on the medium is the last commit.
        mount(&lossy.0.disk).unmount().unwrap();
        fsck(&lossy.0.disk);
    }
}

/// A batch at the end that is damaged may have been cut off: it ends the log for good, wherever the damage is.
/// What is left of it must not become part of the next log.
#[test]
fn behind_a_damaged_batch_nothing_comes_back() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    synced(&disk, &fs, b"a", 1);
    let first = batches(&disk)[0];
    // In the payload, the header's fields; and all of it.
    for damage in [
        100, 0, SUM, NODE_ID, NUMBER, POSITION, FLUSHED, LEN, FLAGS, GENERATION, OWN_SUM, ZERO,
        SIZE,
    ] {
        let crashed = disk.fork();
        ruin(&crashed, first, damage);
        let fs = mount(&crashed);
        let r = fs.replayed();
        assert!(r.batches == 0 && r.lost.is_none(), "{damage}: {r:?}");
        // One wrong bit is recognised wherever it is.
        assert_eq!(r.damaged.is_some(), damage != SIZE, "{damage}: {r:?}");
        // A batch of the same length as the damaged one, with a block that the old life had used.
        synced(&crashed, &fs, b"x", 11);
        let again = crashed.fork();
        let fs = mount(&again);
        assert_eq!(fs.replayed().batches, 1, "{damage}");
        fs.unmount().unwrap();
        let root = &fsck(&again)[&fs.root_ino()];
        assert_eq!(root.names.keys().collect::<Vec<_>>(), [b"x"], "{damage}");
    }
}

/// The mount that may write is refused, and nothing is written; read-only there is what came before the damage,
/// `count` batches. `lost` batches are in doubt.
fn refused(disk: &MemDisk, dev: impl Fn() -> Device, count: usize, lost: u64, what: &str) {
    let before = disk.image();
    let e = Fs::mount(dev(), MountOptions::default()).err();
    let e = e.unwrap_or_else(|| panic!("{what}: mounted"));
    assert_eq!(e.error, EUCLEAN, "{what}: {}", e.reason);
    assert!(e.reason.contains("log"), "{what}: {}", e.reason);
    let fs = Fs::mount(dev(), read_only(true)).unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert_eq!(names(&fs), NAMES[..count], "{what}");
    let r = fs.replayed();
    assert_eq!(r.lost.map(|l| l.batches()), Some(lost), "{what}: {r:?}");
    assert_eq!(fs.forbidden().map(|e| e.error), Some(EUCLEAN), "{what}");
    let fs = Fs::mount(dev(), read_only(false)).unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert!(names(&fs).is_empty(), "{what}");
    assert!(disk.image() == before, "{what}: somebody has written");
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A batch that another one follows had been flushed, and was acknowledged. Damage to it does not come from a power
/// cut, and what the batches hold must not be dropped in silence.
#[test]
fn a_damaged_batch_before_the_end_forbids_writing() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 14);
    let fs = mount(&disk);
    for (name, seed) in NAMES.iter().zip(1..) {
        synced(&disk, &fs, name.as_bytes(), seed);
    }
    let log = batches(&disk);
    // In the payload, the header's fields; and all of it.
    for damage in [
        100, 0, SUM, NODE_ID, NUMBER, 20, POSITION, FLUSHED, LEN, 41, 42, FLAGS, GENERATION,
        OWN_SUM, ZERO, SIZE,
    ] {
        for (n, block) in log.iter().enumerate() {
            let what = format!("batch {n}, damage at {damage}");
            let crashed = disk.fork();
            ruin(&crashed, *block, damage);
            if n + 1 < log.len() {
                let lost = (log.len() - n) as u64;
                refused(&crashed, || crashed.device(), n, lost, &what);
                continue;
            }
            // The last one may have been cut off.
            let fs = mount(&crashed);
            assert_eq!(names(&fs), NAMES[..n], "{what}");
            assert!(fs.replayed().lost.is_none());
            fs.unmount().unwrap();
            fsck(&crashed);
        }
    }
    // Several batches in a row, and what is behind them is cut off itself.
    let crashed = disk.fork();
    for block in &log[1..4] {
        ruin(&crashed, *block, SIZE);
    }
    ruin(&crashed, log[4], 100);
    refused(&crashed, || crashed.device(), 1, 4, "batches 1 to 4");
    // Blocks that the device does not give back; the last one, or the one behind it, may be a batch as well.
    for (n, block) in (0..).zip(log.iter().copied().chain([log[4] + 1])) {
        let d = disk.fork();
        let dev = || {
            hooked(&d, move |ask| match ask {
                Ask::Read(b) if b == block => Err(EIO),
                _ => Ok(()),
            })
        };
        let lost = log.len().saturating_sub(n).max(1) as u64;
        refused(&d, dev, n, lost, &format!("block of batch {n} unreadable"));
    }
}

/// A batch is long, and its header is lost: the next one is found all the same.
#[test]
fn a_long_damaged_batch_is_found_out() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 18);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let target = [b't'; SYMLINK_MAX];
    let link = NewInode {
        symlink: Some(&target),
        ..file(S_IFLNK | 0o777)
    };
    for i in 0..400 {
        let name = format!("link {i}");
        let i = fs.create(&root, name.as_bytes(), &link).unwrap();
        fs.iput(i);
    }
    fs.sync_inode(&root).unwrap();
    synced(&disk, &fs, b"z", 1);
    let log = batches(&disk);
    assert_eq!(log.len(), 2);
    assert!(log[1] - log[0] > 300, "{log:?}");
    ruin(&disk, log[0], SIZE);
    refused(&disk, || disk.device(), 0, 2, "the long batch");
}

/// The data of a batch that another one follows was flushed with it: a block that is damaged now is lost to
/// that file, and no later fsync is lost with it.
#[test]
fn damaged_data_costs_no_later_fsync() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 14);
    let fs = mount(&disk);
    synced(&disk, &fs, b"a", 1);
    let root = fs.iget(fs.root_ino()).unwrap();
    let a = fs.lookup(&root, b"a").unwrap().unwrap().ino;
    let a = fs.iget(a).unwrap();
    let data = fs.map_read(&a, 0, 1).unwrap().phys;
    synced(&disk, &fs, b"b", 2);
    let log = batches(&disk);
    for damage in [None, Some(100), Some(16)] {
        let crashed = disk.fork();
        crashed.corrupt(data, 0, 1);
        if let Some(at) = damage {
            // The next batch is cut off: its header shows that the one before was acknowledged. Without the header, nothing does.
            crashed.corrupt(log[1], at, 1);
        }
        let fs = mount(&crashed);
        let want: &[&str] = match damage {
            None => &["a", "b"],
            Some(100) => &["a"],
            _ => &[],
        };
        assert_eq!(names(&fs), want, "{damage:?}");
    }
}

/// The records of a batch of one block: kind, and where the body is.
fn records(b: &[u8; SIZE]) -> Vec<(u8, usize)> {
    let (mut at, end) = (HEADER, HEADER + u32_at(b, LEN) as usize);
    let mut found = Vec::new();
    while at < end {
        found.push((b[at + 4], at + 32));
        at += u32_at(b, at) as usize;
    }
    found
}

/// Records with a right checksum that no operation can have logged: the mount is refused, and writes nothing.
#[test]
fn records_that_cannot_be_are_refused() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let old = fs.create(&root, b"old", &regular()).unwrap();
    write(&disk.device(), &fs, &old, 0, &[7]).unwrap();
    fs.sync().unwrap();
    let used = fs.map_read(&old, 0, 1).unwrap().phys;
    synced(&disk, &fs, b"f", 1);
    let sb = superblock(&disk);
    let at = batches(&disk)[0];
    const CREATE: u8 = 1;
    const ATTRS: u8 = 5;
    const WRITE: u8 = 9;
    let cases = [
        ("root directory", CREATE, 8, sb.root_ino),
        ("inode number that none has", CREATE, 8, 0),
        ("inode that there is", CREATE, 8, old.ino()),
        ("inode number without an end", CREATE, 8, u64::MAX),
        ("directory that is none", CREATE, 0, old.ino()),
        ("directory that is not there", CREATE, 0, 1000),
        ("type", CREATE, 16, 0),
        ("owner and group", CREATE, 20, u64::MAX),
        ("flag of encrypted files", CREATE, 28, 0x800),
        ("device number of a file", CREATE, 32, 7),
        ("generation number", CREATE, 40, 0),
        ("size", ATTRS, 8, 1 << 63),
        ("another type", ATTRS, 16, 1 << 32 | 0o040644),
        ("flag of files with verity", ATTRS, 28, 0x10_0000),
        ("flag of directories without case", ATTRS, 28, 0x4000_0000),
        ("project", ATTRS, 32, u64::MAX),
        ("change counter", ATTRS, 40, 1 << 63),
        ("inode that is not there", ATTRS, 0, 1000),
        ("blocks of a directory", WRITE, 0, fs.root_ino()),
        ("file blocks", WRITE, 8, 1 << 51),
        ("file blocks behind the end", WRITE, 8, 1),
        ("block of the log", WRITE, 16, sb.log_start),
        ("reserved block", WRITE, 16, 3),
        ("block of another file", WRITE, 16, used),
        ("block of a tree", WRITE, 16, sb.inode_root.unwrap().addr),
    ];
    for (what, kind, offset, value) in cases {
        let d = disk.fork();
        forge(&d, at, at, |b| {
            // The data need not be looked at.
            b[FLAGS] = 1;
            let all = records(b);
            let body = all.iter().find(|r| r.0 == kind).expect("record").1;
            b[body + offset..body + offset + 8].copy_from_slice(&value.to_le_bytes());
        });
        let before = d.image();
        let e = Fs::mount(d.device(), MountOptions::default()).err();
        let e = e.unwrap_or_else(|| panic!("{what}: mounted"));
        assert_eq!(e.error, EUCLEAN, "{what}: {}", e.reason);
        assert!(d.image() == before, "{what}: somebody has written");
        let fs = Fs::mount(d.device(), read_only(false)).expect("norecovery");
        assert_eq!(names(&fs), ["old"], "{what}");
    }
}

/// A truncation has a record of its own, which unmaps the blocks. A record of attributes that makes a
/// file smaller would leave them mapped behind its end.
#[test]
fn attributes_make_no_file_smaller() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    write(&disk.device(), &fs, &f, 0, &[1, 2, 3]).unwrap();
    fs.sync().unwrap();
    let mode = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    fs.set_attrs(&f, &mode).unwrap();
    fs.sync_inode(&f).unwrap();
    let at = batches(&disk)[0];
    for (size, good) in [
        (3 << 12, true),
        (3 << 12 | 1, true),
        (1 << 12, false),
        (0, false),
    ] {
        let d = disk.fork();
        forge(&d, at, at, |b| {
            let all = records(b);
            // The last one is that of the fsync, with the size.
            let body = all.iter().rfind(|r| r.0 == 5).expect("attributes").1;
            b[body + 8..body + 16].copy_from_slice(&u64::to_le_bytes(size));
        });
        let r = Fs::mount(d.device(), MountOptions::default());
        assert_eq!(r.is_ok(), good, "{size}");
    }
}

/// The VFS chooses the number of a new inode before the operation that makes it. A commit between the
/// two counts the number, and the record of the creation comes after that commit.
#[test]
fn a_commit_may_count_a_number_before_its_creation() {
    for kind in [S_IFREG, S_IFDIR] {
        let disk = make(1 << 14);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let ids = [fs.new_id(), fs.new_id(), fs.new_id()];
        synced(&disk, &fs, b"before", 1);
        fs.sync().unwrap();
        let new = |id| NewInode {
            id: Some(id),
            ..file(kind | 0o600)
        };
        let made = fs.create(&root, b"late", &new(ids[2])).unwrap();
        let moved = fs.lookup(&root, b"before").unwrap().unwrap();
        let moved = fs.iget(moved.ino).unwrap();
        let white = NewInode {
            id: Some(ids[0]),
            ..file(0o020000)
        };
        fs.rename(&Rename {
            old_dir: &root,
            old_name: b"before",
            inode: &moved,
            new_dir: &root,
            new_name: b"moved",
            target: None,
            flags: RenameFlags::default(),
            whiteout: Some(&white),
        })
        .unwrap();
        fs.sync_inode(&made).unwrap();
        let crashed = disk.fork();
        drop((made, moved, root, fs));
        let fs = mount(&crashed);
        assert_eq!(names(&fs), ["before", "late", "moved"]);
        fs.unmount().unwrap();
        fsck(&crashed);
    }
}

/// A mount either replays or refuses; it does not overflow.
#[test]
fn forged_numbers_never_panic() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    synced(&disk, &fs, b"f", 1);
    let at = batches(&disk)[0];
    for generation in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 62, 1000] {
        let d = disk.fork();
        forge(&d, at, at, |b| {
            b[64 + 8..64 + 16].copy_from_slice(&generation.to_le_bytes());
        });
        let fs = mount(&d);
        assert!(fs.replayed().damaged.is_some(), "{generation:x}");
        fs.unmount().unwrap();
        fsck(&d);
    }
    for (pos, seq) in [(u64::MAX, 7), (7, u64::MAX)] {
        let d = disk.fork();
        let mut sb = superblock(&d);
        (sb.log_pos, sb.log_seq) = (pos, seq);
        sb.write(&d.device()).unwrap();
        forge(&d, at, sb.log_start + pos % sb.log_len, |b| {
            b[16..24].copy_from_slice(&seq.to_le_bytes());
            b[24..32].copy_from_slice(&pos.to_le_bytes());
        });
        let refused = Fs::mount(d.device(), MountOptions::default()).err();
        let reason = refused.map(|e| e.reason);
        assert_eq!(reason, Some("impossible position of the log"));
    }
}

/// Reading ahead meets a bad block behind the end of the log: no batch is there, and drives take seconds
/// to give up on one.
#[test]
fn a_bad_block_behind_the_end_is_asked_for_seldom() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    for i in 0..58u64 {
        synced(&disk, &fs, format!("f{i}").as_bytes(), i);
    }
    let bad = superblock(&disk).log_start + 63;
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let fs = mount_on(hooked(&disk.fork(), move |ask| match ask {
        Ask::Read(block) if block == bad => {
            count.fetch_add(1, Ordering::SeqCst);
            Err(EIO)
        }
        _ => Ok(()),
    }));
    assert_eq!(fs.replayed().batches, 58);
    assert!(asked.load(Ordering::SeqCst) <= 4, "{asked:?}");
}

/// A log holds what two transactions did, which together change more nodes than operations may before
/// they commit. Replay must not: a superblock in the middle of it would make the rest look old.
#[test]
fn a_long_replay_is_one_transaction() {
    let disk = make(1 << 18);
    let gate = Gate::default();
    let fs = mount_on(gate.device(&disk));
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut made = 0;
    // Each of the two may commit; together they are more than operations may reserve.
    let mut fill = || loop {
        let name = format!("file-{made:06}");
        let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
        made += 1;
        let enough = fs.reserved_for_commit() > 12_000;
        if made % 500 == 0 || enough {
            fs.sync_inode(&f).unwrap();
        }
        fs.iput(f);
        if enough {
            return (made, fs.reserved_for_commit());
        }
    };
    let (_, before) = fill();
    gate.shut(true);
    let (left, all) = std::thread::scope(|s| {
        s.spawn(|| fs.sync().unwrap());
        gate.wait();
        let (all, after) = fill();
        assert!(before + after > 16_384, "replay has no reason to commit");
        let left = disk.fork();
        gate.shut(false);
        (left, all)
    });
    let rec = Recorder::new(left);
    let again = mount_on(rec.device());
    assert!(again.replayed().records >= all, "{:?}", again.replayed());
    let superblocks: Vec<usize> = (0..)
        .zip(rec.ops())
        .filter(|(_, op)| matches!(op, Op::Write { fua: true, .. }))
        .map(|(i, _)| i)
        .collect();
    // The two copies of one superblock.
    assert_eq!(superblocks.len(), 2, "the replay committed on the way");
    for cut in superblocks[0]..=superblocks[1] + 1 {
        let fs = mount(&rec.crash_image(cut, |_| true));
        let root = fs.iget(fs.root_ino()).unwrap();
        for i in 0..all {
            let name = format!("file-{i:06}");
            assert!(
                fs.lookup(&root, name.as_bytes()).unwrap().is_some(),
                "{name}"
            );
        }
    }
}
