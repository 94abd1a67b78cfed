// SPDX-License-Identifier: GPL-2.0

//! Changing a filesystem: a little of everything, to files that are there and to new ones.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use kernel::prelude::{Error, Result};
use ordofs_crash::engine::ops::namei::Rename;
use ordofs_crash::engine::*;
use ordofs_engine::os::{crc32c, Block, Device, Shared};
use std::collections::BTreeSet;

/// How many of the files that are there are changed.
const FILES: usize = 24;
/// The most entries of a directory that are looked at.
const NAMES: usize = 12;

/// Writes `n` blocks, as writeback does.
pub fn write(fs: &Fs, dev: &Device, f: &Shared<Inode>, start: u64, n: u64) -> Result {
    let mut blocks = Vec::new();
    for i in start..start + n {
        let mut b = Block::zeroed()?;
        b[..8].copy_from_slice(&i.to_le_bytes());
        blocks.push(b);
    }
    write_blocks(fs, dev, f, start, &blocks)
}

/// Writes blocks with this content.
pub fn write_blocks(
    fs: &Fs,
    dev: &Device,
    f: &Shared<Inode>,
    start: u64,
    blocks: &[Block],
) -> Result {
    let end = start + blocks.len() as u64;
    let mut at = start;
    while at < end {
        at += fs.map_write(f, at, end - at)?.map.len;
    }
    let sums: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
    let mut i = 0;
    while i < sums.len() {
        let s = fs.start_write(f, start + i as u64, &sums[i..], false)?;
        let io = (0..s.len).try_for_each(|k| dev.write(&[(s.phys + k, &blocks[i + k as usize])]));
        i += s.len as usize;
        fs.finish_write(s.ordered, block_to_bytes(start + i as u64), io)?;
    }
    Ok(())
}

/// The operations that failed, and how.
#[derive(Default)]
pub struct Failed(pub Vec<(&'static str, Error)>);

impl Failed {
    fn note(&mut self, what: &'static str, r: Result) {
        if let Err(e) = r {
            self.0.push((what, e));
        }
    }
}

/// Works with the filesystem. `inodes` are those that can be read.
pub fn all(fs: &Shared<Fs>, dev: &Device, inodes: &BTreeSet<u64>) -> Failed {
    let mut failed = Failed::default();
    failed.note("new files", new_files(fs, dev));
    for (i, ino) in inodes.iter().take(FILES).enumerate() {
        let Ok(inode) = fs.iget(*ino) else { continue };
        match inode.attrs().mode & S_IFMT {
            S_IFREG => failed.note("change a file", file(fs, dev, &inode, i)),
            S_IFDIR => failed.note("change a directory", directory(fs, &inode, i)),
            _ => {}
        }
        fs.iput(inode);
    }
    failed.note("sync", fs.sync());
    failed
}

fn new_files(fs: &Fs, dev: &Device) -> Result {
    let root = fs.iget(fs.root_ino())?;
    let r = in_root(fs, dev, &root);
    fs.iput(root);
    r
}

fn in_root(fs: &Fs, dev: &Device, root: &Shared<Inode>) -> Result {
    let new = |mode| NewInode {
        mode,
        ..Default::default()
    };
    let dir = fs.create(root, b"fuzz: directory", &new(S_IFDIR | 0o755))?;
    let f = fs.create(&dir, b"file", &new(S_IFREG | 0o644))?;
    write(fs, dev, &f, 0, 9)?;
    fs.sync_inode(&f)?;
    let rename = |flags, target| {
        fs.rename(&Rename {
            old_dir: &dir,
            old_name: b"file",
            inode: &f,
            new_dir: root,
            new_name: b"fuzz: renamed",
            target,
            flags,
            whiteout: None,
        })
    };
    fs.link(root, b"fuzz: linked", &f)?;
    rename(RenameFlags::default(), None)?;
    fs.set_xattr(&f, 1, b"fuzz", Some(&[7; 2000]), XattrSet::Any)?;
    fs.unlink(root, b"fuzz: linked", &f)?;
    fs.preallocate(&f, 20, 200, None)?;
    fs.sync_inode(&f)?;
    fs.unlink(root, b"fuzz: renamed", &f)?;
    fs.delete_inode(f)?;
    fs.unlink(root, b"fuzz: directory", &dir)?;
    fs.delete_inode(dir)
}

/// Changes a file, each in another way.
fn file(fs: &Fs, dev: &Device, f: &Shared<Inode>, i: usize) -> Result {
    let size = f.attrs().size;
    let end = bytes_to_blocks(size).min(MAX_FILE_BLOCKS - 8);
    write(fs, dev, f, end / 2, 2)?;
    match i % 5 {
        0 => fs.set_size(f, size / 3)?,
        1 => fs.punch(f, 0, end / 2 + 1)?,
        2 => fs.preallocate(f, 0, 64, None)?,
        3 => write(fs, dev, f, end, 3)?,
        _ => fs.set_xattr(f, 1, b"fuzz", Some(b"some"), XattrSet::Any)?,
    }
    fs.set_attrs(
        f,
        &AttrChange {
            mode: Some(0o600),
            ..AttrChange::default()
        },
    )?;
    fs.sync_inode(f)
}

/// Removes, or renames, every second of the first names.
fn directory(fs: &Fs, dir: &Shared<Inode>, i: usize) -> Result {
    let mut names = Vec::new();
    fs.readdir(dir, 0, &mut |name, ino, kind, _| {
        names.push((name.to_vec(), ino, kind));
        names.len() < NAMES
    })?;
    for (k, (name, ino, _)) in names.iter().enumerate() {
        if fs.lookup(dir, name)?.is_none_or(|e| e.ino != *ino) {
            continue;
        }
        let inode = fs.iget(*ino)?;
        let r = match (i + k) % 4 {
            0 => remove(fs, dir, name, &inode),
            2 => move_(fs, dir, name, &inode),
            _ => Ok(()),
        };
        let gone = r.is_ok() && inode.attrs().nlink == 0;
        let freed = match gone {
            true => fs.delete_inode(inode),
            false => {
                fs.iput(inode);
                Ok(())
            }
        };
        r.and(freed)?;
    }
    Ok(())
}

fn remove(fs: &Fs, dir: &Shared<Inode>, name: &[u8], inode: &Shared<Inode>) -> Result {
    // The VFS locks both, which cannot be the same.
    if inode.ino() == dir.ino() {
        return Ok(());
    }
    match fs.unlink(dir, name, inode) {
        Err(e) if e == kernel::prelude::ENOTEMPTY => Ok(()),
        r => r,
    }
}

fn move_(fs: &Fs, dir: &Shared<Inode>, name: &[u8], inode: &Shared<Inode>) -> Result {
    if inode.ino() == dir.ino() {
        return Ok(());
    }
    let mut new = name.to_vec();
    new.truncate(200);
    new.extend_from_slice(b".moved");
    if fs.lookup(dir, &new)?.is_some() {
        return Ok(());
    }
    fs.rename(&Rename {
        old_dir: dir,
        old_name: name,
        inode,
        new_dir: dir,
        new_name: &new,
        target: None,
        flags: RenameFlags::default(),
        whiteout: None,
    })
}
