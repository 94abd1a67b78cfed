// SPDX-License-Identifier: GPL-2.0

//! What scenarios start from: a mounted filesystem with one file.

use crate::disk::{Disk, Image};
use kernel::prelude::{Result, EIO};
use ordofs_models::engine::volume::mkfs::{format, FormatOptions};
use ordofs_models::engine::*;
use ordofs_models::os::{crc32c, Block, Device, Shared};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Bytes of half a block: the unit of the models' data.
pub const HALF: usize = 2048;

/// The content of a block: the byte that fills each half.
pub type Halves = [u8; 2];

/// The block with this content.
pub fn block(h: Halves) -> Block {
    let mut b = Block::zeroed().expect("memory");
    b[..HALF].fill(h[0]);
    b[HALF..].fill(h[1]);
    b
}

/// The content of a block; `None` if a half is not filled with one byte.
pub fn halves(b: &[u8; 4096]) -> Option<Halves> {
    let same = |h: &[u8]| h.iter().all(|x| *x == h[0]).then(|| h[0]);
    Some([same(&b[..HALF])?, same(&b[HALF..])?])
}

/// A mounted filesystem and its file.
pub struct Bed {
    pub disk: Disk,
    pub fs: Shared<Fs>,
    pub file: Shared<Inode>,
}

/// Name of the file.
pub const NAME: &[u8] = b"file";

/// Name of a prepared image, and the function that fills it.
pub struct Base {
    pub name: &'static str,
    pub make: fn(&Bed),
}

/// A filesystem with the file that `base` makes. It is made once, for all schedules.
pub fn prepare(base: &Base) -> Image {
    static MADE: Mutex<Option<HashMap<&'static str, Image>>> = Mutex::new(None);
    kernel::print::set_level(kernel::print::SILENT);
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    let made = made.get_or_insert_with(HashMap::new);
    if let Some(i) = made.get(base.name) {
        return i.clone();
    }
    let make = base.make;
    let out = Arc::new(Mutex::new(Image::default()));
    let result = out.clone();
    // The models' own engine makes it. Its clock and its random numbers are constant, so the image
    // is always the same, and a failed schedule fails again.
    let scheduler = shuttle::scheduler::RoundRobinScheduler::new(1);
    shuttle::Runner::new(scheduler, crate::explore::config()).run(move || {
        let disk = Disk::new(Image::default());
        let options = FormatOptions {
            uuid: [7; 16],
            label: [0; 64],
            blocks: 0,
            root_owner: (0, 0),
            copies: 0,
        };
        format(Device::new(disk.clone()), &options).expect("mkfs");
        let fs = Fs::mount(Device::new(disk.clone()), MountOptions::default()).expect("mount");
        let root = fs.iget(fs.root_ino()).expect("root");
        let file = fs.create(&root, NAME, &new_file()).expect("create");
        fs.iput(root);
        let bed = Bed { disk, fs, file };
        make(&bed);
        let Bed { disk, fs, file } = bed;
        fs.iput(file);
        fs.unmount().expect("unmount");
        *result.lock().expect("image") = disk.image().flat();
    });
    let image = out.lock().expect("image").clone();
    made.insert(base.name, image.clone());
    image
}

/// A new regular file, for `create`.
pub fn new_file() -> NewInode<'static> {
    NewInode {
        mode: S_IFREG | 0o644,
        ..Default::default()
    }
}

/// Mounts a prepared image. Call [`prepare`] first, outside of the schedule.
pub fn mount(image: Image) -> Bed {
    let disk = Disk::new(image);
    let fs = Fs::mount(Device::new(disk.clone()), MountOptions::default()).expect("mount");
    let root = fs.iget(fs.root_ino()).expect("root");
    let entry = fs.lookup(&root, NAME).expect("lookup").expect("file");
    fs.iput(root);
    let file = fs.iget(entry.ino).expect("iget");
    disk.slow_down();
    Bed { disk, fs, file }
}

impl Bed {
    /// Writes whole blocks as direct I/O or writeback does, in as many parts as the engine needs.
    pub fn write(&self, start: u64, data: &[Halves], direct: bool) -> Result {
        let blocks: Vec<Block> = data.iter().map(|h| block(*h)).collect();
        let sums: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
        let mut done = 0;
        while done < blocks.len() {
            let at = start + done as u64;
            let s = self.fs.start_write(&self.file, at, &sums[done..], direct)?;
            let part = &blocks[done..done + s.len as usize];
            let io = part.iter().enumerate().try_for_each(|(i, b)| {
                let device = self.fs.node_store().device();
                device.write(&[(s.phys + i as u64, b)])
            });
            done += s.len as usize;
            let reach = (start + done as u64) * 4096;
            self.fs.finish_write(s.ordered, reach, io)?;
        }
        Ok(())
    }

    /// Reads a block past any page cache, as `rust/fs/data/read.rs` does.
    pub fn read(&self, index: u64) -> Result<Halves> {
        let mut b = Block::zeroed()?;
        for _ in 0..64 {
            let m = self.fs.map_read(&self.file, index, 1)?;
            if m.kind != MapKind::Written {
                return Ok([0, 0]);
            }
            self.fs.node_store().device().read(m.phys, &mut b)?;
            let crc = crc32c(0, &b[..]);
            match self.fs.verify(&self.file, index, m.phys, crc)? {
                Verdict::Good => return halves(&b).ok_or(EIO),
                Verdict::Moved => continue,
                Verdict::Bad(_) => panic!("block {index}: good data was called bad"),
            }
        }
        Err(EIO)
    }
}
