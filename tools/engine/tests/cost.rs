// SPDX-License-Identifier: GPL-2.0

//! What an operation costs must not depend on what happened before it. Costs are counted, not timed:
//! look-ups in the engine's maps, bytes of memory asked for, blocks written.

mod common;

use common::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::map::steps;
use ordofs_engine::os::record::{Op, Recorder};
use ordofs_engine::os::{on_exclusive, Shared};
use rustix::time::{clock_gettime, ClockId};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use std::vec::Vec;

struct Counting;

std::thread_local! {
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

fn count(n: usize) {
    // A thread that ends has no counter any more.
    let _ = BYTES.try_with(|b| b.set(b.get() + n as u64));
}

// SAFETY: Everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        count(l.size());
        // SAFETY: As the caller promises.
        unsafe { System.alloc(l) }
    }
    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        // SAFETY: As the caller promises.
        unsafe { System.dealloc(p, l) }
    }
    unsafe fn realloc(&self, p: *mut u8, l: Layout, n: usize) -> *mut u8 {
        count(n);
        // SAFETY: As the caller promises.
        unsafe { System.realloc(p, l, n) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Look-ups, bytes of memory.
#[derive(Clone, Copy, Debug)]
struct Cost(u64, u64);

fn cost(f: impl FnOnce()) -> Cost {
    let before = (steps(), BYTES.get());
    f();
    Cost(steps() - before.0, BYTES.get() - before.1)
}

impl Cost {
    /// At most 1.2 times the other, in everything.
    fn assert_like(self, first: Cost, what: &str) {
        let ok = |last: u64, first: u64| last * 10 <= first * 12;
        assert!(
            ok(self.0, first.0) && ok(self.1, first.1),
            "{what}: first {first:?}, last {self:?} (look-ups, bytes)"
        );
    }
}

const BLOCKS: u64 = 4 << 20;
/// What fits into the largest log: without a commit there can be no more fsyncs.
const FSYNCS: u64 = 16_000;

fn append(fs: &Fs, f: &Shared<Inode>, at: u64) {
    dirty(fs, f, at, 1).unwrap();
    let s = fs.start_write(f, at, &[at as u32], false).unwrap();
    fs.finish_write(s.ordered, block_to_bytes(at + 1), Ok(()))
        .unwrap();
}

/// Appends 4 KiB and syncs, again and again, and compares the last thousand with the first.
fn appends(before: impl Fn(&Fs, &Shared<Inode>), at: impl Fn(u64) -> u64) {
    let disk = make(BLOCKS);
    let rec = Recorder::new(disk);
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    before(&fs, &f);
    fs.sync().unwrap();
    let generation = fs.durable_generation();
    let mut costs = Vec::new();
    let mut written = Vec::new();
    for thousand in 0..FSYNCS / 1000 {
        let from = rec.len();
        costs.push(cost(|| {
            for i in 0..1000 {
                append(&fs, &f, at(thousand * 1000 + i));
                fs.sync_inode(&f).unwrap();
            }
        }));
        let ops = rec.ops().split_off(from);
        written.push(ops.iter().filter(|o| matches!(o, Op::Write { .. })).count());
    }
    assert_eq!(fs.durable_generation(), generation, "there was a commit");
    let last = *costs.last().unwrap();
    last.assert_like(costs[0], "append and fsync");
    assert!(written.iter().all(|n| *n == written[0]), "{written:?}");
    fs.iput(f);
    fs.iput(root);
}

#[test]
fn an_fsync_costs_what_it_saves() {
    appends(|_, _| (), |i| i);
}

/// Every other block: no extent map can be joined to another.
#[test]
fn an_fsync_of_scattered_blocks_costs_what_it_saves() {
    appends(|_, _| (), |i| 2 * i);
}

/// In preallocated space.
#[test]
fn an_fsync_of_preallocated_blocks_costs_what_it_saves() {
    appends(|fs, f| fs.preallocate(f, 0, FSYNCS, None).unwrap(), |i| i);
}

#[test]
fn stat_costs_the_same_whatever_is_dirty() {
    let disk = make(BLOCKS);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    // Every third block dirty, half of them over a hole.
    let n = 60_000;
    for i in (0..n).filter(|i| i % 2 == 0) {
        append(&fs, &f, 3 * i);
    }
    let few = cost(|| assert_eq!(f.blocks(), n / 2));
    for i in 0..n {
        dirty(&fs, &f, 3 * i, 1).unwrap();
    }
    let many = cost(|| assert_eq!(f.blocks(), n));
    assert!(many.0 <= few.0 + 2, "{few:?} {many:?}");
    // In flight they count as well, until the write has failed.
    let s = fs.start_write(&f, 3, &[7], false).unwrap();
    assert_eq!(f.blocks(), n);
    fs.finish_write(s.ordered, 0, Err(kernel::prelude::EIO))
        .unwrap_err();
    assert_eq!(f.blocks(), n - 1);
    fs.release_delalloc(&f, 0, u64::MAX);
    assert_eq!(f.blocks(), n / 2);
    fs.iput(f);
    fs.iput(root);
}

std::thread_local! {
    /// CPU time of this thread when it began to close the barrier.
    static BEGIN: Cell<Option<Duration>> = const { Cell::new(None) };
    /// For how long it has had it closed since this was zero.
    static CLOSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// A commit does nothing for each dirty inode while the barrier is closed. That cannot be counted in
/// look-ups or memory, so the CPU time is measured: what the scheduler adds to it, it does not add to
/// all attempts.
#[test]
fn the_barrier_is_closed_for_many_inodes_as_long_as_for_one() {
    // As many as one transaction may have.
    const INODES: u64 = 8000;
    const ATTEMPTS: u32 = 10;
    let disk = make(1 << 18);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let new = |i: u64| {
        fs.create(&root, i.to_string().as_bytes(), &regular())
            .expect("room")
    };
    let all: Vec<_> = (0..INODES).map(new).collect();
    fs.sync().unwrap();
    on_exclusive(Some(|taken| match taken {
        true => BEGIN.set(Some(cpu())),
        false => {
            if let Some(begin) = BEGIN.take() {
                CLOSED.set(CLOSED.get() + (cpu() - begin));
            }
        }
    }));
    let closed = |n: usize| {
        let of = |mode| {
            let change = AttrChange {
                mode: Some(0o600 | mode % 8),
                ..AttrChange::default()
            };
            let generation = fs.running_generation();
            for inode in all.iter().take(n) {
                fs.set_attrs(inode, &change).unwrap();
            }
            // The caches are as cold for few as for many.
            all.iter().for_each(|i| assert_ne!(i.attrs().mode, 0));
            CLOSED.set(Duration::ZERO);
            fs.commit_all().unwrap();
            // Nothing but this has committed.
            assert_eq!(fs.running_generation(), generation + 1);
            CLOSED.get()
        };
        (0..ATTEMPTS).map(of).min().unwrap()
    };
    let (few, many) = (closed(1), closed(INODES as usize));
    on_exclusive(None);
    println!("closed for {few:?}, with {INODES} inodes for {many:?}");
    assert!(few > Duration::ZERO, "the clock is too coarse");
    assert!(
        many < 2 * few + Duration::from_micros(8),
        "{few:?} {many:?}"
    );
    all.into_iter().for_each(|f| fs.iput(f));
    fs.iput(root);
}
