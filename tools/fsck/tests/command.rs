// SPDX-License-Identifier: GPL-2.0

//! The exit status of fsck.ordofs tells the verdict, whatever becomes of its output, and nothing that fsck(8)
//! would decode as something else.

use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::os::file::{FileDisk, Open};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CLEAN: i32 = 0;
const ERRORS_LEFT: i32 = 4;
const OPERATIONAL: i32 = 8;

/// An image file with an empty filesystem; removed at the end.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fsck.ordofs.{}.{name}", std::process::id()));
        let image = Self(path);
        let file = std::fs::File::create(&image.0).expect("an image file");
        file.set_len(32 << 20).expect("a size");
        let how = Open {
            write: true,
            exclusive: true,
        };
        let disk = FileDisk::open(&image.0, how).expect("the image");
        let options = FormatOptions {
            uuid: *b"fsck.ordofs test",
            label: [0; 64],
            blocks: 0,
            root_owner: (0, 0),
        };
        assert!(format(disk.device(), &options).is_ok());
        image
    }

    /// Damages every node of every tree.
    fn damage(&self) {
        let open = OpenOptions::new().read(true).write(true).open(&self.0);
        let file = open.expect("the image");
        for block in 256..8192 {
            let mut magic = [0; 4];
            file.read_exact_at(&mut magic, block * 4096).expect("read");
            if &magic == b"ORDN" {
                file.write_all_at(b"!", block * 4096 + 100).expect("write");
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn full() -> Stdio {
    let file = OpenOptions::new().write(true).open("/dev/full");
    file.expect("/dev/full").into()
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let reader = Command::new("true").stdin(Stdio::piped()).spawn();
    let mut reader = reader.expect("true(1)");
    let pipe = reader.stdin.take().expect("its pipe");
    reader.wait().expect("its end");
    pipe.into()
}

fn fsck(image: &Image) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_fsck-ordofs"));
    c.arg("-v").arg(image.path());
    c
}

fn status(command: &mut Command) -> i32 {
    let status = command.status().expect("fsck.ordofs");
    status.code().expect("no signal")
}

#[test]
fn the_verdict_is_told_even_if_nobody_takes_the_report() {
    let image = Image::new("output");
    for verdict in [CLEAN, ERRORS_LEFT] {
        for how in [&["-n"][..], &["-p"], &[]] {
            assert_eq!(
                status(fsck(&image).args(how).stdout(Stdio::null())),
                verdict
            );
            // Nobody has wanted it: no error.
            assert_eq!(status(fsck(&image).args(how).stdout(closed())), verdict);
            let both = &mut fsck(&image);
            assert_eq!(
                status(both.args(how).stdout(closed()).stderr(closed())),
                verdict
            );
            // It is lost.
            let lost = verdict | OPERATIONAL;
            assert_eq!(status(fsck(&image).args(how).stdout(full())), lost);
            let both = &mut fsck(&image);
            assert_eq!(status(both.args(how).stdout(full()).stderr(full())), lost);
        }
        // No descriptors: what is opened must not become standard output.
        let mut c = Command::new("sh");
        c.args(["-c", "\"$0\" -n \"$1\" >&- 2>&-"]);
        c.arg(env!("CARGO_BIN_EXE_fsck-ordofs")).arg(image.path());
        assert_eq!(status(&mut c), verdict);
        image.damage();
    }
}

#[test]
fn nothing_to_check_is_an_operational_error() {
    let image = Image::new("none");
    let fill = OpenOptions::new().write(true).open(image.path());
    let zeroes = vec![0; 1 << 20];
    fill.expect("the image")
        .write_all_at(&zeroes, 0)
        .expect("write");
    for out in [full as fn() -> Stdio, closed] {
        let c = &mut fsck(&image);
        assert_eq!(status(c.arg("-n").stdout(out()).stderr(out())), OPERATIONAL);
    }
    std::fs::write(image.path(), b"short").expect("write");
    assert_eq!(status(fsck(&image).arg("-n")), OPERATIONAL);
}
