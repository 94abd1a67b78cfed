// SPDX-License-Identifier: GPL-2.0

//! mkfs.ordofs refuses options that are out of range, and makes the filesystem even if its output is lost.

use ordofs_testkit::image::Image;
use ordofs_testkit::output::{closed, full};
use ordofs_testkit::run::{ok, run};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// `mkfs.ordofs ARGS... IMAGE`, without anything on standard input.
fn mkfs(image: &Image, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_mkfs-ordofs"));
    c.args(args).arg(image.path()).stdin(Stdio::null());
    c
}

fn is_made(image: &Image) -> bool {
    let mut magic = [0; 6];
    let slot = image.file().read_exact_at(&mut magic, 16 * 4096);
    slot.is_ok() && &magic == b"OrdoFS"
}

#[test]
fn a_filesystem_is_made_even_if_its_output_is_lost() {
    for (name, out) in [("full", full as fn() -> Stdio), ("closed", closed)] {
        let image = Image::new(name, 32 * MIB);
        let got = mkfs(&image, &[]).stdout(out()).output().unwrap();
        let said = String::from_utf8_lossy(&got.stderr);
        assert!(got.status.success(), "{name}: {:?}: {said}", got.status);
        assert!(is_made(&image));
        // A pipe without a reader is no reason for a message.
        assert_eq!(said.contains("is made; standard output:"), name == "full");
        let status = mkfs(&image, &["-f"]).stdout(out()).stderr(out()).status();
        assert!(status.unwrap().success(), "{name}");
        // An error still has its status.
        let mut small = mkfs(&image, &["-f"]);
        let status = small.arg("1K").stdout(out()).stderr(out()).status();
        assert_eq!(status.unwrap().code(), Some(1), "{name}");
    }
    // Without open descriptors, the image must not become standard output.
    let image = Image::new("none", 32 * MIB);
    let script = "\"$0\" \"$1\" >&- 2>&-";
    let mkfs = env!("CARGO_BIN_EXE_mkfs-ordofs");
    let mut c = Command::new("sh");
    ok(c.args(["-c", script, mkfs]).arg(image.path()));
    assert!(is_made(&image));
}

#[test]
fn a_question_that_cannot_be_printed_counts_as_no() {
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
        // mkfs may exit without reading it.
        let _ = child.stdin.take().unwrap().write_all(b"y\n");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
    let mut after = Vec::new();
    image.file().read_to_end(&mut after).unwrap();
    assert!(before == after);
}

#[test]
fn a_dry_run_that_cannot_be_printed_fails() {
    let image = Image::new("dry", 32 * MIB);
    let status = mkfs(&image, &["-n"]).stdout(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    ok(&mut mkfs(&image, &["-n"]));
    assert!(!is_made(&image));
}

#[test]
fn sizes_above_the_limit_are_refused() {
    let image = Image::new("sizes", 32 * MIB);
    for size in ["16M", "2047P", "2E", "2305843009213693952"] {
        ok(mkfs(&image, &["-n"]).arg(size));
    }
    for size in ["2305843009213698048", "3E", "15E", "16E", "2049P", "15M"] {
        let (out, said) = run(mkfs(&image, &["-n"]).arg(size));
        assert!(!out.status.success(), "{size}: {said}");
    }
    ok(mkfs(&image, &["-q"]).arg("1P"));
    assert_eq!(image.file().metadata().unwrap().len(), 1 << 50);
    assert!(is_made(&image));
}

#[test]
fn an_impossible_owner_of_the_root_directory_is_refused() {
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

/// The number of copies of nodes in the newest superblocks, and what mkfs says of it.
#[test]
fn the_copies_of_nodes_can_be_chosen() {
    for (name, size, args, made, said) in [
        ("small", 64, &[][..], 1, "one copy"),
        ("large", 256, &[][..], 2, "2 copies"),
        ("one", 256, &["--copies", "1"][..], 1, "one copy"),
        ("two", 64, &["--copies", "2"][..], 2, "2 copies"),
    ] {
        let image = Image::new(name, size * MIB);
        let out = mkfs(&image, args).output().unwrap();
        assert!(out.status.success(), "{name}");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains(said), "{name}: {text}");
        for slot in [16, 128] {
            let mut copies = [0];
            let at = slot * 4096 + 210;
            image.file().read_exact_at(&mut copies, at).unwrap();
            assert_eq!(copies, [made], "{name}");
        }
    }
    for wrong in ["0", "3", "two"] {
        let image = Image::new("wrong", 64 * MIB);
        let (out, said) = run(&mut mkfs(&image, &["--copies", wrong]));
        assert!(!out.status.success(), "{wrong}: {said}");
        assert!(!is_made(&image));
    }
}
