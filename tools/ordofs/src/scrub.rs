// SPDX-License-Identifier: GPL-2.0

//! `ordofs scrub`: starts, watches and cancels the scrub of a mounted filesystem, by the ioctls of
//! the module (docs/MOUNT.md). They need CAP_SYS_ADMIN.
//!
//! The kernel knows damaged files by inode number. Their paths are found by one walk through the
//! names of the filesystem, as `find -inum` does it, which ends when all are found. It reads all
//! directories, and their inodes, if an inode has no path any more.
//!
//! Tests: below, and `tests/vm/t/068-scrub.sh`.

use crate::show::{self, Doc};
use anyhow::{bail, Context, Result};
use clap::Subcommand;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The commands of `ordofs scrub`.
#[derive(Subcommand)]
pub enum Scrub {
    /// Start to read and check everything that is in use
    Start {
        /// Any directory of a mounted OrdoFS
        mountpoint: PathBuf,
        /// Wait for the end, and show what was found. Status 3: there is damage
        #[arg(short = 'B', long)]
        wait: bool,
        /// Read at most so many bytes in a second (K, M and G are units of 1024); 0: no limit
        #[arg(long, value_parser = bytes, default_value = "0")]
        rate: u64,
        /// Go on where the last scrub since the mount was cancelled
        #[arg(long)]
        resume: bool,
    },
    /// Show the progress of the scrub, or the result of the last one, and the damaged files. Status 0
    /// even if there is damage
    Status {
        /// Any directory of a mounted OrdoFS; paths are looked for below it
        mountpoint: PathBuf,
        /// Show inode numbers only, without a walk through all directories
        #[arg(long)]
        no_paths: bool,
    },
    /// Cancel the scrub
    Cancel {
        /// Any directory of a mounted OrdoFS
        mountpoint: PathBuf,
    },
}

/// A number of bytes with an optional unit.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let n: u64 = digits.parse().map_err(|_| "not a number of bytes")?;
    n.checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

/// `_IOW('O', 0x80, u64[8])`.
const START: u64 = 0xc040_4f80;
/// `_IO('O', 0x81)`.
const CANCEL: u64 = 0x0000_4f81;
/// `_IOWR('O', 0x82, u64[32])`.
const STATUS: u64 = 0xc100_4f82;
/// `_IOWR('O', 0x83, u64[392])`.
const DAMAGE: u64 = 0xcc40_4f83;
/// The version of the structures.
const VERSION: u64 = 1;
/// The flag of `START` that resumes.
const RESUME: u64 = 1;
/// Words of the head of `DAMAGE`, and of each of its entries.
const HEAD: usize = 8;
const ENTRY: usize = 6;

/// The exit status if there is damage, as that of `btrfs scrub`.
const DAMAGED: u8 = 3;

/// Passes a structure of words to the module, and back.
pub fn ioctl<const N: usize>(dir: &File, command: u64, words: &mut [u64; N]) -> io::Result<()> {
    words[0] = VERSION;
    // SAFETY: The number of the command has the size of the array, which is valid for reads and
    // writes during the call.
    let r = unsafe { libc::ioctl(dir.as_raw_fd(), command as _, words.as_mut_ptr()) };
    match r {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The numbers of a scrub.
struct Status([u64; 32]);

impl Status {
    fn of(dir: &File) -> io::Result<Self> {
        let mut words = [0; 32];
        ioctl(dir, STATUS, &mut words)?;
        Ok(Self(words))
    }

    fn runs(&self) -> bool {
        self.0[1] == 1
    }

    fn state(&self) -> &'static str {
        match self.0[1] {
            0 => "never run since the mount",
            1 => "running",
            2 => "finished",
            3 => "cancelled",
            _ => "ended by a shutdown or an internal error: see the kernel log",
        }
    }

    fn is_damaged(&self) -> bool {
        self.0[11..15].iter().any(|n| *n > 0)
    }

    /// What it is reading.
    fn place(&self) -> String {
        let [owner, key] = [self.0[3], self.0[4]];
        match self.0[2] {
            0 | 1 => "the account of free space".to_owned(),
            2 => "the deferred tree".to_owned(),
            3 => "the orphan tree".to_owned(),
            4 => format!("inode {key}"),
            5 => format!("inode {owner}, file block {key}"),
            6 => format!("inode {owner}, directory"),
            7 => format!("inode {owner}, extended attributes"),
            _ => "the end".to_owned(),
        }
    }

    fn fields(&self) -> Vec<(&'static str, Doc)> {
        let n = |i: usize| json!(self.0[i]);
        let read = (self.0[8] + self.0[9]) * 4096;
        let mut out = vec![("state", json!(self.state()))];
        if self.runs() {
            out.push(("at", json!(self.place())));
        }
        out.extend([
            ("bytes_read", json!(read)),
            ("bytes_in_use_at_start", json!(self.0[7] * 4096)),
            ("bytes_per_second_at_most", n(6)),
            ("inodes", n(10)),
            ("nodes", n(8)),
            ("data_blocks", n(9)),
            ("bad_copies_of_nodes", n(11)),
            ("healed_copies_of_nodes", n(17)),
            ("lost_nodes", n(12)),
            ("bad_records", n(13)),
            ("bad_data_blocks", n(14)),
            ("damaged_inodes", n(15)),
            ("inodes_left_out", n(23)),
            ("not_in_the_list", n(19)),
            ("started", json!(self.0[20])),
            ("ended", json!(self.0[21])),
        ]);
        out.into_iter().map(|(k, v)| (k, v.into())).collect()
    }
}

/// An entry of the list of damage.
#[derive(Debug, PartialEq, Eq)]
struct Damage {
    kind: u8,
    tree: u8,
    copies: u8,
    owner: u64,
    block: u64,
    start: u64,
    end: u64,
}

impl Damage {
    fn new(words: &[u64]) -> Self {
        let [kind, tree, _, copies, ..] = words[0].to_le_bytes();
        let [owner, block, start, end] = [words[1], words[2], words[3], words[4]];
        Self {
            kind,
            tree,
            copies,
            owner,
            block,
            start,
            end,
        }
    }

    /// All entries.
    fn list(dir: &File) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        let mut run = None;
        loop {
            let mut words = [0; 392];
            words[1] = all.len() as u64;
            ioctl(dir, DAMAGE, &mut words)?;
            // Another scrub has begun between two pages.
            if *run.get_or_insert(words[3]) != words[3] {
                (all, run) = (Vec::new(), None);
                continue;
            }
            let n = words[2] as usize;
            let entries = words[HEAD..].chunks_exact(ENTRY).take(n);
            all.extend(entries.map(Self::new));
            if n == 0 {
                return Ok(all);
            }
        }
    }

    /// The inode that the damage is in, if it is in one.
    fn inode(&self) -> Option<u64> {
        match (self.kind, self.tree) {
            (2, _) | (_, 3..=5) => Some(self.owner),
            (3, 1) => Some(self.start),
            _ => None,
        }
    }

    fn tree_name(&self) -> &'static str {
        match self.tree {
            1 => "inode tree",
            2 => "orphan tree",
            3 => "extents",
            4 => "directory",
            5 => "extended attributes",
            6 => "AG tree",
            7 => "groups of an AG",
            12 => "deferred tree",
            _ => "unknown tree",
        }
    }

    fn show(&self, paths: &BTreeMap<u64, PathBuf>) -> Value {
        let mut out = json!({});
        if let Some(ino) = self.inode() {
            if let Some(path) = paths.get(&ino) {
                out["path"] = json!(path.to_string_lossy());
            }
            out["inode"] = json!(ino);
        }
        match self.kind {
            2 => {
                out["damaged"] = json!("data");
                out["offset"] = json!(self.start);
                out["bytes"] = json!(self.end.saturating_sub(self.start));
            }
            kind => {
                let what = match (kind, self.copies & 4) {
                    (1, 0) => "one copy of a node",
                    (1, _) => "node",
                    _ => "record",
                };
                out["damaged"] = json!(format!("{what} of the {}", self.tree_name()));
                if self.tree == 7 {
                    out["allocation_group"] = json!(self.owner);
                }
                out["first_key"] = json!(self.start);
                out["last_key"] = json!(self.end);
            }
        }
        if self.block != 0 {
            out["block"] = json!(self.block);
        }
        out
    }
}

/// Finds a path of each inode below `top`, on the same filesystem. Directories that cannot be read
/// are left out: they may be what is damaged.
fn paths_of(top: &Path, mut wanted: Vec<u64>) -> BTreeMap<u64, PathBuf> {
    wanted.sort_unstable();
    wanted.dedup();
    let mut found = BTreeMap::new();
    let Ok(root) = fs::metadata(top) else {
        return found;
    };
    let mut look = |ino: u64, path: &Path| {
        if wanted.binary_search(&ino).is_ok() {
            found.entry(ino).or_insert_with(|| path.to_owned());
        }
        found.len() == wanted.len()
    };
    let mut done = look(root.ino(), top);
    let mut dirs = vec![top.to_owned()];
    while let (false, Some(dir)) = (done, dirs.pop()) {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            done = look(entry.ino(), &path);
            if done {
                break;
            }
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            if is_dir && fs::symlink_metadata(&path).is_ok_and(|m| m.dev() == root.dev()) {
                dirs.push(path);
            }
        }
    }
    found
}

/// Opens a directory of a mounted OrdoFS.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Gives the errors of the ioctls the words that belong to them.
fn explain(path: &Path, e: io::Error) -> anyhow::Error {
    let path = path.display();
    match e.raw_os_error() {
        Some(libc::ENOTTY) => anyhow::anyhow!("{path} is not on a mounted OrdoFS"),
        Some(libc::EBUSY) => anyhow::anyhow!("{path}: a scrub is running"),
        Some(libc::ENOTCONN) => anyhow::anyhow!("{path}: no scrub is running"),
        _ => anyhow::anyhow!("{path}: {e}"),
    }
}

fn report(path: &Path, dir: &File, with_paths: bool, as_json: bool) -> Result<ExitCode> {
    let status = Status::of(dir).map_err(|e| explain(path, e))?;
    let list = Damage::list(dir).map_err(|e| explain(path, e))?;
    let inodes: Vec<u64> = list.iter().filter_map(Damage::inode).collect();
    let paths = match with_paths && !inodes.is_empty() {
        true => paths_of(path, inodes),
        false => BTreeMap::new(),
    };
    let mut fields = status.fields();
    let shown: Vec<Value> = list.iter().map(|d| d.show(&paths)).collect();
    if as_json || !shown.is_empty() {
        fields.push(("damage", json!(shown).into()));
    }
    show::print(&Doc::Fields(fields), as_json)?;
    Ok(match status.is_damaged() {
        true => ExitCode::from(DAMAGED),
        false => ExitCode::SUCCESS,
    })
}

fn wait(path: &Path, dir: &File, run: u64) -> Result<()> {
    loop {
        let status = Status::of(dir).map_err(|e| explain(path, e))?;
        if status.0[22] != run {
            bail!("{}: another scrub has begun", path.display());
        }
        if !status.runs() {
            return match status.0[1] {
                2 => Ok(()),
                _ => bail!("{}: the scrub was {}", path.display(), status.state()),
            };
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs a command.
pub fn run(command: &Scrub, as_json: bool) -> Result<ExitCode> {
    match command {
        Scrub::Start {
            mountpoint,
            wait: waits,
            rate,
            resume,
        } => {
            let dir = open(mountpoint)?;
            let mut words = [0; 8];
            words[1] = if *resume { RESUME } else { 0 };
            words[2] = *rate;
            ioctl(&dir, START, &mut words).map_err(|e| explain(mountpoint, e))?;
            if !waits {
                return Ok(ExitCode::SUCCESS);
            }
            wait(mountpoint, &dir, words[3])?;
            report(mountpoint, &dir, true, as_json)
        }
        Scrub::Status {
            mountpoint,
            no_paths,
        } => {
            report(mountpoint, &open(mountpoint)?, !no_paths, as_json)?;
            Ok(ExitCode::SUCCESS)
        }
        Scrub::Cancel { mountpoint } => {
            ioctl(&open(mountpoint)?, CANCEL, &mut [0; 8]).map_err(|e| explain(mountpoint, e))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("20M"), Ok(20 << 20));
        assert_eq!(bytes("3g"), Ok(3 << 30));
        for wrong in ["", "M", "-1", "1T", "1.5M", "99999999999999G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_entry_is_shown_with_its_path() {
        let words = [0x0002, 77, 500, 8192, 12288, 0];
        let d = Damage::new(&words);
        assert_eq!(d.inode(), Some(77));
        let paths = BTreeMap::from([(77, PathBuf::from("/mnt/file"))]);
        let shown = json!({
            "path": "/mnt/file", "inode": 77, "damaged": "data", "offset": 8192, "bytes": 4096,
            "block": 500,
        });
        assert_eq!(d.show(&paths), shown);
        // A leaf of extents with no good copy.
        let d = Damage::new(&[0x0500_0301, 9, 44, 0, u64::MAX, 0]);
        assert_eq!((d.kind, d.tree, d.copies), (1, 3, 5));
        assert_eq!(d.inode(), Some(9));
        assert_eq!(d.show(&paths)["damaged"], json!("node of the extents"));
        // A node of the inode tree belongs to no inode.
        assert_eq!(Damage::new(&[0x0500_0101, 0, 44, 2, 90, 0]).inode(), None);
    }

    #[test]
    fn paths_are_found_by_number() {
        let top = std::env::temp_dir().join(format!("ordofs-scrub-{}", std::process::id()));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/file"), "").unwrap();
        let ino = |p: &str| fs::metadata(top.join(p)).unwrap().ino();
        let (file, dir, missing) = (ino("a/b/file"), ino("a"), u64::MAX);
        let found = paths_of(&top, vec![file, missing, dir, file]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[&file], top.join("a/b/file"));
        assert_eq!(found[&dir], top.join("a"));
        fs::remove_dir_all(&top).unwrap();
    }
}
