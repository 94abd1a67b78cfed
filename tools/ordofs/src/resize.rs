// SPDX-License-Identifier: GPL-2.0

//! `ordofs resize`: makes a mounted filesystem larger, or with `--shrink` smaller, by the ioctl of the module (docs/MOUNT.md),
//! which needs CAP_SYS_ADMIN.
//!
//! Tests: below, and `tests/vm/t/073-grow.sh`, `tests/vm/t/074-shrink.sh`.

use crate::scrub::{ioctl, open};
use crate::show::{self, Doc};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use std::cmp::Ordering;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// `_IOWR('O', 0x84, u64[8])`.
const RESIZE: u64 = 0xc040_4f84;
/// Word 1: the filesystem is to become smaller.
const SHRINK: u64 = 1;
/// Bytes of a block.
const BLOCK: u64 = 4096;

/// The arguments of `ordofs resize`.
#[derive(Args)]
pub struct Resize {
    /// Any directory of a mounted OrdoFS
    mountpoint: PathBuf,
    /// The new size, with K, M, G, T or P as mkfs.ordofs takes it, or `max`: the size of the device.
    /// It is rounded down to a size that is possible
    #[arg(value_parser = size, default_value = "max")]
    size: u64,
    /// The filesystem becomes smaller, so that it has at most that size: it ends at the border of an allocation group.
    /// What lies behind is moved
    #[arg(long)]
    shrink: bool,
}

/// A size in bytes; 0 is that of the device.
fn size(text: &str) -> Result<u64, String> {
    match text {
        "max" => Ok(0),
        _ => match ordofs_cli::size(text)? {
            0..BLOCK => Err(format!("'{text}' is too small")),
            n => Ok(n),
        },
    }
}

/// What an error of the ioctl means.
fn meaning(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "it is larger already; --shrink makes it smaller",
        Some(libc::EFBIG) => "the device is smaller than that, or it is more than 1 PiB",
        Some(libc::EALREADY) => "another resize is under way",
        Some(libc::EBUSY) => "the filesystem is frozen",
        Some(libc::EROFS) => "it is mounted read-only",
        Some(libc::EPERM) => "this needs CAP_SYS_ADMIN",
        Some(libc::ENOTTY) => "not a mounted OrdoFS, or its module is too old to resize",
        Some(libc::EDOM) => {
            "it was made with less than 128 MiB, or with less than 2 MiB behind a place of a backup: it cannot become that large"
        }
        Some(libc::ENOSPC) => "no space is left for the records of the new blocks; delete something",
        Some(libc::EUCLEAN) => "the last allocation group is damaged; run fsck.ordofs --repair",
        Some(libc::EINTR) => "interrupted; it may have become larger in part",
        _ => "failed; see the kernel log. It may have become larger in part",
    }
}

/// What an error means if the filesystem was to become smaller.
fn meaning_shrink(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EINVAL) => "it is not larger than that, or its module is too old to shrink",
        Some(libc::EDOM) => {
            "its superblocks and its log, or an allocation group, have no place in that size"
        }
        Some(libc::ENOSPC) => {
            "what is in use behind the new end has no room in the rest; delete something"
        }
        Some(libc::EBUSY) => {
            "it is frozen, or something behind the new end is in use and cannot be moved now"
        }
        Some(libc::EUCLEAN) => {
            "something is damaged; the kernel log says what. It has not become smaller"
        }
        Some(libc::EINTR) => "interrupted; it may have become smaller in part",
        Some(libc::EALREADY | libc::EROFS | libc::EPERM | libc::ENOTTY) => meaning(e),
        _ => "failed; see the kernel log. It may have become smaller in part",
    }
}

/// Runs the command.
pub fn run(r: &Resize, as_json: bool) -> Result<ExitCode> {
    let dir = open(&r.mountpoint)?;
    let mut words = [0; 8];
    words[1] = if r.shrink { SHRINK } else { 0 };
    words[2] = r.size;
    if r.shrink && r.size == 0 {
        anyhow::bail!("--shrink needs a size");
    }
    ioctl(&dir, RESIZE, &mut words)
        .map_err(|e| {
            let what = match r.shrink {
                true => meaning_shrink(&e),
                false => meaning(&e),
            };
            anyhow::Error::new(e).context(what)
        })
        .with_context(|| format!("cannot resize {}", r.mountpoint.display()))?;
    let (before, now) = (words[3], words[4]);
    let what = match before.cmp(&now) {
        Ordering::Equal => "nothing to be done",
        Ordering::Less => "grown",
        Ordering::Greater => "shrunk",
    };
    let fields = [
        ("result", json!(what)),
        ("bytes_before", json!(before)),
        ("bytes", json!(now)),
    ];
    let fields = fields.into_iter().map(|(k, v)| (k, v.into())).collect();
    show::print(&Doc::Fields(fields), as_json)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("max"), Ok(0));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("20G"), Ok(20 << 30));
        assert_eq!(size("3TiB"), Ok(3 << 40));
        for wrong in ["", "0", "100", "+1G", "1x", "Max", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_error_has_its_sentence() {
        let errors = [
            (libc::EOPNOTSUPP, "--shrink"),
            (libc::EFBIG, "device is smaller"),
            (libc::EALREADY, "another resize"),
            (libc::EBUSY, "frozen"),
            (libc::EROFS, "read-only"),
            (libc::EPERM, "CAP_SYS_ADMIN"),
            (libc::EDOM, "128 MiB"),
            (libc::ENOSPC, "no space"),
            (libc::EUCLEAN, "fsck.ordofs"),
            (libc::ENOTTY, "not a mounted OrdoFS"),
            (libc::EIO, "see the kernel log"),
        ];
        for (errno, part) in errors {
            let what = meaning(&io::Error::from_raw_os_error(errno));
            assert!(what.contains(part), "{errno}: {what}");
        }
    }

    #[test]
    fn each_error_of_a_shrink_has_its_sentence() {
        let errors = [
            (libc::EINVAL, "not larger"),
            (libc::EDOM, "no place"),
            (libc::ENOSPC, "no room"),
            (libc::EBUSY, "cannot be moved"),
            (libc::EUCLEAN, "damaged"),
            (libc::EALREADY, "another resize"),
            (libc::EROFS, "read-only"),
            (libc::EINTR, "smaller in part"),
            (libc::EIO, "see the kernel log"),
        ];
        for (errno, part) in errors {
            let what = meaning_shrink(&io::Error::from_raw_os_error(errno));
            assert!(what.contains(part), "{errno}: {what}");
        }
    }

    #[test]
    fn no_ordofs_is_refused() {
        let r = Resize {
            mountpoint: std::env::temp_dir(),
            size: 0,
            shrink: false,
        };
        let e = format!("{:#}", run(&r, false).unwrap_err());
        assert!(e.starts_with("cannot resize /"), "{e}");
    }
}
