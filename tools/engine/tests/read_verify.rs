// SPDX-License-Identifier: GPL-2.0

//! Reads are judged in runs: the same verdicts as block by block, for one look-up and no memory.

mod common;

use common::*;
use fastrand::Rng;
use kernel::fault;
use ordofs_engine::engine::*;
use std::vec::Vec;

const FILE: u64 = 6000;

/// What the file is made of: its disk blocks and checksums.
fn truth(fs: &Fs, f: &Inode, csums: &[u32]) -> Vec<Option<(u64, u32)>> {
    let mut out = Vec::new();
    while (out.len() as u64) < FILE {
        let at = out.len() as u64;
        let m = fs.map_read(f, at, FILE - at).unwrap();
        for i in 0..m.len {
            let written = m.kind == MapKind::Written;
            out.push(written.then(|| (m.phys + i, csums[(at + i) as usize])));
        }
    }
    out
}

/// Compares runs of all kinds with what [`Fs::verify`] says of each block.
fn compare(fs: &Fs, f: &Inode, truth: &[Option<(u64, u32)>], rng: &mut Rng) {
    let (mut whole, mut cut) = (0, 0);
    for _ in 0..3000 {
        let block = rng.u64(0..FILE);
        let len = [1, 7, 60, 256, 700][rng.usize(0..5)].min(FILE - block);
        // Where the blocks are, or somewhere else.
        let phys = match truth[block as usize] {
            Some((phys, _)) if rng.u32(0..8) != 0 => phys,
            _ => rng.u64(0..1 << 16),
        };
        let mut crcs: Vec<u32> = (block..block + len)
            .map(|b| truth[b as usize].map_or(0, |t| t.1))
            .collect();
        if rng.bool() {
            let at = rng.usize(0..crcs.len());
            crcs[at] ^= 1 << rng.u32(0..32);
        }
        let want = (0..len)
            .take_while(|&i| {
                fs.verify(f, block + i, phys + i, crcs[i as usize]).unwrap() == Verdict::Good
            })
            .count();
        let got = fs.verify_run(f, block, phys, &crcs).unwrap();
        assert_eq!(got, want, "block {block}, {len} blocks at {phys}");
        whole += u32::from(want as u64 == len);
        cut += u32::from(want > 0 && (want as u64) < len);
    }
    assert!(whole > 300 && cut > 300, "{whole} whole, {cut} cut");
}

#[test]
fn a_run_is_judged_as_its_blocks_are() {
    let disk = make(1 << 16);
    let mut rng = Rng::with_seed(14);
    let mut csums: Vec<u32> = (0..FILE).map(|_| rng.u32(..)).collect();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let ino = f.ino();
    // Records of a mebibyte, many small ones, holes, and preallocated blocks.
    map_only(&fs, &f, 0, &csums[..3000]);
    for _ in 0..400 {
        let start = rng.usize(1000..5000);
        let len = rng.usize(1..20);
        for c in &mut csums[start..start + len] {
            *c = rng.u32(..);
        }
        map_only(&fs, &f, start as u64, &csums[start..start + len]);
    }
    fs.punch(&f, 2000, 3).unwrap();
    fs.punch(&f, 2500, 100).unwrap();
    fs.preallocate(&f, 5000, 400, None).unwrap();
    map_only(&fs, &f, 5100, &csums[5100..5150]);
    let now = truth(&fs, &f, &csums);
    compare(&fs, &f, &now, &mut rng);
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    drop(fs);
    let fs = mount(&disk);
    let f = fs.iget(ino).unwrap();
    assert_eq!(truth(&fs, &f, &csums), now);
    compare(&fs, &f, &now, &mut rng);
    fs.iput(f);
}

#[test]
fn judging_what_was_read_needs_no_memory() {
    let disk = make(1 << 16);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    map_only(&fs, &f, 0, &[7; 4096]);
    let phys = fs.map_read(&f, 0, 4096).unwrap().phys;
    let before = fault::count();
    assert_eq!(fs.verify_run(&f, 0, phys, &[7; 4096]).unwrap(), 4096);
    assert_eq!(fs.verify(&f, 9, phys + 9, 7).unwrap(), Verdict::Good);
    assert_eq!(fs.verify(&f, 9, phys + 9, 8).unwrap(), Verdict::Bad(7));
    assert_eq!(fault::count() - before, 0, "allocations");
    fs.iput(f);
    fs.iput(root);
}
