// SPDX-License-Identifier: GPL-2.0

//! Giving space back, a block at a time.

use super::common::Ready;
use super::data;
use crate::sys::{self, PAGE};
use anyhow::Result;
use std::path::Path;

/// Punches every second block out of a file.
pub fn punch(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    let file = data::filled(&dir.join("file"), 2 * ops * PAGE as u64)?;
    Ok(Box::new(move |meter| {
        meter.time(|| {
            for i in 0..ops {
                sys::punch(&file, 2 * i * PAGE as u64, PAGE as u64)?;
            }
            Ok(())
        })
    }))
}

/// Cuts the last block off, until none is left.
pub fn truncate(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    let file = data::filled(&dir.join("file"), ops * PAGE as u64)?;
    Ok(Box::new(move |meter| {
        meter.time(|| {
            for blocks in (0..ops).rev() {
                file.set_len(blocks * PAGE as u64)?;
            }
            Ok(())
        })
    }))
}
