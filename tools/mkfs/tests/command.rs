// SPDX-License-Identifier: GPL-2.0

//! The command line of mkfs.ordofs: its limits, and what it does when nobody takes its output.

mod common;

use common::{mkfs, ok, run, Image};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

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

fn is_made(image: &Image) -> bool {
    let mut magic = [0; 6];
    let slot = image.file().read_exact_at(&mut magic, 16 * 4096);
    slot.is_ok() && &magic == b"OrdoFS"
}

#[test]
fn a_filesystem_is_made_even_if_nobody_can_be_told() {
    for (name, out) in [("full", full as fn() -> Stdio), ("closed", closed)] {
        let image = Image::new(name, 32 * MIB);
        let got = mkfs(&image, &[]).stdout(out()).output().unwrap();
        let said = String::from_utf8_lossy(&got.stderr);
        assert!(got.status.success(), "{name}: {:?}: {said}", got.status);
        assert!(is_made(&image));
        // A pipe that nobody reads is no news.
        assert_eq!(said.contains("is made; standard output:"), name == "full");
        let status = mkfs(&image, &["-f"]).stdout(out()).stderr(out()).status();
        assert!(status.unwrap().success(), "{name}");
        // An error still has its status.
        let mut small = mkfs(&image, &["-f"]);
        let status = small.arg("1K").stdout(out()).stderr(out()).status();
        assert_eq!(status.unwrap().code(), Some(1), "{name}");
    }
    // Not even descriptors: what is opened must not become standard output.
    let image = Image::new("none", 32 * MIB);
    let script = "\"$0\" \"$1\" >&- 2>&-";
    let mkfs = env!("CARGO_BIN_EXE_mkfs-ordofs");
    let mut c = Command::new("sh");
    ok(c.args(["-c", script, mkfs]).arg(image.path()));
    assert!(is_made(&image));
}

#[test]
fn a_question_that_cannot_be_asked_is_answered_no() {
    let image = Image::new("question", 32 * MIB);
    ok(&mut mkfs(&image, &[]));
    let mut before = Vec::new();
    image.file().read_to_end(&mut before).unwrap();
    for out in [full as fn() -> Stdio, closed] {
        let mut child = mkfs(&image, &[])
            .stdin(Stdio::piped())
            .stdout(out())
            .spawn()
            .unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(b"y\n");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
    let mut after = Vec::new();
    image.file().read_to_end(&mut after).unwrap();
    assert!(before == after);
}

#[test]
fn a_dry_run_that_cannot_be_shown_fails() {
    let image = Image::new("dry", 32 * MIB);
    let status = mkfs(&image, &["-n"]).stdout(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    ok(&mut mkfs(&image, &["-n"]));
    assert!(!is_made(&image));
}

#[test]
fn sizes_up_to_the_limit() {
    let image = Image::new("sizes", 32 * MIB);
    for size in ["16M", "4095P", "4E", "4611686018427387904"] {
        ok(mkfs(&image, &["-n"]).arg(size));
    }
    for size in ["4611686018427392000", "5E", "15E", "16E", "4097P", "15M"] {
        let (out, said) = run(mkfs(&image, &["-n"]).arg(size));
        assert!(!out.status.success(), "{size}: {said}");
    }
    ok(mkfs(&image, &["-q"]).arg("1P"));
    assert_eq!(image.file().metadata().unwrap().len(), 1 << 50);
    assert!(is_made(&image));
}

#[test]
fn the_root_directory_has_a_possible_owner() {
    let image = Image::new("owner", 32 * MIB);
    for owner in ["4294967295:0", "0:4294967295", "4294967296:0", "+0:0"] {
        let (out, said) = run(&mut mkfs(&image, &["--root-owner", owner]));
        assert!(!out.status.success(), "{owner}: {said}");
    }
    assert!(!is_made(&image));
    ok(&mut mkfs(
        &image,
        &["--root-owner", "4294967294:4294967294"],
    ));
}
