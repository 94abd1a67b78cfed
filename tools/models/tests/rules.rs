// SPDX-License-Identifier: GPL-2.0

//! The rules of order that the engine keeps, each under many schedules of few threads.
//!
//! ORDOFS_SCHEDULES says how many schedules each test tries (default 300). A failure prints the
//! schedule; `shuttle::replay` repeats it.

use kernel::prelude::*;
use ordofs_models::engine::*;
use ordofs_models::os::atomic::{AtomicU64, Ordering};
use ordofs_models::os::mem::{Image, MemDisk};
use ordofs_models::os::{crc32c, Backend, Block, Device, Shared};
use shuttle::rand::Rng;
use shuttle::thread;
use std::sync::{Arc, OnceLock};

const BLOCKS: u64 = 4096;

/// A new filesystem, made once, outside of any schedule.
fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        kernel::print::set_level(kernel::print::SILENT);
        let disk = ordofs_engine::os::mem::MemDisk::new(BLOCKS);
        let options = ordofs_engine::engine::mkfs::FormatOptions {
            uuid: [7; 16],
            label: [0; 64],
            blocks: 0,
            root_owner: (0, 0),
        };
        ordofs_engine::engine::mkfs::format(disk.device(), &options).expect("mkfs");
        disk.image()
    })
}

/// Explores schedules of `f`: half at random, half with priorities (few, well-placed switches).
fn explore(f: impl Fn() + Send + Sync + 'static) {
    let n = std::env::var("ORDOFS_SCHEDULES")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(300);
    image();
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    let f = Arc::new(f);
    let (g, h) = (f.clone(), f);
    let random = shuttle::scheduler::RandomScheduler::new(n / 2);
    shuttle::Runner::new(random, config.clone()).run(move || g());
    let pct = shuttle::scheduler::PctScheduler::new(3, n / 2);
    shuttle::Runner::new(pct, config).run(move || h());
}

/// A device that takes its time to make things durable: others get far meanwhile.
struct Slow(MemDisk);

impl Slow {
    fn wait(&self) {
        let n = shuttle::rand::thread_rng().gen_range(0..120u32);
        for _ in 0..n.saturating_sub(20) {
            thread::yield_now();
        }
    }
}

impl Backend for Slow {
    fn blocks(&self) -> u64 {
        self.0.blocks()
    }
    fn readonly(&self) -> bool {
        self.0.readonly()
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        self.0.read(block, buf)
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.0.write(block, data)
    }
    fn flush(&self) -> Result {
        self.wait();
        self.0.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.wait();
        self.0.write_fua(block, data)
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        self.0.discard(start, len)
    }
}

struct Bed {
    disk: MemDisk,
    fs: Shared<Fs>,
    file: Shared<Inode>,
}

/// A mounted filesystem with one durable, empty file.
fn bed() -> Bed {
    let disk = MemDisk::from_image(BLOCKS, image().clone());
    let dev = Device::new(Slow(disk.clone()));
    let fs = Fs::mount(dev, MountOptions::default()).expect("mount");
    let root = fs.iget(fs.root_ino()).expect("root");
    let new = NewInode {
        mode: S_IFREG | 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        symlink: None,
    };
    let file = fs.create(&root, b"file", &new).expect("create");
    fs.iput(root);
    fs.sync().expect("sync");
    Bed { disk, fs, file }
}

/// A filesystem after a power cut, on the engine without shuttle: clean before and after the log is
/// replayed, with all data as its checksums say.
struct Recovered {
    fs: ordofs_engine::os::Shared<ordofs_engine::engine::Fs>,
    data_blocks: u64,
}

fn clean(disk: &ordofs_engine::os::mem::MemDisk, when: &str) -> u64 {
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: true });
    let report = report.expect("superblock");
    let text: std::vec::Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{when}: {text:#?}");
    report.stats.data_blocks
}

fn after_power_cut(image: Image) -> Recovered {
    use ordofs_engine::engine::{Fs, MountOptions};
    let disk = ordofs_engine::os::mem::MemDisk::from_image(BLOCKS, image);
    clean(&disk, "after a power cut");
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    fs.sync().expect("sync");
    let data_blocks = clean(&disk, "after recovery");
    Recovered { fs, data_blocks }
}

fn block(tag: u8) -> Block {
    let mut b = Block::zeroed().expect("memory");
    b.fill(tag);
    b
}

/// Writes whole blocks as direct I/O does; `io` runs where the device would work.
fn write(b: &Bed, start: u64, n: u64, tag: u8, direct: bool, io: impl Fn(u64)) {
    let data = block(tag);
    let sums = vec_of(crc32c(0, &data[..]), n);
    let mut at = start;
    while at < start + n {
        let rest = &sums[..(start + n - at) as usize];
        let s =
            b.fs.start_write(&b.file, at, rest, direct)
                .expect("start_write");
        thread::yield_now();
        for i in 0..s.len {
            b.fs.node_store()
                .device()
                .write(&[(s.phys + i, &data)])
                .expect("device");
            io(at + i);
        }
        thread::yield_now();
        at += s.len;
        b.fs.finish_write(s.ordered, at * 4096, Ok(()))
            .expect("finish_write");
    }
}

fn vec_of(v: u32, n: u64) -> std::vec::Vec<u32> {
    std::iter::repeat_n(v, n as usize).collect()
}

/// R1: whoever sees a mapping and then waits for the ordered extents there finds the data written.
#[test]
fn r1_ordered_before_mapped() {
    explore(|| {
        let b = Arc::new(bed());
        b.fs.preallocate(&b.file, 2, 2, None).expect("preallocate");
        let written = Arc::new(AtomicU64::new(0));
        let (b2, w2) = (b.clone(), written.clone());
        let writer = thread::spawn(move || {
            write(&b2, 0, 4, 9, true, |i| {
                w2.fetch_or(1 << i, Ordering::SeqCst);
            });
        });
        for i in 0..4 {
            let m = b.fs.map_report(&b.file, i, 1).expect("map_report");
            if m.kind == MapKind::Written {
                b.fs.wait_ordered(&b.file, i, 1);
                let done = written.load(Ordering::SeqCst);
                assert!(
                    done >> i & 1 != 0,
                    "block {i} is mapped and was not waited for"
                );
            }
        }
        writer.join().expect("writer");
    });
}

/// R4: of several that make the same range writable one keeps the reservation; the others give theirs
/// back. Afterwards no block is missing.
#[test]
fn r4_the_loser_gives_back() {
    explore(|| {
        let b = Arc::new(bed());
        let before = b.fs.statfs().bfree;
        let threads: std::vec::Vec<_> = (0..3u64)
            .map(|i| {
                let b = b.clone();
                thread::spawn(move || {
                    let m = b.fs.map_write(&b.file, i, 4).expect("map_write").map;
                    assert!(m.kind == MapKind::Delalloc && m.start <= i, "{m:?}");
                    m.start..m.start + m.len
                })
            })
            .collect();
        let mut all = std::collections::BTreeSet::new();
        for t in threads {
            all.extend(t.join().expect("thread"));
        }
        assert_eq!(
            b.file.blocks(),
            all.len() as u64,
            "one reservation for each of {all:?}"
        );
        b.fs.release_delalloc(&b.file, 0, 100);
        assert_eq!(b.file.blocks(), 0);
        assert_eq!(b.fs.statfs().bfree, before, "reservations leaked");
    });
}

/// R4: delalloc never lies over a preallocated block: a page fault races with fallocate.
#[test]
fn r4_no_delalloc_over_unwritten() {
    explore(|| {
        let b = Arc::new(bed());
        let before = b.fs.statfs().bfree;
        let b2 = b.clone();
        let prealloc = thread::spawn(move || b2.fs.preallocate(&b2.file, 0, 4, None));
        let w = b.fs.map_write(&b.file, 1, 2).expect("map_write");
        prealloc.join().expect("thread").expect("preallocate");
        // Every block has exactly one of the two.
        assert_eq!(b.file.blocks(), 4, "blocks after both, fault saw {w:?}");
        write(&b, 1, 2, 5, false, |_| ());
        assert_eq!(b.file.blocks(), 4);
        b.fs.set_size(&b.file, 0).expect("truncate");
        b.fs.sync().expect("sync");
        b.fs.sync().expect("sync");
        assert_eq!(b.fs.statfs().bfree, before, "reservations leaked");
    });
}

/// R5: a mapping whose cookie is still the inode's is still true.
#[test]
fn r5_cached_mappings_expire() {
    explore(|| {
        let b = Arc::new(bed());
        write(&b, 0, 4, 1, true, |_| ());
        let b2 = b.clone();
        let changer = thread::spawn(move || {
            b2.fs.punch(&b2.file, 1, 1).expect("punch");
            write(&b2, 2, 1, 2, true, |_| ());
        });
        for i in 0..4 {
            let m = b.fs.map_read(&b.file, i, 1).expect("map_read");
            thread::yield_now();
            // As iomap_valid does under the folio lock: the cookie first, then the use.
            let now = b.fs.map_read(&b.file, i, 1).expect("map_read");
            if b.fs.cookie(&b.file) == m.cookie {
                assert_eq!(
                    (m.kind, m.phys),
                    (now.kind, now.phys),
                    "block {i}: stale, same cookie"
                );
            }
        }
        changer.join().expect("changer");
    });
}

/// A reader gets data that its checksum vouches for, or learns that the block has moved.
#[test]
fn reads_race_with_overwrites() {
    explore(|| {
        let b = Arc::new(bed());
        write(&b, 0, 2, 1, true, |_| ());
        let b2 = b.clone();
        let writer = thread::spawn(move || {
            write(&b2, 0, 2, 2, true, |_| ());
            b2.fs.sync().expect("sync");
            write(&b2, 0, 2, 3, true, |_| ());
        });
        let mut buf = Block::zeroed().expect("memory");
        for _ in 0..3 {
            let m = b.fs.map_read(&b.file, 0, 1).expect("map_read");
            thread::yield_now();
            b.fs.node_store()
                .device()
                .read(m.phys, &mut buf)
                .expect("device");
            thread::yield_now();
            let v =
                b.fs.verify(&b.file, 0, m.phys, crc32c(0, &buf[..]))
                    .expect("verify");
            assert!(!matches!(v, Verdict::Bad(_)), "good data was called bad");
        }
        writer.join().expect("writer");
    });
}

/// R6: reading nodes races with reclaim.
#[test]
fn r6_reads_race_with_reclaim() {
    explore(|| {
        let b = Arc::new(bed());
        let ino = b.file.ino();
        let readers: std::vec::Vec<_> = (0..2)
            .map(|_| {
                let b = b.clone();
                thread::spawn(move || {
                    for _ in 0..3 {
                        let root = b.fs.iget(b.fs.root_ino()).expect("root");
                        let e = b.fs.lookup(&root, b"file").expect("lookup").expect("file");
                        assert_eq!(e.ino, ino);
                        assert_eq!(b.fs.iget(99_999).err(), Some(ESTALE));
                        b.fs.iput(root);
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            b.fs.shrink_scan(1000);
            thread::yield_now();
        }
        readers.into_iter().for_each(|t| t.join().expect("reader"));
    });
}

/// R7: freed blocks are not reused before the commit that freed them is durable: whenever the power
/// goes, what the superblock refers to is whole. The disk is nearly full, so blocks come round soon.
#[test]
fn r7_freed_is_not_free() {
    explore(|| {
        const N: u64 = 48;
        let b = Arc::new(bed());
        let filler = b.fs.statfs().bavail - 3 * N;
        b.fs.preallocate(&b.file, 1000, filler, None)
            .expect("preallocate");
        write(&b, 0, N, 1, true, |_| ());
        b.fs.sync().expect("sync");
        let b2 = b.clone();
        let writer = thread::spawn(move || {
            for round in 2..9 {
                write(&b2, 0, N, round, true, |_| ());
                after_power_cut(b2.disk.image());
            }
        });
        for _ in 0..4 {
            b.fs.sync().expect("sync");
        }
        writer.join().expect("writer");
        b.fs.sync().expect("sync");
        assert_eq!(after_power_cut(b.disk.image()).data_blocks, N + filler);
    });
}

/// R8: what was written before a sync is durable when the sync returns, whoever's commit carried it.
#[test]
fn r8_acknowledged_is_durable() {
    explore(|| {
        let b = Arc::new(bed());
        let b2 = b.clone();
        let other = thread::spawn(move || {
            b2.fs
                .set_attrs(
                    &b2.file,
                    &AttrChange {
                        uid: Some(3),
                        ..AttrChange::default()
                    },
                )
                .expect("set_attrs");
            b2.fs.sync().expect("sync");
            let there = after_power_cut(b2.disk.image())
                .fs
                .iget(b2.file.ino())
                .expect("iget");
            let uid = there.attrs().uid;
            assert_eq!(uid, 3, "the change was acknowledged and is not durable");
        });
        write(&b, 0, 2, 1, true, |_| ());
        b.fs.sync_inode(&b.file).expect("fsync");
        let there = after_power_cut(b.disk.image());
        assert_eq!(there.data_blocks, 2, "blocks after fsync");
        other.join().expect("other");
    });
}
