// SPDX-License-Identifier: GPL-2.0

//! The verdict: is what a reader found allowed?

use super::object::{acl, Id, Object, Size, Version, When, Xattrs, ACL};
use super::view::{Seen, View};
use super::{Ack, Cut, Moment, Oracle};
use crate::disk::SIZE;
use std::fmt::Write;

impl Oracle {
    /// Checks that what was found is allowed. The error says what is wrong.
    pub fn judge(&self, cut: Cut, view: &View) -> Result<(), String> {
        let floor = self.floor(cut, |_| true);
        let ceiling = self.ceiling(cut).max(floor);
        self.judge_fs_size(cut, view.blocks)?;
        let from = self
            .moments
            .iter()
            .rposition(|m| m.time <= floor)
            .unwrap_or(0);
        let found = |m: &Moment| {
            m.names.len() == view.names.len()
                && m.names
                    .iter()
                    .zip(&view.names)
                    .all(|(a, b)| a.0 == b.0 && a.1 == b.1 && a.2 == b.2)
        };
        let moment = self.moments[from..]
            .iter()
            .take_while(|m| m.time <= ceiling)
            .find(|m| found(m));
        let Some(moment) = moment else {
            return Err(self.names_text(from, ceiling, view));
        };
        for (_, name, ino) in &moment.names {
            let id = self.objects.iter().rposition(|o| o.ino == *ino);
            let (Some(id), Some(seen)) = (id, view.inodes.get(ino)) else {
                return Err(format!("{name}: inode {ino} was not read"));
            };
            self.judge_inode(id, seen, cut, moment.time)
                .map_err(|e| format!("{name} (inode {ino}): {e}"))?;
        }
        Ok(())
    }

    fn judge_fs_size(&self, cut: Cut, blocks: u64) -> Result<(), String> {
        let sizes = self.allowed_sizes(cut);
        let ceiling = self.ceiling(cut);
        if sizes.iter().any(|s| s.1 == blocks && s.0 <= ceiling) {
            return Ok(());
        }
        Err(format!(
            "the filesystem has {blocks} blocks; promised, and begun later: {sizes:?}, ceiling {ceiling}"
        ))
    }

    fn names_text(&self, from: usize, ceiling: When, view: &View) -> String {
        let mut s = format!(
            "the names match no allowed moment: {:?}; allowed:",
            view.names
        );
        for m in self.moments[from..]
            .iter()
            .take_while(|m| m.time <= ceiling)
        {
            let _ = write!(s, "\n    after operation {}: {:?}", m.time, m.names);
        }
        s
    }

    fn judge_inode(&self, id: Id, seen: &Seen, cut: Cut, names: When) -> Result<(), String> {
        let o = &self.objects[id];
        let mine = |a: &Ack| a.who.is_none_or(|w| w == id);
        let floor = self.floor(cut, mine);
        let timely = self.floor(cut, |a| mine(a) && a.times);
        // An operation that changes nothing (zeroes over a hole) leaves nothing on the medium, and
        // is promised all the same: the state before it is the state after it.
        let promised = self.floor(cut, |_| true);
        let ceiling = self.ceiling(cut).max(promised);
        if seen.mode & 0o170000 != o.mode & 0o170000 || seen.target != o.target {
            return Err(format!("has another type or target: mode {:o}", seen.mode));
        }
        if seen.generation != o.generation {
            return Err(format!(
                "generation number {:08x}, was {:08x}",
                seen.generation, o.generation
            ));
        }
        let counts = o.changes.iter().take_while(|c| c.0 <= timely);
        let least = counts.map(|c| c.1).max().unwrap_or(0);
        if seen.change < least {
            return Err(format!(
                "change counter {}, and {least} was promised",
                seen.change
            ));
        }
        allowed(&o.modes, floor, ceiling, |m| *m == seen.mode)
            .map_err(|v| format!("mode {:o}, allowed {v:?}", seen.mode))?;
        allowed(&o.owners, floor, ceiling, |u| *u == seen.uid)
            .map_err(|v| format!("owner {}, allowed {v:?}", seen.uid))?;
        let list = seen.xattrs.iter().find(|x| x.0 == ACL.as_bytes());
        if list.is_some_and(|l| l.1 != acl(seen.mode)) {
            return Err(format!(
                "mode {:o} with the list of another mode",
                seen.mode
            ));
        }
        let same = |x: &Xattrs| {
            x.len() == seen.xattrs.len()
                && x.iter()
                    .zip(&seen.xattrs)
                    .all(|(a, b)| a.0.as_bytes() == b.0 && *a.1 == b.1)
        };
        // Extended attributes have their place in the order of names (promise 7), so any promise
        // covers them.
        allowed(&o.xattrs, promised, ceiling, same).map_err(|v| {
            let seen = values(seen.xattrs.iter().map(|(n, v)| (&n[..], &v[..])));
            let v = v.iter().map(|(t, x)| {
                let x = x.iter().map(|(n, v)| (n.as_bytes(), &v[..]));
                (*t, values(x))
            });
            format!("xattrs {seen:?}, allowed {:?}", v.collect::<Vec<_>>())
        })?;
        allowed(&o.mtimes, timely, ceiling, |t| *t == seen.mtime)
            .map_err(|v| format!("mtime {:?}, allowed {v:?}", seen.mtime))?;
        if o.mode & 0o170000 != 0o100000 {
            return Ok(());
        }
        let brought = o.brought.iter().filter(|b| **b <= names).max();
        let floor = floor.max(brought.copied().unwrap_or(0));
        let size_at = self.judge_size(o, seen, floor, ceiling)?;
        for b in 0..seen.size.div_ceil(SIZE as u64) {
            self.judge_block(o, seen, b, floor, ceiling, size_at)?;
        }
        Ok(())
    }

    /// Checks the size. Returns the earliest operation after which the file can have had it.
    fn judge_size(
        &self,
        o: &Object,
        seen: &Seen,
        floor: When,
        ceiling: When,
    ) -> Result<When, String> {
        let base = o.sizes.iter().rposition(|s| s.sure <= floor).unwrap_or(0);
        let ok = |s: &&Size| {
            let part =
                |from: u64| (from..s.bytes).contains(&seen.size) && seen.size % SIZE as u64 == 0;
            s.time <= ceiling && (s.bytes == seen.size || s.grew_from.is_some_and(part))
        };
        let found = o.sizes[base..].iter().find(ok);
        found.map(|s| s.time).ok_or_else(|| {
            let v: Vec<_> = o.sizes[base..].iter().map(|s| (s.time, s.bytes)).collect();
            format!(
                "size {}, floor {floor}, ceiling {ceiling}, allowed {v:?}",
                seen.size
            )
        })
    }

    fn judge_block(
        &self,
        o: &Object,
        seen: &Seen,
        block: u64,
        floor: When,
        ceiling: When,
        size_at: When,
    ) -> Result<(), String> {
        let start = block * SIZE as u64;
        let n = (seen.size - start).min(SIZE as u64) as usize;
        let data = seen.blocks.iter().find(|b| b.0 == block);
        let data = data.map_or(&self.zero[..n], |b| &b.1[..n]);
        let Some(versions) = o.blocks.get(&block) else {
            if *data == self.zero[..n] {
                return Ok(());
            }
            return Err(format!(
                "block {block}: {}, but was never written",
                text(data)
            ));
        };
        // The last truncation that must have happened and cut into this block or before it.
        let cut = o.sizes.iter().rev().find(|s| {
            s.cut && s.time <= size_at && s.sure <= size_at && s.bytes < start + n as u64
        });
        let floor = floor.max(cut.map_or(0, |s| s.time));
        let base = versions.iter().rposition(|v| v.sure <= floor).unwrap_or(0);
        let ok = |v: &&Version| v.time <= ceiling && v.data[..n] == *data;
        if versions[base..].iter().any(|v| ok(&v)) {
            return Ok(());
        }
        let v: Vec<_> = versions[base..]
            .iter()
            .map(|v| (v.time, text(&v.data[..n])))
            .collect();
        let first = versions.iter().position(|v| v.data[..n] == *data);
        Err(format!(
            "block {block}: {} ({}), floor {floor}, ceiling {ceiling}, allowed {v:?}",
            text(data),
            match first {
                Some(i) => format!("as of operation {}", versions[i].time),
                None => "a content it never had".to_owned(),
            }
        ))
    }
}

fn allowed<T: Clone>(
    v: &[(When, T)],
    floor: When,
    ceiling: When,
    ok: impl Fn(&T) -> bool,
) -> Result<(), Vec<(When, T)>> {
    let base = v.iter().rposition(|x| x.0 <= floor).unwrap_or(0);
    let all = v[base..].iter().filter(|x| x.0 <= ceiling);
    if all.clone().any(|x| ok(&x.1)) {
        return Ok(());
    }
    Err(all.cloned().collect())
}

/// Extended attributes in short, for messages.
fn values<'a>(x: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<String> {
    x.map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        format!("{name}: {} bytes, {}", value.len(), text(value))
    })
    .collect()
}

/// A block in short, for messages: where its content begins and ends.
fn text(b: &[u8]) -> String {
    let zeroes = b.iter().take_while(|c| **c == 0).count();
    if zeroes == b.len() {
        return "zero".to_owned();
    }
    let end = b.iter().rposition(|c| *c != 0).map_or(0, |i| i + 1);
    format!(
        "bytes {zeroes}..{end} = {:02x?}..",
        &b[zeroes..end.min(zeroes + 8)]
    )
}
