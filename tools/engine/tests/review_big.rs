// SPDX-License-Identifier: GPL-2.0

//! Sizes that the kernel's allocators refuse, device contents that arithmetic must survive, and memory
//! reclaim at every allocation.

mod common;

use common::*;
use ordofs_engine::engine::alloc::ag::{Ag, SUMMARY_KEY};
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::btree::Tree;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::vec::Vec;

/// Several hundred thousand inodes in one commit: no list of it may need that much contiguous memory.
#[test]
fn a_commit_of_very_many_inodes() {
    let disk = make(1 << 20);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let n = 30_000;
    let all: Vec<_> = (0..n)
        .map(|i| {
            fs.create(&root, format!("f{i}").as_bytes(), &regular())
                .unwrap()
        })
        .collect();
    fs.sync().unwrap();
    // Attributes alone promise few nodes each, so that all of them meet in one commit.
    for i in &all {
        fs.set_attrs(
            i,
            &AttrChange {
                uid: Some(7),
                ..Default::default()
            },
        )
        .unwrap();
    }
    fs.sync().unwrap();
    all.into_iter().for_each(|i| fs.iput(i));
    fs.iput(root);
    fs.unmount().unwrap();
    assert!(!fs.is_shutdown());
}

/// Free counts of groups that there are not.
#[test]
fn summaries_out_of_range_are_refused() {
    let disk = MemDisk::new(1 << 16);
    let st = NodeStore::new(Shared::new(disk.device()).unwrap(), 1, 64).unwrap();
    for key in [
        SUMMARY_KEY + 1,
        SUMMARY_KEY + (1 << 40),
        u64::MAX - 1,
        u64::MAX,
    ] {
        let mut t = Tree::empty(Ag::tree_id(0));
        t.insert(&st, key, &[0; 1024]).unwrap();
        assert!(Ag::new(t, 8 * 8192).read(&st).is_err(), "{key}");
    }
}

/// An inode is never seen in a state older than the last commit, however look-ups and evictions meet.
#[test]
fn look_ups_meet_evictions() {
    let disk = make(16384);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let ino = f.ino();
    fs.set_attrs(
        &f,
        &AttrChange {
            uid: Some(0),
            ..Default::default()
        },
    )
    .unwrap();
    fs.iput(f);
    fs.sync().unwrap();
    let seen = std::sync::atomic::AtomicU32::new(0);
    use std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..30_000 {
                    let least = seen.load(SeqCst);
                    let i = fs.iget(ino).unwrap();
                    assert!(i.attrs().uid >= least);
                    fs.iput(i);
                }
            });
        }
        s.spawn(|| {
            for n in 1..4000 {
                let i = fs.iget(ino).unwrap();
                fs.set_attrs(
                    &i,
                    &AttrChange {
                        uid: Some(n),
                        ..Default::default()
                    },
                )
                .unwrap();
                seen.store(n, SeqCst);
                fs.iput(i);
                if n % 3 == 0 {
                    fs.sync().unwrap();
                }
            }
        });
    });
    // Deleted: nobody gets it any more, committed or not.
    let i = fs.iget(ino).unwrap();
    fs.unlink(&root, b"f", &i).unwrap();
    fs.delete_inode(i).unwrap();
    assert!(fs.iget(ino).is_err());
    fs.sync().unwrap();
    assert!(fs.iget(ino).is_err());
    fs.iput(root);
}
