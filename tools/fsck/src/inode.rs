// SPDX-License-Identifier: GPL-2.0

//! Inode records, and what they lead to: extents, directory entries, targets of symbolic links,
//! data.
//!
//! Tests: `tools/engine/tests/checker.rs`, `tools/fsck/tests/check_cost.rs`.

use crate::{Checker, Claim, Edge, Seen};
use kernel::prelude::Result;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind};
use ordofs_engine::engine::format::extent::{Extent, MAX_CSUM_BLOCKS};
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm, STATE_TRUNCATE};
use ordofs_engine::engine::format::le32;
use ordofs_engine::engine::ops::dir::{bucket, check_name, decode, FIRST_COOKIE, SYMLINK_PIECE};
use ordofs_engine::engine::{bytes_to_blocks, SYMLINK_MAX, S_IFDIR, S_IFLNK, S_IFMT};
use ordofs_engine::os::{crc32c, Block};
use std::collections::BTreeMap;

/// How many blocks of data are read at once: those of the largest extent with checksums.
const DATA_RUN: usize = MAX_CSUM_BLOCKS as usize;

/// The tree with this root.
fn open(id: TreeId, root: &RootForm<'_>) -> Result<Tree> {
    match root {
        RootForm::Empty => Ok(Tree::empty(id)),
        RootForm::Inline(items) => Tree::from_inline(id, items),
        RootForm::Ptr(p) => Ok(Tree::from_ptr(id, *p)),
    }
}

/// Sums over the extents of an inode.
#[derive(Default)]
struct Extents {
    blocks: u64,
    end: u64,
    /// The first block that a truncation under way has still to free.
    cut: u64,
    /// The end of the written blocks that stay.
    written_end: u64,
}

impl Checker<'_> {
    /// Opens one of an inode's trees. A damaged inline tree counts as a problem.
    fn inode_tree(&mut self, ino: u64, kind: TreeKind, root: &RootForm<'_>) -> Option<Tree> {
        match open(TreeId { kind, owner: ino }, root) {
            Ok(t) => Some(t),
            Err(_) => {
                self.problem(
                    format_args!("inode {ino}"),
                    format_args!("inline {} tree is damaged", kind.name()),
                );
                None
            }
        }
    }

    /// Checks an inode record, and all that it leads to.
    pub(crate) fn check_inode(&mut self, ino: u64, value: &[u8]) {
        let place = format!("inode {ino}");
        let rec = match InodeRecord::parse(value) {
            Ok(rec) => rec,
            Err(fault) => return self.problem(place, format_args!("malformed record: {fault}")),
        };
        if ino < self.sb.root_ino || ino >= self.sb.next_ino {
            self.problem(&place, "impossible inode number");
        }
        self.generation(&place, rec.generation);
        let a = &rec.attrs;
        if let Some(what) = rec.unsupported() {
            self.problem(&place, what);
        }
        let kind = a.mode & S_IFMT;
        let seen = Seen {
            mode: a.mode,
            nlink: a.nlink,
            state: rec.state,
            parent: rec.parent,
            names: 0,
            named_in: 0,
            entries: 0,
            subdirs: 0,
        };
        self.inodes.insert(ino, seen);
        if kind == S_IFDIR {
            self.report.stats.directories += 1;
        }
        self.check_extents(ino, &rec);
        if let Some(tree) = self.inode_tree(ino, TreeKind::Dir, &rec.dir) {
            if kind == S_IFLNK {
                self.check_symlink(ino, &tree, a.size);
            } else {
                self.check_entries(ino, &tree);
            }
        }
        if let Some(tree) = self.inode_tree(ino, TreeKind::Xattr, &rec.xattr) {
            self.check_xattrs(ino, kind, a.nlink == 0, &tree);
        }
    }

    /// Checks the extent tree of an inode, and its sums against the record.
    fn check_extents(&mut self, ino: u64, rec: &InodeRecord<'_>) {
        let place = format!("inode {ino}");
        let Some(tree) = self.inode_tree(ino, TreeKind::Extent, &rec.extents) else {
            return;
        };
        let truncated = rec.state & STATE_TRUNCATE != 0;
        let mut sum = Extents {
            cut: if truncated { rec.cut } else { u64::MAX },
            ..Extents::default()
        };
        self.walk(&tree, |c, key, value| {
            c.check_extent(ino, key, value, &mut sum)
        });
        self.report.stats.data_blocks += sum.blocks;
        if sum.blocks != rec.blocks {
            self.problem(
                &place,
                format_args!(
                    "counts {} blocks, its extents have {}",
                    rec.blocks, sum.blocks
                ),
            );
        }
        let size_blocks = bytes_to_blocks(rec.attrs.size);
        if sum.written_end > size_blocks {
            self.problem(
                &place,
                format_args!(
                    "has written blocks up to {}, past its size of {size_blocks} blocks",
                    sum.written_end
                ),
            );
        }
    }

    /// Checks an extent record, claims its blocks, and adds it to `sum`.
    fn check_extent(&mut self, ino: u64, key: u64, value: &[u8], sum: &mut Extents) {
        let place = format!("inode {ino}, extent at file block {key}");
        let e = match Extent::parse(key, value, self.sb.blocks) {
            Ok(e) => e,
            Err(what) => return self.problem(place, format_args!("malformed record: {what}")),
        };
        self.report.stats.extents += 1;
        if e.epoch > self.sb.epoch {
            let now = self.sb.epoch;
            self.problem(
                &place,
                format_args!("its epoch is {}, the current one {now}", e.epoch),
            );
        }
        if e.start < sum.end {
            self.problem(
                &place,
                format_args!("overlaps with the one before, which ends at {}", sum.end),
            );
        }
        if e.phys / self.sb.ag_blocks != (e.phys + e.len - 1) / self.sb.ag_blocks {
            self.problem(&place, "crosses the border of an allocation group");
        }
        sum.end = sum.end.max(e.end());
        sum.blocks += e.len;
        if !e.unwritten && e.start < sum.cut {
            sum.written_end = sum.written_end.max(e.end().min(sum.cut));
        }
        self.claim(e.phys, e.len, Claim::Data(ino));
        if self.options.data && e.csums {
            self.check_data(&place, &e, value);
        }
    }

    /// Reads the blocks of an extent and compares them with their checksums.
    fn check_data(&mut self, place: &str, e: &Extent, value: &[u8]) {
        let sums = e.csum_slice(value, e.start, e.end());
        let mut bufs = std::mem::take(&mut self.data);
        for (first, sums) in (0u64..).step_by(DATA_RUN).zip(sums.chunks(4 * DATA_RUN)) {
            let n = sums.len() / 4;
            while bufs.len() < n {
                let Ok(block) = Block::zeroed() else { return };
                bufs.push(block);
            }
            let run = &mut bufs[..n];
            let at_once = self.st.device().read_run(e.phys + first, run);
            for (i, (want, buf)) in sums.chunks_exact(4).zip(run).enumerate() {
                let i = first + i as u64;
                let read = match at_once {
                    Ok(()) => Ok(()),
                    // Find out which blocks cannot be read.
                    Err(_) => self.st.device().read(e.phys + i, buf),
                };
                let want = le32(want, 0).unwrap_or(0);
                self.check_block(place, e, i, read.map(|()| crc32c(0, &buf[..])), want);
            }
        }
        self.data = bufs;
    }

    /// Judges block `i` of an extent by its checksum.
    fn check_block(&mut self, place: &str, e: &Extent, i: u64, have: Result<u32>, want: u32) {
        let block = e.phys + i;
        self.report.stats.verified_blocks += 1;
        match have {
            Err(err) => self.problem(place, format_args!("block {block} cannot be read: {err:?}")),
            Ok(have) if have != want => self.problem(
                place,
                format_args!(
                    "file block {}: data at block {block} has checksum {have:08x}, must be {want:08x}",
                    e.start + i
                ),
            ),
            Ok(_) => {}
        }
    }

    /// Checks the target of a symbolic link: its pieces in order, full but the last, `size` bytes
    /// together.
    fn check_symlink(&mut self, ino: u64, tree: &Tree, size: u64) {
        let place = format!("inode {ino}");
        let (mut len, mut next, mut odd) = (0u64, FIRST_COOKIE, false);
        self.walk(tree, |_, key, value| {
            let full_before = len % SYMLINK_PIECE as u64 == 0;
            odd |= key != next || !full_before || value.len() > SYMLINK_PIECE || value.contains(&0);
            next += 1;
            len += value.len() as u64;
        });
        if odd || len == 0 || len > SYMLINK_MAX as u64 {
            self.problem(&place, "malformed link target");
        }
        if len != size {
            self.problem(
                &place,
                format_args!("its link target has {len} bytes, its size is {size}"),
            );
        }
    }

    /// Checks the entries of a directory one by one, and notes each for [`Checker::check_names`].
    fn check_entries(&mut self, dir: u64, tree: &Tree) {
        let key = self.sb.hash_key;
        // The names of the present bucket: a name may exist only once.
        let mut bucket_names: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut last = 0;
        self.walk(tree, |c, cookie, value| {
            let place = format!("directory {dir}, entry {cookie:#x}");
            let Ok(e) = decode(dir, value) else {
                return c.problem(place, "malformed");
            };
            if check_name(e.name).is_err() {
                c.problem(&place, "impossible name");
            }
            if bucket(key, e.name) >> 8 != cookie >> 8 {
                c.problem(
                    &place,
                    format_args!("{:?} does not belong at this hash", show(e.name)),
                );
            }
            if cookie >> 8 != last {
                bucket_names.clear();
                last = cookie >> 8;
            }
            if let Some(other) = bucket_names.insert(e.name.to_vec(), cookie) {
                c.problem(
                    &place,
                    format_args!("{:?} exists twice, also at {other:#x}", show(e.name)),
                );
            }
            if let Some(seen) = c.inodes.get_mut(dir) {
                seen.entries += 1;
            }
            c.edges.push(Edge {
                dir,
                child: e.ino,
                kind: e.kind,
                cookie,
            });
        });
    }
}

fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
