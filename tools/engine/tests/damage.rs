// SPDX-License-Identifier: GPL-2.0

//! Damaged devices: whatever is on them, nothing panics or hangs, and no damage passes for data; the checker sees
//! every flipped bit of metadata that is in use.

mod support;

use fastrand::Rng;
use ordofs_engine::engine::{
    Fs, MapKind, MountOptions, XattrSet, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
};
use ordofs_engine::os::mem::{Image, MemDisk};
use ordofs_engine::os::{Block, Shared};
use support::driver::Driver;
use support::forge::forge;
use support::ops::{Op, What};

const BLOCKS: u64 = 8192;

/// An image with some of everything in it.
fn image() -> Image {
    let disk = MemDisk::new(BLOCKS);
    let d2 = disk.clone();
    let mut d = Driver::new(move || d2.device());
    for i in 0..40u8 {
        let what = match i % 8 {
            0 => What::Dir,
            1 => What::Symlink(3000),
            2 => What::Symlink(30),
            _ => What::File,
        };
        d.step(&Op::Create {
            dir: i,
            name: i,
            what,
        });
        d.step(&Op::Write {
            file: i,
            start: u64::from(i) * 3,
            len: 5,
        });
        d.step(&Op::Direct {
            file: i / 2,
            start: 2 * u64::from(i),
            len: 9,
            fail: false,
            sync: false,
        });
        d.step(&Op::Preallocate {
            file: i,
            start: 200,
            len: 30,
            keep: i % 2 == 0,
        });
    }
    for i in 0..60u64 {
        d.step(&Op::Direct {
            file: 3,
            start: i * 2,
            len: 1,
            fail: false,
            sync: false,
        });
    }
    for i in 0..60u8 {
        d.step(&Op::SetXattr {
            target: i % 20,
            name: i,
            len: [20, 700, 5000][usize::from(i) % 3],
            how: XattrSet::Any,
        });
    }
    d.remount();
    drop(d);
    disk.image()
}

/// Uses the filesystem in every way that reads; errors are fine.
fn explore(fs: &Shared<Fs>, ino: u64, depth: u32) {
    let Ok(inode) = fs.iget(ino) else { return };
    let mut names = Vec::new();
    let _ = fs.list_xattr(&inode, &mut |index, name, _| {
        names.push((index, name.to_vec()));
        Ok(())
    });
    let mut value = vec![0; 6000];
    for (index, name) in names {
        let _ = fs.get_xattr(&inode, index, &name, &mut value);
    }
    let mut kids = Vec::new();
    match inode.attrs().mode & S_IFMT {
        S_IFDIR => {
            let _ = fs.readdir(&inode, 0, &mut |_, child, _, _| {
                kids.push(child);
                kids.len() < 200
            });
        }
        S_IFLNK => {
            let _ = fs.readlink(&inode);
        }
        S_IFREG => {
            let mut at = 0;
            let mut buf = Block::zeroed().expect("memory");
            while let Ok(m) = fs.map_read(&inode, at, 1 << 40) {
                if m.kind == MapKind::Written {
                    let _ = fs.node_store().device().read(m.phys, &mut buf);
                    let _ = fs.verify(&inode, at, m.phys, 0);
                }
                at += m.len;
                if at > 1 << 20 {
                    break;
                }
            }
        }
        _ => {}
    }
    if depth < 8 {
        kids.into_iter().for_each(|k| explore(fs, k, depth + 1));
    }
    fs.iput(inode);
}

fn use_it(disk: &MemDisk) {
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: true });
    std::hint::black_box(report.is_ok());
    if let Ok(fs) = Fs::mount(
        disk.device(),
        MountOptions {
            read_only: true,
            ..MountOptions::default()
        },
    ) {
        explore(&fs, fs.root_ino(), 0);
    }
    if let Ok(fs) = Fs::mount(disk.fork().device(), MountOptions::default()) {
        explore(&fs, fs.root_ino(), 0);
        let _ = fs.sync();
        let _ = fs.unmount();
    }
}

#[test]
fn every_flipped_bit_of_metadata_is_seen() {
    kernel::print::set_level(kernel::print::SILENT);
    let image = image();
    let fs_blocks = metadata(&image);
    assert!(fs_blocks.len() > 10, "only {} nodes", fs_blocks.len());
    let mut rng = Rng::with_seed(88172645463325252);
    for block in fs_blocks {
        for _ in 0..6 {
            let disk = MemDisk::from_image(BLOCKS, image.clone());
            let (at, bit) = (rng.u64(..4096) as usize, 1u8 << rng.u64(..8));
            disk.corrupt(block, at, bit);
            let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default());
            let seen = report.map_or(true, |r| !r.is_clean());
            assert!(
                seen,
                "block {block}, byte {at}, bit {bit:#x} flipped: not noticed"
            );
            use_it(&disk);
        }
    }
}

/// The blocks that hold tree nodes of the newest generation.
fn metadata(image: &Image) -> Vec<u64> {
    image
        .iter()
        .filter(|(_, data)| data.starts_with(b"ORDN"))
        .map(|(b, _)| *b)
        .filter(|b| {
            let disk = MemDisk::from_image(BLOCKS, image.clone());
            disk.corrupt(*b, 100, 1);
            let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default());
            report.map_or(true, |r| !r.is_clean())
        })
        .collect()
}

#[test]
fn damage_with_right_checksums_does_no_harm() {
    kernel::print::set_level(kernel::print::SILENT);
    let image = image();
    let nodes = metadata(&image);
    let mut rng = Rng::with_seed(42);
    for round in 0..400 {
        let disk = MemDisk::from_image(BLOCKS, image.clone());
        let block = nodes[rng.u64(..nodes.len() as u64) as usize];
        let mut data = **image.get(&block).expect("block");
        for _ in 0..=rng.u64(..4) {
            // Counts, keys, offsets, values; seldom the header.
            let at = match round % 4 {
                0 => 40 + rng.u64(..4),
                1 => 64 + rng.u64(..256),
                _ => rng.u64(..4096),
            };
            data[at as usize] = match rng.u64(..3) {
                0 => 0,
                1 => 0xff,
                _ => rng.u64(..) as u8,
            };
        }
        forge(&disk, block, data);
        use_it(&disk);
    }
}

#[test]
fn damaged_data_is_never_returned_as_good() {
    kernel::print::set_level(kernel::print::SILENT);
    let image = image();
    let disk = MemDisk::from_image(BLOCKS, image.clone());
    let clean =
        ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: true }).expect("check");
    assert!(clean.is_clean() && clean.stats.verified_blocks > 100);
    let nodes = metadata(&image);
    let mut damaged = 0;
    for (block, data) in &image {
        if *block < 1024 && data.iter().all(|b| *b == 0) || nodes.contains(block) {
            continue;
        }
        let disk = MemDisk::from_image(BLOCKS, image.clone());
        disk.corrupt(*block, 2000, 8);
        let r =
            ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: true }).expect("check");
        damaged += u64::from(!r.is_clean());
    }
    // Every block that is read and compared was damaged once.
    assert!(
        damaged >= clean.stats.verified_blocks,
        "{damaged} of {}",
        clean.stats.verified_blocks
    );
}
