// SPDX-License-Identifier: GPL-2.0

//! Many of a kind: deep trees, long directories, fragmented files, a full disk emptied again.

mod support;

use ordofs_engine::engine::{Fs, MountOptions, NewInode, S_IFDIR, S_IFREG};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};
use support::driver::{clean, mkfs};

const FILE: NewInode<'static> = NewInode {
    mode: S_IFREG | 0o644,
    uid: 0,
    gid: 0,
    rdev: 0,
    flags: 0,
    project: 0,
    symlink: None,
    id: None,
    xattrs: &[],
};
const DIR: NewInode<'static> = NewInode {
    mode: S_IFDIR | 0o755,
    uid: 0,
    gid: 0,
    rdev: 0,
    flags: 0,
    project: 0,
    symlink: None,
    id: None,
    xattrs: &[],
};

fn mount(dev: Device) -> Shared<Fs> {
    Fs::mount(dev, MountOptions::default()).expect("mount")
}

#[test]
fn twenty_thousand_names_in_a_directory_are_found() {
    let disk = MemDisk::new(65536);
    mkfs(disk.device());
    let fs = mount(disk.device());
    let root = fs.iget(fs.root_ino()).expect("root");
    let dir = fs.create(&root, b"dir", &DIR).expect("mkdir");
    for i in 0..20_000u32 {
        let f = fs
            .create(
                &dir,
                format!("a file with the number {i}").as_bytes(),
                &FILE,
            )
            .expect("create");
        fs.iput(f);
        if i % 3000 == 0 {
            fs.sync().expect("sync");
        }
    }
    fs.iput(dir);
    fs.iput(root);
    fs.unmount().expect("unmount");
    drop(fs);
    clean(disk.device(), false, "with 20000 files");
    let fs = mount(disk.device());
    let root = fs.iget(fs.root_ino()).expect("root");
    let e = fs.lookup(&root, b"dir").expect("lookup").expect("dir");
    let dir = fs.iget(e.ino).expect("dir");
    // Removal in the order of cookies while listing goes on from a cookie.
    let mut at = 0;
    let mut gone = 0;
    loop {
        let mut found = None;
        fs.readdir(&dir, at, &mut |name, ino, _, cookie| {
            found = Some((name.to_vec(), ino, cookie));
            false
        })
        .expect("readdir");
        let Some((name, ino, cookie)) = found else {
            break;
        };
        let victim = fs.iget(ino).expect("iget");
        fs.unlink(&dir, &name, &victim).expect("unlink");
        fs.delete_inode(victim).expect("delete");
        gone += 1;
        at = cookie + 1;
    }
    assert_eq!(gone, 20_000);
    fs.unlink(&root, b"dir", &dir).expect("rmdir");
    fs.delete_inode(dir).expect("delete");
    fs.iput(root);
    fs.unmount().expect("unmount");
    clean(disk.device(), false, "when all are gone");
}

#[test]
fn a_full_disk_can_be_emptied_and_no_block_is_lost() {
    let disk = MemDisk::new(4096);
    mkfs(disk.device());
    let fs = mount(disk.device());
    fs.sync().expect("sync");
    let before = fs.statfs();
    let root = fs.iget(fs.root_ino()).expect("root");
    for round in 0..3 {
        let mut names = Vec::new();
        'full: for i in 0..10_000u32 {
            let name = format!("{round}-{i}");
            match fs.create(&root, name.as_bytes(), &FILE) {
                Ok(f) => {
                    let r = fs.preallocate(&f, 0, 7, None);
                    fs.iput(f);
                    names.push(name);
                    if r.is_err() {
                        break 'full;
                    }
                }
                Err(e) => {
                    assert_eq!(e, kernel::prelude::ENOSPC);
                    break 'full;
                }
            }
        }
        assert!(names.len() > 100, "full after {} files", names.len());
        clean_now(&fs, &disk);
        for name in names {
            let e = fs
                .lookup(&root, name.as_bytes())
                .expect("lookup")
                .expect("file");
            let f = fs.iget(e.ino).expect("iget");
            fs.unlink(&root, name.as_bytes(), &f)
                .expect("unlink on a full disk");
            fs.delete_inode(f).expect("delete on a full disk");
        }
        clean_now(&fs, &disk);
        fs.sync().expect("sync");
        let after = fs.statfs();
        // The root directory may keep a node or two.
        assert!(
            before.bfree - after.bfree <= 4,
            "round {round}: {before:?}, then {after:?}"
        );
    }
    fs.iput(root);
    fs.unmount().expect("unmount");
}

fn clean_now(fs: &Shared<Fs>, disk: &MemDisk) {
    fs.sync().expect("sync");
    clean(disk.device(), false, "after a sync");
}

#[test]
fn a_file_in_ten_thousand_pieces_stays_consistent() {
    let disk = MemDisk::new(65536);
    mkfs(disk.device());
    let fs = mount(disk.device());
    let root = fs.iget(fs.root_ino()).expect("root");
    let f = fs.create(&root, b"f", &FILE).expect("create");
    for i in 0..10_000 {
        fs.preallocate(&f, 2 * i, 1, Some((2 * i + 1) * 4096))
            .expect("preallocate");
    }
    clean_now(&fs, &disk);
    // Again with the neighbours, so that records join, then away in pieces.
    fs.preallocate(&f, 0, 20_000, None)
        .expect("preallocate the holes");
    clean_now(&fs, &disk);
    for i in 0..3_000 {
        fs.punch(&f, 6 * i + 1, 3).expect("punch");
    }
    clean_now(&fs, &disk);
    fs.set_size(&f, 5 * 4096).expect("truncate");
    clean_now(&fs, &disk);
    fs.iput(f);
    fs.iput(root);
    fs.unmount().expect("unmount");
}
