// SPDX-License-Identifier: GPL-2.0

//! What cannot be written is an error, to the last byte; that the reader has gone is none.

use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::engine::{Fs, MountOptions, NewInode, S_IFREG};
use ordofs_engine::os::file::{FileDisk, Open};
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

fn open(path: &Path) -> FileDisk {
    let how = Open {
        write: true,
        exclusive: true,
    };
    FileDisk::open(path, how).expect("the image")
}

/// A filesystem with a file `file` of five bytes without the end of a line.
fn make(path: &Path) {
    let file = File::create(path).expect("an image file");
    file.set_len(32 << 20).expect("a size");
    let options = FormatOptions {
        uuid: [1; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
    };
    assert!(format(open(path).device(), &options).is_ok());
    let fs = Fs::mount(open(path).device(), MountOptions::default());
    let fs = fs.map_err(|e| e.reason).expect("mount");
    let new = NewInode {
        mode: S_IFREG | 0o644,
        ..NewInode::default()
    };
    let root = fs.iget(fs.root_ino()).expect("root");
    let file = fs.create(&root, b"file", &new).expect("create");
    fs.set_size(&file, 5).expect("size");
    fs.iput(file);
    fs.iput(root);
    fs.unmount().expect("unmount");
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let reader = Command::new("true").stdin(Stdio::piped()).spawn();
    let mut reader = reader.expect("true(1)");
    let pipe = reader.stdin.take().expect("its pipe");
    reader.wait().expect("its end");
    pipe.into()
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let image = std::env::temp_dir().join(format!("ordofs.{}.output", std::process::id()));
    make(&image);
    let path = image.to_str().expect("a path");
    for args in [
        &["cat", path, "/file"][..],
        &["ls", path],
        &["ls", "--json", path],
        &["stat", path, "/file"],
        &["dump", "superblock", path],
        &["dump", "tree", path, "inode"],
        &["dump", "inode", path, "2"],
    ] {
        let run = |out: Stdio, err: Stdio| {
            let mut c = Command::new(env!("CARGO_BIN_EXE_ordofs"));
            let status = c.args(args).stdout(out).stderr(err).status();
            status.expect("ordofs").code()
        };
        let full = || {
            let file = OpenOptions::new().write(true).open("/dev/full");
            Stdio::from(file.expect("/dev/full"))
        };
        assert_eq!(run(Stdio::null(), Stdio::inherit()), Some(0), "{args:?}");
        assert_eq!(run(full(), full()), Some(1), "{args:?}");
        assert_eq!(run(closed(), closed()), Some(0), "{args:?}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_ordofs"))
        .args(["cat", path, "/none"])
        .stderr(closed())
        .status();
    assert_eq!(missing.expect("ordofs").code(), Some(1));
    std::fs::remove_file(image).expect("the image");
}
