// SPDX-License-Identifier: GPL-2.0

//! Data: pages that get dirty, writeback, direct writes, and the operations on space.

use super::super::content::{fill, pick};
use super::{Cache, Driver};
use kernel::prelude::{EIO, ENOSPC};
use ordofs_engine::engine::*;
use ordofs_engine::os::{crc32c, Block};
use std::collections::BTreeMap;
use std::vec::Vec as StdVec;

impl Driver {
    /// Pages are dropped from the cache before space operations, as the glue does.
    pub(super) fn forget_pages(&mut self, ino: u64, start: u64, len: u64) {
        if let Some(c) = self.cache.get_mut(&ino) {
            c.dirty
                .retain(|b, _| *b < start || *b >= start.saturating_add(len));
        }
    }

    pub(super) fn erase(&mut self, ino: u64, start: u64, len: u64) {
        let end = start.saturating_add(len);
        self.model
            .get_mut(ino)
            .blocks
            .retain(|b, _| *b < start || *b >= end);
    }

    pub(super) fn cached(&mut self, ino: u64) -> &mut Cache {
        let size = self.model.get(ino).size;
        let fs = self.fs();
        let new = || Cache {
            inode: fs.iget(ino).expect("iget"),
            size,
            dirty: BTreeMap::new(),
        };
        let c = self.cache.entry(ino).or_insert_with(new);
        c.size = c.size.max(size);
        c
    }

    /// The VFS drops a clean inode.
    pub(super) fn uncache(&mut self, ino: u64) {
        if let Some(c) = self.cache.remove(&ino) {
            self.fs().iput(c.inode);
        }
    }

    /// The log has, or may have, the file as it is now.
    pub(super) fn recorded(&mut self, ino: u64) {
        let node = self.model.get(ino).clone();
        self.fsynced.entry(ino).or_default().push(node);
    }

    pub(super) fn set_size(&mut self, file: u8, bytes: u64) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        let from = bytes_to_blocks(bytes);
        self.forget_pages(ino, from, u64::MAX);
        // A truncation inside of a block brings the file's data along into the log.
        self.recorded(ino);
        let r = self.with(ino, |fs, i| fs.set_size(i, bytes));
        r.expect("truncate must not fail");
        self.erase(ino, from, u64::MAX);
        self.model.get_mut(ino).size = bytes;
        self.cached(ino).size = bytes;
    }

    pub(super) fn punch(&mut self, file: u8, start: u64, len: u64) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        self.forget_pages(ino, start, len);
        let r = self.with(ino, |fs, i| fs.punch(i, start, len));
        r.expect("punch must not fail");
        self.erase(ino, start, len);
    }

    pub(super) fn preallocate(&mut self, file: u8, start: u64, len: u64, keep: bool) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        let end = (start + len) * 4096;
        let r = self.with(ino, |fs, i| {
            fs.preallocate(i, start, len, (!keep).then_some(end))
        });
        if self.check("preallocate", r).is_some() && !keep {
            let n = self.model.get_mut(ino);
            n.size = n.size.max(end);
        }
    }

    pub(super) fn zero(&mut self, file: u8, start: u64, len: u64) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        self.forget_pages(ino, start, len);
        let r = self.with(ino, |fs, i| fs.zero_range(i, start, len, None));
        // Zeroes first, space second: without space it is a hole.
        let _ = self.check("zero_range", r);
        self.erase(ino, start, len);
    }

    pub(super) fn next_tag(&mut self) -> u64 {
        self.tag += 1;
        self.tag
    }

    /// A buffered write: makes the range writable, then dirties it (or does not).
    pub(super) fn write(&mut self, file: u8, start: u64, len: u64, dirty: bool) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        let mut at = start;
        while at < start + len {
            let r = self.with(ino, |fs, i| fs.map_write(i, at, start + len - at));
            let Some(w) = self.check("map_write", r) else {
                break;
            };
            let m = w.map;
            assert!(
                m.start <= at && at < m.start + m.len,
                "map_write at {at} gave {m:?}"
            );
            assert!(
                matches!(m.kind, MapKind::Delalloc | MapKind::Unwritten),
                "{m:?}"
            );
            let end = (m.start + m.len).min(start + len);
            for b in at..end {
                let was = self.cached(ino).dirty.contains_key(&b);
                if dirty {
                    let tag = self.next_tag();
                    self.cached(ino).dirty.insert(b, tag);
                } else if !was && m.kind == MapKind::Delalloc {
                    self.with(ino, |fs, i| fs.release_delalloc(i, b, 1));
                }
            }
            at = end;
        }
        if dirty && at > start {
            let c = self.cached(ino);
            c.size = c.size.max(at * 4096);
        }
    }

    /// Writes dirty pages back; with `fail` the device says EIO and the pages are lost.
    pub(super) fn writeback(&mut self, ino: u64, fail: bool) {
        let dirty = std::mem::take(&mut self.cached(ino).dirty);
        let all: StdVec<(u64, u64)> = dirty.into_iter().collect();
        let mut rest = &all[..];
        while let Some((start, _)) = rest.first() {
            let run = rest
                .iter()
                .zip(*start..)
                .take_while(|((b, _), want)| b == want)
                .count();
            let (now, later) = rest.split_at(run);
            self.write_run(ino, now, false, fail, false);
            rest = later;
        }
    }

    /// Writes a run of blocks out; true if all of it could be started.
    pub(super) fn write_run(
        &mut self,
        ino: u64,
        run: &[(u64, u64)],
        direct: bool,
        fail: bool,
        sync: bool,
    ) -> bool {
        let size = self.cached(ino).size;
        let data: StdVec<Block> = run.iter().map(|(_, t)| fill(*t)).collect();
        let sums: StdVec<u32> = data.iter().map(|b| crc32c(0, &b[..])).collect();
        let mut i = 0;
        while i < run.len() {
            let r = self.with(ino, |fs, inode| {
                fs.start_write(inode, run[i].0, &sums[i..], direct)
            });
            let s = match r {
                Ok(s) => s,
                Err(e) if direct && e == ENOSPC => {
                    self.nospace += 1;
                    return false;
                }
                Err(e) => panic!("start_write of inode {ino} block {}: {e:?}", run[i].0),
            };
            let n = s.len as usize;
            assert!(
                n > 0 && i + n <= run.len(),
                "start_write gave {n} blocks of {}",
                run.len() - i
            );
            let fs = self.fs();
            if !fail {
                let reqs: StdVec<(u64, &Block)> = data[i..i + n]
                    .iter()
                    .zip(s.phys..)
                    .map(|(b, p)| (p, b))
                    .collect();
                fs.node_store().device().write(&reqs).expect("device write");
            }
            if sync {
                // The write in flight is in no transaction yet.
                self.sync();
            }
            let new_size = size.min((run[i].0 + s.len) * 4096);
            let r = fs.finish_write(s.ordered, new_size, if fail { Err(EIO) } else { Ok(()) });
            if fail {
                assert_eq!(r, Err(EIO));
            } else {
                r.expect("finish_write");
                let node = self.model.get_mut(ino);
                node.blocks.extend(run[i..i + n].iter().copied());
                node.size = node.size.max(new_size);
                self.fuzzy.insert(ino);
            }
            i += n;
        }
        true
    }

    pub(super) fn direct(&mut self, file: u8, start: u64, len: u64, fail: bool, sync: bool) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        self.writeback(ino, false);
        let run: StdVec<(u64, u64)> = (start..start + len).map(|b| (b, self.next_tag())).collect();
        let c = self.cached(ino);
        let before = c.size;
        c.size = c.size.max((start + len) * 4096);
        self.write_run(ino, &run, true, fail, sync);
        let on_disk = self.model.get(ino).size;
        self.cached(ino).size = before.max(on_disk);
    }
}
