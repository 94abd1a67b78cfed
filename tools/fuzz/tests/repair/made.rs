// SPDX-License-Identifier: GPL-2.0

//! Images for single tests.

use ordofs_crash::engine::{NewInode, S_IFREG};
use ordofs_engine::engine::btree::TreeKind;
use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Block;
use ordofs_fuzz::{base, work};

fn new_file() -> NewInode<'static> {
    NewInode {
        mode: S_IFREG | 0o644,
        ..Default::default()
    }
}

/// A filesystem in which the names of 100 files fill a leaf of their own, and whose log makes the file
/// `new` with a block, which has the number next to that of the last commit.
pub(super) fn with_a_logged_file(blocks: u64, copies: u8) -> MemDisk {
    let disk = base::made(blocks, copies);
    let fs = base::mounted(&disk);
    let root = fs.iget(fs.root_ino()).expect("the root");
    for i in 0..100 {
        let f = fs.create(&root, format!("file {i}").as_bytes(), &new_file());
        fs.iput(f.expect("a file"));
    }
    fs.sync().expect("a commit");
    let f = fs.create(&root, b"new", &new_file()).expect("a file");
    work::write(&fs, &disk.device(), &f, 0, 1).expect("data");
    fs.sync_inode(&f).expect("a batch");
    let cut_off = disk.fork();
    fs.iput(f);
    fs.iput(root);
    fs.unmount().expect("an unmount");
    cut_off
}

/// A filesystem with an image of itself in a file, as it was before: the leaves of the inode tree that
/// have not changed since are in it.
pub(super) fn with_an_image_of_itself(blocks: u64, copies: u8) -> MemDisk {
    let disk = base::made(blocks, copies);
    let fs = base::mounted(&disk);
    let root = fs.iget(fs.root_ino()).expect("the root");
    for i in 0..400 {
        let f = fs.create(&root, format!("{i}").as_bytes(), &new_file());
        fs.iput(f.expect("a file"));
    }
    fs.sync().expect("a commit");
    let image = disk.image();
    let nodes = image.iter().filter(|(_, b)| {
        NodeHeader::decode(b).is_ok_and(|(h, _)| h.id.kind == TreeKind::Inode && h.level == 0)
    });
    let nodes: Vec<Block> = nodes
        .map(|(_, b)| {
            let mut copy = Block::zeroed().expect("memory");
            copy.copy_from_slice(&b[..]);
            copy
        })
        .collect();
    let f = fs.create(&root, b"image", &new_file()).expect("a file");
    work::write_blocks(&fs, &disk.device(), &f, 0, &nodes).expect("data");
    fs.iput(f);
    fs.iput(root);
    fs.unmount().expect("an unmount");
    disk
}

/// A filesystem whose preallocated files have the blocks of old leaves of the inode tree, which have
/// the records of deleted files. There are `n` of the former, and as many others.
pub(super) fn with_old_leaves(blocks: u64, n: usize, copies: u8) -> MemDisk {
    let disk = base::made(blocks, copies);
    let fs = base::mounted(&disk);
    let root = fs.iget(fs.root_ino()).expect("the root");
    for i in 0..n {
        let f = fs.create(&root, format!("p{i}").as_bytes(), &new_file());
        fs.iput(f.expect("a file"));
    }
    // Those that are deleted have the highest numbers: no leaf that is left has theirs between its own.
    let mut files = Vec::new();
    for i in 0..n {
        let f = fs.create(&root, format!("{i}").as_bytes(), &new_file());
        files.push(f.expect("a file"));
        if i % 3 == 0 {
            work::write(&fs, &disk.device(), &files[i], 0, 2).expect("data");
        }
    }
    fs.sync().expect("a commit");
    for (i, f) in files.into_iter().enumerate() {
        if i >= n / 2 {
            let gone = fs.unlink(&root, format!("{i}").as_bytes(), &f);
            gone.expect("no error");
        }
        fs.iput(f);
    }
    fs.iput(root);
    fs.unmount().expect("an unmount");
    drop(fs);
    // This mount removes the records of the deleted files.
    let fs = base::mounted(&disk);
    let root = fs.iget(fs.root_ino()).expect("the root");
    fs.sync().expect("a commit");
    fs.sync().expect("a commit");
    // They get the lowest free blocks.
    for i in (0..n).rev() {
        let found = fs.lookup(&root, format!("p{i}").as_bytes());
        let ino = found.expect("no error").expect("a file").ino;
        let f = fs.iget(ino).expect("a file");
        fs.preallocate(&f, 0, 1, None).expect("room");
        fs.iput(f);
    }
    fs.iput(root);
    fs.unmount().expect("an unmount");
    disk
}
