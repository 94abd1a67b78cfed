// SPDX-License-Identifier: GPL-2.0

//! Compares the content of a file with what must be in it.

use crate::mapping::Mapping;
use crate::plan::{Plan, Zone};
use crate::stamp::{Unit, UNIT};
use crate::sys::{self, Aligned, PAGE};
use crate::table::{Cell, Table};
use anyhow::{Context, Result};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Mismatches that are printed per file.
const SHOWN: u64 = 6;

/// What is wrong with a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Zeroes where the store with that number must be.
    Lost(u64),
    /// The older store `found` where `newest` must be.
    Stale { found: u64, newest: u64 },
    /// A store that a punch, zero or truncate had removed.
    Back(u64),
    /// A store that has not been made.
    Future(u64),
    /// Data that belongs elsewhere in this file.
    Misplaced(u64),
    /// Data of another file.
    Foreign { file: u32, offset: u64 },
    /// Neither zeroes nor a stamp.
    Torn([u64; 4]),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(n) => write!(f, "lost: zeroes where store {n} must be"),
            Self::Stale { found, newest } => {
                write!(f, "stale: store {found} where store {newest} must be")
            }
            Self::Back(n) => write!(f, "came back: store {n} had been removed"),
            Self::Future(n) => write!(f, "impossible: store {n} has not been made"),
            Self::Misplaced(at) => write!(f, "misplaced: belongs at byte {at}"),
            Self::Foreign { file, offset } => {
                write!(f, "of another file: id {file:08x}, byte {offset}")
            }
            Self::Torn(w) => write!(
                f,
                "torn: {:016x} {:016x} {:016x} {:016x}",
                w[0], w[1], w[2], w[3]
            ),
        }
    }
}

/// Judges the unit at byte `offset` after the last store.
pub fn judge(unit: Unit, offset: u64, file: u32, c: Cell, contested: bool) -> Option<Fault> {
    let s = match unit {
        Unit::Zero if contested || c.started <= c.ceil => return None,
        Unit::Zero => return Some(Fault::Lost(c.started)),
        Unit::Garbage(w) => return Some(Fault::Torn(w)),
        Unit::Stamp(s) => s,
    };
    if s.file != file {
        Some(Fault::Foreign {
            file: s.file,
            offset: s.offset,
        })
    } else if s.offset != offset {
        Some(Fault::Misplaced(s.offset))
    } else if s.seq > c.started {
        Some(Fault::Future(s.seq))
    } else if s.seq <= c.floor {
        Some(Fault::Back(s.seq))
    } else if s.seq < c.started && !contested {
        Some(Fault::Stale {
            found: s.seq,
            newest: c.started,
        })
    } else {
        None
    }
}

/// Judges a unit while other workers store. `before` is the cell before the unit was read, `after`
/// the one after it.
pub fn judge_live(
    unit: Unit,
    offset: u64,
    file: u32,
    before: Cell,
    after: Cell,
    strict: bool,
) -> Option<Fault> {
    let known = if strict { before.done } else { 0 };
    let (seq, other) = match unit {
        Unit::Zero => (0, None),
        Unit::Stamp(s) if s.seq <= after.started => (
            s.seq,
            judge(unit, offset, file, Cell { floor: 0, ..after }, true),
        ),
        _ => (known, judge(unit, offset, file, after, true)),
    };
    match other {
        Some(f) => Some(f),
        None if seq == 0 && known > 0 => Some(Fault::Lost(known)),
        None if seq < known => Some(Fault::Stale {
            found: seq,
            newest: known,
        }),
        None => None,
    }
}

/// One way to look at the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// read(2)
    Read,
    /// A new mapping.
    Mmap,
    /// read(2) with O_DIRECT.
    Direct,
    /// read(2) after the cache was dropped.
    Reread,
}

fn read_pages(file: &File, pages: Range<u64>, mut f: impl FnMut(u64, &[u8])) -> Result<()> {
    const BATCH: u64 = 32;
    let mut buf = Aligned::new(BATCH as usize);
    let mut page = pages.start;
    while page < pages.end {
        let n = BATCH.min(pages.end - page) as usize * PAGE;
        let at = page * PAGE as u64;
        let part = &mut buf.bytes_mut()[..n];
        file.read_exact_at(part, at)
            .with_context(|| format!("reading {n} bytes at byte {at}"))?;
        for (i, data) in part.chunks_exact(PAGE).enumerate() {
            f(page + i as u64, data);
        }
        page += BATCH;
    }
    Ok(())
}

/// The pages `0..pages` in as many parts as there are processors.
fn parts(pages: u64) -> impl Iterator<Item = Range<u64>> {
    let n = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    (0..n).map(move |i| pages * i / n..pages * (i + 1) / n)
}

/// A look at a whole file, shared by the threads that take it.
struct Look<'a> {
    path: &'a Path,
    file: File,
    plan: &'a Plan,
    table: &'a Table,
    view: View,
    /// Bad units.
    bad: AtomicU64,
}

impl Look<'_> {
    /// Looks up once what holds for all units of a page or of a cell.
    fn page(&self, page: u64, unit_at: impl Fn(usize) -> Unit) {
        let (plan, path, view) = (self.plan, self.path.display(), self.view);
        let contested = plan.zone(page) == Zone::Contested;
        for slot in 0..plan.per_page {
            let cell = self.table.cell(self.table.index(page, slot));
            let begin = slot * plan.cell();
            for at in (begin..begin + plan.cell()).step_by(UNIT) {
                let offset = page * PAGE as u64 + at as u64;
                let unit = unit_at(at);
                let Some(fault) = judge(unit, offset, plan.file, cell, contested) else {
                    continue;
                };
                if self.bad.fetch_add(1, Ordering::Relaxed) < SHOWN {
                    ordofs_cli::complain!("{path} by {view:?}: page {page} byte {offset}: {fault}");
                    ordofs_cli::complain!("  cell: {cell:?}, found {unit:?}");
                }
            }
        }
    }

    fn pages(&self, pages: Range<u64>, map: Option<&Mapping>) -> Result<()> {
        match map {
            Some(map) => {
                for page in pages {
                    self.page(page, |at| map.load(page * PAGE as u64 + at as u64));
                }
                Ok(())
            }
            None => read_pages(&self.file, pages, |page, data| {
                self.page(page, |at| Unit::from_bytes(&data[at..at + UNIT]));
            }),
        }
    }
}

/// Checks the whole file through `view`; returns the number of bad units.
pub fn check_file(path: &Path, plan: &Plan, table: &Table, view: View) -> Result<u64> {
    let look = Look {
        path,
        file: sys::open(path, false, view == View::Direct)?,
        plan,
        table,
        view,
        bad: AtomicU64::new(0),
    };
    let (size, want) = (look.file.metadata()?.len(), plan.bytes());
    let wrong_size = u64::from(size != want);
    if wrong_size != 0 {
        ordofs_cli::complain!("{}: size is {size}, must be {want}", path.display());
    }
    let map = match view {
        View::Mmap => Some(Mapping::new(&look.file, want as usize)?),
        _ => None,
    };
    if view == View::Reread {
        sys::drop_cache(&look.file);
    }
    std::thread::scope(|s| {
        let all: Vec<_> = parts(plan.pages)
            .map(|part| s.spawn(|| look.pages(part, map.as_ref())))
            .collect();
        all.into_iter().try_for_each(|t| match t.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let bad = look.bad.into_inner();
    if bad > SHOWN {
        let more = bad - SHOWN;
        ordofs_cli::complain!("{} by {view:?}: {more} more bad units", path.display());
    }
    Ok(bad + wrong_size)
}

/// Checksum of every page and sequence number at the start of every cell, as they are on disk.
pub fn observe(file: &File, pages: u64, per_page: usize) -> Result<(Vec<u32>, Vec<u64>)> {
    let (mut sums, mut seqs) = (Vec::new(), Vec::new());
    read_pages(file, 0..pages, |_, data| {
        sums.push(crc32c::crc32c(data));
        for cell in data.chunks_exact(PAGE / per_page) {
            seqs.push(match Unit::from_bytes(&cell[..UNIT]) {
                Unit::Stamp(s) => s.seq,
                _ => 0,
            });
        }
    })?;
    Ok((sums, seqs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;

    fn cell(started: u64, floor: u64, ceil: u64) -> Cell {
        Cell {
            started,
            done: started,
            floor,
            ceil,
        }
    }

    fn unit(seq: u64) -> Unit {
        Unit::Stamp(Stamp {
            file: 1,
            writer: 0,
            offset: 64,
            seq,
        })
    }

    fn at(u: Unit, c: Cell) -> Option<Fault> {
        judge(u, 64, 1, c, false)
    }

    #[test]
    fn every_kind_of_damage_is_told_apart() {
        assert_eq!(at(unit(3), cell(3, 0, 0)), None);
        assert_eq!(at(Unit::Zero, cell(0, 0, 0)), None);
        assert_eq!(at(Unit::Zero, cell(3, 0, 0)), Some(Fault::Lost(3)));
        assert_eq!(
            at(unit(2), cell(3, 0, 0)),
            Some(Fault::Stale {
                found: 2,
                newest: 3
            })
        );
        assert_eq!(at(unit(4), cell(3, 0, 0)), Some(Fault::Future(4)));
        assert_eq!(
            judge(unit(3), 96, 1, cell(3, 0, 0), false),
            Some(Fault::Misplaced(64))
        );
        let foreign = Some(Fault::Foreign {
            file: 1,
            offset: 64,
        });
        assert_eq!(judge(unit(3), 64, 2, cell(3, 0, 0), true), foreign);
        assert!(matches!(
            at(Unit::Garbage([1; 4]), cell(3, 0, 0)),
            Some(Fault::Torn(_))
        ));
    }

    #[test]
    fn removals_are_linearizable() {
        // Stores 1 and 2 ended before a punch began, 3 overlapped with it, 4 came after it.
        assert_eq!(at(unit(2), cell(2, 2, 3)), Some(Fault::Back(2)));
        assert_eq!(at(Unit::Zero, cell(3, 2, 3)), None);
        assert_eq!(at(unit(3), cell(3, 2, 3)), None);
        assert_eq!(at(Unit::Zero, cell(4, 2, 3)), Some(Fault::Lost(4)));
    }

    #[test]
    fn a_reader_may_not_see_what_is_older_than_what_was_done() {
        let before = Cell {
            started: 2,
            done: 2,
            floor: 0,
            ceil: 0,
        };
        let after = Cell {
            started: 3,
            ..before
        };
        let live = |u, strict| judge_live(u, 64, 1, before, after, strict);
        assert_eq!(live(unit(2), true), None);
        assert_eq!(live(unit(3), true), None);
        assert_eq!(
            live(unit(1), true),
            Some(Fault::Stale {
                found: 1,
                newest: 2
            })
        );
        assert_eq!(live(unit(1), false), None);
        assert_eq!(live(Unit::Zero, true), Some(Fault::Lost(2)));
        assert_eq!(live(unit(4), false), Some(Fault::Future(4)));
    }
}
