// SPDX-License-Identifier: GPL-2.0

//! Healing looks whether a node is still part of its tree. Without that look it would write an old node
//! over what has its block now.
//!
//! A commit comes in the middle of a look, in the same thread: so the look holds no lock, or the test
//! would hang. And a copy is written anew under the superblock that the look was for.

use kernel::prelude::Result;
use ordofs_crash::engine::mutant::{self, Mutant};
use ordofs_crash::engine::volume::mkfs::{format, FormatOptions};
use ordofs_crash::engine::*;
use ordofs_crash::os::mem::MemDisk;
use ordofs_crash::os::{crc32c, Backend, Block, Device, Shared};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What happens in the middle of a read of a block.
type Hook = Rc<dyn Fn()>;

std::thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// A disk that calls this thread's hook before it reads.
struct Hooked(MemDisk);

impl Backend for Hooked {
    fn blocks(&self) -> u64 {
        self.0.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        // Once.
        if let Some(hook) = HOOK.take() {
            hook();
        }
        self.0.read(block, buf)
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.0.write(block, data)
    }
    fn flush(&self) -> Result {
        self.0.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.0.write_fua(block, data)
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        self.0.discard(start, len)
    }
}

const FILE: u64 = 300;

/// Writes a block of a file.
fn write(fs: &Fs, dev: &Device, f: &Shared<Inode>, at: u64, seed: u8) -> Result {
    let mut block = Block::zeroed()?;
    block.fill(seed);
    fs.map_write(f, at, 1)?;
    let s = fs.start_write(f, at, &[crc32c(0, &block[..])], false)?;
    dev.write(&[(s.phys, &block)])?;
    fs.finish_write(s.ordered, (at + 1) * 4096, Ok(()))
}

/// The blocks with nodes of the extent tree of inode `ino`.
fn extent_nodes(disk: &MemDisk, ino: u64) -> Vec<u64> {
    let is =
        |d: &[u8; 4096]| d.starts_with(b"ORDN") && d[40] == 3 && d[32..40] == ino.to_le_bytes();
    let image = disk.image();
    let nodes = image.iter().filter(|(_, d)| is(d)).map(|(b, _)| *b);
    nodes.collect()
}

/// Where the first copies of nodes are that a reader has found bad, something else is by the time that
/// they are healed; the second copies are as they were. Returns how many blocks of that are wrong then.
fn overwritten(mutant: Option<Mutant>, in_the_middle: bool) -> usize {
    mutant::choose(None);
    let disk = MemDisk::new(8192);
    let o = FormatOptions {
        uuid: [7; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies: 2,
    };
    format(disk.device(), &o).unwrap_or_else(|e| panic!("{}", e.reason));
    let fs = Fs::mount(Device::new(Hooked(disk.clone())), MountOptions::default());
    let fs = fs.unwrap_or_else(|e| panic!("{}", e.reason));
    let dev = Rc::new(disk.device());
    let root = fs.iget(fs.root_ino()).expect("root");
    let new = NewInode {
        mode: S_IFREG | 0o644,
        ..NewInode::default()
    };
    let f = fs.create(&root, b"f", &new).expect("create");
    (0..FILE).for_each(|b| write(&fs, &dev, &f, b * 3, 1).expect("write"));
    fs.sync().expect("sync");
    fs.shrink_scan(u64::MAX);
    // All copies at the lower address.
    let nodes = extent_nodes(&disk, f.ino());
    assert!(nodes.len() >= 6);
    let lower: Vec<u64> = nodes.iter().copied().filter(|b| *b < 4096).collect();
    lower.iter().for_each(|b| disk.corrupt(*b, 99, 1));
    for b in 0..FILE {
        fs.map_read(&f, b * 3, 1).expect("read");
    }
    assert!(fs.node_store().bad_copies().reads() > 1);
    // The file goes, and what were its nodes gets data, as far as it lies low.
    let data = Rc::new(RefCell::new(BTreeMap::new()));
    let replace = {
        let (fs, dev, data, lower) = (fs.clone(), dev.clone(), data.clone(), lower.clone());
        let (f, root) = (f.clone(), root.clone());
        move || {
            fs.set_size(&f, 0).expect("truncate");
            fs.sync().expect("sync");
            let big = fs.create(&root, b"big", &new).expect("create");
            for b in 0.. {
                if lower.iter().all(|at| data.borrow().contains_key(at)) {
                    break;
                }
                write(&fs, &dev, &big, b, 7).expect("write");
                let at = fs.map_read(&big, b, 1).expect("map").phys;
                data.borrow_mut().insert(at, b);
            }
            fs.sync().expect("sync");
            fs.iput(big);
        }
    };
    match in_the_middle {
        true => HOOK.set(Some(Rc::new(replace))),
        false => replace(),
    }
    mutant::choose(mutant);
    fs.heal(&|| false);
    mutant::choose(None);
    HOOK.set(None);
    assert!(!data.borrow().is_empty(), "nothing was written");
    let image = disk.image();
    let wrong = data
        .borrow()
        .keys()
        .filter(|at| image[*at][..] != [7; 4096])
        .count();
    fs.iput(f);
    fs.iput(root);
    wrong
}

#[test]
fn a_node_that_was_replaced_is_not_healed() {
    assert_eq!(overwritten(None, false), 0);
    assert_eq!(overwritten(None, true), 0);
    assert!(overwritten(Some(Mutant::HealStale), true) > 0);
}

/// A commit that leaves out the second copies is noticed by fsck, and so by the simulator in each state.
#[test]
fn a_commit_that_writes_one_copy_is_noticed() {
    for (mutant, bad) in [(None, false), (Some(Mutant::NodeOneCopy), true)] {
        let disk = MemDisk::new(8192);
        let o = FormatOptions {
            uuid: [7; 16],
            label: [0; 64],
            blocks: 0,
            root_owner: (0, 0),
            copies: 2,
        };
        mutant::choose(mutant);
        let made = format(disk.device(), &o);
        mutant::choose(None);
        made.unwrap_or_else(|e| panic!("{}", e.reason));
        let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: false });
        let report = report.unwrap_or_else(|e| panic!("{}", e.reason));
        assert_eq!(!report.is_clean(), bad, "{:?}", report.problems);
    }
}
