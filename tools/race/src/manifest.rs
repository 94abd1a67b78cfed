// SPDX-License-Identifier: GPL-2.0

//! The content of the files when a run ended, for `ordofs-race verify` after a remount.

use crate::check::observe;
use crate::plan::Plan;
use crate::stamp::{Unit, UNIT};
use crate::sys::{self, PAGE};
use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Name of the manifest in the directory of a run.
pub const NAME: &str = "ordofs-race.manifest";
const VERSION: u32 = 1;
const SHOWN: usize = 6;

/// One file.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    /// Name in the directory.
    pub name: String,
    /// Random number in its stamps.
    pub file: u32,
    /// Cells of a page.
    pub per_page: usize,
    /// CRC-32C of each page.
    pub pages: Vec<u32>,
    /// Sequence number at the start of each cell; 0 is a hole.
    pub seqs: Vec<u64>,
}

/// All files of a run.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// The files.
    pub files: Vec<Entry>,
}

impl Manifest {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            version: VERSION,
            files: Vec::new(),
        }
    }

    /// Makes `path` durable and notes what is on disk.
    pub fn add(&mut self, path: &Path, plan: &Plan, direct: bool) -> Result<()> {
        let file = sys::open(path, false, false)?;
        plan.sync(|| file.sync_all())
            .with_context(|| format!("fsync of {}", path.display()))?;
        sys::drop_cache(&file);
        let file = if direct {
            sys::open(path, false, true)?
        } else {
            file
        };
        let (sums, seqs) = observe(&file, plan.pages, plan.per_page)
            .with_context(|| format!("reading {}", path.display()))?;
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .context("file name")?
            .to_owned();
        self.files.push(Entry {
            name,
            file: plan.file,
            per_page: plan.per_page,
            pages: sums,
            seqs,
        });
        Ok(())
    }

    /// Writes the manifest into `dir` and makes it durable.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        let write = || -> Result<()> {
            std::fs::write(&path, serde_json::to_vec(self)?)?;
            File::open(&path)?.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the manifest of `dir`.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let m: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged", path.display()))?;
        if m.version != VERSION {
            bail!(
                "{} has version {}, this program knows {VERSION}",
                path.display(),
                m.version
            );
        }
        Ok(m)
    }
}

/// Compares a file with its entry; returns the number of pages that differ.
pub fn verify(dir: &Path, e: &Entry) -> Result<u64> {
    let path = dir.join(&e.name);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.metadata()?.len();
    let pages = e.pages.len() as u64;
    let mut bad = 0;
    if size != pages * PAGE as u64 {
        ordofs_cli::complain!(
            "{}: size is {size}, was {}",
            path.display(),
            pages * PAGE as u64
        );
        bad += 1;
    }
    let (sums, _) = observe(&file, pages.min(size / PAGE as u64), e.per_page)
        .with_context(|| format!("reading {}", path.display()))?;
    for (page, (now, was)) in sums.iter().zip(&e.pages).enumerate() {
        if now == was {
            continue;
        }
        bad += 1;
        if bad <= SHOWN as u64 {
            ordofs_cli::complain!(
                "{}: page {page} has checksum {now:08x}, had {was:08x}",
                path.display()
            );
            describe(&file, page, e)?;
        }
    }
    Ok(bad)
}

/// Reports the cells of a page whose content has changed.
fn describe(file: &File, page: usize, e: &Entry) -> Result<()> {
    let mut data = vec![0; PAGE];
    file.read_exact_at(&mut data, (page * PAGE) as u64)?;
    for (slot, cell) in data.chunks_exact(PAGE / e.per_page).enumerate() {
        let was = e.seqs.get(page * e.per_page + slot).copied().unwrap_or(0);
        let at = (page * PAGE + slot * cell.len()) as u64;
        let what = match Unit::from_bytes(&cell[..UNIT]) {
            Unit::Zero if was == 0 => continue,
            Unit::Zero => "zeroes (lost)".to_owned(),
            Unit::Garbage(_) => "no stamp (torn or garbage)".to_owned(),
            Unit::Stamp(s) if s.file != e.file => {
                format!("data of another file: id {:08x}, byte {}", s.file, s.offset)
            }
            Unit::Stamp(s) if s.offset != at => format!("misplaced, belongs at byte {}", s.offset),
            Unit::Stamp(s) if s.seq == was => continue,
            Unit::Stamp(s) => format!("store {} of writer {}", s.seq, s.writer),
        };
        ordofs_cli::complain!("  byte {at}: {what}; was store {was}");
    }
    Ok(())
}
