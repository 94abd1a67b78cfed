// SPDX-License-Identifier: GPL-2.0

//! Measurements, not tests: `cargo test --release -p ordofs-engine --test measurements -- --ignored
//! --nocapture --test-threads=1`.

mod common;

use common::*;
use fastrand::Rng;
use ordofs_engine::engine::*;
use std::time::Instant;
use std::vec::Vec;

fn say(what: &str, n: u64, t: Instant) {
    let s = t.elapsed().as_secs_f64();
    println!(
        "{what}: {:.0} ops/s, {:.1} us each, {s:.2} s",
        n as f64 / s,
        s * 1e6 / n as f64
    );
}

const BLOCKS: u64 = 4 << 20;

#[test]
#[ignore = "a measurement"]
fn sequential_writes() {
    let disk = make(BLOCKS);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let t = Instant::now();
    for i in 0..4096 {
        map_only(&fs, &f, i * 256, &[7; 256]);
    }
    say("sequential 4 GiB, writes of 1 MiB", 4096, t);
    let t = Instant::now();
    fs.sync().unwrap();
    say("  sync", 1, t);
    let t = Instant::now();
    for b in 0..262_144 {
        fs.map_read(&f, b, 1).unwrap();
        fs.verify(&f, b, 1, 7).unwrap();
    }
    say("  map_read + verify of a block", 262_144, t);
    let t = Instant::now();
    fs.set_size(&f, 0).unwrap();
    say("  truncate", 1, t);
    fs.iput(f);
    fs.iput(root);
}

#[test]
#[ignore = "a measurement"]
fn random_overwrites() {
    let disk = make(BLOCKS);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    for i in 0..1024 {
        map_only(&fs, &f, i * 256, &[7; 256]);
    }
    fs.sync().unwrap();
    let mut rng = Rng::with_seed(1);
    let mut sync = std::time::Duration::ZERO;
    for part in 0..4u64 {
        let t = Instant::now();
        for i in 1..=50_000u64 {
            map_only(&fs, &f, rng.u64(..262_144), &[i as u32]);
            if i % 1000 == 0 {
                let s = Instant::now();
                fs.sync().unwrap();
                sync += s.elapsed();
            }
        }
        say(
            &format!("random 4K overwrite with sync every 1000, part {part}"),
            50_000,
            t,
        );
        println!("  of that sync {:.2} s", sync.as_secs_f64());
        sync = Default::default();
    }
    let t = Instant::now();
    fs.set_size(&f, 0).unwrap();
    say("  truncate", 1, t);
    let t = Instant::now();
    fs.sync().unwrap();
    say("  sync", 1, t);
    fs.iput(f);
    fs.iput(root);
}

#[test]
#[ignore = "a measurement"]
fn creates_and_unlinks() {
    let disk = make(BLOCKS);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for kept in [false, true] {
        let d = fs
            .create(&root, format!("d{kept}").as_bytes(), &file(S_IFDIR | 0o755))
            .unwrap();
        let t = Instant::now();
        let mut all = Vec::new();
        for i in 0..200_000 {
            let f = fs
                .create(&d, format!("file{i}").as_bytes(), &regular())
                .unwrap();
            if kept {
                all.push(f);
            } else {
                fs.iput(f);
            }
        }
        say("creates in one directory", 200_000, t);
        let t = Instant::now();
        fs.sync().unwrap();
        say("  sync", 1, t);
        let t = Instant::now();
        for i in 0..200_000 {
            fs.lookup(&d, format!("file{i}").as_bytes())
                .unwrap()
                .unwrap();
        }
        say("  lookups", 200_000, t);
        let t = Instant::now();
        let mut n = 0;
        fs.readdir(&d, 0, &mut |_, _, _, _| {
            n += 1;
            true
        })
        .unwrap();
        say("  readdir", n, t);
        all.into_iter().for_each(|f| fs.iput(f));
        let t = Instant::now();
        for i in 0..200_000 {
            let name = format!("file{i}").into_bytes();
            let f = fs.iget(fs.lookup(&d, &name).unwrap().unwrap().ino).unwrap();
            fs.unlink(&d, &name, &f).unwrap();
            fs.delete_inode(f).unwrap();
        }
        say("  unlinks", 200_000, t);
        fs.sync().unwrap();
        fs.iput(d);
    }
    fs.iput(root);
}

#[test]
#[ignore = "a measurement"]
fn a_file_in_many_pieces() {
    let disk = make(BLOCKS);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let t = Instant::now();
    for i in 0..100_000 {
        map_only(&fs, &f, 2 * i, &[7]);
    }
    say("100,000 extents", 100_000, t);
    let t = Instant::now();
    fs.sync().unwrap();
    say("  sync", 1, t);
    let t = Instant::now();
    let mut at = 0;
    let mut n = 0;
    while at < 200_000 {
        at += fs.map_report(&f, at, 1 << 30).unwrap().len;
        n += 1;
    }
    say("  map_report of each", n, t);
    let t = Instant::now();
    // All dirty at once, then written back: many reservations and ordered extents in flight.
    for i in 0..100_000 {
        dirty(&fs, &f, 2 * i, 1).unwrap();
    }
    say("  dirty each", 100_000, t);
    let t = Instant::now();
    let all: Vec<_> = (0..100_000)
        .map(|i| fs.start_write(&f, 2 * i, &[8], false).unwrap())
        .collect();
    say("  start each", 100_000, t);
    let t = Instant::now();
    for s in all {
        fs.finish_write(s.ordered, 0, Ok(())).unwrap();
    }
    say("  finish each", 100_000, t);
    let t = Instant::now();
    fs.punch(&f, 0, 1 << 30).unwrap();
    say("  punch all", 1, t);
    fs.iput(f);
    fs.iput(root);
}

/// The disk is nearly full, and what is free lies in single blocks all over it.
#[test]
#[ignore = "a measurement"]
fn writes_into_fragmented_space() {
    let disk = make(1 << 20);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let n = fs.statfs().bavail - 2000;
    fs.preallocate(&f, 0, n, None).unwrap();
    let t = Instant::now();
    let mut at = 1;
    while at < n {
        fs.punch(&f, at, 1).unwrap();
        at += 8;
    }
    say("punch single blocks", n / 8, t);
    fs.sync().unwrap();
    let g = fs.create(&root, b"g", &regular()).unwrap();
    let t = Instant::now();
    for i in 0..200 {
        map_only(&fs, &g, i * 256, &[7; 256]);
    }
    say("writes of 1 MiB into single free blocks", 200, t);
    let t = Instant::now();
    let m = fs.statfs().bavail / 2;
    fs.preallocate(&g, 1 << 20, m, None).unwrap();
    say("preallocate single free blocks, blocks", m, t);
    fs.iput(g);
    fs.iput(f);
    fs.iput(root);
}
