// SPDX-License-Identifier: GPL-2.0

//! What is on disk, decoded.

use crate::at;
use crate::show::{name, time, uuid, xattr_name};
use anyhow::{anyhow, bail, Result};
use ordofs_engine::engine::alloc::ag::{Ag, SUMMARY_KEY};
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, ValueBuf, WalkItem};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm};
use ordofs_engine::engine::format::{le32, NodePtr, Superblock, SB_SLOTS};
use ordofs_engine::engine::mount::{tree_of, INODE_TREE, ORPHAN_TREE};
use ordofs_engine::engine::node_store::NodeStore;
use ordofs_engine::engine::{dir, xattr};
use ordofs_engine::engine::{Attrs, S_IFDIR, S_IFLNK, S_IFMT};
use ordofs_engine::os::{Block, Device, Shared};
use serde_json::{json, Value};

fn newest(dev: &Device) -> Result<Superblock> {
    Superblock::read(dev).map_err(|r| anyhow!("{} ({:?})", r.reason, r.error))
}

fn ptr(p: &Option<NodePtr>) -> Value {
    match p {
        None => Value::Null,
        Some(p) => json!({
            "block": p.addr, "copy": p.addr2, "level": p.level, "generation": p.generation,
            "crc32c": format!("{:08x}", p.crc),
        }),
    }
}

/// The newest superblock, or the one in a slot.
pub fn superblock(dev: &Device, slot: Option<u8>) -> Result<Value> {
    let sb = match slot {
        None => newest(dev)?,
        Some(i) => {
            let mut b = Block::zeroed().map_err(|e| at("memory", e))?;
            let block = SB_SLOTS[usize::from(i)];
            dev.read(block, &mut b)
                .map_err(|e| at(format!("superblock slot {i}"), e))?;
            Superblock::decode(&b).map_err(|r| anyhow!("superblock slot {i}: {}", r.reason))?
        }
    };
    let end = sb
        .label
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(sb.label.len());
    let ags: Vec<Value> = (0..sb.ag_count)
        .zip(&sb.ag_roots)
        .map(|(i, root)| json!({"ag": i, "start": sb.ag_start(i), "blocks": sb.ag_len(i), "root": ptr(root)}))
        .collect();
    Ok(json!({
        "uuid": uuid(&sb.uuid),
        "label": name(&sb.label[..end]),
        "generation": sb.generation,
        "state": sb.state,
        "features": {
            "compat": format!("{:#x}", sb.compat),
            "ro_compat": format!("{:#x}", sb.ro_compat),
            "incompat": format!("{:#x}", sb.incompat),
        },
        "blocks": sb.blocks,
        "free": sb.free,
        "inodes": sb.inodes,
        "root_inode": sb.root_ino,
        "next_inode": sb.next_ino,
        "log": {
            "start": sb.log_start, "blocks": sb.log_len, "position": sb.log_pos, "sequence": sb.log_seq,
        },
        "created": time(sb.created),
        "mounted": time(sb.mounted),
        "committed": time(sb.committed),
        "inode_tree": ptr(&sb.inode_root),
        "orphan_tree": ptr(&sb.orphan_root),
        "allocation_groups": ags,
    }))
}

fn store(dev: Device, sb: &Superblock) -> Result<NodeStore> {
    let memory = |e| at("memory", e);
    NodeStore::new(Shared::new(dev).map_err(memory)?, sb.fsid(), 16384).map_err(memory)
}

/// Nodes and records of a tree; damaged nodes are listed, not fatal.
fn walk(st: &NodeStore, tree: &Tree, item: &dyn Fn(u64, &[u8]) -> Value) -> Result<Value> {
    let (mut nodes, mut records, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    let r = tree.walk_tolerant(st, &mut |w| {
        match w {
            WalkItem::Node(n) => nodes.push(json!({
                "block": n.addr, "copy": n.addr2, "level": n.level, "generation": n.generation,
                "entries": n.entries,
            })),
            WalkItem::Item(key, value) => records.push(item(key, value)),
            WalkItem::Bad(b) => bad.push(json!({
                "block": b.ptr.map(|p| p.addr), "first_key": b.first_key, "last_key": b.last_key,
                "error": format!("{:?}", b.error),
            })),
        }
        Ok(())
    });
    r.map_err(|e| at("tree", e))?;
    let mut out = json!({"nodes": nodes, "records": records});
    if !bad.is_empty() {
        out["damaged"] = json!(bad);
    }
    Ok(out)
}

/// One of the trees that the superblock points to.
pub fn tree(dev: Device, which: &str) -> Result<Value> {
    let sb = newest(&dev)?;
    let st = store(dev, &sb)?;
    match which {
        "inode" => walk(&st, &tree_of(INODE_TREE, sb.inode_root), &|ino, v| {
            InodeRecord::decode(ino, v).map_or_else(
                |_| json!({"inode": ino, "damaged": true}),
                |r| brief(ino, &r),
            )
        }),
        "orphan" => walk(
            &st,
            &tree_of(ORPHAN_TREE, sb.orphan_root),
            &|ino, _| json!({"inode": ino}),
        ),
        n => {
            let ag: u32 = n
                .parse()
                .map_err(|_| anyhow!("'{n}' is not inode, orphan or a number"))?;
            if ag >= sb.ag_count {
                bail!(
                    "there are {} allocation groups, numbered from 0",
                    sb.ag_count
                );
            }
            walk(
                &st,
                &tree_of(Ag::tree_id(ag), sb.ag_roots[ag as usize]),
                &|key, v| {
                    if key >= SUMMARY_KEY {
                        let counts: Vec<u16> = v
                            .chunks_exact(2)
                            .map(|c| u16::from_le_bytes([c[0], c[1]]))
                            .collect();
                        json!({"free_counts_of_groups_from": (key - SUMMARY_KEY) * 512, "counts": counts})
                    } else {
                        let used: u32 = v.iter().skip(4).map(|b| b.count_ones()).sum();
                        json!({"group": key, "free": le32(v, 0), "used": used})
                    }
                },
            )
        }
    }
}

fn brief(ino: u64, r: &InodeRecord<'_>) -> Value {
    json!({
        "inode": ino, "mode": format!("{:o}", r.attrs.mode), "nlink": r.attrs.nlink, "size": r.attrs.size,
        "blocks": r.blocks, "state": r.state, "parent": r.parent, "generation": r.generation,
    })
}

/// Attributes in words.
pub fn attrs(a: &Attrs) -> Value {
    json!({
        "mode": format!("{:o}", a.mode), "nlink": a.nlink, "uid": a.uid, "gid": a.gid, "rdev": a.rdev,
        "size": a.size, "flags": format!("{:#x}", a.flags), "atime": time(a.atime), "mtime": time(a.mtime),
        "ctime": time(a.ctime), "btime": time(a.btime),
    })
}

fn open_root(ino: u64, kind: TreeKind, root: &RootForm<'_>) -> Result<(Tree, &'static str)> {
    let id = TreeId { kind, owner: ino };
    Ok(match root {
        RootForm::Empty => (Tree::empty(id), "empty"),
        RootForm::Inline(i) => (
            Tree::from_inline(id, i).map_err(|e| at(format!("inode {ino}"), e))?,
            "inline",
        ),
        RootForm::Ptr(p) => (Tree::from_ptr(id, *p), "tree"),
    })
}

/// An inode with all that hangs on it.
pub fn inode(dev: Device, ino: u64) -> Result<Value> {
    let sb = newest(&dev)?;
    let st = store(dev, &sb)?;
    let place = format!("inode {ino}");
    let mut v = ValueBuf::new();
    let there = tree_of(INODE_TREE, sb.inode_root)
        .get(&st, ino, &mut v)
        .map_err(|e| at(&place, e))?;
    if !there {
        bail!("{place} does not exist");
    }
    let rec = InodeRecord::decode(ino, &v).map_err(|e| at(&place, e))?;
    let limit = sb.blocks;
    let show = |kind, root, item: &dyn Fn(u64, &[u8]) -> Value| -> Result<Value> {
        let (tree, form) = open_root(ino, kind, root)?;
        let mut out = walk(&st, &tree, item)?;
        out["form"] = json!(form);
        Ok(out)
    };
    let extents = show(
        TreeKind::Extent,
        &rec.extents,
        &|key, v| match Extent::decode(key, v, limit) {
            Err(_) => json!({"file_block": key, "damaged": true}),
            Ok(e) => json!({
                "file_block": key, "block": e.phys, "blocks": e.len, "unwritten": e.unwritten,
                "checksums": e.csums, "generation": e.generation,
            }),
        },
    )?;
    let kind = rec.attrs.mode & S_IFMT;
    let entries = show(TreeKind::Dir, &rec.dir, &|key, v| {
        if kind == S_IFLNK {
            return json!({"target": name(v)});
        }
        match dir::decode(ino, v) {
            Err(_) => json!({"cookie": format!("{key:#x}"), "damaged": true}),
            Ok(e) => {
                json!({"cookie": format!("{key:#x}"), "inode": e.ino, "type": e.kind, "name": name(e.name)})
            }
        }
    })?;
    let xattrs = show(TreeKind::Xattr, &rec.xattr, &|key, v| {
        let mut out = json!({"key": format!("{key:#x}"), "bytes": v.len()});
        if key & 0xff != 0 {
            out["piece"] = json!(key & 0xff);
            return out;
        }
        match xattr::decode(ino, v) {
            Err(_) => out["damaged"] = json!(true),
            Ok(h) => {
                out["name"] = json!(xattr_name(h.index, h.name));
                out["value_bytes"] = json!(h.len);
                out["value"] = json!(name(h.start));
            }
        }
        out
    })?;
    let mut out = json!({
        "inode": ino, "attributes": attrs(&rec.attrs), "blocks": rec.blocks, "state": rec.state,
        "generation": rec.generation,
    });
    if kind == S_IFDIR {
        out["parent"] = json!(rec.parent);
    }
    for (key, root, value) in [
        ("extents", &rec.extents, extents),
        ("entries", &rec.dir, entries),
        ("xattrs", &rec.xattr, xattrs),
    ] {
        if !matches!(root, RootForm::Empty) {
            out[key] = value;
        }
    }
    Ok(out)
}
