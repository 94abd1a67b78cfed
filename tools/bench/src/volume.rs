// SPDX-License-Identifier: GPL-2.0

//! A filesystem on a disk: made, mounted, unmounted, or cut off from its disk.
//!
//! # Power cuts
//!
//! A device-mapper device lies between the filesystem and the disk, and passes everything on. At the
//! power cut it begins to drop all writes (dm-flakey), so what the filesystem still writes while it
//! is unmounted never reaches the disk. The next mount is on the disk itself. This treats all
//! filesystems alike, which FS_IOC_SHUTDOWN does not: btrfs has no such ioctl in this kernel.
//!
//! Tests: below; tests/vm/t/075-bench.sh.

use crate::sys;
use anyhow::{bail, ensure, Context, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::str::FromStr;

/// The filesystems that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ordofs,
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    /// Its name, as mount(2) has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ordofs => "ordofs",
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// The options that mkfs needs to make no difficulties. All others are the defaults, with one
    /// exception: ext4 writes its inode tables at once and not in the background, where they would
    /// count as the workload's.
    fn mkfs_options(self) -> &'static [&'static str] {
        match self {
            Kind::Ordofs => &["-f"],
            Kind::Ext4 => &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            Kind::Xfs | Kind::Btrfs => &["-q", "-f"],
        }
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        [Kind::Ordofs, Kind::Ext4, Kind::Xfs, Kind::Btrfs]
            .into_iter()
            .find(|k| k.name() == s)
            .with_context(|| format!("'{s}' is not ordofs, ext4, xfs or btrfs"))
    }
}

/// A filesystem, its disk and the directory where it is mounted.
#[derive(Clone, Debug)]
pub struct Volume {
    pub kind: Kind,
    device: PathBuf,
    disk: String,
    pub dir: PathBuf,
}

impl FromStr for Volume {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        let (kind, device) = s.split_once(':').context("write TYPE:DEVICE")?;
        let kind: Kind = kind.parse()?;
        let device = PathBuf::from(device);
        let disk = device
            .file_name()
            .and_then(OsStr::to_str)
            .context("a device without a name")?
            .to_string();
        let dir = Path::new("/mnt").join(format!("bench-{}", kind.name()));
        Ok(Self {
            kind,
            device,
            disk,
            dir,
        })
    }
}

/// Runs a program to its end; its output, if it succeeds.
pub fn program(name: &str, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(name)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(
        output.status.success(),
        "{name} {}: {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}

/// Has the kernel drop clean pages, dentries and inodes.
fn drop_caches() -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")
}

impl Volume {
    /// Name of the disk in /sys/block.
    pub fn disk(&self) -> &str {
        &self.disk
    }

    fn device(&self) -> Result<&str> {
        self.device.to_str().context("a device's name is no text")
    }

    /// Makes a new filesystem. The disk is empty before, whatever was on it.
    pub fn make(&self) -> Result<()> {
        let device = self.device()?;
        program("blkdiscard", &["-f", device])?;
        let mut arguments = self.kind.mkfs_options().to_vec();
        arguments.push(device);
        program(&format!("mkfs.{}", self.kind.name()), &arguments)?;
        fs::create_dir_all(&self.dir)?;
        Ok(())
    }

    /// Mounts it, with the default options.
    pub fn mount(&self) -> Result<()> {
        sys::mount(&self.device, &self.dir, self.kind.name())
    }

    /// Unmounts it.
    pub fn unmount(&self) -> Result<()> {
        sys::unmount(&self.dir)
    }

    /// Mounts it again, with nothing of it in memory.
    pub fn cool(&self) -> Result<()> {
        self.unmount()?;
        drop_caches()?;
        self.mount()
    }

    /// Drops what is in memory of a filesystem that is not mounted.
    pub fn forget(&self) -> Result<()> {
        drop_caches()
    }

    /// Name of the device that can cut the power.
    fn switch(&self) -> String {
        format!("bench-{}", self.disk)
    }

    /// Mounts it so that the power can be cut.
    pub fn mount_with_switch(&self) -> Result<()> {
        let name = self.switch();
        let table = format!("0 {} linear {} 0", self.sectors()?, self.device()?);
        program(
            "dmsetup",
            &["create", &name, "--noudevsync", "--table", &table],
        )?;
        let output = program(
            "dmsetup",
            &["info", "-c", "--noheadings", "-o", "blkdevname", &name],
        )?;
        let node = Path::new("/dev").join(String::from_utf8(output.stdout)?.trim());
        sys::mount(&node, &self.dir, self.kind.name())
    }

    /// Cuts the power, and unmounts what has lost its disk.
    pub fn cut(&self) -> Result<()> {
        let name = self.switch();
        // Up for 0 seconds, down for 1000.
        let table = format!(
            "0 {} flakey {} 0 0 1000 1 drop_writes",
            self.sectors()?,
            self.device()?
        );
        program(
            "dmsetup",
            &["suspend", "--nolockfs", "--noflush", "--noudevsync", &name],
        )?;
        program("dmsetup", &["load", &name, "--table", &table])?;
        program("dmsetup", &["resume", "--noudevsync", &name])?;
        self.unmount()?;
        program("dmsetup", &["remove", "--noudevsync", &name])?;
        Ok(())
    }

    fn sectors(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/sys/block/{}/size", self.disk))?;
        Ok(text.trim().parse()?)
    }

    /// Leaves nothing mounted, whether a workload has succeeded or not.
    pub fn tidy(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let dir = self.dir.to_str().context("a directory's name is no text")?;
        if mounts.lines().any(|l| l.split(' ').nth(1) == Some(dir)) {
            self.unmount()?;
        }
        let switch = self.switch();
        for entry in fs::read_dir("/sys/block")? {
            let name = entry?.path().join("dm/name");
            if fs::read_to_string(name).is_ok_and(|n| n.trim() == switch) {
                program("dmsetup", &["remove", "--noudevsync", &switch])?;
                bail!("the device {switch} was left behind");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_parsed() {
        let v: Volume = "xfs:/dev/vdd".parse().unwrap();
        assert_eq!((v.kind, v.disk()), (Kind::Xfs, "vdd"));
        assert_eq!(v.dir, Path::new("/mnt/bench-xfs"));
        for wrong in ["xfs", "ext2:/dev/vdb", ":/dev/vdb", "xfs:"] {
            assert!(wrong.parse::<Volume>().is_err(), "{wrong}");
        }
    }
}
