// SPDX-License-Identifier: GPL-2.0

//! Devices with other AG records than a filesystem would write.

use super::counting::device;
use ordofs_engine::engine::alloc::ag;
use ordofs_engine::engine::btree::{NodeSink, NodeStore, Places, Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::ag::{run_class, AgRecord, RootForm};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Shared};
use std::vec::Vec;

/// The record of an AG.
pub struct Ag {
    pub free: u64,
    /// The longest free run.
    pub longest: u64,
    /// Its groups: key, record.
    pub groups: Vec<(u64, Vec<u8>)>,
}

/// Writes nodes to consecutive blocks, in the newest generation.
pub struct Sink<'a> {
    pub disk: &'a MemDisk,
    pub sb: &'a Superblock,
    pub next: u64,
}

impl NodeSink for Sink<'_> {
    fn node_id(&self) -> u64 {
        self.sb.node_id
    }
    fn generation(&self) -> u64 {
        self.sb.generation
    }
    fn alloc(&mut self) -> kernel::prelude::Result<Places> {
        self.next += 1;
        Ok(Places::one(self.next - 1))
    }
    fn write(&mut self, places: Places, image: Block) -> kernel::prelude::Result {
        device(|| self.disk.device().write(&[(places.first, &image)]))
    }
}

/// Gives each AG that `f` has a record for that one. The nodes of the AG tree go behind all others, and
/// the deferred tree is forgotten.
pub fn rewrite(disk: &MemDisk, f: impl Fn(u64) -> Option<Ag>) {
    let mut sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
    let store = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.node_id, 64).unwrap();
    let id = TreeId::new(TreeKind::Ag, 0);
    let mut new = Tree::empty(id);
    let mut free = 0;
    let image = disk.image();
    let nodes = image.iter().filter(|(_, d)| d.starts_with(b"ORDN"));
    let next = nodes.map(|(b, _)| *b).max().unwrap() + 1;
    let mut sink = Sink {
        disk,
        sb: &sb,
        next,
    };
    tree_of(id, sb.ag_root)
        .walk(&store, &mut |item| {
            let WalkItem::Item(key, v) = item else {
                return Ok(());
            };
            let len = sb.ag_len(key as u32);
            let Some(ag) = f(key) else {
                free += u64::from(AgRecord::decode(key, len, v)?.free);
                return new.insert(&store, key, v);
            };
            free += ag.free;
            let mut tree = Tree::empty(ag::Ag::tree_id(key));
            for (g, record) in &ag.groups {
                tree.insert(&store, *g, record)?;
            }
            let items = tree.inline_image(320)?;
            let root = match &items {
                Some(items) => RootForm::Inline(items),
                None => RootForm::Ptr(tree.snapshot()?.write_out(&mut sink)?.unwrap()),
            };
            let rec = AgRecord {
                free: ag.free as u32,
                longest: run_class(ag.longest),
                flags: 0,
                groups: root,
                ..AgRecord::unused(len, sb.generation)
            };
            let mut v = kernel::prelude::KVec::new();
            rec.encode(&mut v)?;
            new.insert(&store, key, &v)
        })
        .unwrap();
    let root = new.snapshot().unwrap().write_out(&mut sink).unwrap();
    (sb.ag_root, sb.deferred_root, sb.free) = (root, None, free);
    sb.write(&disk.device()).unwrap();
}
