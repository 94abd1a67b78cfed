// SPDX-License-Identifier: GPL-2.0

//! The fsync log against power cuts: random workloads on a recording device, cut anywhere, with
//! unflushed writes dropped at random; after replay the names are those of one moment between the
//! last acknowledged fsync and the cut, and fsynced data is there.

use kernel::prelude::Result;
use ordofs_engine::engine::mkfs::{format, FormatOptions};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::Recorder;
use ordofs_engine::os::{crc32c, Block, Device, Shared};
use std::collections::BTreeMap;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn data(seed: u64) -> Block {
    let mut b = Block::zeroed().unwrap();
    for (i, c) in b.chunks_exact_mut(8).enumerate() {
        c.copy_from_slice(&(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64).to_le_bytes());
    }
    b
}

type Names = BTreeMap<String, u64>;

/// What one inode was, change by change: (operation, block or size).
#[derive(Default)]
struct History {
    blocks: BTreeMap<u64, Vec<(usize, Option<u64>)>>,
    sizes: Vec<(usize, u64)>,
}

impl History {
    fn size(&self) -> u64 {
        self.sizes.last().map_or(0, |s| s.1)
    }
    fn set(&mut self, op: usize, block: u64, v: Option<u64>) {
        self.blocks
            .entry(block)
            .or_insert_with(|| vec![(0, None)])
            .push((op, v));
    }
}

struct World {
    dev: Device,
    fs: Shared<Fs>,
    root: Shared<Inode>,
    open: BTreeMap<u64, Shared<Inode>>,
    names: Vec<Names>,
    files: BTreeMap<u64, History>,
    seed: u64,
    /// (device operations, workload operation): what was acknowledged when.
    acks: Vec<(usize, usize)>,
    /// (workload operation, inode or 0 for all): what an acknowledgement covers.
    covers: Vec<(usize, u64)>,
    /// Device operations when each workload operation ended.
    ends: Vec<usize>,
}

impl World {
    fn write(&mut self, op: usize, ino: u64, start: u64, n: u64, direct: bool) -> Result {
        let inode = self.open[&ino].clone();
        let seeds: Vec<u64> = (0..n).map(|i| self.seed + i).collect();
        self.seed += n;
        if !direct {
            let mut at = start;
            while at < start + n {
                at += self.fs.map_write(&inode, at, start + n - at)?.map.len;
            }
        }
        let blocks: Vec<Block> = seeds.iter().map(|s| data(*s)).collect();
        let crcs: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
        let h = self.files.get_mut(&ino).unwrap();
        let mut i = 0usize;
        while i < seeds.len() {
            let s = self
                .fs
                .start_write(&inode, start + i as u64, &crcs[i..], direct)?;
            for k in 0..s.len {
                self.dev.write(&[(s.phys + k, &blocks[i + k as usize])])?;
            }
            i += s.len as usize;
            let end = (start + i as u64) * 4096;
            self.fs.finish_write(s.ordered, end, Ok(()))?;
        }
        for (i, s) in seeds.iter().enumerate() {
            h.set(op, start + i as u64, Some(*s));
        }
        let size = h.size().max((start + n) * 4096);
        h.sizes.push((op, size));
        Ok(())
    }

    fn step(&mut self, rng: &mut Rng, op: usize, ops: &Recorder) -> Result {
        let mut names = self.names.last().unwrap().clone();
        let pick = |rng: &mut Rng, n: &Names| {
            n.iter()
                .nth(rng.below(n.len().max(1) as u64) as usize)
                .map(|(k, v)| (k.clone(), *v))
        };
        let fresh = format!("f{}", rng.below(12));
        match (rng.below(16), pick(rng, &names)) {
            (0..=2, _) if !names.contains_key(&fresh) => {
                let new = NewInode {
                    mode: 0o100644,
                    uid: 0,
                    gid: 0,
                    rdev: 0,
                    flags: 0,
                    symlink: None,
                };
                let f = self.fs.create(&self.root, fresh.as_bytes(), &new)?;
                self.files.insert(
                    f.ino(),
                    History {
                        sizes: vec![(op, 0)],
                        ..History::default()
                    },
                );
                names.insert(fresh, f.ino());
                self.open.insert(f.ino(), f);
            }
            (0..=5, Some((_, ino))) => {
                let (start, n) = (rng.below(24), 1 + rng.below(4));
                self.write(op, ino, start, n, false)?;
            }
            (6, Some((_, ino))) => {
                let (start, n) = (rng.below(24), 1 + rng.below(4));
                self.write(op, ino, start, n, true)?;
            }
            (7, Some((_, ino))) => {
                let (start, n) = (rng.below(24), 1 + rng.below(8));
                self.fs.punch(&self.open[&ino], start, n)?;
                let h = self.files.get_mut(&ino).unwrap();
                (start..start + n).for_each(|b| h.set(op, b, None));
            }
            (8, Some((_, ino))) => {
                let blocks = rng.below(24);
                self.fs.set_size(&self.open[&ino], blocks * 4096)?;
                let h = self.files.get_mut(&ino).unwrap();
                (blocks..40).for_each(|b| h.set(op, b, None));
                h.sizes.push((op, blocks * 4096));
            }
            (9, Some((_, ino))) => {
                let (start, n) = (rng.below(24), 1 + rng.below(8));
                let h = self.files.get_mut(&ino).unwrap();
                let size = h.size().max((start + n) * 4096);
                self.fs
                    .preallocate(&self.open[&ino], start, n, Some(size))?;
                h.sizes.push((op, size));
            }
            (10, Some((name, ino))) => {
                let f = self.open[&ino].clone();
                self.fs.unlink(&self.root, name.as_bytes(), &f)?;
                names.remove(&name);
                if !names.values().any(|i| *i == ino) {
                    self.open.remove(&ino);
                    self.fs.delete_inode(f)?;
                }
            }
            (11, Some((name, ino))) => {
                let f = self.open[&ino].clone();
                let target = names.get(&fresh).copied().filter(|t| *t != ino);
                if names.get(&fresh) == Some(&ino) {
                    return Ok(());
                }
                let t = target.map(|t| self.open[&t].clone());
                self.fs.rename(&Rename {
                    old_dir: &self.root,
                    old_name: name.as_bytes(),
                    inode: &f,
                    new_dir: &self.root,
                    new_name: fresh.as_bytes(),
                    target: t.as_ref(),
                    flags: RenameFlags::default(),
                    whiteout: None,
                })?;
                names.remove(&name);
                names.insert(fresh, ino);
                if let Some(t) = t {
                    if !names.values().any(|i| *i == t.ino()) {
                        self.open.remove(&t.ino());
                        self.fs.delete_inode(t)?;
                    }
                }
            }
            (12, Some((_, ino))) if !names.contains_key(&fresh) => {
                self.fs
                    .link(&self.root, fresh.as_bytes(), &self.open[&ino])?;
                names.insert(fresh, ino);
            }
            (13 | 14, Some((_, ino))) => {
                self.fs.sync_inode(&self.open[&ino])?;
                self.covers.push((op, ino));
                self.acks.push((ops.len(), op));
            }
            (15, _) if rng.below(3) == 0 => {
                self.fs.sync()?;
                self.covers.push((op, 0));
                self.acks.push((ops.len(), op));
            }
            _ => (),
        }
        self.names.push(names);
        Ok(())
    }
}

fn check(disk: &MemDisk, w: &World, cut: usize, what: &str) {
    let fs = Fs::mount(disk.device(), MountOptions::default())
        .unwrap_or_else(|e| panic!("{what}: mount: {}", e.reason));
    let acked = w.acks.iter().rev().find(|a| a.0 <= cut).map_or(0, |a| a.1);
    let begun = w.ends.iter().position(|e| *e > cut).unwrap_or(w.ends.len()) + 1;
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut found = Names::new();
    fs.readdir(&root, 0, &mut |n, ino, _, _| {
        found.insert(String::from_utf8(n.to_vec()).unwrap(), ino);
        true
    })
    .unwrap();
    let last = begun.min(w.names.len() - 1);
    assert!(
        w.names[acked..=last].contains(&found),
        "{what}: names {found:?} are of no moment in {acked}..={last}: {:?}",
        &w.names[acked..=last]
    );
    for ino in found.values() {
        let Some(h) = w.files.get(ino) else { continue };
        // The floor as it was at the cut.
        let floor = w
            .acks
            .iter()
            .rev()
            .filter(|a| a.0 <= cut)
            .map(|a| a.1)
            .find(|op| w.floor_at(*ino, *op))
            .unwrap_or(0);
        let i = fs.iget(*ino).unwrap();
        let size = i.attrs().size;
        let allowed = |v: &[(usize, u64)]| {
            let base = v.iter().rposition(|x| x.0 <= floor).unwrap_or(0);
            v[base..].iter().any(|x| x.1 == size)
        };
        assert!(
            allowed(&h.sizes),
            "{what}: inode {ino}: size {size}, floor {floor}: {:?}",
            h.sizes
        );
        for b in 0..size / 4096 {
            let m = fs.map_read(&i, b, 1).unwrap();
            let mut got = None;
            if m.kind == MapKind::Written {
                let mut d = Block::zeroed().unwrap();
                disk.device().read(m.phys, &mut d).unwrap();
                let v = fs.verify(&i, b, m.phys, crc32c(0, &d[..])).unwrap();
                assert_eq!(v, Verdict::Good, "{what}: inode {ino} block {b}");
                got = Some(d);
            }
            let none = vec![(0, None)];
            let hist = h.blocks.get(&b).unwrap_or(&none);
            let base = hist.iter().rposition(|x| x.0 <= floor).unwrap_or(0);
            let ok = hist[base..].iter().any(|x| match (&got, x.1) {
                (None, None) => true,
                (Some(d), Some(s)) => d[..] == data(s)[..],
                _ => false,
            });
            assert!(
                ok,
                "{what}: inode {ino} block {b} {:?}: floor {floor} {hist:?}",
                m.kind
            );
        }
        fs.iput(i);
    }
    fs.iput(root);
    fs.unmount().unwrap();
}

impl World {
    /// Did the acknowledgement at `op` cover the inode?
    fn floor_at(&self, ino: u64, op: usize) -> bool {
        self.covers.contains(&(op, ino)) || self.covers.contains(&(op, 0))
    }
}

fn run(seed: u64, steps: usize, cuts: usize) {
    let mut rng = Rng(seed.wrapping_mul(0x1234_5678_9abc_def1) | 1);
    let disk = MemDisk::new(8192);
    let o = FormatOptions {
        uuid: [9; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
    };
    format(disk.device(), &o).unwrap_or_else(|e| panic!("{}", e.reason));
    let rec = Recorder::new(disk);
    let fs =
        Fs::mount(rec.device(), MountOptions::default()).unwrap_or_else(|e| panic!("{}", e.reason));
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut w = World {
        dev: rec.device(),
        fs,
        root,
        open: BTreeMap::new(),
        names: vec![Names::new()],
        files: BTreeMap::new(),
        seed: seed * 1_000_000,
        acks: vec![],
        covers: vec![],
        ends: vec![0],
    };
    for op in 1..=steps {
        w.step(&mut rng, op, &rec)
            .unwrap_or_else(|e| panic!("seed {seed} op {op}: {e:?}"));
        if w.names.len() == op {
            let same = w.names.last().unwrap().clone();
            w.names.push(same);
        }
        w.ends.push(rec.len());
    }
    let total = rec.len();
    if std::env::var("SHOW").is_ok() {
        println!("acks {:?} covers {:?} ends {:?}", w.acks, w.covers, w.ends);
        for (i, op) in rec.ops().iter().enumerate().take(40) {
            match op {
                ordofs_engine::os::record::Op::Write { block, fua, .. } => {
                    println!("{i} write {block} {fua}")
                }
                _ => println!("{i} {op:?}"),
            }
        }
    }
    for c in 0..cuts {
        let cut = rng.below(total as u64 + 1) as usize;
        let mode = rng.below(3);
        let salt = rng.below(u64::MAX);
        let keep = |i: usize| match mode {
            0 => true,
            1 => false,
            _ => (salt ^ (i as u64).wrapping_mul(0x9e37_79b9)).count_ones() % 2 == 0,
        };
        let image = rec.crash_image(cut, keep);
        check(
            &image,
            &w,
            cut,
            &format!("seed {seed} cut {c} at {cut}/{total} mode {mode}"),
        );
        // Once more on what the replay left: idempotent.
        check(
            &image,
            &w,
            cut,
            &format!("seed {seed} cut {c} at {cut}/{total} mode {mode}, second mount"),
        );
    }
}

#[test]
fn power_cuts() {
    let n: u64 = std::env::var("SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(150);
    let from: u64 = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    for seed in from..from + n {
        run(seed, 120, 40);
    }
}
