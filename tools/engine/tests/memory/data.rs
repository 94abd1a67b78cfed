// SPDX-License-Identifier: GPL-2.0

//! Operations on the data and the space of a file: 40 pieces of two blocks with a hole of one between
//! them, and 50 unwritten blocks at 200.

use super::action::{steps, whole, Action};
use super::bed::{content, with, write, write_out, Bed};
use kernel::prelude::*;
use ordofs_engine::engine::ops::scrub;
use ordofs_engine::engine::ops::trim::TrimRange;
use ordofs_engine::engine::*;

/// The I/O of a write fails.
fn failed_write(b: &Bed, start: u64, direct: bool) -> Result {
    if !direct {
        b.fs.map_write(&b.file, start, 8)?;
    }
    let s = b.fs.start_write(&b.file, start, &[1; 8], direct)?;
    match b
        .fs
        .finish_write(s.ordered, (start + s.len) * 4096, Err(EIO))
    {
        Err(e) if e == EIO => Ok(()),
        r => r.and(Err(EINVAL)),
    }
}

pub const DATA: &[Action] = &[
    steps("truncate", |b| b.fs.set_size(&b.file, 50 * 4096)),
    steps("truncate inside of a block", |b| {
        b.fs.set_size(&b.file, 50 * 4096 + 77)
    }),
    steps("truncate in several transactions", |b| {
        with(&b.fs, &b.root, b"long", |i| b.fs.set_size(i, 0))
    }),
    steps("truncate after a write", |b| {
        b.fs.set_size(&b.file, 30 * 4096)
    })
    .after(|b| write(&b.fs, &b.file, 20, 40, false, 9).expect("write")),
    whole("extend", |b| b.fs.set_size(&b.file, 1 << 31)),
    whole("grow", |b| b.fs.raise_size(&b.file, 1 << 30)),
    steps("punch", |b| b.fs.punch(&b.file, 10, 60)),
    steps("punch inside of an extent", |b| b.fs.punch(&b.file, 210, 5)),
    steps("zero", |b| b.fs.zero_range(&b.file, 10, 60, None)),
    steps("preallocate", |b| {
        b.fs.preallocate(&b.file, 90, 170, Some(300 * 4096))
    }),
    steps("preallocate beyond the end", |b| {
        b.fs.preallocate(&b.file, 240, 100, None)
    }),
    steps("buffered write", |b| {
        write(&b.fs, &b.file, 20, 40, false, 9)
    }),
    steps("buffered write into unwritten blocks", |b| {
        write(&b.fs, &b.file, 210, 20, false, 9)
    }),
    steps("writeback", |b| {
        write_out(&b.fs, &b.file, 115, 90, false, 9)
    })
    .after(|b| {
        b.fs.map_write(&b.file, 115, 90).expect("map_write");
    }),
    steps("direct write", |b| write(&b.fs, &b.file, 190, 40, true, 9)),
    steps("direct write over data", |b| {
        write(&b.fs, &b.file, 31, 10, true, 9)
    }),
    steps("direct write over dirty pages", |b| {
        write(&b.fs, &b.file, 31, 10, true, 9)
    })
    .after(|b| {
        b.fs.map_write(&b.file, 20, 40).expect("map_write");
    }),
    whole("buffered write that fails", |b| failed_write(b, 20, false)),
    whole("direct write that fails", |b| failed_write(b, 31, true)),
    whole("write into unwritten blocks that fails", |b| {
        failed_write(b, 210, true)
    }),
    whole("short write", |b| {
        b.fs.map_write(&b.file, 120, 40)?;
        b.fs.release_delalloc(&b.file, 130, 10);
        b.fs.release_delalloc(&b.file, 121, 1);
        Ok(())
    }),
    whole("reserve for a direct write", |b| {
        assert!(b.fs.reserve_direct(&b.file, 3, 2)?);
        assert!(!b.fs.reserve_direct(&b.file, 3, 3)?);
        Ok(())
    }),
    whole("read", |b| {
        let m = b.fs.map_read(&b.file, 30, 8)?;
        assert_eq!(m.kind, MapKind::Written);
        let crc = content(1, 30).1;
        let verdict = b.fs.verify(&b.file, 30, m.phys, crc)?;
        assert_eq!(verdict, Verdict::Good);
        assert_eq!(b.fs.verify_run(&b.file, 30, m.phys, &[crc])?, 1);
        let m = b.fs.map_read(&b.file, 220, 8)?;
        assert_eq!(m.kind, MapKind::Unwritten);
        Ok(())
    }),
    whole("report", |b| {
        for (at, kind) in [
            (0, MapKind::Written),
            (2, MapKind::Hole),
            (20, MapKind::Delalloc),
            (220, MapKind::Unwritten),
        ] {
            let m = b.fs.map_report(&b.file, at, 8)?;
            assert_eq!(m.kind, kind, "block {at}");
        }
        assert_eq!(b.fs.lost_records(&b.file, 0)?, None);
        Ok(())
    })
    .after(|b| {
        b.fs.map_write(&b.file, 20, 3).expect("map_write");
    }),
    // Discards nothing that anything needs, however far it comes.
    whole("trim", |b| {
        let mut range = TrimRange {
            start: 0,
            len: u64::MAX,
            min_len: 0,
        };
        let mut trim = b.fs.trim_begin(&mut range)?;
        while b.fs.trim_step(&mut trim, &mut || false)? {}
        Ok(())
    })
    .after(|b| b.fs.punch(&b.file, 200, 50).expect("punch")),
    whole("scrub", |b| {
        let mut s = b.fs.scrub_start(scrub::From::Start, 0)?;
        let all = (0..100).try_for_each(|_| b.fs.scrub_step(&mut s).map(drop));
        let cancelled = b.fs.scrub_cancel();
        b.fs.scrub_abandoned();
        all.and(cancelled)
    }),
    // A look at a counter.
    whole("blocks", |b| {
        let n = b.file.blocks();
        assert!((130..=150).contains(&n), "{n} blocks");
        Ok(())
    })
    .after(|b| {
        b.fs.map_write(&b.file, 115, 20).expect("map_write");
    })
    .frugal(),
    whole("what was lost", |b| {
        let before = b.fs.losses(&b.file);
        b.fs.lost_since(&b.file, before, 0, 1000)
    })
    .frugal(),
    whole("release maps", |b| {
        b.fs.release_maps(&b.file, 30, 9);
        Ok(())
    })
    .frugal(),
];
