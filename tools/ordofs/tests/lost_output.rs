// SPDX-License-Identifier: GPL-2.0

//! Output that cannot be written is an error, down to its last byte. A reader that closes its pipe early is none.

use ordofs_engine::engine::{Fs, MountOptions, NewInode, S_IFREG};
use ordofs_testkit::image::Image;
use ordofs_testkit::output::{closed, full};
use std::process::{Command, Stdio};

/// A filesystem with a file `file` of five bytes without the end of a line.
fn make() -> Image {
    let image = Image::formatted("output", 32 << 20);
    let fs = Fs::mount(image.disk().device(), MountOptions::default());
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
    image
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let image = make();
    let path = image.path().to_str().expect("a path");
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
        assert_eq!(run(Stdio::null(), Stdio::inherit()), Some(0), "{args:?}");
        assert_eq!(run(full(), full()), Some(1), "{args:?}");
        assert_eq!(run(closed(), closed()), Some(0), "{args:?}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_ordofs"))
        .args(["cat", path, "/none"])
        .stderr(closed())
        .status();
    assert_eq!(missing.expect("ordofs").code(), Some(1));
}
