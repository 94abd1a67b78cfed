// SPDX-License-Identifier: GPL-2.0

//! The engine end to end on a device in memory: make, mount, write, remount, read back.

use kernel::prelude::{Result, ENOSPC};
use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Shared};

fn make(blocks: u64) -> MemDisk {
    let disk = MemDisk::new(blocks);
    let o = FormatOptions {
        uuid: [7; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies: 0,
    };
    format(disk.device(), &o).unwrap_or_else(|e| panic!("format: {}", e.reason));
    disk
}

fn mount(disk: &MemDisk) -> Shared<Fs> {
    Fs::mount(disk.device(), MountOptions::default())
        .unwrap_or_else(|e| panic!("mount: {}", e.reason))
}

fn file(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 1,
        gid: 2,
        ..Default::default()
    }
}

fn data(seed: u64) -> Block {
    let mut b = Block::zeroed().unwrap();
    for (i, c) in b.chunks_exact_mut(8).enumerate() {
        c.copy_from_slice(&(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64).to_le_bytes());
    }
    b
}

/// A buffered write of whole blocks, as writeback would do it.
fn write(disk: &MemDisk, fs: &Fs, inode: &Shared<Inode>, start: u64, seeds: &[u64]) -> Result {
    let end = start + seeds.len() as u64;
    let mut at = start;
    while at < end {
        at += fs.map_write(inode, at, end - at)?.map.len;
    }
    flush(disk, fs, inode, start, seeds, false)
}

fn flush(
    disk: &MemDisk,
    fs: &Fs,
    inode: &Shared<Inode>,
    start: u64,
    seeds: &[u64],
    direct: bool,
) -> Result {
    let blocks: Vec<Block> = seeds.iter().map(|s| data(*s)).collect();
    let crcs: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
    let mut i = 0;
    while i < seeds.len() {
        let s = fs.start_write(inode, start + i as u64, &crcs[i..], direct)?;
        for k in 0..s.len {
            disk.device()
                .write(&[(s.phys + k, &blocks[i + k as usize])])?;
        }
        i += s.len as usize;
        fs.finish_write(s.ordered, block_to_bytes(start + i as u64), Ok(()))?;
    }
    Ok(())
}

fn check(disk: &MemDisk, fs: &Fs, inode: &Inode, block: u64, want: Option<u64>) {
    let m = fs.map_read(inode, block, 1).unwrap();
    match want {
        None => assert_ne!(m.kind, MapKind::Written, "block {block}"),
        Some(seed) => {
            assert_eq!(m.kind, MapKind::Written, "block {block}");
            let mut b = Block::zeroed().unwrap();
            disk.device().read(m.phys, &mut b).unwrap();
            assert!(b[..] == data(seed)[..], "block {block}");
            assert_eq!(
                fs.verify(inode, block, m.phys, crc32c(0, &b[..])).unwrap(),
                Verdict::Good
            );
        }
    }
}

#[test]
fn names_survive_a_remount() {
    let disk = make(8192);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let d = fs.create(&root, b"dir", &file(S_IFDIR | 0o755)).unwrap();
    for i in 0..3000 {
        let f = fs
            .create(&d, format!("file{i}").as_bytes(), &file(S_IFREG | 0o644))
            .unwrap();
        fs.iput(f);
    }
    fs.sync().unwrap();
    for i in (0..3000).step_by(3) {
        let name = format!("file{i}");
        let e = fs.lookup(&d, name.as_bytes()).unwrap().unwrap();
        let f = fs.iget(e.ino).unwrap();
        fs.unlink(&d, name.as_bytes(), &f).unwrap();
        fs.delete_inode(f).unwrap();
    }
    let link = NewInode {
        symlink: Some(&[b'x'; 3000]),
        ..file(0o120777)
    };
    fs.iput(fs.create(&d, b"link", &link).unwrap());
    fs.iput(d);
    fs.iput(root);
    fs.unmount().unwrap();
    drop(fs);

    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    assert_eq!(root.attrs().nlink, 3);
    let e = fs.lookup(&root, b"dir").unwrap().unwrap();
    let d = fs.iget(e.ino).unwrap();
    let mut n = 0;
    fs.readdir(&d, 0, &mut |_, _, _, _| {
        n += 1;
        true
    })
    .unwrap();
    assert_eq!(n, 2001);
    assert!(fs.lookup(&d, b"file3").unwrap().is_none());
    assert!(fs.lookup(&d, b"file4").unwrap().is_some());
    let l = fs
        .iget(fs.lookup(&d, b"link").unwrap().unwrap().ino)
        .unwrap();
    assert_eq!(fs.readlink(&l).unwrap().as_slice(), &[b'x'; 3000]);
    for i in [root, d, l] {
        fs.iput(i);
    }
    fs.unmount().unwrap();
}

#[test]
fn data_survives_a_remount() {
    let disk = make(65536);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &file(S_IFREG | 0o644)).unwrap();
    let seeds: Vec<u64> = (0..2000).collect();
    write(&disk, &fs, &f, 0, &seeds).unwrap();
    fs.sync().unwrap();
    // Overwrite in the middle, punch, preallocate, write into it.
    write(&disk, &fs, &f, 500, &(10_000..10_100).collect::<Vec<u64>>()).unwrap();
    fs.punch(&f, 700, 50).unwrap();
    fs.preallocate(&f, 1990, 200, Some(block_to_bytes(2190)))
        .unwrap();
    flush(&disk, &fs, &f, 2050, &[77, 78, 79], true).unwrap();
    let m = fs.map_write(&f, 2100, 10).unwrap();
    assert_eq!(m.map.kind, MapKind::Unwritten);
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();

    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs
        .iget(fs.lookup(&root, b"f").unwrap().unwrap().ino)
        .unwrap();
    assert_eq!(f.attrs().size, block_to_bytes(2190));
    for b in 0..2000 {
        let want = match b {
            500..600 => Some(b + 9500),
            700..750 => None,
            _ => Some(b),
        };
        check(&disk, &fs, &f, b, want);
    }
    check(&disk, &fs, &f, 2051, Some(78));
    check(&disk, &fs, &f, 2060, None);
    assert_eq!(fs.map_read(&f, 2060, 1).unwrap().kind, MapKind::Unwritten);
    let before = fs.statfs().bfree;
    fs.unlink(&root, b"f", &f).unwrap();
    fs.delete_inode(f).unwrap();
    fs.sync().unwrap();
    assert!(
        fs.statfs().bfree >= before + 2100,
        "{} {}",
        fs.statfs().bfree,
        before
    );
    fs.iput(root);
    fs.unmount().unwrap();
}

#[test]
fn enospc_is_honest_and_unlink_works_on_a_full_disk() {
    let disk = make(4096);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &file(S_IFREG | 0o644)).unwrap();
    let mut n = 0;
    let e = loop {
        match write(&disk, &fs, &f, n, &[n]) {
            Ok(()) => n += 1,
            Err(e) => break e,
        }
        assert!(n < 4096);
    };
    assert_eq!(e.to_errno(), ENOSPC.to_errno());
    assert!(n > 3000, "only {n} blocks fitted");
    fs.sync().unwrap();
    for b in (0..n).step_by(97) {
        check(&disk, &fs, &f, b, Some(b));
    }
    fs.unlink(&root, b"f", &f).unwrap();
    fs.delete_inode(f).unwrap();
    fs.sync().unwrap();
    assert!(fs.statfs().bavail > 3000);
    fs.iput(root);
    fs.unmount().unwrap();
}
