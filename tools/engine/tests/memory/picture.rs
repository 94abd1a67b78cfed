// SPDX-License-Identifier: GPL-2.0

//! What a user can see, as facts that can be compared one by one.

use ordofs_engine::engine::*;
use ordofs_engine::os::{crc32c, Block};
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

/// A fact about an inode, a name, an attribute or a block.
pub type Picture = BTreeMap<String, String>;

/// A block that has a place and no content.
const UNWRITTEN: &str = "unwritten";

/// Everything that has a name.
pub fn picture(fs: &Fs) -> Picture {
    let mut out = Picture::new();
    let mut todo = Vec::from([fs.root_ino()]);
    let mut seen = BTreeSet::new();
    while let Some(ino) = todo.pop() {
        if seen.insert(ino) {
            visit(fs, ino, &mut out, &mut todo);
        }
    }
    out
}

fn visit(fs: &Fs, ino: u64, out: &mut Picture, todo: &mut Vec<u64>) {
    let i = fs.iget(ino).expect("iget");
    let a = i.attrs();
    let owner = format!("{:o} {} {} {} {:x}", a.mode, a.uid, a.gid, a.rdev, a.flags);
    out.insert(format!("{ino} attributes"), owner);
    out.insert(format!("{ino} links"), a.nlink.to_string());
    out.insert(format!("{ino} size"), a.size.to_string());
    fs.list_xattr(&i, &mut |index, name, len| {
        let mut value = vec![0; len];
        let n = fs.get_xattr(&i, index, name, &mut value);
        assert_eq!(n, Ok(Some(len)), "get_xattr");
        let name = String::from_utf8_lossy(name);
        let crc = crc32c(0, &value);
        out.insert(
            format!("{ino} xattr {index} {name}"),
            format!("{len} {crc:x}"),
        );
        Ok(())
    })
    .expect("list_xattr");
    if a.mode & S_IFMT == S_IFLNK {
        let target = fs.readlink(&i).expect("readlink");
        assert_eq!(target.len() as u64, a.size, "size of a symbolic link");
        let crc = crc32c(0, &target);
        out.insert(format!("{ino} target"), format!("{crc:x}"));
    }
    if a.is_dir() {
        fs.readdir(&i, 0, &mut |n, c, kind, _| {
            let name = String::from_utf8_lossy(n);
            out.insert(format!("{ino} name {name}"), format!("{c} {kind}"));
            todo.push(c);
            true
        })
        .expect("readdir");
    } else {
        data(fs, &i, out);
    }
    fs.iput(i);
}

fn data(fs: &Fs, i: &Inode, out: &mut Picture) {
    let mut buf = Block::zeroed().expect("memory");
    let (mut at, end) = (0, bytes_to_blocks(i.attrs().size));
    while at < end {
        let m = fs.map_read(i, at, end - at).expect("map_read");
        let mapped = if m.kind == MapKind::Hole { 0 } else { m.len };
        for k in 0..mapped {
            let what = if m.kind == MapKind::Written {
                let device = fs.node_store().device();
                device.read(m.phys + k, &mut buf).expect("read");
                let crc = crc32c(0, &buf[..]);
                let verdict = fs.verify(i, at + k, m.phys + k, crc).expect("verify");
                assert_eq!(verdict, Verdict::Good, "{} block {}", i.ino(), at + k);
                format!("{crc:x}")
            } else {
                UNWRITTEN.to_string()
            };
            out.insert(format!("{} block {}", i.ino(), at + k), what);
        }
        at += m.len;
    }
}

/// What `now` says that none of `known` does; nothing if each fact is as in one of them. A number may
/// also lie between theirs, and what reads as zeroes may do so without a place.
pub fn strange(now: &Picture, known: &[&Picture]) -> Vec<String> {
    let keys: BTreeSet<&String> = known
        .iter()
        .copied()
        .chain([now])
        .flat_map(|p| p.keys())
        .collect();
    let unknown = |key: &&&String| {
        let have = now.get(**key);
        let values: Vec<_> = known.iter().map(|p| p.get(**key)).collect();
        !(values.contains(&have) || fits(key, have, &values))
    };
    let tell = |key: &String| {
        format!(
            "{key}: {:?}, not {:?}",
            now.get(key),
            known.iter().map(|p| p.get(key)).collect::<Vec<_>>()
        )
    };
    keys.iter().filter(unknown).map(|k| tell(k)).collect()
}

fn fits(key: &str, have: Option<&String>, values: &[Option<&String>]) -> bool {
    if key.contains(" block ") {
        return have.is_none() && values.iter().any(|v| v.is_some_and(|v| v == UNWRITTEN));
    }
    if !key.ends_with(" size") && !key.ends_with(" links") {
        return false;
    }
    let number = |v: &Option<&String>| v.and_then(|v| v.parse::<u64>().ok());
    let all: Vec<u64> = values.iter().filter_map(number).collect();
    match (number(&have), all.iter().min(), all.iter().max()) {
        (Some(n), Some(a), Some(b)) => (*a..=*b).contains(&n),
        _ => false,
    }
}
