// SPDX-License-Identifier: GPL-2.0

//! What is done with an image. [`crate`] says what must hold.
//!
//! A batch of the log that claims durable data is believed, so a forged one can give a block another
//! checksum. Only a reader of that block notices.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::read::{self, Seen};
use crate::work;
use kernel::prelude::{EDQUOT, EFBIG, ENAMETOOLONG, ENOSPC};
use kernel::prelude::{EMLINK, EPERM};
use ordofs_crash::engine::{Fs, MountOptions};
use ordofs_crash::os;
use ordofs_engine::os::mem::{Image, MemDisk};
use ordofs_engine::os::Shared;
use ordofs_fsck::{check, Options, Report};

/// The clock and the random numbers of each run begin here, after those of [`crate::base`].
const LATER: u64 = 1 << 40;

/// How an image was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum How {
    /// There is no filesystem, says the checker, and the mount refuses.
    Refused,
    /// The checker finds something wrong.
    Damaged,
    /// The image is in order, but the mount refuses its log.
    LogRefused,
    /// The image is in order, and was when all was done.
    InOrder,
}

/// Runs the checker.
fn checked(disk: &MemDisk, data: bool) -> Result<Report, &'static str> {
    check(disk.device(), Options { data }).map_err(|e| e.reason)
}

/// A problem with what a walk has seen. `data`: damaged data is one.
fn fault(seen: &Seen, data: bool) -> Option<String> {
    if !seen.errors.is_empty() {
        return Some(list(&seen.errors));
    }
    let files: Vec<&u64> = seen.bad_data.iter().collect();
    (data && !files.is_empty()).then(|| format!("data of inodes {}", list(&files)))
}

fn list<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().take(5).map(ToString::to_string).collect();
    all.join("; ")
}

/// Whether two images are the same.
fn same(a: &Image, b: &Image) -> bool {
    let equal = |((n, x), (m, y)): ((&u64, &_), (&u64, &_))| {
        n == m && (std::sync::Arc::ptr_eq(x, y) || x == y)
    };
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

/// Does everything with an image of so many blocks. The error says what must not be.
pub fn exercise(blocks: u64, image: Image) -> Result<How, String> {
    os::set_clock(LATER);
    os::set_random(LATER);
    let disk = MemDisk::from_image(blocks, image);
    let report = checked(&disk, true);
    let clean = report.as_ref().is_ok_and(Report::is_clean);
    without_recovery(&disk, &report)?;
    let before = disk.image();
    let fs = match Fs::mount(disk.device(), MountOptions::default()) {
        Ok(fs) => fs,
        Err(e) => return refused(&disk, &before, &report, e.reason),
    };
    if let Err(why) = report {
        return Err(format!("mounted, but fsck finds no filesystem: {why}"));
    }
    let logged = fs.replayed().batches > 0;
    let how = with(&fs, &disk, clean, !logged)?;
    drop(fs);
    if !clean {
        return Ok(how);
    }
    match checked(&disk, !logged) {
        Ok(r) if r.is_clean() => Ok(how),
        Ok(r) => Err(format!("after all: {}", list(&r.problems))),
        Err(why) => Err(format!("after all: {why}")),
    }
}

/// Mounts read-only, without the log, and reads everything.
fn without_recovery(disk: &MemDisk, report: &Result<Report, &'static str>) -> Result<(), String> {
    let before = disk.image();
    disk.set_readonly(true);
    let options = MountOptions {
        read_only: true,
        recovery: false,
        ..MountOptions::default()
    };
    let r = Fs::mount(disk.device(), options);
    disk.set_readonly(false);
    let clean = report.as_ref().is_ok_and(Report::is_clean);
    match r {
        Ok(fs) => {
            let seen = read::all(&fs);
            if let Some(what) = fault(&seen, true).filter(|_| clean) {
                return Err(format!("read-only: {what}"));
            }
            fs.unmount()
                .map_err(|e| format!("read-only: unmount: {e:?}"))?;
        }
        Err(e) if clean => return Err(format!("read-only mount: {}", e.reason)),
        Err(_) => {}
    }
    match same(&before, &disk.image()) {
        true => Ok(()),
        false => Err("a read-only mount wrote".to_owned()),
    }
}

/// A mount was refused.
fn refused(
    disk: &MemDisk,
    before: &Image,
    report: &Result<Report, &'static str>,
    why: &str,
) -> Result<How, String> {
    let Ok(report) = report else {
        return match same(before, &disk.image()) {
            true => Ok(How::Refused),
            false => Err(format!("a refused mount wrote: {why}")),
        };
    };
    if !report.is_clean() {
        return Ok(How::Damaged);
    }
    match same(before, &disk.image()) {
        true => Ok(How::LogRefused),
        false => Err(format!("a mount was refused after it had written: {why}")),
    }
}

/// Reads and works. With `clean`, nothing may go wrong; with `data`, no data may be damaged.
fn with(fs: &Shared<Fs>, disk: &MemDisk, clean: bool, data: bool) -> Result<How, String> {
    let seen = read::all(fs);
    if let Some(what) = fault(&seen, data).filter(|_| clean) {
        return Err(format!("mounted: {what}"));
    }
    let failed = work::all(fs, &disk.device(), &seen.inodes);
    let known = [ENOSPC, EFBIG, EDQUOT, ENAMETOOLONG, EMLINK, EPERM];
    if let (true, Some((what, e))) = (clean, failed.0.iter().find(|(_, e)| !known.contains(e))) {
        return Err(format!("{what}: {e:?}"));
    }
    match fs.unmount() {
        Err(e) if clean => Err(format!("unmount: {e:?}")),
        _ if clean => Ok(How::InOrder),
        _ => Ok(How::Damaged),
    }
}
