// SPDX-License-Identifier: GPL-2.0

//! Image files, empty or with a filesystem.

use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::os::file::{FileDisk, Open};
use ordofs_engine::os::Device;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// A sparse image file, which is removed when the value is dropped.
pub struct Image(PathBuf);

impl Image {
    /// An image of zeroes. The name must be unique within a test program.
    pub fn new(name: &str, bytes: u64) -> Self {
        // Not every filesystem has files of a PiB, so /dev/shm is better than /tmp.
        let shm = PathBuf::from("/dev/shm");
        let dir = if shm.is_dir() {
            shm
        } else {
            std::env::temp_dir()
        };
        let path = dir.join(format!("ordofs-test.{}.{name}", std::process::id()));
        let image = Self(path);
        let file = File::create(image.path()).expect("an image file");
        file.set_len(bytes).expect("a size");
        image
    }

    /// An image with an empty OrdoFS.
    pub fn formatted(name: &str, bytes: u64) -> Self {
        let image = Self::new(name, bytes);
        make_filesystem(image.disk().device());
        image
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file, for reading and writing.
    pub fn file(&self) -> File {
        let open = OpenOptions::new().read(true).write(true).open(&self.0);
        open.expect("the image file")
    }

    /// The device that the engine reads and writes.
    pub fn disk(&self) -> FileDisk {
        let how = Open {
            write: true,
            exclusive: true,
        };
        FileDisk::open(&self.0, how).expect("the image")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes an empty filesystem as large as the device.
pub fn make_filesystem(device: Device) {
    let options = FormatOptions {
        uuid: *b"ordofs-test.uuid",
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies: 0,
    };
    assert!(format(device, &options).is_ok());
}
