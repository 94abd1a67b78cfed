// SPDX-License-Identifier: GPL-2.0

//! The content of the disk, decoded: superblocks, trees, inodes.
//!
//! Tests: `tools/ordofs/tests/lost_output.rs`, `tests/vm/t/071-scale.sh`.

use crate::error::at;
use crate::show::{name, time, uuid, xattr_name, Doc};
use anyhow::{anyhow, bail, Result};
use kernel::prelude::EIO;
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::btree::{NodeInfo, Tree, TreeId, TreeKind, ValueBuf, WalkItem};
use ordofs_engine::engine::format::ag::AgRecord;
use ordofs_engine::engine::format::dead::DeadRecord;
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::group::GroupRecord;
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm, STATE_TRUNCATE};
use ordofs_engine::engine::format::places;
use ordofs_engine::engine::format::quota::{Account, QuotaKey, QuotaRecord};
use ordofs_engine::engine::format::shared::SharedRecord;
use ordofs_engine::engine::format::snapshot::SnapshotRecord;
use ordofs_engine::engine::format::superblock::STATE_REPAIR;
use ordofs_engine::engine::format::{NodePtr, Superblock};
use ordofs_engine::engine::ops::{dir, xattr};
use ordofs_engine::engine::volume::mount::{tree_of, INODE_TREE, ORPHAN_TREE};
use ordofs_engine::engine::{Attrs, S_IFDIR, S_IFLNK, S_IFMT};
use ordofs_engine::os::{Block, Device, Shared};
use serde_json::{json, Value};
use std::rc::Rc;

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
            // Without any superblock, the size of the device says where the twins are.
            let block = Superblock::find(dev).map_or_else(
                |_| places::slot(u64::from(i), usize::from(i / 2), dev.blocks()),
                |found| found.copies[usize::from(i)].0.block,
            );
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
    Ok(json!({
        "uuid": uuid(&sb.uuid),
        "label": name(&sb.label[..end]),
        "node_id": format!("{:016x}", sb.node_id),
        "generation": sb.generation,
        "clean": sb.is_clean(),
        "repair_wanted": sb.state & STATE_REPAIR != 0,
        "mounts": sb.mounts,
        "backups": sb.backed_up,
        "features": {
            "compat": format!("{:#x}", sb.compat),
            "ro_compat": format!("{:#x}", sb.ro_compat),
            "incompat": format!("{:#x}", sb.incompat),
        },
        "copies": sb.copies,
        "blocks": sb.blocks,
        "free": sb.free,
        "free_slots": sb.free_slots,
        "dead_blocks": sb.dead_blocks,
        "epoch": sb.epoch,
        "searches": { "nodes": sb.node_goal, "data": sb.data_goal },
        "casefold": { "encoding": sb.casefold & 0xffff, "flags": sb.casefold >> 16 },
        "inodes": sb.inodes,
        "root_inode": sb.root_ino,
        "next_inode": sb.next_ino,
        "log": {
            "start": sb.log_start, "blocks": sb.log_len, "position": sb.log_pos, "sequence": sb.log_seq,
            "second": sb.log2_start,
        },
        "created": time(sb.created),
        "mounted": time(sb.mounted),
        "committed": time(sb.committed),
        "inode_tree": ptr(&sb.inode_root),
        "orphan_tree": ptr(&sb.orphan_root),
        "ag_tree": ptr(&sb.ag_root),
        "deferred_tree": ptr(&sb.deferred_root),
        "snapshot_tree": ptr(&sb.snapshot_root),
        "dead_tree": ptr(&sb.dead_root),
        "quota_tree": ptr(&sb.quota_root),
        "ag_blocks": sb.ag_blocks,
        "ags": sb.ag_count,
    }))
}

/// How many nodes are cached. Few, because each walk reads a node once.
const CACHED_NODES: usize = 256;

fn store(dev: Device, sb: &Superblock) -> Result<Rc<NodeStore>> {
    let memory = |e| at("memory", e);
    let dev = Shared::new(dev).map_err(memory)?;
    let st = NodeStore::new(dev, sb.node_id, CACHED_NODES).map_err(memory)?;
    Ok(Rc::new(st))
}

/// The elements of a walk that `pick` turns into values. Damaged nodes do not end the walk.
fn each(
    st: &Rc<NodeStore>,
    tree: &Rc<Tree>,
    pick: impl Fn(WalkItem<'_>) -> Option<Value> + 'static,
) -> Doc {
    let (st, tree) = (st.clone(), tree.clone());
    Doc::List(Box::new(move |f| {
        let mut unwritten = None;
        let walked = tree.walk_tolerant(&st, &mut |w| match pick(w).map(&mut *f) {
            Some(Err(e)) => {
                unwritten = Some(e);
                Err(EIO)
            }
            _ => Ok(()),
        });
        if let Some(e) = unwritten {
            return Err(e.into());
        }
        walked.map_err(|e| at("tree", e))
    }))
}

/// What is wrong with the copies of a node of which one is good.
fn bad_copies(st: &NodeStore, n: &NodeInfo, id: &TreeId) -> Option<String> {
    // A leaf in a record has no block of its own.
    if n.addr == 0 {
        return None;
    }
    let faults = st.faults(&n.ptr(), id).ok()?;
    let named = faults.into_iter().zip([n.addr, n.addr2]);
    let bad: Vec<String> = named
        .filter_map(|(fault, block)| fault.map(|f| format!("copy at block {block}: {f}")))
        .collect();
    (!bad.is_empty()).then(|| bad.join("; "))
}

/// The nodes, the records and the damaged nodes of a tree, by one walk each.
fn walk(
    st: &Rc<NodeStore>,
    tree: Tree,
    item: impl Fn(u64, &[u8]) -> Value + 'static,
) -> Vec<(&'static str, Doc)> {
    let tree = Rc::new(tree);
    let (store, id) = (st.clone(), tree.id());
    let nodes = each(st, &tree, move |w| match w {
        WalkItem::Node(n) => {
            let mut node = json!({
                "block": n.addr, "copy": n.addr2, "level": n.level, "generation": n.generation,
                "entries": n.entries,
            });
            // One line for each node, so no list.
            if let Some(bad) = bad_copies(&store, &n, &id) {
                node["bad"] = bad.into();
            }
            Some(node)
        }
        _ => None,
    });
    let records = each(st, &tree, move |w| match w {
        WalkItem::Item(key, value) => Some(item(key, value)),
        _ => None,
    });
    let damaged = each(st, &tree, |w| match w {
        WalkItem::Bad(b) => Some(json!({
            "block": b.ptr.map(|p| p.addr), "first_key": b.first_key, "last_key": b.last_key,
            "error": format!("{:?}", b.error),
        })),
        _ => None,
    });
    vec![("nodes", nodes), ("records", records), ("damaged", damaged)]
}

/// One of the trees that the superblock points to.
pub fn tree(dev: Device, which: &str) -> Result<Doc> {
    let sb = newest(&dev)?;
    let st = store(dev, &sb)?;
    let fields = match which {
        "inode" => walk(&st, tree_of(INODE_TREE, sb.inode_root), |ino, v| {
            InodeRecord::decode(ino, v).map_or_else(
                |_| json!({"inode": ino, "damaged": true}),
                |r| brief(ino, &r),
            )
        }),
        "orphan" => walk(
            &st,
            tree_of(ORPHAN_TREE, sb.orphan_root),
            |ino, _| json!({"inode": ino}),
        ),
        "ag" => {
            let blocks = sb.blocks;
            let ag_blocks = sb.ag_blocks;
            walk(&st, tree_of(AG_TREE, sb.ag_root), move |ag, v| {
                ag_record(ag, len_of(ag, blocks, ag_blocks), v)
            })
        }
        "deferred" => walk(
            &st,
            tree_of(DEFERRED_TREE, sb.deferred_root),
            |block, _| json!({"block": block}),
        ),
        "snapshot" => {
            let sb = sb.clone();
            let id = TreeId::new(TreeKind::Snapshots, 0);
            walk(&st, tree_of(id, sb.snapshot_root), move |epoch, v| {
                snapshot(epoch, v, &sb)
            })
        }
        "dead" => {
            let sb = sb.clone();
            let id = TreeId::new(TreeKind::Dead, 0);
            walk(&st, tree_of(id, sb.dead_root), move |key, v| {
                dead(key, v, &sb)
            })
        }
        "quota" => {
            let id = TreeId::new(TreeKind::Quota, 0);
            walk(&st, tree_of(id, sb.quota_root), quota)
        }
        n => {
            let ag: u32 = n.parse().map_err(|_| {
                anyhow!(
                    "'{n}' is not inode, orphan, ag, deferred, snapshot, dead, quota or a number"
                )
            })?;
            if ag >= sb.ag_count {
                bail!(
                    "there are {} allocation groups, numbered from 0",
                    sb.ag_count
                );
            }
            groups(&st, &sb, ag)?
        }
    };
    Ok(Doc::Fields(fields))
}

/// The record of a snapshot.
fn snapshot(epoch: u64, v: &[u8], sb: &Superblock) -> Value {
    match SnapshotRecord::parse(epoch, v, sb) {
        Err(what) => json!({"epoch": epoch, "damaged": what}),
        Ok(r) => json!({
            "epoch": epoch, "name": name(r.name), "generation": r.generation, "time": time(r.time),
            "flags": r.flags, "used": r.used, "inodes": r.inodes, "next_inode": r.next_ino,
            "void": r.void, "back_to": r.back_to, "cursor": r.cursor,
            "inode_tree": ptr(&r.inode_root), "orphan_tree": ptr(&r.orphan_root),
            "quota_tree": ptr(&r.quota_root),
        }),
    }
}

/// A record of the dead tree.
fn dead(key: u64, v: &[u8], sb: &Superblock) -> Value {
    match DeadRecord::parse(key, v, sb) {
        Err(what) => json!({"key": format!("{key:#x}"), "damaged": what}),
        Ok(r) => json!({
            "death": r.key.death, "oldest": r.key.oldest, "sequence": r.key.sequence,
            "blocks": r.blocks, "runs": r.runs().collect::<Vec<_>>(),
        }),
    }
}

/// A record of the quota tree.
fn quota(key: u64, v: &[u8]) -> Value {
    let account = |a: Account| json!({"used": a.used, "hard": a.hard, "soft": a.soft, "grace_end": a.grace_end});
    let owner = match QuotaKey::parse(key) {
        Some(QuotaKey::Owner { kind, id }) => json!({"kind": kind, "id": id}),
        Some(QuotaKey::Settings { kind }) => json!({"kind": kind}),
        None => json!({"key": format!("{key:#x}")}),
    };
    match QuotaRecord::parse(key, v) {
        Err(what) => json!({"of": owner, "damaged": what}),
        Ok(QuotaRecord::Owner { blocks, inodes }) => {
            json!({"of": owner, "blocks": account(blocks), "inodes": account(inodes)})
        }
        Ok(QuotaRecord::Settings {
            flags,
            block_grace,
            inode_grace,
        }) => json!({
            "of": owner, "flags": flags, "block_grace": block_grace, "inode_grace": inode_grace,
        }),
    }
}

const AG_TREE: TreeId = TreeId::new(TreeKind::Ag, 0);
const DEFERRED_TREE: TreeId = TreeId::new(TreeKind::Deferred, 0);

/// The blocks of an AG; 0 if it does not exist.
fn len_of(ag: u64, blocks: u64, ag_blocks: u64) -> u64 {
    blocks
        .saturating_sub(ag.saturating_mul(ag_blocks))
        .min(ag_blocks)
}

/// The record of an AG.
fn ag_record(ag: u64, len: u64, v: &[u8]) -> Value {
    match AgRecord::parse(len, v) {
        Err(fault) => json!({"ag": ag, "damaged": fault.to_string()}),
        Ok(r) => json!({
            "ag": ag, "blocks": len, "free": r.free, "longest_run_below": 1u64 << r.longest.min(63),
            "flags": r.flags, "generation": r.generation, "ignorable_sections": hex(r.ignorable),
            "groups": form(&r.groups), "shared": form(&r.shared),
        }),
    }
}

/// Where a tree of an AG is.
fn form(root: &RootForm<'_>) -> Value {
    match root {
        RootForm::Empty => "none".into(),
        RootForm::Inline(_) => "inline".into(),
        RootForm::Ptr(p) => ptr(&Some(*p)),
    }
}

/// An AG with the records of its groups.
fn groups(st: &Rc<NodeStore>, sb: &Superblock, ag: u32) -> Result<Vec<(&'static str, Doc)>> {
    let place = format!("allocation group {ag}");
    let mut v = ValueBuf::new();
    let there = tree_of(AG_TREE, sb.ag_root)
        .get(st, ag.into(), &mut v)
        .map_err(|e| at(&place, e))?;
    if !there {
        bail!("{place} has no record");
    }
    let len = sb.ag_len(ag);
    let rec = AgRecord::parse(len, &v).map_err(|fault| anyhow!("{place}: {fault}"))?;
    let (tree, _) = open_root(ag.into(), TreeKind::Groups, &rec.groups)?;
    let mut fields = vec![
        ("start", json!(sb.ag_start(ag)).into()),
        ("record", ag_record(ag.into(), len, &v).into()),
    ];
    fields.extend(walk(st, tree, move |g, v| group_record(len, g, v)));
    if !rec.shared.is_empty() {
        let (tree, form) = open_root(ag.into(), TreeKind::Shared, &rec.shared)?;
        let records = walk(st, tree, move |key, v| shared_record(len, key, v));
        fields.push(("shared", formed(form, records)));
    }
    Ok(fields)
}

/// The record of shared blocks.
fn shared_record(ag_len: u64, key: u64, v: &[u8]) -> Value {
    match SharedRecord::parse(ag_len, key, v) {
        Err(what) => json!({"block": key, "damaged": what}),
        Ok(r) => json!({"block": key, "blocks": r.blocks, "extra": r.extra}),
    }
}

/// The record of a group, or of full neighbours.
fn group_record(ag_len: u64, g: u64, v: &[u8]) -> Value {
    match GroupRecord::parse(ag_len, g, v) {
        Err(what) => json!({"group": g, "damaged": what}),
        Ok(GroupRecord::Full { groups }) => json!({"group": g, "form": "full", "groups": groups}),
        Ok(GroupRecord::Runs { free, runs }) => {
            let runs: Vec<_> = runs
                .chunks_exact(4)
                .map(|r| {
                    [
                        u16::from_le_bytes([r[0], r[1]]),
                        u16::from_le_bytes([r[2], r[3]]),
                    ]
                })
                .collect();
            json!({"group": g, "form": "free runs", "free": free, "runs": runs})
        }
        Ok(GroupRecord::Bitmap { free, .. }) => {
            json!({"group": g, "form": "bitmap", "free": free})
        }
    }
}

fn brief(ino: u64, r: &InodeRecord<'_>) -> Value {
    json!({
        "inode": ino, "mode": format!("{:o}", r.attrs.mode), "nlink": r.attrs.nlink, "size": r.attrs.size,
        "blocks": r.blocks, "state": r.state, "parent": r.parent, "generation": r.generation,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The attributes of an inode.
pub fn attrs(a: &Attrs) -> Value {
    json!({
        "mode": format!("{:o}", a.mode), "nlink": a.nlink, "uid": a.uid, "gid": a.gid, "rdev": a.rdev,
        "size": a.size, "flags": format!("{:#x}", a.flags), "atime": time(a.atime), "mtime": time(a.mtime),
        "ctime": time(a.ctime), "btime": time(a.btime), "project": a.project, "change": a.change,
        "handle_generation": a.handle_generation, "xflags": format!("{:#x}", a.xflags),
        "extent_hint": a.extent_hint, "home_ag": a.home_ag,
    })
}

fn open_root(owner: u64, kind: TreeKind, root: &RootForm<'_>) -> Result<(Tree, &'static str)> {
    let id = TreeId { kind, owner };
    Ok(match root {
        RootForm::Empty => (Tree::empty(id), "empty"),
        RootForm::Inline(i) => (
            Tree::from_inline(id, i)
                .map_err(|e| at(format!("{} tree of {owner}", kind.name()), e))?,
            "inline",
        ),
        RootForm::Ptr(p) => (Tree::from_ptr(id, *p), "tree"),
    })
}

/// An inode with its extents, entries and attributes.
pub fn inode(dev: Device, ino: u64) -> Result<Doc> {
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
    let (limit, kind) = (sb.blocks, rec.attrs.mode & S_IFMT);
    let mut out: Vec<(&'static str, Doc)> = vec![
        ("inode", json!(ino).into()),
        ("attributes", attrs(&rec.attrs).into()),
        ("blocks", json!(rec.blocks).into()),
        ("state", json!(rec.state).into()),
        ("generation", json!(rec.generation).into()),
    ];
    if rec.state & STATE_TRUNCATE != 0 {
        out.push(("first_block_to_free", json!(rec.cut).into()));
    }
    for (what, section) in [
        ("data", rec.data),
        ("crypt", rec.crypt),
        ("verity", rec.verity),
        ("ignorable_sections", rec.ignorable),
    ] {
        if !section.is_empty() {
            out.push((what, json!(hex(section)).into()));
        }
    }
    if kind == S_IFDIR {
        out.push(("parent", json!(rec.parent).into()));
    }
    if !matches!(rec.extents, RootForm::Empty) {
        let (tree, form) = open_root(ino, TreeKind::Extent, &rec.extents)?;
        let fields = walk(&st, tree, move |key, v| extent(key, v, limit));
        out.push(("extents", formed(form, fields)));
    }
    if !matches!(rec.dir, RootForm::Empty) {
        let (tree, form) = open_root(ino, TreeKind::Dir, &rec.dir)?;
        let fields = walk(&st, tree, move |key, v| entry(ino, kind, key, v));
        out.push(("entries", formed(form, fields)));
    }
    if !matches!(rec.xattr, RootForm::Empty) {
        let (tree, form) = open_root(ino, TreeKind::Xattr, &rec.xattr)?;
        let fields = walk(&st, tree, move |key, v| attribute(ino, key, v));
        out.push(("xattrs", formed(form, fields)));
    }
    Ok(Doc::Fields(out))
}

/// Adds the form of the tree's root.
fn formed(form: &'static str, mut fields: Vec<(&'static str, Doc)>) -> Doc {
    fields.insert(0, ("form", json!(form).into()));
    Doc::Fields(fields)
}

fn extent(key: u64, v: &[u8], limit: u64) -> Value {
    match Extent::parse(key, v, limit) {
        Err(what) => json!({"file_block": key, "damaged": what}),
        Ok(e) => json!({
            "file_block": key, "block": e.phys, "blocks": e.len, "unwritten": e.unwritten,
            "checksums": e.csums, "epoch": e.epoch,
        }),
    }
}

fn entry(ino: u64, kind: u32, key: u64, v: &[u8]) -> Value {
    if kind == S_IFLNK {
        return json!({"target": name(v)});
    }
    match dir::decode(ino, v) {
        Err(_) => json!({"cookie": format!("{key:#x}"), "damaged": true}),
        Ok(e) => {
            json!({"cookie": format!("{key:#x}"), "inode": e.ino, "type": e.kind, "name": name(e.name)})
        }
    }
}

fn attribute(ino: u64, key: u64, v: &[u8]) -> Value {
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
}
