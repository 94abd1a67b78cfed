// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: each attribute has all its pieces, in order and of the right length, is at
//! the place that its hash gives, and exists once.
//!
//! Tests: `tools/engine/tests/checker.rs`, `tools/engine/tests/xattr.rs`.

use crate::Checker;
use ordofs_engine::engine::btree::{Tree, MAX_VALUE};
use ordofs_engine::engine::ops::xattr::{bucket, decode, ACL_DEFAULT};
use ordofs_engine::engine::S_IFDIR;
use std::collections::BTreeSet;

/// The attribute that the walk is in.
struct Open {
    next_key: u64,
    /// How many bytes of its value are still missing.
    rest: usize,
}

impl Checker<'_> {
    /// Checks the attributes of an inode of type `kind`. One that is being deleted may have lost
    /// its first items.
    pub(crate) fn check_xattrs(&mut self, ino: u64, kind: u32, deleting: bool, tree: &Tree) {
        let hash_key = self.sb.hash_key;
        let mut open: Option<Open> = None;
        let mut names = BTreeSet::new();
        let mut last = None;
        self.walk(tree, |c, key, value| {
            let place = format!("inode {ino}, xattr item {key:#x}");
            if key & 0xff != 0 {
                let full = |o: &Open| o.next_key == key && value.len() == o.rest.min(MAX_VALUE);
                match open.take() {
                    Some(o) if full(&o) => {
                        open = Some(Open {
                            next_key: key.wrapping_add(1),
                            rest: o.rest - value.len(),
                        });
                    }
                    None if deleting && last.is_none() => {}
                    _ => c.problem(
                        &place,
                        "a piece that does not belong there, or of a wrong length",
                    ),
                }
                return;
            }
            c.check_end(ino, open.take());
            let Ok(head) = decode(ino, value) else {
                return c.problem(place, "malformed");
            };
            c.report.stats.xattrs += 1;
            let name = String::from_utf8_lossy(head.name).into_owned();
            if bucket(hash_key, head.index, head.name) >> 16 != key >> 16 {
                c.problem(
                    &place,
                    format_args!("{name:?} does not belong at this hash"),
                );
            }
            if head.index == ACL_DEFAULT && kind != S_IFDIR {
                c.problem(&place, "a default ACL, but no directory");
            }
            if last != Some(key >> 16) {
                names.clear();
                last = Some(key >> 16);
            }
            if !names.insert((head.index, head.name.to_vec())) {
                c.problem(&place, format_args!("{name:?} is there twice"));
            }
            open = Some(Open {
                next_key: key.wrapping_add(1),
                rest: head.len - head.start.len(),
            });
        });
        self.check_end(ino, open);
    }

    /// Reports an attribute that ends before its last piece.
    fn check_end(&mut self, ino: u64, open: Option<Open>) {
        if let Some(o) = open.filter(|o| o.rest > 0) {
            self.problem(
                format_args!("inode {ino}, xattr item {:#x}", o.next_key),
                format_args!("missing; {} bytes of a value are lost", o.rest),
            );
        }
    }
}
