// SPDX-License-Identifier: GPL-2.0

//! Scrub looks twice: what was written anew between its look and its read is no damage. Without the
//! second look it would be.
//!
//! The device does these writes and commits in the middle of the scrub's read, in the same thread.
//! So the scrub holds no lock while it reads: the test would hang.

use kernel::prelude::Result;
use ordofs_crash::engine::mutant::{self, Mutant};
use ordofs_crash::engine::ops::scrub::{From, Go};
use ordofs_crash::engine::state::scrub::{DamageKind, ScrubStatus};
use ordofs_crash::engine::volume::mkfs::{format, FormatOptions};
use ordofs_crash::engine::*;
use ordofs_crash::os::mem::MemDisk;
use ordofs_crash::os::{crc32c, Backend, Block, Device, Shared};
use std::cell::RefCell;
use std::rc::Rc;

/// What happens in the middle of a read of a block.
type Hook = Rc<dyn Fn(u64)>;

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
        // Not in the reads of the hook itself.
        if let Some(hook) = HOOK.take() {
            hook(block);
            HOOK.set(Some(hook));
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

const DATA: u64 = 64;

/// Writes the file anew, with other content.
fn overwrite(fs: &Fs, dev: &Device, f: &Shared<Inode>, seed: u8) {
    let mut block = Block::zeroed().expect("memory");
    block.fill(seed);
    let sums = [crc32c(0, &block[..]); DATA as usize];
    let mut at = 0;
    while at < DATA {
        let left = &sums[at as usize..];
        let s = fs.start_write(f, at, left, true).expect("start");
        for b in s.phys..s.phys + s.len {
            dev.write(&[(b, &block)]).expect("write");
        }
        at += s.len;
        fs.finish_write(s.ordered, at * 4096, Ok(()))
            .expect("finish");
    }
}

/// A scrub of a small filesystem. While it reads a node, or data, the file is written anew and
/// committed until the block that it reads has other content.
fn scrub(mutant: Option<Mutant>, during: DamageKind) -> (ScrubStatus, u32) {
    let disk = MemDisk::new(4096);
    let o = FormatOptions {
        uuid: [7; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies: 0,
    };
    format(disk.device(), &o).unwrap_or_else(|e| panic!("{}", e.reason));
    let options = MountOptions {
        discard: true,
        ..MountOptions::default()
    };
    let dev = Device::new(Hooked(disk.clone()));
    let fs = Fs::mount(dev, options).unwrap_or_else(|e| panic!("{}", e.reason));
    let dev = Rc::new(disk.device());
    let root = fs.iget(fs.root_ino()).expect("root");
    let new = NewInode {
        mode: S_IFREG | 0o644,
        ..NewInode::default()
    };
    let f = fs.create(&root, b"f", &new).expect("create");
    // Many names, so that the inode tree and the directory have several leaves.
    for i in 0..200 {
        let name = format!("a name of some length, number {i}");
        fs.iput(fs.create(&root, name.as_bytes(), &new).expect("create"));
    }
    overwrite(&fs, &dev, &f, 1);
    fs.sync().expect("sync");
    fs.shrink_scan(u64::MAX);
    let changed = Rc::new(RefCell::new(0u32));
    let hook = {
        let (fs, f, dev, disk) = (fs.clone(), f.clone(), dev.clone(), disk.clone());
        let changed = changed.clone();
        move |block: u64| {
            let before = disk.image().get(&block).cloned();
            let node = before.as_ref().is_some_and(|b| b.starts_with(b"ORDN"));
            if node != (during == DamageKind::Node) || *changed.borrow() >= 40 {
                return;
            }
            for turn in 0..300u32 {
                overwrite(&fs, &dev, &f, turn as u8 | 1);
                fs.sync().expect("sync");
                if disk.image().get(&block) != before.as_ref() {
                    *changed.borrow_mut() += 1;
                    return;
                }
            }
        }
    };
    let s = fs.scrub_start(From::Start, 0).expect("start");
    HOOK.set(Some(Rc::new(hook)));
    mutant::choose(mutant);
    fs.scrub_run(s, &mut || Go::On);
    mutant::choose(None);
    HOOK.set(None);
    let status = fs.scrub_status();
    fs.iput(f);
    fs.iput(root);
    let n = *changed.borrow();
    (status, n)
}

fn twice(during: DamageKind) {
    let (real, changed) = scrub(None, during);
    assert!(changed > 0, "nothing was written under the scrub");
    let bad = |s: &ScrubStatus| s.bad_copies + s.bad_blocks + s.bad_records;
    assert_eq!(bad(&real), 0, "{real:?}");
    let (once, _) = scrub(Some(Mutant::ScrubOneLook), during);
    assert!(bad(&once) > 0, "the missing look was not noticed: {once:?}");
}

#[test]
fn data_that_is_written_anew_under_the_scrub_is_not_damaged() {
    twice(DamageKind::Data);
}

#[test]
fn nodes_that_are_written_anew_under_the_scrub_are_not_damaged() {
    twice(DamageKind::Node);
}
