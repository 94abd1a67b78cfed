// SPDX-License-Identifier: GPL-2.0

//! Stores to shared mappings.

use super::common::{together, Ready};
use super::data;
use crate::sys::{self, Mapping, PAGE};
use anyhow::Result;
use std::path::Path;

/// The first store to each page; the pages are cached and clean. Each thread has a part of the file.
pub fn fault(dir: &Path, threads: u64, ops: u64) -> Result<Ready<'_>> {
    let file = data::filled(&dir.join("file"), ops * PAGE as u64)?;
    let each = (ops / threads) as usize;
    Ok(Box::new(move |meter| {
        let mapping = Mapping::new(&file, ops as usize * PAGE)?;
        let mapping = &mapping;
        let jobs = (0..threads as usize).map(|t| {
            Box::new(move || {
                for page in t * each..(t + 1) * each {
                    mapping.store(page, 1);
                }
                Ok(())
            }) as Box<dyn FnOnce() -> _ + Send>
        });
        together(meter, jobs.collect())
    }))
}

/// Stores to all pages of a file, and msync. After the first time the mapping is there, and the stores
/// only have to make it writable again.
pub fn msync(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    let pages = ops.min(256) as usize;
    let file = data::filled(&dir.join("file"), (pages * PAGE) as u64)?;
    sys::sync_filesystem(dir)?;
    Ok(Box::new(move |meter| {
        let mapping = Mapping::new(&file, pages * PAGE)?;
        meter.time(|| {
            for i in 0..ops as usize {
                mapping.store(i % pages, (i / pages) as u8);
                if i % pages == pages - 1 {
                    mapping.sync()?;
                }
            }
            mapping.sync()
        })
    }))
}
