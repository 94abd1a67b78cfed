// SPDX-License-Identifier: GPL-2.0

//! Reading all of a filesystem, as `find`, `ls -l`, `getfattr` and `cat` would.
//!
//! Directories that form a loop end the walk at the inodes that were seen before.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use kernel::prelude::Error;
use ordofs_crash::engine::{
    bytes_to_blocks, Fs, Inode, MapKind, Verdict, MAX_FILE_BLOCKS, S_IFDIR, S_IFLNK, S_IFMT,
    S_IFREG,
};
use ordofs_engine::os::{crc32c, Block};
use std::collections::BTreeSet;

/// The most mappings of a file that are looked at.
const MAPPINGS: usize = 4000;
/// The most blocks of an image's files that are read.
const BLOCKS: u64 = 8192;

/// What a walk has found.
#[derive(Default)]
pub struct Seen {
    /// Inodes that can be read, without those of damaged names.
    pub inodes: BTreeSet<u64>,
    /// What could not be read, and why.
    pub errors: Vec<String>,
    /// Files with data that is not what their checksums say.
    pub bad_data: BTreeSet<u64>,
    blocks: u64,
}

impl Seen {
    fn error(&mut self, ino: u64, what: &str, e: Error) {
        self.errors.push(format!("inode {ino}: {what}: {e:?}"));
    }
}

/// Reads everything that has a name.
pub fn all(fs: &Fs) -> Seen {
    let mut seen = Seen::default();
    let mut next = vec![fs.root_ino()];
    while let Some(ino) = next.pop() {
        if !seen.inodes.insert(ino) {
            continue;
        }
        match fs.iget(ino) {
            Ok(inode) => {
                inode_(fs, &inode, &mut seen, &mut next);
                fs.iput(inode);
            }
            Err(e) => {
                seen.inodes.remove(&ino);
                seen.error(ino, "iget", e);
            }
        }
    }
    fs.statfs();
    seen
}

fn inode_(fs: &Fs, inode: &Inode, seen: &mut Seen, next: &mut Vec<u64>) {
    let ino = inode.ino();
    let a = inode.attrs();
    xattrs(fs, inode, seen);
    match a.mode & S_IFMT {
        S_IFDIR => directory(fs, inode, seen, next),
        S_IFLNK => {
            if let Err(e) = fs.readlink(inode) {
                seen.error(ino, "readlink", e);
            }
        }
        S_IFREG => {
            if let Err(e) = data(fs, inode, a.size, seen) {
                seen.error(ino, "data", e);
            }
        }
        _ => {}
    }
}

fn xattrs(fs: &Fs, inode: &Inode, seen: &mut Seen) {
    let ino = inode.ino();
    let mut all = Vec::new();
    let listed = fs.list_xattr(inode, &mut |index, name, len| {
        all.push((index, name.to_vec(), len));
        Ok(())
    });
    if let Err(e) = listed {
        return seen.error(ino, "listxattr", e);
    }
    for (index, name, len) in all {
        match fs.get_xattr(inode, index, &name, &mut vec![0; len]) {
            Ok(Some(n)) if n == len => {}
            Ok(n) => seen.errors.push(format!(
                "inode {ino}: an attribute is listed with {len} bytes, and has {n:?}"
            )),
            Err(e) => seen.error(ino, "getxattr", e),
        }
    }
}

fn directory(fs: &Fs, dir: &Inode, seen: &mut Seen, next: &mut Vec<u64>) {
    let ino = dir.ino();
    let (mut at, mut entries) = (0, Vec::new());
    // In pieces, as getdents has them.
    loop {
        let (mut n, mut last) = (0, at);
        let r = fs.readdir(dir, at, &mut |name, child, kind, cookie| {
            n += 1;
            last = cookie;
            entries.push((name.to_vec(), child, kind));
            n < 50
        });
        if let Err(e) = r {
            seen.error(ino, "readdir", e);
            break;
        }
        if n < 50 || last <= at {
            break;
        }
        at = last;
    }
    for (name, child, kind) in entries {
        match fs.lookup(dir, &name) {
            Ok(Some(e)) if e.ino == child && e.kind == kind => next.push(child),
            Ok(_) => seen
                .errors
                .push(format!("inode {ino}: readdir and lookup disagree")),
            Err(e) => seen.error(ino, "lookup", e),
        }
    }
}

fn data(fs: &Fs, inode: &Inode, size: u64, seen: &mut Seen) -> Result<(), Error> {
    // Preallocated blocks may lie behind the size.
    fs.map_report(inode, bytes_to_blocks(size), MAX_FILE_BLOCKS)?;
    let end = bytes_to_blocks(size).min(MAX_FILE_BLOCKS);
    let mut at = 0;
    for _ in 0..MAPPINGS {
        if at >= end {
            break;
        }
        let m = fs.map_read(inode, at, end - at)?;
        for i in 0..if m.kind == MapKind::Written { m.len } else { 0 } {
            seen.blocks += 1;
            if seen.blocks > BLOCKS {
                return Ok(());
            }
            let mut b = Block::zeroed()?;
            fs.node_store().device().read(m.phys + i, &mut b)?;
            let sum = crc32c(0, &b[..]);
            if fs.verify(inode, at + i, m.phys + i, sum)? != Verdict::Good {
                seen.bad_data.insert(inode.ino());
            }
        }
        at += m.len;
    }
    Ok(())
}
