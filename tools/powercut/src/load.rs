// SPDX-License-Identifier: GPL-2.0

//! Carries out the sequences, and journals each operation that has become durable.
//!
//! Tests: `scripts/powercut`.

use crate::model::{How, Op, Sequence, PER_BLOCK, TEMPORARY, UNIT};
use crate::work::{directory, name, Work};
use anyhow::{Context, Result};
use fastrand::Rng;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The content of `units` units with the number `stamp`.
fn content(stamp: u64, units: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat((units * UNIT / 8) as usize)
}

/// The result of a system call that returns -1 on failure.
fn checked(r: libc::c_int) -> io::Result<()> {
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .custom_flags(flags)
        .open(path)
}

/// Direct I/O needs memory at multiples of a block.
fn write_direct(file: &File, data: &[u8], at: u64) -> io::Result<()> {
    let block = (PER_BLOCK * UNIT) as usize;
    let mut memory = vec![0u8; data.len() + block];
    let skip = memory.as_ptr().align_offset(block);
    memory[skip..skip + data.len()].copy_from_slice(data);
    file.write_all_at(&memory[skip..skip + data.len()], at)
}

/// Stores through a mapping.
fn store(file: &File, data: &[u8], at: u64) -> io::Result<()> {
    let len = at as usize + data.len();
    // SAFETY: a new shared mapping of an open file, at an address that the kernel chooses.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `len` long, all of it inside the file, which only this thread changes.
    unsafe {
        std::ptr::copy_nonoverlapping(data.as_ptr(), map.cast::<u8>().add(at as usize), data.len());
    }
    // SAFETY: the mapping of above.
    let r = checked(unsafe { libc::msync(map, len, libc::MS_SYNC) });
    // SAFETY: the mapping of above, which is not used any more.
    checked(unsafe { libc::munmap(map, len) })?;
    r
}

fn write(path: &Path, data: &[u8], at: u64, how: How) -> io::Result<()> {
    let file = open(
        path,
        match how {
            How::Dsync => libc::O_DSYNC,
            How::Direct => libc::O_DIRECT,
            _ => 0,
        },
    )?;
    match how {
        How::Direct => write_direct(&file, data, at)?,
        How::Msync if !data.is_empty() => store(&file, data, at)?,
        _ => file.write_all_at(data, at)?,
    }
    match how {
        How::Fsync | How::Msync => file.sync_all(),
        How::Fdatasync | How::Direct => file.sync_data(),
        // SAFETY: no pointers; the descriptor is open.
        How::Syncfs => checked(unsafe { libc::syncfs(file.as_raw_fd()) }),
        // A new file's name needs more than O_DSYNC.
        How::Dsync => Ok(()),
    }
}

fn fallocate(path: &Path, mode: i32, start: u64, len: u64) -> io::Result<()> {
    let file = open(path, 0)?;
    let (at, len) = ((start * UNIT) as i64, (len * UNIT) as i64);
    let mode = mode | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no pointers; the descriptor is open.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, at, len) })?;
    file.sync_all()
}

/// Carries out an operation. When this returns, all of it is durable.
fn perform(dir: &Path, op: &Op, stamp: u64) -> io::Result<()> {
    let sync_dir = || File::open(dir)?.sync_all();
    match *op {
        Op::Write {
            file,
            start,
            len,
            how,
        } => write(&name(dir, file), &content(stamp, len), start * UNIT, how),
        Op::Replace { file, len } => {
            let temporary = name(dir, TEMPORARY);
            write(&temporary, &content(stamp, len), 0, How::Fsync)?;
            fs::rename(temporary, name(dir, file))?;
            sync_dir()
        }
        Op::ReplaceUnsynced { file, len, other } => {
            let temporary = name(dir, TEMPORARY);
            open(&temporary, 0)?.write_all_at(&content(stamp, len), 0)?;
            fs::rename(temporary, name(dir, file))?;
            open(&name(dir, other), 0)?.sync_all()?;
            open(&name(dir, file), 0)?.sync_all()
        }
        Op::Unlink { file } => {
            fs::remove_file(name(dir, file))?;
            sync_dir()
        }
        Op::Rename { from, to } => {
            fs::rename(name(dir, from), name(dir, to))?;
            open(&name(dir, to), 0)?.sync_all()
        }
        Op::Truncate { file, len } => {
            let file = open(&name(dir, file), 0)?;
            file.set_len(len * UNIT)?;
            file.sync_all()
        }
        Op::Punch { file, start, len } => {
            fallocate(&name(dir, file), libc::FALLOC_FL_PUNCH_HOLE, start, len)
        }
        Op::Zero { file, start, len } => {
            fallocate(&name(dir, file), libc::FALLOC_FL_ZERO_RANGE, start, len)
        }
    }
}

/// Writes, renames and unlinks without waiting for durability, so that some writes that no flush
/// covers are always under way.
fn noise(dir: &Path, seed: u64, stop: impl Fn() -> bool) -> io::Result<()> {
    let mut rng = Rng::with_seed(seed ^ 0x6e6f_6973_6500);
    let mut data = vec![0; 64 << 10];
    while !stop() {
        let path = dir.join(format!("noise{}", rng.u64(..4)));
        let file = open(&path, 0)?;
        data.fill(rng.u64(..256) as u8);
        let at = rng.u64(..32) * data.len() as u64;
        file.write_all_at(&data, at)?;
        // SAFETY: no pointers; the descriptor is open. Starts writing, waits for nothing.
        checked(unsafe {
            libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE)
        })?;
        match rng.u64(..8) {
            0 => fs::remove_file(&path)?,
            1 => fs::rename(&path, dir.join("noise9"))?,
            2 => file.set_len(rng.u64(..64) * UNIT)?,
            _ => (),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Where acknowledged operations are noted.
struct Journal<'a> {
    out: Mutex<Box<dyn Write + Send>>,
    tag: &'a str,
}

impl<'a> Journal<'a> {
    fn open(work: &'a Work) -> Result<Self> {
        let path = &work.journal;
        let out: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = OpenOptions::new().append(true).create(true).open(path);
            Box::new(file.with_context(|| format!("cannot open {}", path.display()))?)
        };
        Ok(Self {
            out: Mutex::new(out),
            tag: &work.tag,
        })
    }

    /// Notes that the operation with this number of a thread is durable.
    fn acknowledge(&self, thread: u32, number: u64) -> Result<()> {
        let mut out = self.out.lock().expect("nobody panics with the journal");
        out.write_all(format!("{} {thread} {number}\n", self.tag).as_bytes())?;
        Ok(out.flush()?)
    }
}

/// Makes an empty directory for each thread.
fn make_directories(dir: &Path, threads: u32) -> Result<()> {
    for t in 0..threads {
        let own = directory(dir, t);
        if own.exists() {
            fs::remove_dir_all(&own).with_context(|| format!("cannot remove {}", own.display()))?;
        }
        fs::create_dir(&own).with_context(|| format!("cannot make {}", own.display()))?;
    }
    // The empty directories are acknowledged as operation 0.
    Ok(File::open(dir)?.sync_all()?)
}

/// Carries out the sequence of one thread until `over`. Returns how many operations became durable.
fn thread(work: &Work, t: u32, journal: &Journal<'_>, over: impl Fn() -> bool) -> Result<u64> {
    let own = directory(&work.dir, t);
    let mut sequence = Sequence::new(work.seed, t);
    journal.acknowledge(t, 0)?;
    while !over() {
        let (op, stamp) = sequence.next();
        perform(&own, &op, stamp)
            .with_context(|| format!("thread {t}, operation {}: {op:?}", sequence.number))?;
        journal.acknowledge(t, sequence.number)?;
        sequence.done(&op, stamp);
    }
    Ok(sequence.number - 1)
}

/// Works until the time is over or the machine is switched off.
pub fn run(work: &Work, seconds: Option<u64>) -> Result<()> {
    let journal = Journal::open(work)?;
    make_directories(&work.dir, work.threads)?;
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let over = || {
        stop.load(Ordering::Relaxed)
            || seconds.is_some_and(|s| begin.elapsed() >= Duration::from_secs(s))
    };
    let counts = std::thread::scope(|s| {
        let disturber = s.spawn(|| noise(&work.dir, work.seed, over));
        let handles: Vec<_> = (0..work.threads)
            .map(|t| {
                let (journal, stop) = (&journal, &stop);
                s.spawn(move || {
                    let r = thread(work, t, journal, over);
                    if r.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    r
                })
            })
            .collect();
        let counts = handles
            .into_iter()
            .map(|h| {
                h.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
            })
            .collect::<Result<Vec<u64>>>();
        stop.store(true, Ordering::Relaxed);
        if let Ok(r) = disturber.join() {
            r.context("noise")?;
        }
        counts
    })?;
    ordofs_cli::complain!(
        "load: {} operations made durable",
        counts.iter().sum::<u64>()
    );
    Ok(())
}
