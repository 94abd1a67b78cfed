// SPDX-License-Identifier: GPL-2.0

//! Names: entries against inodes, link counts, connectivity, orphans.
//!
//! Tests: `tools/engine/tests/checker.rs`, `tools/fsck/tests/check_cost.rs`.

use crate::Checker;
use ordofs_engine::engine::format::inode::STATE_TRUNCATE;
use ordofs_engine::engine::{mode_to_kind, S_IFDIR, S_IFMT};
use std::collections::BTreeMap;

impl Checker<'_> {
    /// Checks the names, when all inodes have been seen.
    pub(crate) fn check_names(&mut self) {
        self.check_edges();
        self.check_links();
        self.check_orphan_list();
        self.check_connectivity();
    }

    /// Checks that each entry leads to an inode of its type, and counts names and subdirectories.
    fn check_edges(&mut self) {
        for e in std::mem::take(&mut self.edges) {
            let place = format!("directory {}, entry {:#x}", e.dir, e.cookie);
            let Some(child) = self.inodes.get_mut(e.child) else {
                self.problem(
                    place,
                    format_args!("points to inode {}, which does not exist", e.child),
                );
                continue;
            };
            child.names += 1;
            child.named_in = e.dir;
            let mode = child.mode;
            if mode_to_kind(mode) != e.kind {
                self.problem(
                    &place,
                    format_args!(
                        "says type {} of inode {}, which has type {}",
                        e.kind,
                        e.child,
                        mode_to_kind(mode)
                    ),
                );
            }
            if mode & S_IFMT == S_IFDIR {
                if let Some(dir) = self.inodes.get_mut(e.dir) {
                    dir.subdirs += 1;
                }
            }
        }
    }

    /// Compares link counts and parents with the names that were found.
    fn check_links(&mut self) {
        let root = self.sb.root_ino;
        match self.inodes.get(root) {
            None => self.problem(
                format_args!("inode {root}"),
                "the root directory does not exist",
            ),
            Some(r) if r.mode & S_IFMT != S_IFDIR => {
                self.problem(format_args!("inode {root}"), "the root is not a directory");
            }
            Some(_) => {}
        }
        let mut found = Vec::new();
        for (ino, i) in self.inodes.iter() {
            let mut say = |what: String| found.push((ino, what));
            if i.mode & S_IFMT != S_IFDIR {
                if u64::from(i.nlink) != i.names {
                    say(format!(
                        "link count is {}, it has {} names",
                        i.nlink, i.names
                    ));
                }
                continue;
            }
            if ino == root {
                if i.names != 0 {
                    say("the root directory has a name".into());
                }
                if i.parent != root {
                    say(format!("the root's parent is {}", i.parent));
                }
            } else if i.nlink == 0 {
                if i.names != 0 || i.entries != 0 {
                    say(format!(
                        "removed directory has {} names and {} entries",
                        i.names, i.entries
                    ));
                }
                continue;
            } else if i.names != 1 {
                say(format!("directory has {} names", i.names));
            } else if i.parent != i.named_in {
                say(format!(
                    "its parent is {} but its name is in {}",
                    i.parent, i.named_in
                ));
            }
            if u64::from(i.nlink) != 2 + i.subdirs {
                say(format!(
                    "link count is {}, must be {}",
                    i.nlink,
                    2 + i.subdirs
                ));
            }
        }
        for (ino, what) in found {
            self.problem(format_args!("inode {ino}"), what);
        }
    }

    /// Checks that the orphan tree has exactly the inodes that need it.
    fn check_orphan_list(&mut self) {
        let mut found = Vec::new();
        for ino in &self.orphans {
            match self.inodes.get(*ino) {
                None => found.push((*ino, "does not exist")),
                Some(i) if i.nlink != 0 && i.state & STATE_TRUNCATE == 0 => {
                    found.push((*ino, "has names and no truncation under way"));
                }
                Some(_) => {}
            }
        }
        for (ino, what) in found.drain(..) {
            self.problem(format_args!("orphan {ino}"), what);
        }
        for (ino, i) in self.inodes.iter() {
            if (i.nlink == 0 || i.state & STATE_TRUNCATE != 0) && !self.orphans.contains(&ino) {
                found.push((ino, "is not in the orphan tree, but must be"));
            }
        }
        for (ino, what) in found {
            self.problem(format_args!("inode {ino}"), what);
        }
    }

    /// Checks that the parents of every directory lead to the root. Looks at each directory once,
    /// however deep it is.
    fn check_connectivity(&mut self) {
        let root = self.sb.root_ino;
        // Whether a directory leads to the root; not yet, for the path that is being followed.
        let mut known = BTreeMap::from([(root, true)]);
        let mut lost = Vec::new();
        for (ino, i) in self.inodes.iter() {
            if i.mode & S_IFMT != S_IFDIR || i.nlink == 0 {
                continue;
            }
            let mut path = Vec::new();
            let mut at = ino;
            let leads = loop {
                // A circle comes back to its own path.
                if let Some(leads) = known.get(&at) {
                    break *leads;
                }
                known.insert(at, false);
                path.push(at);
                match self.inodes.get(at) {
                    Some(x) if x.names > 0 => at = x.named_in,
                    _ => break false,
                }
            };
            if leads {
                known.extend(path.into_iter().map(|ino| (ino, true)));
            } else {
                lost.push(ino);
            }
        }
        for ino in lost {
            self.problem(
                format_args!("inode {ino}"),
                "directory cannot be reached from the root",
            );
        }
    }
}
