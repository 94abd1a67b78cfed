// SPDX-License-Identifier: GPL-2.0

//! Image files, and programs that are run on them.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An image file; sparse, and removed at the end.
pub struct Image(PathBuf);

impl Image {
    pub fn new(name: &str, bytes: u64) -> Self {
        // Not /tmp if there is a choice: not every filesystem has files of a PiB.
        let shm = PathBuf::from("/dev/shm");
        let dir = if shm.is_dir() {
            shm
        } else {
            std::env::temp_dir()
        };
        let path = dir.join(format!("mkfs.ordofs.{}.{name}", std::process::id()));
        let image = Self(path);
        let file = File::create(image.path()).expect("an image file");
        file.set_len(bytes).expect("a size");
        image
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.0)
            .expect("the image file")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `mkfs.ordofs ARGS... IMAGE`, without anything on standard input.
pub fn mkfs(image: &Image, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_mkfs-ordofs"));
    c.args(args).arg(image.path()).stdin(Stdio::null());
    c
}

/// Runs it. Returns whether it succeeded, and what it printed.
pub fn run(command: &mut Command) -> (Output, String) {
    let out = command.output();
    let out = out.unwrap_or_else(|e| panic!("{command:?}: {e} (packages: scripts/packages)"));
    let text = [&out.stdout[..], &out.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (out, text)
}

/// Runs it, and it must succeed.
pub fn ok(command: &mut Command) -> String {
    let (out, text) = run(command);
    assert!(
        out.status.success(),
        "{command:?}: {:?}: {text}",
        out.status
    );
    text
}
