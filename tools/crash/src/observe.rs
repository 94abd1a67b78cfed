// SPDX-License-Identifier: GPL-2.0

//! Mounts a crash state, reads everything back and checks it: reports what a user sees and what
//! fsck.ordofs finds.
//!
//! Tests: tools/crash/tests/recovery.rs, grow.rs.

use crate::disk::{Image, Recorder, Scratch, SIZE};
use crate::engine::format::places::{backups, SLOTS};
use crate::engine::format::Superblock;
use crate::engine::ops::scrub::{From, Go};
use crate::engine::{Fs, Inode, MapKind, MountOptions, Verdict, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use crate::oracle::{Seen, View};
use crate::os::{crc32c, Block, Device};
use ordofs_fsck::{check, Options};

/// The deepest directory of a workload; deeper ones form a loop.
const DEPTH: usize = 8;

/// Runs fsck.ordofs on a device; its findings are an error.
fn fsck(dev: Device, data: bool, what: &str) -> Result<ordofs_fsck::Report, String> {
    let r = check(dev, Options { data }).map_err(|e| format!("fsck {what}: {}", e.reason))?;
    if r.is_clean() {
        return Ok(r);
    }
    let problems: Vec<String> = r.problems.iter().map(ToString::to_string).collect();
    Err(format!("fsck {what}: {}", problems.join("; ")))
}

/// Checks the medium as the power cut left it, without replay.
pub fn untouched(image: &Image) -> Result<(), String> {
    let disk = Scratch::readonly(image.clone());
    fsck(disk.device(), false, "before recovery").map(|_| ())
}

/// Of the backups that a repair would find that has no other superblock, for a filesystem that has had
/// these sizes: the least size that one has, and the last block that has one. One must be there, unless
/// those sizes have none.
pub fn backup_sizes(
    image: &Image,
    sizes: impl Iterator<Item = u64>,
) -> Result<(Option<u64>, Option<u64>), String> {
    let places: Vec<u64> = sizes.flat_map(backups).map(|at| at + SLOTS[0]).collect();
    let found = places
        .iter()
        .filter_map(|at| Some((*at, Superblock::decode(image.get(*at)?).ok()?.blocks)));
    let found: Vec<(u64, u64)> = found.collect();
    if found.is_empty() && !places.is_empty() {
        return Err("no backup of the superblock is left".to_owned());
    }
    let least = found.iter().map(|(_, blocks)| *blocks).min();
    Ok((least, found.iter().map(|(at, _)| *at).max()))
}

/// Mounts, reads everything, unmounts and checks.
pub fn recovered(image: &Image) -> Result<(View, Image), String> {
    let disk = Scratch::new(image.clone());
    let view = mounted(disk.device(), &MountOptions::default())?;
    let r = fsck(disk.device(), true, "after recovery")?;
    let (seen, root) = (view.inodes.len() as u64, 1);
    if r.stats.orphans != 0 || r.stats.inodes != seen + root {
        return Err(format!(
            "{} inodes have names, but {} exist, {} of them orphans",
            seen + root,
            r.stats.inodes,
            r.stats.orphans
        ));
    }
    Ok((view, disk.image()))
}

/// Mounts a medium on which one copy of a node is damaged, reads everything, and scrubs, which writes
/// that copy anew.
pub fn healed(image: &Image) -> Result<View, String> {
    let disk = Scratch::new(image.clone());
    let fs = Fs::mount(disk.device(), MountOptions::default())
        .map_err(|e| format!("mount: {} ({:?})", e.reason, e.error))?;
    let mut view = View {
        blocks: fs.blocks(),
        ..View::default()
    };
    read_dir(&fs, fs.root_ino(), "", 0, &mut view)?;
    view.names.sort_unstable();
    fs.heal(&|| false);
    let scrub = fs.scrub_start(From::Start, 0);
    fs.scrub_run(scrub.map_err(|e| format!("scrub: {e:?}"))?, &mut || Go::On);
    let s = fs.scrub_status();
    if s.lost_nodes + s.bad_records + s.bad_blocks > 0 || s.healed != s.bad_copies {
        return Err(format!("scrub: {s:?}"));
    }
    fs.unmount().map_err(|e| format!("unmount: {e:?}"))?;
    fsck(disk.device(), false, "after healing")?;
    Ok(view)
}

/// Mounts read-only, on a device that refuses writes, and reads everything.
pub fn read_only(image: &Image) -> Result<View, String> {
    let disk = Scratch::readonly(image.clone());
    let options = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    let view = mounted(disk.device(), &options)?;
    if disk.changed() {
        return Err("a read-only mount wrote".to_owned());
    }
    Ok(view)
}

/// Mounts and unmounts on a recording device.
pub fn record(image: &Image) -> Result<Recorder, String> {
    let rec = Recorder::new(image.clone());
    let fs = Fs::mount(rec.device(), MountOptions::default())
        .map_err(|e| format!("mount: {}", e.reason))?;
    fs.unmount().map_err(|e| format!("unmount: {e:?}"))?;
    Ok(rec)
}

fn mounted(dev: Device, options: &MountOptions) -> Result<View, String> {
    let fs =
        Fs::mount(dev, *options).map_err(|e| format!("mount: {} ({:?})", e.reason, e.error))?;
    let mut view = View {
        blocks: fs.blocks(),
        ..View::default()
    };
    read_dir(&fs, fs.root_ino(), "", 0, &mut view)?;
    view.names.sort_unstable();
    fs.unmount().map_err(|e| format!("unmount: {e:?}"))?;
    Ok(view)
}

fn read_dir(fs: &Fs, ino: u64, path: &str, depth: usize, view: &mut View) -> Result<(), String> {
    let say = |what: &str, e| format!("{what} {path}: {e:?}");
    if depth > DEPTH {
        return Err(format!("{path}: directories form a loop"));
    }
    let dir = fs.iget(ino).map_err(|e| say("iget", e))?;
    let mut entries = Vec::new();
    fs.readdir(&dir, 0, &mut |name, ino, kind, _| {
        entries.push((String::from_utf8_lossy(name).into_owned(), ino, kind));
        true
    })
    .map_err(|e| say("readdir", e))?;
    for (name, child, kind) in entries {
        let path = format!("{path}/{name}");
        let found = fs
            .lookup(&dir, name.as_bytes())
            .map_err(|e| say("lookup", e))?;
        if found.is_none_or(|e| e.ino != child || e.kind != kind) {
            return Err(format!("{path}: readdir and lookup disagree"));
        }
        let (seen, used) = read_inode(fs, child, kind, &path)?;
        view.used = view.used.max(used);
        let dir = seen.mode & S_IFMT == S_IFDIR;
        view.names.push((ino, name, child));
        view.inodes.insert(child, seen);
        if dir {
            read_dir(fs, child, &path, depth + 1, view)?;
        }
    }
    fs.iput(dir);
    Ok(())
}

/// Reads an inode. Returns also the block behind its last one with data.
fn read_inode(fs: &Fs, ino: u64, kind: u8, path: &str) -> Result<(Seen, u64), String> {
    let say = |what: &str, e| format!("{what} {path}: {e:?}");
    let inode = fs.iget(ino).map_err(|e| say("iget", e))?;
    let a = inode.attrs();
    if (a.mode >> 12) as u8 != kind {
        return Err(format!(
            "{path}: type {:o} in the inode, {kind} in the entry",
            a.mode
        ));
    }
    let mut seen = Seen {
        mode: a.mode,
        generation: a.handle_generation,
        change: a.change,
        uid: a.uid,
        size: a.size,
        mtime: a.mtime,
        ..Seen::default()
    };
    let mut used = 0;
    seen.xattrs = read_xattrs(fs, &inode).map_err(|e| say("xattrs of", e))?;
    if a.mode & S_IFMT == S_IFLNK {
        let target = fs.readlink(&inode).map_err(|e| say("readlink", e))?;
        seen.target = Some(target.as_slice().to_vec());
    }
    if a.mode & S_IFMT == S_IFREG {
        let end = a.size.div_ceil(SIZE as u64);
        let mut b = 0;
        while b < end {
            let m = fs.map_read(&inode, b, end - b).map_err(|e| say("map", e))?;
            for i in 0..if m.kind == MapKind::Written { m.len } else { 0 } {
                let mut buf = Block::zeroed().map_err(|e| say("memory for", e))?;
                fs.node_store()
                    .device()
                    .read(m.phys + i, &mut buf)
                    .map_err(|e| say("read", e))?;
                let crc = crc32c(0, &buf[..]);
                let v = fs
                    .verify(&inode, b + i, m.phys + i, crc)
                    .map_err(|e| say("verify", e))?;
                if v != Verdict::Good {
                    return Err(format!("{path}: block {}: {v:?}", b + i));
                }
                seen.blocks.push((b + i, *buf));
                used = used.max(m.phys + i + 1);
            }
            b += m.len;
        }
    }
    fs.iput(inode);
    Ok((seen, used))
}

/// Extended attributes, sorted.
fn read_xattrs(fs: &Fs, inode: &Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>, kernel::prelude::Error> {
    let mut all = Vec::new();
    fs.list_xattr(inode, &mut |index, name, len| {
        all.push((index, name.to_vec(), vec![0; len]));
        Ok(())
    })?;
    for (index, name, value) in &mut all {
        let n = fs.get_xattr(inode, *index, name, value)?;
        if n != Some(value.len()) {
            return Err(kernel::prelude::EIO);
        }
    }
    let mut all: Vec<_> = all.into_iter().map(|(_, n, v)| (n, v)).collect();
    all.sort();
    Ok(all)
}
