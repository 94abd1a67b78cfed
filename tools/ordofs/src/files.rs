// SPDX-License-Identifier: GPL-2.0

//! Files by path, read through a read-only mount in user space: ls, stat, cat.
//!
//! Tests: `tools/ordofs/tests/lost_output.rs`, `tools/ordofs/tests/keep_going.rs`, `tests/vm/t/033-tools-on-mounted.sh`.

use crate::dump::attrs;
use crate::error::at;
use crate::show::{name, xattr_name};
use anyhow::{bail, Result};
use ordofs_cli::complain;
use ordofs_engine::engine::{
    bytes_to_blocks, Fs, Inode, MapKind, Verdict, BLOCK_SIZE, S_IFDIR, S_IFLNK, S_IFREG,
};
use ordofs_engine::os::{crc32c, Block, Shared};
use serde_json::{json, Value};
use std::io::Write;

/// How many bytes of an attribute's value are shown.
const SHOWN: usize = 256;

/// The inode at a path. Symbolic links are not followed.
fn resolve(fs: &Fs, path: &str) -> Result<Shared<Inode>> {
    let mut inode = fs.iget(fs.root_ino()).map_err(|e| at("/", e))?;
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if inode.kind() != S_IFDIR {
            bail!("{path}: the path before {part:?} is not a directory");
        }
        let Some(entry) = fs
            .lookup(&inode, part.as_bytes())
            .map_err(|e| at(path, e))?
        else {
            bail!("{path}: {part:?} does not exist");
        };
        inode = fs.iget(entry.ino).map_err(|e| at(path, e))?;
    }
    Ok(inode)
}

/// The attributes of the file at a path.
pub fn stat(fs: &Fs, path: &str) -> Result<Value> {
    let inode = resolve(fs, path)?;
    let mut out = json!({"path": path, "inode": inode.ino(), "attributes": attrs(&inode.attrs()), "blocks": inode.blocks()});
    if inode.kind() == S_IFLNK {
        out["target"] = json!(name(&fs.readlink(&inode).map_err(|e| at(path, e))?));
    }
    let mut xattrs = Vec::new();
    let listed = fs.list_xattr(&inode, &mut |index, n, len| {
        xattrs.push((index, n.to_vec(), len));
        Ok(())
    });
    listed.map_err(|e| at(path, e))?;
    let mut shown = Vec::new();
    for (index, n, len) in xattrs {
        let full = xattr_name(index, &n);
        let mut value = vec![0; len];
        fs.get_xattr(&inode, index, &n, &mut value)
            .map_err(|e| at(format!("{path}: {full}"), e))?;
        value.truncate(SHOWN);
        shown.push(json!({"name": full, "bytes": len, "value": name(&value)}));
    }
    if !shown.is_empty() {
        out["xattrs"] = json!(shown);
    }
    Ok(out)
}

/// The entries of a directory.
pub fn list(fs: &Fs, path: &str) -> Result<Value> {
    let dir = resolve(fs, path)?;
    if dir.kind() != S_IFDIR {
        bail!("{path} is not a directory");
    }
    let mut found = Vec::new();
    fs.readdir(&dir, 0, &mut |n, ino, kind, _| {
        found.push((n.to_vec(), ino, kind));
        true
    })
    .map_err(|e| at(path, e))?;
    found.sort();
    let mut out = Vec::new();
    for (n, ino, kind) in found {
        let a = fs
            .iget(ino)
            .map_err(|e| at(format!("{path}: {}", name(&n)), e))?
            .attrs();
        out.push(json!({
            "name": name(&n), "inode": ino, "type": kind, "mode": format!("{:o}", a.mode),
            "nlink": a.nlink, "uid": a.uid, "gid": a.gid, "size": a.size,
        }));
    }
    Ok(json!(out))
}

/// Prints the list of [`list`], one entry a line.
pub fn print_list(list: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for e in list.as_array().into_iter().flatten() {
        let text = |k: &str| match &e[k] {
            Value::String(s) => s.clone(),
            v => v.to_string(),
        };
        writeln!(
            out,
            "{:>8} {:>6} {:>3} {:>5} {:>5} {:>12} {}",
            text("inode"),
            text("mode"),
            text("nlink"),
            text("uid"),
            text("gid"),
            text("size"),
            text("name")
        )?;
    }
    Ok(out.flush()?)
}

/// What [`cat`] does at a block that cannot be read or is damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It fails.
    Fail,
    /// It writes zeros, names the block on standard error, and fails at the end.
    KeepGoing,
}

/// The blocks that could not be read. Neighbours with the same reason are one message.
#[derive(Default)]
struct Lost {
    blocks: u64,
    /// First and last block, and the reason.
    run: Option<(u64, u64, String)>,
}

impl Lost {
    fn add(&mut self, block: u64, len: u64, why: String) {
        self.blocks += len;
        let end = block + len - 1;
        match &mut self.run {
            Some((_, last, w)) if *last + 1 == block && *w == why => *last = end,
            _ => {
                self.print();
                self.run = Some((block, end, why));
            }
        }
    }

    fn print(&mut self) {
        if let Some((first, last, why)) = self.run.take() {
            complain!("ordofs: file blocks {first} to {last} are zeros in the output: {why}");
        }
    }
}

/// Writes a file's content to standard output.
pub fn cat(fs: &Fs, path: &str, damage: Damage) -> Result<()> {
    let inode = resolve(fs, path)?;
    if inode.kind() != S_IFREG {
        bail!("{path} is not a regular file");
    }
    let mut out = std::io::stdout().lock();
    let size = inode.attrs().size;
    let end = bytes_to_blocks(size);
    let mut buf = Block::zeroed().map_err(|e| at("memory", e))?;
    let mut lost = Lost::default();
    let mut block = 0;
    while block < end {
        let (len, kind, phys) = match fs.map_read(&inode, block, end - block) {
            Ok(m) => (m.len, m.kind, m.phys),
            Err(e) if damage == Damage::Fail => return Err(at(path, e)),
            Err(e) => {
                // As far as it is the same node, which is not read again for each block.
                let last = fs.lost_records(&inode, block).ok().flatten();
                let len = last.map_or(1, |last| last.min(end - 1) - block + 1);
                lost.add(
                    block,
                    len,
                    format!("its extent record: {}", at("damaged", e)),
                );
                (len, MapKind::Hole, 0)
            }
        };
        for i in 0..len {
            let file_block = block + i;
            buf.fill(0);
            if kind == MapKind::Written {
                match read(fs, &inode, file_block, phys + i, &mut buf) {
                    Ok(()) => {}
                    Err(e) if damage == Damage::Fail => return Err(e.context(path.to_owned())),
                    Err(e) => {
                        buf.fill(0);
                        lost.add(file_block, 1, e.root_cause().to_string());
                    }
                }
            }
            let n = (size - file_block * BLOCK_SIZE as u64).min(BLOCK_SIZE as u64) as usize;
            out.write_all(&buf[..n])?;
        }
        block += len;
    }
    // Bytes after the last newline are still buffered, and an error at exit would be ignored.
    out.flush()?;
    lost.print();
    match lost.blocks {
        0 => Ok(()),
        n => bail!("{path}: {n} blocks cannot be read"),
    }
}

fn read(fs: &Fs, inode: &Inode, block: u64, phys: u64, buf: &mut Block) -> Result<()> {
    let place = || format!("file block {block} at block {phys}");
    fs.node_store()
        .device()
        .read(phys, buf)
        .map_err(|e| at(place(), e))?;
    match fs
        .verify(inode, block, phys, crc32c(0, &buf[..]))
        .map_err(|e| at(place(), e))?
    {
        Verdict::Good => Ok(()),
        Verdict::Bad(want) => bail!(
            "{}: checksum must be {want:08x}, the data is damaged",
            place()
        ),
        Verdict::Moved => bail!("{}: the mapping changed while reading", place()),
    }
}
