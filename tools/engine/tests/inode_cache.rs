// SPDX-License-Identifier: GPL-2.0

//! Inodes in memory: very many of them in one commit, and look-ups that race with evictions.

mod common;

use common::*;
use ordofs_engine::engine::*;
use std::vec::Vec;

/// A commit of very many inodes: no list of it may need that much contiguous memory, which the kernel refuses.
#[test]
fn a_commit_of_thirty_thousand_inodes_succeeds() {
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
    // A change of attributes alone reserves few nodes, so one commit takes all of them.
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

/// However look-ups and evictions interleave, an inode is never older than the last commit.
#[test]
fn a_look_up_returns_no_inode_older_than_the_last_commit() {
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
    // Once it is deleted, no look-up finds it, before the commit or after.
    let i = fs.iget(ino).unwrap();
    fs.unlink(&root, b"f", &i).unwrap();
    fs.delete_inode(i).unwrap();
    assert!(fs.iget(ino).is_err());
    fs.sync().unwrap();
    assert!(fs.iget(ino).is_err());
    fs.iput(root);
}
