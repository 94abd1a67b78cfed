// SPDX-License-Identifier: GPL-2.0

//! What a power cut leaves: the real engine, without shuttle, recovers it and reports what it
//! finds.
//!
//! Many schedules lead to the same few states of the device, so verdicts are cached.

use crate::bed::{halves, Halves, NAME};
use crate::disk::{Image, Remains};
use ordofs_engine::engine::{Fs, MapKind, MountOptions, Verdict};
use ordofs_engine::os::{crc32c, Block};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The file blocks that are read.
const LOOK: u64 = 8;
/// The most verdicts in the cache.
const REMEMBER: usize = 100_000;

/// A block of the file after recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Reads as zeroes.
    Hole,
    /// Reads as zeroes.
    Unwritten,
    /// Readable, with a good checksum.
    Data(Halves),
    /// Readable, with a content that was never written to the file.
    Garbage,
    /// The checksum is wrong.
    Bad,
}

/// A filesystem after recovery.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The problems that the checker found, before recovery and after it.
    pub problems: Vec<String>,
    /// Owner of the file.
    pub uid: u32,
    /// The first blocks of the file.
    pub blocks: Vec<Found>,
}

thread_local! {
    static KNOWN: RefCell<HashMap<(&'static str, u64), Rc<Recovered>>> = RefCell::new(HashMap::new());
}

/// Recovers an image that a power cut left; the scenario began with `base`.
pub fn judge(base: &'static str, image: &Image) -> Rc<Recovered> {
    let key = (base, image.hash());
    if let Some(known) = KNOWN.with_borrow(|k| k.get(&key).cloned()) {
        return known;
    }
    let new = Rc::new(recover(image));
    KNOWN.with_borrow_mut(|k| {
        if k.len() >= REMEMBER {
            k.clear();
        }
        k.insert(key, new.clone());
    });
    new
}

fn recover(image: &Image) -> Recovered {
    let options = ordofs_fsck::Options { data: true };
    let check = ordofs_fsck::check(Remains::device(image.clone()), options).expect("superblock");
    let mut problems: Vec<String> = check.problems.iter().map(ToString::to_string).collect();
    let device = Remains::device(image.clone());
    let fs = Fs::mount(device, MountOptions::default()).expect("mount after a power cut");
    let root = fs.iget(fs.root_ino()).expect("root");
    let entry = fs.lookup(&root, NAME).expect("lookup").expect("file");
    let file = fs.iget(entry.ino).expect("iget");
    let mut b = Block::zeroed().expect("memory");
    let blocks = (0..LOOK).map(|i| {
        let m = fs.map_read(&file, i, 1).expect("map_read");
        match m.kind {
            MapKind::Hole => return Found::Hole,
            MapKind::Unwritten => return Found::Unwritten,
            MapKind::Delalloc => return Found::Garbage,
            MapKind::Written => (),
        }
        fs.node_store().device().read(m.phys, &mut b).expect("read");
        let crc = crc32c(0, &b[..]);
        let verdict = fs.verify(&file, i, m.phys, crc).expect("verify");
        // A block without a checksum passes any check, so try a wrong one.
        let blind = fs.verify(&file, i, m.phys, !crc).expect("verify") == Verdict::Good;
        if blind {
            problems.push(format!("block {i} has no checksum"));
        }
        match verdict {
            Verdict::Good => halves(&b).map_or(Found::Garbage, Found::Data),
            _ => Found::Bad,
        }
    });
    Recovered {
        uid: file.attrs().uid,
        blocks: blocks.collect(),
        problems,
    }
}
