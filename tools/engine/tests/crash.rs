// SPDX-License-Identifier: GPL-2.0

//! Power cuts at every point of a recorded run, with any subset of the writes that no flush covers.
//! The filesystem must mount, be clean, and be exactly what the newest superblock on it committed.

mod support;

use ordofs_engine::engine::format::places::slot;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::{Op as Io, Recorder};
use ordofs_engine::os::Block;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use support::driver::{clean, verify, Driver};
use support::model::Model;
use support::ops::{op, Op};

const BLOCKS: u64 = 8192;

fn sequence(seed: u8, len: usize) -> Vec<Op> {
    let rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let tree = prop::collection::vec(op(), len)
        .new_tree(&mut runner)
        .expect("operations");
    // Remounts and crashes are this test's own; the log is for tools/crash.
    tree.current()
        .into_iter()
        .filter(|o| !matches!(o, Op::Remount | Op::Crash | Op::SyncFile { .. }))
        .collect()
}

/// Checks the medium after a power cut.
fn check(disk: &MemDisk, history: &std::collections::BTreeMap<u64, Model>, place: &str) {
    let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{place}: {}", r.reason));
    clean(disk.device(), true, place);
    let fs = Fs::mount(disk.device(), MountOptions::default())
        .unwrap_or_else(|e| panic!("{place}: {}", e.reason));
    // Commits that an operation caused on the way have no snapshot: there only the checker judges.
    if let Some(model) = history.get(&sb.generation) {
        verify(&fs, &model.without_orphans());
    }
    fs.unmount().expect("unmount");
    clean(disk.device(), true, &format!("{place}, after recovery"));
}

fn cuts(seed: u8, every: usize) {
    let disk = MemDisk::new(BLOCKS);
    // mkfs and the first mount are not recorded.
    let rec = std::sync::Arc::new(std::sync::OnceLock::<Recorder>::new());
    let (d2, r2) = (disk.clone(), rec.clone());
    let mut d = Driver::new(move || r2.get().map_or_else(|| d2.device(), Recorder::device));
    let recorder = Recorder::new(disk);
    assert!(rec.set(recorder.clone()).is_ok());
    d.remount();
    for o in sequence(seed, 120) {
        d.step(&o);
    }
    d.sync();
    let history = d.history.clone();
    drop(d);
    let ops = recorder.ops();
    let mut x = u64::from(seed) + 1;
    let mut random = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for n in 0..=ops.len() {
        // Always around superblocks and flushes, elsewhere now and then.
        let hot = n > 0 && !matches!(ops[n - 1], Io::Write { fua: false, .. });
        if !hot && n % every != 0 {
            continue;
        }
        for kind in ["none", "all", "some"] {
            let image = recorder.crash_image(n, |_| match kind {
                "none" => false,
                "all" => true,
                _ => random() % 2 == 0,
            });
            check(&image, &history, &format!("seed {seed}, cut after {n} of {} operations, {kind} of the unflushed writes arrive", ops.len()));
        }
    }
}

#[test]
fn every_cut_of_some_runs() {
    for seed in 0..4 {
        cuts(seed, 40);
    }
}

#[test]
fn a_torn_superblock_leaves_the_one_before() {
    let disk = MemDisk::new(BLOCKS);
    let d2 = disk.clone();
    let mut d = Driver::new(move || d2.device());
    for o in sequence(77, 60) {
        d.step(&o);
    }
    let older = d.durable.clone();
    let was = Superblock::read(&disk.device())
        .expect("superblock")
        .generation;
    let slots = [0, 1].map(|copy| slot(was + 1, copy, BLOCKS));
    let read = |at| {
        let mut b = Block::zeroed().expect("memory");
        disk.device().read(at, &mut b).expect("read");
        b
    };
    let mut torn = slots.map(read);
    d.step(&Op::Create {
        dir: 0,
        name: 200,
        what: support::ops::What::File,
    });
    d.sync();
    drop(d);
    let sb = Superblock::read(&disk.device()).expect("superblock");
    assert_eq!(sb.generation, was + 1);
    for (at, torn) in slots.into_iter().zip(&mut torn) {
        torn[..512].copy_from_slice(&read(at)[..512]);
        disk.device().write(&[(at, torn)]).expect("write");
    }
    clean(disk.device(), false, "with a torn superblock");
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    verify(&fs, &older.without_orphans());
}
