// SPDX-License-Identifier: GPL-2.0

//! The model: what must be on disk, as simple maps.

use ordofs_engine::engine::{S_IFDIR, S_IFMT};
use std::collections::BTreeMap;

/// An inode of the model.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub mode: u32,
    pub uid: u32,
    pub nlink: u32,
    /// On-disk size in bytes.
    pub size: u64,
    /// File block to the tag of its content; missing blocks read as zeroes.
    pub blocks: BTreeMap<u64, u64>,
    /// Entries of a directory.
    pub entries: BTreeMap<Vec<u8>, u64>,
    pub parent: u64,
    pub target: Vec<u8>,
    /// Namespace and name to tag and length of the value.
    pub xattrs: BTreeMap<(u8, Vec<u8>), (u64, u32)>,
}

impl Node {
    pub fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }
}

/// The model filesystem.
#[derive(Clone, Debug)]
pub struct Model {
    pub nodes: BTreeMap<u64, Node>,
    pub root: u64,
}

impl Model {
    pub fn new(root: u64) -> Self {
        let node = Node {
            mode: S_IFDIR | 0o755,
            nlink: 2,
            parent: root,
            ..Node::default()
        };
        Self {
            nodes: BTreeMap::from([(root, node)]),
            root,
        }
    }

    pub fn get(&self, ino: u64) -> &Node {
        &self.nodes[&ino]
    }

    pub fn get_mut(&mut self, ino: u64) -> &mut Node {
        self.nodes.get_mut(&ino).expect("inode of the model")
    }

    /// Inodes of which `f` is true, in order.
    pub fn select(&self, f: impl Fn(&Node) -> bool) -> Vec<u64> {
        self.nodes
            .iter()
            .filter(|(_, n)| f(n))
            .map(|(i, _)| *i)
            .collect()
    }

    pub fn dirs(&self) -> Vec<u64> {
        self.select(|n| n.is_dir() && n.nlink > 0)
    }

    pub fn name_in(&mut self, dir: u64, name: &[u8], ino: u64) {
        let is_dir = self.get(ino).is_dir();
        let d = self.get_mut(dir);
        d.entries.insert(name.to_vec(), ino);
        d.nlink += u32::from(is_dir);
        if is_dir {
            self.get_mut(ino).parent = dir;
        }
    }

    pub fn unname(&mut self, dir: u64, name: &[u8]) -> u64 {
        let d = self.get_mut(dir);
        let ino = d.entries.remove(name).expect("name of the model");
        if self.get(ino).is_dir() {
            self.get_mut(dir).nlink -= 1;
        }
        ino
    }

    /// Is `dir` inside `top`, or the same?
    pub fn within(&self, mut dir: u64, top: u64) -> bool {
        loop {
            if dir == top {
                return true;
            }
            if dir == self.root {
                return false;
            }
            dir = self.get(dir).parent;
        }
    }

    /// After a crash or unmount: inodes without names are gone.
    pub fn without_orphans(&self) -> Self {
        let mut m = self.clone();
        m.nodes.retain(|_, n| n.nlink > 0);
        m
    }
}
