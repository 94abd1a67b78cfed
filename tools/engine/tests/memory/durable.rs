// SPDX-License-Identifier: GPL-2.0

//! Operations that make durable, and those that give memory back.

use super::action::{steps, whole, Action};
use super::bed::{new, with, write, Bed};
use ordofs_engine::engine::*;

/// Changes that no commit and no fsync has seen yet.
pub fn work(b: &Bed) {
    names(b);
    write(&b.fs, &b.file, 20, 40, false, 8).expect("write");
}

fn names(b: &Bed) {
    let uid = AttrChange {
        uid: Some(6),
        ..AttrChange::default()
    };
    b.fs.set_attrs(&b.file, &uid).expect("set_attrs");
    let i = b.fs.create(&b.dir, b"work", &new(S_IFREG)).expect("create");
    b.fs.iput(i);
}

/// As if operations had changed so many nodes more.
pub fn promise(b: &Bed, nodes: u64) {
    let mut txn = b.fs.begin_forced(0).expect("begin");
    txn.charge(nodes);
    // A debug build asserts that operations have reserved what they use, when its accounts are closed.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(txn)));
}

pub const DURABLE: &[Action] = &[
    steps("fsync of data", |b| {
        write(&b.fs, &b.file, 20, 40, false, 9)?;
        b.fs.sync_inode(&b.file)
    })
    .durable(),
    steps("fsync of a name", |b| {
        let i = b.fs.create(&b.dir, b"new", &new(S_IFREG))?;
        let r = b.fs.sync_inode(&i);
        b.fs.iput(i);
        r
    })
    .durable(),
    // The file has nothing of its own to make durable.
    whole("fsync of what others did", |b| {
        with(&b.fs, &b.root, b"other", |i| b.fs.sync_inode(i))
    })
    .after(names)
    .durable(),
    whole("fsync of much", |b| b.fs.sync_inode(&b.file))
        .after(work)
        .durable(),
    whole("sync", |b| b.fs.sync()).after(work).durable(),
    whole("close", |b| b.fs.mark_clean(Backups::Daily))
        .after(work)
        .durable(),
    whole("close and go on", |b| {
        b.fs.mark_clean(Backups::Now)?;
        b.fs.sync_inode(&b.file)
    })
    .after(work)
    .durable(),
    whole("remount read-only", |b| b.fs.go_read_only())
        .after(work)
        .durable(),
    whole("label", |b| {
        let mut label = [0; 64];
        label[..4].copy_from_slice(b"name");
        b.fs.set_label(label)
    })
    .after(work)
    .durable(),
    whole("resize", |b| {
        let mut r = b.fs.resize_begin(0)?;
        assert_ne!(r.from, r.to);
        while b.fs.resize_step(&mut r)? {}
        Ok(())
    })
    .after(work)
    .durable(),
    whole("sync with discard", |b| {
        b.fs.set_discard(true);
        b.fs.sync()
    })
    .after(|b| {
        work(b);
        b.fs.punch(&b.file, 200, 50).expect("punch");
    })
    .durable(),
    // The commit thread.
    whole("tick", |b| b.fs.commit_tick())
        .after(|b| {
            work(b);
            promise(b, 4200);
        })
        .durable(),
    steps("create that has to commit first", |b| {
        b.fs.create(&b.dir, b"new", &new(S_IFREG))
            .map(|i| b.fs.iput(i))
    })
    .after(|b| {
        work(b);
        promise(b, 17_000);
    }),
    whole("shrink", |b| {
        b.fs.shrink_scan(1 << 20);
        Ok(())
    })
    .frugal(),
    whole("stop caching", |b| {
        b.fs.stop_caching();
        Ok(())
    })
    .frugal(),
];
