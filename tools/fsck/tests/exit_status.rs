// SPDX-License-Identifier: GPL-2.0

//! The exit status of fsck.ordofs is its verdict, even if its output is lost, and fsck(8) cannot mistake it for
//! another one.

use ordofs_testkit::image::Image;
use ordofs_testkit::output::{closed, full};
use ordofs_testkit::run::{run, status};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

const CLEAN: i32 = 0;
const ERRORS_LEFT: i32 = 4;
const OPERATIONAL: i32 = 8;

fn image(name: &str) -> Image {
    Image::formatted(name, 32 << 20)
}

/// Damages every node of every tree.
fn damage(image: &Image) {
    let file = image.file();
    for block in 256..8192 {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, block * 4096).expect("read");
        if &magic == b"ORDN" {
            file.write_all_at(b"!", block * 4096 + 100).expect("write");
        }
    }
}

fn fsck(image: &Image) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_fsck-ordofs"));
    c.arg("-v").arg(image.path());
    c
}

#[test]
fn the_status_is_the_verdict_even_if_the_report_is_lost() {
    let image = image("output");
    for verdict in [CLEAN, ERRORS_LEFT] {
        for how in [&["-n"][..], &["-p"], &[]] {
            assert_eq!(
                status(fsck(&image).args(how).stdout(Stdio::null())),
                verdict
            );
            // The reader has closed the pipe: no error.
            assert_eq!(status(fsck(&image).args(how).stdout(closed())), verdict);
            let both = &mut fsck(&image);
            assert_eq!(
                status(both.args(how).stdout(closed()).stderr(closed())),
                verdict
            );
            // The report is lost.
            let lost = verdict | OPERATIONAL;
            assert_eq!(status(fsck(&image).args(how).stdout(full())), lost);
            let both = &mut fsck(&image);
            assert_eq!(status(both.args(how).stdout(full()).stderr(full())), lost);
        }
        // Without open descriptors, the image must not become standard output.
        let mut c = Command::new("sh");
        c.args(["-c", "\"$0\" -n \"$1\" >&- 2>&-"]);
        c.arg(env!("CARGO_BIN_EXE_fsck-ordofs")).arg(image.path());
        assert_eq!(status(&mut c), verdict);
        damage(&image);
    }
}

#[test]
fn nothing_to_check_is_an_operational_error() {
    let image = image("none");
    let size = image.file().metadata().expect("size").len();
    let zeroes = vec![0; size as usize];
    image.file().write_all_at(&zeroes, 0).expect("write");
    for out in [full as fn() -> Stdio, closed] {
        let c = &mut fsck(&image);
        assert_eq!(status(c.arg("-n").stdout(out()).stderr(out())), OPERATIONAL);
    }
    std::fs::write(image.path(), b"short").expect("write");
    assert_eq!(status(fsck(&image).arg("-n")), OPERATIONAL);
}

/// With two copies of each node, the first or the second ones of which are damaged: nothing is lost, and
/// fsck says so for each.
#[test]
fn a_bad_copy_of_a_node_is_an_error_that_is_left() {
    for (bad, name) in [(256..32768, "first"), (32768..65536, "second")] {
        let image = Image::formatted(name, 256 << 20);
        assert_eq!(status(fsck(&image).arg("-n").stdout(Stdio::null())), CLEAN);
        let file = image.file();
        let mut n = 0;
        for block in bad {
            let mut magic = [0; 4];
            file.read_exact_at(&mut magic, block * 4096).expect("read");
            if &magic == b"ORDN" {
                file.write_all_at(b"!", block * 4096 + 100).expect("write");
                n += 1;
            }
        }
        assert!(n >= 3, "{n}");
        let (out, said) = run(fsck(&image).arg("-n"));
        assert_eq!(out.status.code(), Some(ERRORS_LEFT), "{said}");
        let copies = format!("{name} copy of a node at block");
        assert!(said.matches(&copies).count() >= 3, "{said}");
        assert!(said.contains("the other copy is good"), "{said}");
    }
}
