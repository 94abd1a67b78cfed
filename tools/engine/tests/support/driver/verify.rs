// SPDX-License-Identifier: GPL-2.0

//! Compares a filesystem with a model.

use super::super::content::{fill, value};
use super::super::model::{Model, Node};
use ordofs_engine::engine::*;
use ordofs_engine::os::{crc32c, Block, Shared};
use std::collections::{BTreeMap, BTreeSet};

/// Compares the whole filesystem, as it is on disk, with a model.
pub fn verify(fs: &Fs, model: &Model) {
    let mut seen = BTreeSet::new();
    for (ino, node) in &model.nodes {
        let inode = fs
            .iget(*ino)
            .unwrap_or_else(|e| panic!("inode {ino} is missing: {e:?}"));
        let a = inode.attrs();
        let have = (a.mode, a.uid, a.nlink, a.size);
        let size = if node.is_dir() { a.size } else { node.size };
        assert_eq!(
            have,
            (node.mode, node.uid, node.nlink, size),
            "mode, uid, nlink, size of inode {ino}"
        );
        verify_names(fs, &inode, node, &mut seen);
        verify_xattrs(fs, &inode, node);
        if node.mode & S_IFMT == S_IFLNK {
            assert_eq!(
                fs.readlink(&inode).expect("readlink"),
                &node.target[..],
                "target of {ino}"
            );
        }
        if node.mode & S_IFMT == S_IFREG {
            verify_data(fs, &inode, node);
        }
        fs.iput(inode);
    }
}

fn verify_xattrs(fs: &Fs, inode: &Inode, node: &Node) {
    let ino = inode.ino();
    let mut listed = BTreeMap::new();
    fs.list_xattr(inode, &mut |index, name, len| {
        let old = listed.insert((index, name.to_vec()), len);
        assert!(old.is_none(), "an attribute twice on inode {ino}");
        Ok(())
    })
    .expect("list_xattr");
    let want = node.xattrs.iter().map(|(k, v)| (k.clone(), v.1 as usize));
    assert_eq!(listed, want.collect(), "attributes of inode {ino}");
    for ((index, name), (tag, len)) in &node.xattrs {
        let mut have = std::vec![0; *len as usize];
        let n = fs.get_xattr(inode, *index, name, &mut have);
        assert_eq!(n, Ok(Some(have.len())));
        assert!(
            have == value(*tag, have.len()),
            "value of {name:?} of inode {ino}"
        );
    }
}

fn verify_names(fs: &Fs, inode: &Shared<Inode>, node: &Node, seen: &mut BTreeSet<u64>) {
    if !node.is_dir() {
        return;
    }
    let ino = inode.ino();
    let mut listed = BTreeMap::new();
    let mut last = 0;
    fs.readdir(inode, 0, &mut |name, child, _, cookie| {
        assert!(cookie > last, "cookies of directory {ino} do not grow");
        last = cookie;
        assert!(
            listed.insert(name.to_vec(), child).is_none(),
            "a name twice in directory {ino}"
        );
        true
    })
    .expect("readdir");
    assert_eq!(listed, node.entries, "entries of directory {ino}");
    for (name, child) in &node.entries {
        let e = fs.lookup(inode, name).expect("lookup").expect("entry");
        assert_eq!(e.ino, *child);
        seen.insert(*child);
    }
}

/// The tags of all written blocks.
pub(super) fn contents(fs: &Fs, inode: &Shared<Inode>) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    let mut buf = Block::zeroed().unwrap();
    let mut at = 0;
    while at < MAX_FILE_BLOCKS {
        let m = fs
            .map_read(inode, at, MAX_FILE_BLOCKS - at)
            .expect("map_read");
        // Holes reach to the end of the largest file.
        let blocks = if m.kind == MapKind::Written { m.len } else { 0 };
        for i in 0..blocks {
            fs.node_store()
                .device()
                .read(m.phys + i, &mut buf)
                .expect("read");
            found.insert(
                at + i,
                u64::from_le_bytes(buf[..8].try_into().expect("8 bytes")),
            );
        }
        at += m.len;
    }
    found
}

/// What stat(2) must say: the blocks that are mapped, and the dirty ones that will be new.
pub(super) fn count_blocks(fs: &Fs, inode: &Inode) -> u64 {
    let (mut at, mut n) = (0, 0);
    while at < MAX_FILE_BLOCKS {
        let left = MAX_FILE_BLOCKS - at;
        let dirty = fs.map_report(inode, at, left).expect("map_report");
        let mapped = fs.map_read(inode, at, dirty.len).expect("map_read");
        if dirty.kind == MapKind::Delalloc || mapped.kind != MapKind::Hole {
            n += mapped.len;
        }
        at += mapped.len;
    }
    n
}

fn verify_data(fs: &Fs, inode: &Shared<Inode>, node: &Node) {
    let ino = inode.ino();
    let (mut at, mut found) = (0, 0);
    let mut buf = Block::zeroed().unwrap();
    while at < MAX_FILE_BLOCKS {
        let m = fs
            .map_read(inode, at, MAX_FILE_BLOCKS - at)
            .expect("map_read");
        assert!(
            m.start == at && m.len > 0,
            "map_read of inode {ino} at {at} gave {m:?}"
        );
        if m.kind == MapKind::Written {
            for i in 0..m.len {
                let want = node.blocks.get(&(at + i));
                let want = *want.unwrap_or_else(|| {
                    panic!(
                        "inode {ino} has data at block {} that must be a hole",
                        at + i
                    )
                });
                fs.node_store()
                    .device()
                    .read(m.phys + i, &mut buf)
                    .expect("read");
                assert!(
                    buf[..] == fill(want)[..],
                    "inode {ino} block {}: wrong content",
                    at + i
                );
                let verdict = fs
                    .verify(inode, at + i, m.phys + i, crc32c(0, &buf[..]))
                    .expect("verify");
                assert_eq!(verdict, Verdict::Good, "inode {ino} block {}", at + i);
                found += 1;
            }
        }
        at += m.len;
    }
    assert_eq!(
        found,
        node.blocks.len(),
        "inode {ino}: blocks that have data"
    );
}
