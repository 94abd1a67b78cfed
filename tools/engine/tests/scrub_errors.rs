// SPDX-License-Identifier: GPL-2.0

//! Scrub on a device that fails at some time: what is damaged is reported once, under its own name, and what the
//! device could not do for a moment is no damage.

mod common;
#[path = "support/forge.rs"]
#[allow(dead_code)]
mod forge;

use common::hooked::{hooked, Ask};
use common::*;
use kernel::error::code::{EAGAIN, EIO, ENOMEM, EUCLEAN};
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::engine::ops::scrub::{From, Go};
use ordofs_engine::engine::state::scrub::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::vec::Vec;

const INODE: u8 = 1;
const EXTENT: u8 = 3;
const DIR: u8 = 4;
const AGS: u8 = 6;
const GROUPS: u8 = 7;

/// What happens at a read of a block.
type OnRead = Box<dyn FnMut(u64) -> kernel::prelude::Result>;

std::thread_local! {
    static ON_READ: RefCell<Option<OnRead>> = const { RefCell::new(None) };
}

/// From now on `f` is called at each read by this thread, but not at those that it makes itself.
fn on_read(f: impl FnMut(u64) -> kernel::prelude::Result + 'static) {
    ON_READ.set(Some(Box::new(f)));
}

fn undisturbed() {
    ON_READ.set(None);
}

fn device(disk: &MemDisk) -> Device {
    hooked(disk, |ask| {
        let Ask::Read(at) = ask else { return Ok(()) };
        let Some(mut f) = ON_READ.take() else {
            return Ok(());
        };
        let r = f(at);
        ON_READ.set(Some(f));
        r
    })
}

/// Runs a scrub to its end, step by step. Returns how often a step had to be done again, too.
fn scrub(fs: &Fs) -> (ScrubStatus, Vec<Damage>, usize) {
    let mut s = fs.scrub_start(From::Start, 0).unwrap();
    let mut again = 0;
    for _ in 0..100_000 {
        match fs.scrub_step(&mut s) {
            Err(e) if e == ENOMEM || e == EAGAIN => again += 1,
            r => drop(r.unwrap()),
        }
        if fs.scrub_status().cursor.stage == Stage::End {
            undisturbed();
            fs.scrub_abandoned();
            return (fs.scrub_status(), listed(fs), again);
        }
    }
    panic!("no end: {:?}", fs.scrub_status());
}

fn listed(fs: &Fs) -> Vec<Damage> {
    let mut list = Vec::new();
    fs.scrub_damage(0, &mut |d| {
        list.push(*d);
        true
    });
    list
}

/// A filesystem, mounted on a device with the hook, with a file "many" of `extents` extents of a block,
/// and with enough names that the inode tree and the root directory have several leaves. Nothing of it is in memory.
fn furnished(extents: u64) -> (MemDisk, Shared<Fs>, u64) {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make_single(1 << 16);
    let fs = mount_on(device(&disk));
    let root = fs.iget(fs.root_ino()).unwrap();
    for i in 0..100 {
        let name = format!("a name of some length, number {i}");
        fs.iput(fs.create(&root, name.as_bytes(), &regular()).unwrap());
    }
    let f = fs.create(&root, b"many", &regular()).unwrap();
    let ino = f.ino();
    for i in 0..extents {
        write(&disk.device(), &fs, &f, 2 * i, &[i]).unwrap();
    }
    fs.iput(f);
    fs.iput(root);
    fs.sync().unwrap();
    fs.shrink_scan(u64::MAX);
    (disk, fs, ino)
}

/// Where a block of a file is.
fn place(fs: &Fs, ino: u64, block: u64) -> u64 {
    let f = fs.iget(ino).unwrap();
    let phys = fs.map_read(&f, block, 1).unwrap().phys;
    fs.iput(f);
    fs.shrink_scan(u64::MAX);
    phys
}

/// The leaves of trees of that kind on the device, with their first keys.
fn leaves(disk: &MemDisk, kind: u8) -> Vec<(u64, u64)> {
    let image = disk.image();
    let first = |d: &[u8; 4096]| forge::leaf(d, kind).first().map(|i| i.key);
    let all = image.iter().filter_map(|(b, d)| Some((*b, first(d)?)));
    all.collect()
}

/// The blocks of the leaves of that kind that a scrub reads.
fn leaves_in_use(disk: &MemDisk, fs: &Fs, kind: u8) -> Vec<(u64, u64)> {
    let seen = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let note = seen.clone();
    on_read(move |at| {
        note.lock().unwrap().insert(at);
        Ok(())
    });
    let (_, damage, _) = scrub(fs);
    assert_eq!(damage, []);
    fs.shrink_scan(u64::MAX);
    let seen = seen.lock().unwrap();
    let all = leaves(disk, kind).into_iter();
    let mut used: Vec<_> = all.filter(|(b, _)| seen.contains(b)).collect();
    used.sort_by_key(|(_, key)| *key);
    used
}

/// Something that the next commit has to write.
fn dirty_something(fs: &Fs) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let (mtime, ctime) = (Time { sec: 7, nsec: 0 }, Time { sec: 8, nsec: 0 });
    fs.set_attrs_with(&root, || AttrChange {
        mtime: Some(mtime),
        ctime: Some(ctime),
        ..AttrChange::default()
    })
    .unwrap();
    fs.iput(root);
}

/// A block of data and then the record of it cannot be read; the walk had read the record before.
#[test]
fn data_is_damaged_although_its_record_cannot_be_looked_up_again() {
    let (disk, fs, ino) = furnished(400);
    let leaf = leaves_in_use(&disk, &fs, EXTENT)[0].0;
    let bad = place(&fs, ino, 6);
    let mut reads = 0;
    on_read(move |at| {
        reads += u64::from(at == leaf);
        match at == bad || at == leaf && reads > 1 {
            true => Err(EIO),
            false => Ok(()),
        }
    });
    let (status, damage, _) = scrub(&fs);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(
        (damage[0].kind, damage[0].owner, damage[0].start),
        (DamageKind::Data, ino, 6 * 4096)
    );
    assert_eq!((status.bad_blocks, status.moved_blocks), (1, 0));
    assert_eq!(status.data_blocks, 400);
}

/// The same, and a commit begins between the two looks: the walk has to read the leaf again, and reports it.
#[test]
fn a_leaf_that_fails_after_a_commit_is_reported() {
    let (disk, fs, ino) = furnished(400);
    let leaf = leaves_in_use(&disk, &fs, EXTENT)[0].0;
    let bad = place(&fs, ino, 6);
    let (mut reads, fs2) = (0, fs.clone());
    on_read(move |at| {
        reads += u64::from(at == leaf);
        if at == bad {
            dirty_something(&fs2);
            fs2.sync().unwrap();
            return Err(EIO);
        }
        match at == leaf && reads > 1 {
            true => Err(EIO),
            false => Ok(()),
        }
    });
    let (status, damage, _) = scrub(&fs);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(
        (damage[0].kind, damage[0].owner, damage[0].block),
        (DamageKind::Node, ino, leaf)
    );
    assert_eq!((status.lost_nodes, status.moved_blocks), (1, 0));
}

/// ENOMEM and EAGAIN of the device.
#[test]
fn a_device_that_is_busy_is_no_damage() {
    let (disk, fs, ino) = furnished(400);
    let leaf = leaves_in_use(&disk, &fs, EXTENT)[1].0;
    let (whole, _, _) = scrub(&fs);
    fs.shrink_scan(u64::MAX);
    for error in [ENOMEM, EAGAIN] {
        let data = place(&fs, ino, 6);
        let (mut of_leaf, mut of_data) = (0, 0);
        on_read(move |at| {
            of_leaf += u32::from(at == leaf);
            of_data += u32::from(at == data);
            match at == leaf && of_leaf <= 3 || at == data && of_data <= 3 {
                true => Err(error),
                false => Ok(()),
            }
        });
        let (status, damage, again) = scrub(&fs);
        assert_eq!(damage, []);
        assert!(again >= 4, "{again}");
        assert_eq!(status.data_blocks, whole.data_blocks);
        assert_eq!(status.inodes, whole.inodes);
        fs.shrink_scan(u64::MAX);
    }
}

/// A leaf of the inode tree that the walk could read, and that cannot be read when its inodes are.
#[test]
fn an_inode_leaf_that_fails_is_one_lost_node_and_no_bad_records() {
    for error in [EIO, EUCLEAN] {
        let (disk, fs, _) = furnished(0);
        let (leaf, first) = leaves_in_use(&disk, &fs, INODE)[1];
        let (mut reads, disk2) = (0, disk.clone());
        on_read(move |at| {
            reads += u32::from(at == leaf);
            if at != leaf || reads != 2 && error == EUCLEAN || reads < 2 {
                return Ok(());
            }
            if error == EUCLEAN {
                disk2.corrupt(leaf, 200, 1);
                return Ok(());
            }
            Err(error)
        });
        let (status, damage, _) = scrub(&fs);
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert_eq!(
            (damage[0].kind, damage[0].tree, damage[0].block),
            (DamageKind::Node, INODE, leaf)
        );
        assert!(damage[0].start <= first);
        assert_eq!((status.lost_nodes, status.bad_records), (1, 0));
    }
}

/// The same, but only once: nothing is damaged, and the inodes are read.
#[test]
fn an_inode_leaf_that_fails_once_is_no_damage() {
    let (disk, fs, _) = furnished(0);
    let leaf = leaves_in_use(&disk, &fs, INODE)[1].0;
    let (whole, _, _) = scrub(&fs);
    fs.shrink_scan(u64::MAX);
    let mut reads = 0;
    on_read(move |at| {
        reads += u32::from(at == leaf);
        match at == leaf && reads == 2 {
            true => Err(EIO),
            false => Ok(()),
        }
    });
    let (status, damage, _) = scrub(&fs);
    assert_eq!(damage, []);
    assert_eq!(status.inodes, whole.inodes);
}

/// A path that fails and works in turns: each read past the cache succeeds, and each through it fails.
/// That proves no damage, and what is not read is counted. When it ends soon enough, all is read.
#[test]
fn an_inode_leaf_that_fails_in_turns_is_no_damage() {
    for failures in [3, u32::MAX] {
        let (disk, fs, _) = furnished(0);
        let leaf = leaves_in_use(&disk, &fs, INODE)[1].0;
        let (whole, _, _) = scrub(&fs);
        assert_eq!(whole.left_out, 0);
        fs.shrink_scan(u64::MAX);
        let mut reads = 0;
        on_read(move |at| {
            reads += u32::from(at == leaf);
            match at == leaf && reads % 2 == 0 && reads / 2 <= failures {
                true => Err(EIO),
                false => Ok(()),
            }
        });
        let (status, damage, _) = scrub(&fs);
        assert_eq!(damage, []);
        assert_eq!(status.cursor.stage, Stage::End);
        assert_eq!(status.inodes, whole.inodes);
        assert_eq!(status.left_out > 0, failures == u32::MAX, "{status:?}");
    }
}

/// A leaf of the AG tree is lost after its records were read: two looks find that.
#[test]
fn a_lost_leaf_of_the_ag_tree_counts_once() {
    let (disk, fs, _) = furnished(0);
    let mut s = fs.scrub_start(From::Start, 0).unwrap();
    while fs.scrub_status().cursor.stage != Stage::Groups {
        fs.scrub_step(&mut s).unwrap();
    }
    dirty_something(&fs);
    fs.sync().unwrap();
    for (leaf, _) in leaves(&disk, AGS) {
        disk.corrupt(leaf, 100, 1);
    }
    while fs.scrub_status().cursor.stage != Stage::End {
        fs.scrub_step(&mut s).unwrap();
    }
    fs.scrub_abandoned();
    let (status, damage) = (fs.scrub_status(), listed(&fs));
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].kind, damage[0].tree), (DamageKind::Node, AGS));
    assert_eq!((status.lost_nodes, status.bad_copies), (1, 1));
}

/// A device that takes long for each block that it cannot read: cancelling waits for one of them.
#[test]
fn cancelling_waits_for_one_read() {
    let (disk, fs, ino) = furnished(0);
    let f = fs.iget(ino).unwrap();
    write(&disk.device(), &fs, &f, 0, &[1; 64]).unwrap();
    fs.sync().unwrap();
    let all: BTreeSet<u64> = (0..64)
        .map(|b| fs.map_read(&f, b, 1).unwrap().phys)
        .collect();
    fs.iput(f);
    let after = Arc::new(AtomicU64::new(0));
    let (mut single, fs2, count) = (0, fs.clone(), after.clone());
    let first = *all.iter().next().unwrap();
    on_read(move |at| {
        if !all.contains(&at) {
            return Ok(());
        }
        // The read of all 64 fails at the first one, and then each alone.
        single += u64::from(at != first);
        match single {
            0 => {}
            1 => fs2.scrub_cancel().unwrap(),
            _ => drop(count.fetch_add(1, Ordering::Relaxed)),
        }
        Err(EIO)
    });
    let s = fs.scrub_start(From::Start, 0).unwrap();
    fs.scrub_run(s, &mut || Go::On);
    undisturbed();
    let status = fs.scrub_status();
    assert_eq!(status.phase, Phase::Cancelled);
    assert_eq!(after.load(Ordering::Relaxed), 0);
    assert!(status.bad_blocks <= 2, "{status:?}");
    // Nothing is lost by that: all are found after it has been resumed, and the inode counts once.
    let s = fs.scrub_start(From::Cancelled, 0).unwrap();
    fs.scrub_run(s, &mut || Go::On);
    let now = fs.scrub_status();
    assert_eq!((now.phase, now.run), (Phase::Finished, status.run));
    assert_eq!(now.data_blocks, 64);
    assert_eq!(now.bad_inodes, u64::from(status.bad_blocks > 0));
}

/// An inode in memory only when the scrub looks at the tree; a commit puts it into the tree and drops it from memory
/// while the scrub reads the old one.
#[test]
fn an_inode_that_is_committed_under_the_look_is_read() {
    let (disk, fs, _) = furnished(0);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"new", &regular()).unwrap();
    let ino = f.ino();
    write(&disk.device(), &fs, &f, 0, &[1, 2, 3]).unwrap();
    fs.sync_inode(&f).unwrap();
    disk.corrupt(fs.map_read(&f, 1, 1).unwrap().phys, 7, 1);
    fs.iput(f);
    fs.iput(root);
    let last = leaves(&disk, INODE).into_iter().map(|(_, key)| key).max();
    let at: BTreeSet<u64> = leaves(&disk, INODE)
        .into_iter()
        .filter(|(_, key)| Some(*key) == last)
        .map(|(b, _)| b)
        .collect();
    let (mut done, fs2) = (false, fs.clone());
    on_read(move |block| {
        if at.contains(&block) && !core::mem::replace(&mut done, true) {
            fs2.sync().unwrap();
        }
        Ok(())
    });
    let (status, damage, _) = scrub(&fs);
    assert_eq!(damage.len(), 1, "{status:?}");
    assert_eq!((damage[0].owner, damage[0].start), (ino, 4096));
}

/// Extents behind the end of the file, of blocks that were preallocated: their nodes are read.
#[test]
fn nodes_behind_the_end_of_a_file_are_read() {
    let (disk, fs, ino) = furnished(0);
    let f = fs.iget(ino).unwrap();
    write(&disk.device(), &fs, &f, 0, &[1]).unwrap();
    for i in 0..400 {
        fs.preallocate(&f, 1000 + 2 * i, 1, None).unwrap();
    }
    assert_eq!(fs.lost_records(&f, 1000).unwrap(), None);
    fs.iput(f);
    fs.sync().unwrap();
    fs.shrink_scan(u64::MAX);
    let extents = leaves_in_use(&disk, &fs, EXTENT);
    assert!(extents.len() > 2, "{extents:?}");
    let (leaf, first) = extents[extents.len() - 1];
    disk.corrupt(leaf, 100, 1);
    let (status, damage, _) = scrub(&fs);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].block, damage[0].owner), (leaf, ino));
    assert_eq!(status.lost_nodes, 1);
    // What `ordofs cat --keep-going` skips at once.
    fs.shrink_scan(u64::MAX);
    let f = fs.iget(ino).unwrap();
    assert_eq!(fs.lost_records(&f, first), Ok(Some(u64::MAX)));
    assert_eq!(fs.lost_records(&f, 0), Ok(None));
    fs.iput(f);
}

/// Records that are not possible, in nodes with right checksums.
#[test]
fn records_that_cannot_be_true_are_found_and_what_is_only_unknown_is_not_damage() {
    let (disk, fs, ino) = furnished(400);
    fs.unmount().unwrap();
    let ino_of = |d: &Damage| match d.tree {
        INODE => d.start,
        _ => d.owner,
    };
    let mut found = BTreeSet::new();
    type Change = fn(&mut [u8]);
    let cases: [(u8, Change); 4] = [
        // No such number of blocks; a name with a zero; a state that does not exist; a form that does not exist.
        (EXTENT, |v| v[8..12].fill(0)),
        (DIR, |v| *v.last_mut().unwrap() = 0),
        (INODE, |v| v[52] = 0x80),
        (GROUPS, |v| v[0] = 9),
    ];
    for (kind, change) in cases {
        let d = disk.fork();
        let image = disk.image();
        for (block, data) in image.iter() {
            let items = forge::leaf(data, kind);
            let Some(item) = items.get(items.len() / 2) else {
                continue;
            };
            let mut data = **data;
            change(&mut data[item.at..item.at + item.len]);
            forge::forge(&d, *block, data);
        }
        let fs = mount(&d);
        let (status, damage, _) = scrub(&fs);
        let records = damage.iter().filter(|d| d.kind == DamageKind::Record);
        assert!(records.clone().all(|d| d.tree == kind), "{damage:?}");
        assert_eq!(status.bad_copies, 0);
        assert_eq!(status.bad_records, records.clone().count() as u64);
        if records.clone().count() > 0 {
            found.insert(kind);
        }
        if kind == EXTENT {
            assert!(records.clone().all(|d| ino_of(d) == ino), "{damage:?}");
            assert_eq!(status.bad_inodes, 1);
        }
        fs.unmount().unwrap();
    }
    assert!(found.is_superset(&[EXTENT, DIR, INODE].into()), "{found:?}");

    // An inode with a section that this code does not know how to use.
    let d = disk.fork();
    let image = disk.image();
    for (block, data) in image.iter() {
        for item in forge::leaf(data, INODE).iter().filter(|i| i.key == ino) {
            let old = &data[item.at..item.at + item.len];
            let mut rec = InodeRecord::parse(old).unwrap_or_else(|_| panic!("record"));
            rec.crypt = &[1, 2, 3];
            let mut v = kernel::prelude::KVec::new();
            rec.encode(&mut v).unwrap();
            forge::forge(&d, *block, forge::replaced(data, INODE, ino, &v));
        }
    }
    let fs = mount(&d);
    assert!(matches!(fs.iget(ino), Err(e) if e == EUCLEAN));
    let (status, damage, _) = scrub(&fs);
    assert_eq!(damage, [], "{status:?}");
    assert_eq!(status.left_out, 1);
    fs.unmount().unwrap();
}

/// The list says which scrub it is of.
#[test]
fn each_scrub_has_a_number() {
    let (_, fs, _) = furnished(0);
    for run in 1..4 {
        assert_eq!(scrub(&fs).0.run, run);
        assert_eq!(fs.scrub_damage(0, &mut |_| true), run);
    }
}
