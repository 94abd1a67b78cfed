// SPDX-License-Identifier: GPL-2.0

//! Mounting, unmounting and recovering.

use super::common::open;
use super::names;
use crate::counters::Meter;
use crate::volume::Volume;
use anyhow::{ensure, Result};
use std::fs;
use std::io::Write;

const FILES: u64 = 1000;
const FSYNCS: u64 = 512;

/// Mounts a filesystem that was unmounted, with nothing of it in memory.
pub fn mount(volume: &Volume, ops: u64, meter: &mut Meter<'_>) -> Result<()> {
    volume.mount()?;
    names::some_files(&volume.dir, FILES)?;
    for _ in 0..ops {
        volume.unmount()?;
        volume.forget()?;
        meter.time(|| volume.mount())?;
    }
    Ok(())
}

/// Unmounts a filesystem whose last changes are in memory only.
pub fn unmount(volume: &Volume, ops: u64, meter: &mut Meter<'_>) -> Result<()> {
    for i in 0..ops {
        volume.mount()?;
        let dir = volume.dir.join(format!("time{i}"));
        fs::create_dir(&dir)?;
        names::some_files(&dir, FILES / 10)?;
        meter.time(|| volume.unmount())?;
    }
    Ok(())
}

/// Mounts a filesystem after a power cut. What fsync acknowledged is there.
pub fn recover(volume: &Volume, ops: u64, meter: &mut Meter<'_>) -> Result<()> {
    for i in 0..ops {
        let path = volume.dir.join(format!("file{i}"));
        volume.mount_with_switch()?;
        let mut file = open(&path, 0)?;
        for _ in 0..FSYNCS {
            file.write_all(&[0x5a; 4096])?;
            file.sync_all()?;
        }
        drop(file);
        volume.cut()?;
        volume.forget()?;
        meter.time(|| volume.mount())?;
        ensure!(
            fs::read(&path)? == vec![0x5a; 4096 * FSYNCS as usize],
            "data is lost"
        );
        volume.unmount()?;
    }
    Ok(())
}
