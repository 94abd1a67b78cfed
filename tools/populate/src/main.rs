// SPDX-License-Identifier: GPL-2.0

//! `ordofs-populate`: puts much metadata and little data on an OrdoFS that is not mounted, for
//! tests of what a mount does with it. It runs the engine itself, because system calls would take
//! far longer.
//!
//! `attributes/NUMBER` are empty files with an attribute `user.large` of 64 KiB each, which takes
//! about twenty nodes of metadata. The attribute repeats the file's number, in four little-endian
//! bytes.
//!
//! Tests: tests/vm/t/091-reclaim.sh uses it.

use anyhow::{anyhow, Context, Result};
use clap::Parser;
use kernel::prelude::Error;
use ordofs_engine::engine::ops::xattr::{XattrSet, USER, VALUE_MAX};
use ordofs_engine::engine::{Fs, Inode, MountOptions, NewInode, S_IFDIR, S_IFREG};
use ordofs_engine::os::file::{FileDisk, Open};
use ordofs_engine::os::Shared;
use std::path::PathBuf;
use std::process::ExitCode;

/// Operations between two commits. What they dirty stays in memory.
const BATCH: u32 = 1000;

#[derive(Parser)]
#[command(version, about = "Put much metadata on an OrdoFS that is not mounted")]
struct Cli {
    /// Files with a large attribute
    #[arg(long, default_value_t = 0)]
    attributes: u32,
    /// Block device or image file
    device: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            ordofs_cli::complain!("ordofs-populate: {}: {e:#}", cli.device.display());
            ExitCode::FAILURE
        }
    }
}

/// An error of the engine, with what was tried.
fn because(what: impl std::fmt::Display) -> impl FnOnce(Error) -> anyhow::Error {
    move |e| anyhow!("{what}: {e:?}")
}

fn new(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        project: 0,
        symlink: None,
        id: None,
        xattrs: &[],
    }
}

fn run(cli: &Cli) -> Result<()> {
    let how = Open {
        write: true,
        exclusive: true,
    };
    let disk = FileDisk::open(&cli.device, how).context("cannot open")?;
    let fs =
        Fs::mount(disk.device(), MountOptions::default()).map_err(|e| anyhow!("{}", e.reason))?;
    let root = fs.iget(fs.root_ino()).map_err(because("root"))?;
    attributes(&fs, &root, cli.attributes)?;
    fs.iput(root);
    fs.unmount().map_err(because("unmount"))
}

fn attributes(fs: &Fs, root: &Shared<Inode>, count: u32) -> Result<()> {
    let dir = fs
        .create(root, b"attributes", &new(S_IFDIR | 0o755))
        .map_err(because("attributes"))?;
    for i in 0..count {
        let file = fs
            .create(&dir, i.to_string().as_bytes(), &new(S_IFREG | 0o644))
            .map_err(because(format_args!("file {i}")))?;
        let value = i.to_le_bytes().repeat(VALUE_MAX / 4);
        fs.set_xattr(&file, USER, b"large", Some(&value), XattrSet::Create)
            .map_err(because(format_args!("attribute {i}")))?;
        fs.iput(file);
        if i % BATCH == 0 {
            fs.sync().map_err(because("commit"))?;
        }
    }
    fs.iput(dir);
    Ok(())
}
