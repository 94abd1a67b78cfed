// SPDX-License-Identifier: GPL-2.0

//! Nothing of an earlier filesystem is left for its tools to find, where nothing is discarded; and what lies
//! behind the size that was asked for is left alone. The other filesystems are made by their own tools
//! (e2fsprogs, xfsprogs, btrfs-progs, util-linux).

use ordofs_testkit::image::Image;
use ordofs_testkit::run::{ok, run};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// `mkfs.ordofs ARGS... IMAGE`, without anything on standard input.
fn mkfs(image: &Image, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_mkfs-ordofs"));
    c.args(args).arg(image.path()).stdin(Stdio::null());
    c
}

/// Nothing that blkid(8) or wipefs(8) knows is there.
fn nothing_is_known(image: &Image) {
    let (_, said) = run(Command::new("blkid").arg("-p").arg(image.path()));
    assert_eq!(said, "", "blkid");
    assert_eq!(
        ok(Command::new("wipefs").arg("-n").arg(image.path())),
        "",
        "wipefs"
    );
}

/// Makes an ext4 and an OrdoFS over it; `wiped`: the ext4's own superblock is gone before.
fn over_ext4(name: &str, size: u64, options: &[&str], wiped: bool) {
    let image = Image::new(name, size);
    let mke2fs = |more: &[&str]| {
        let mut c = Command::new("mke2fs");
        c.args(["-q", "-F", "-t", "ext4"]).args(options).args(more);
        ok(c.arg(image.path()))
    };
    mke2fs(&[]);
    // "Block size=1024 (log=0)", "Superblock backups stored on blocks: 8193, 24577"
    let about = mke2fs(&["-n", "-v"]);
    let numbers = |after: &str| -> Vec<u64> {
        let rest = about.split(after).nth(1).expect("what mke2fs says");
        rest.split(|c: char| !c.is_ascii_digit())
            .filter_map(|s| s.parse().ok())
            .collect()
    };
    let block_size = numbers("Block size=")[0];
    let copies = numbers("stored on blocks:");
    assert!(!copies.is_empty());
    let is_there = |block: &u64| {
        let mut magic = [0; 2];
        let read = image
            .file()
            .read_exact_at(&mut magic, block * block_size + 56);
        read.is_ok() && magic == *b"\x53\xef"
    };
    assert!(copies.iter().all(is_there), "the test finds the copies");
    if wiped {
        image.file().write_all_at(&[0; 4096], 0).unwrap();
    }
    ok(&mut mkfs(&image, &["-f", "-K"]));
    let left: Vec<_> = copies.iter().filter(|c| is_there(c)).collect();
    assert!(left.is_empty(), "{name}: copies in {left:?} of {copies:?}");
    let (out, said) = run(Command::new("e2fsck").arg("-fn").arg(image.path()));
    assert_eq!(out.status.code(), Some(8), "{name}: {said}");
    nothing_is_known(&image);
}

#[test]
fn e2fsck_finds_no_backup_superblock() {
    over_ext4("4k", 5000 * MIB, &["-b", "4096"], false);
    over_ext4("2k", 900 * MIB, &["-b", "2048"], false);
    over_ext4("1k", 300 * MIB, &["-b", "1024"], false);
    over_ext4(
        "all",
        600 * MIB,
        &["-b", "1024", "-O", "^sparse_super,^resize_inode"],
        false,
    );
    over_ext4(
        "two",
        2000 * MIB,
        &["-O", "sparse_super2,^resize_inode"],
        false,
    );
    over_ext4(
        "big",
        40000 * MIB,
        &["-O", "bigalloc", "-C", "65536"],
        false,
    );
    over_ext4("odd", 300 * MIB, &["-b", "4096", "-g", "8192"], false);
}

#[test]
fn e2fsck_finds_no_backup_superblock_of_a_filesystem_that_was_wiped_before() {
    for block in ["1024", "2048", "4096"] {
        over_ext4(block, 2000 * MIB, &["-b", block], true);
    }
}

#[test]
fn xfs_repair_finds_no_secondary_superblock() {
    let image = Image::new("xfs", 600 * MIB);
    let mut make = Command::new("mkfs.xfs");
    ok(make.args(["-q", "-f", "-d", "agcount=7"]).arg(image.path()));
    ok(&mut mkfs(&image, &["-f", "-K"]));
    let (out, said) = run(Command::new("xfs_repair").arg("-n").arg(image.path()));
    assert!(
        !out.status.success() && said.contains("could not find valid secondary superblock"),
        "{said}"
    );
    nothing_is_known(&image);
}

#[test]
fn copies_of_others_are_gone() {
    let image = Image::new("btrfs", 300 * MIB);
    ok(Command::new("mkfs.btrfs").arg("-q").arg(image.path()));
    ok(&mut mkfs(&image, &["-f", "-K"]));
    let mut magic = [0; 8];
    image
        .file()
        .read_exact_at(&mut magic, 64 * MIB + 64)
        .unwrap();
    assert_eq!(magic, [0; 8]);
    nothing_is_known(&image);
    // LUKS 2 with a large header, VMFS: magic numbers behind the first MiB that blkid looks for.
    for (at, magic) in [
        (4 * MIB, &b"SKUL\xba\xbe"[..]),
        (2 * MIB, b"SKUL\xba\xbe"),
        (MIB, b"SKUL\xba\xbe"),
        (MIB, b"\x0d\xd0\x01\xc0"),
    ] {
        image.file().write_all_at(magic, at).unwrap();
        let (out, said) = run(&mut mkfs(&image, &["-K"]));
        assert!(!out.status.success() && said.contains("contains: "), "{at}");
        ok(&mut mkfs(&image, &["-f", "-K"]));
        let mut now = [0; 8];
        image.file().read_exact_at(&mut now, at).unwrap();
        // What lies there now may be our own, but is not that.
        assert!(!now.starts_with(magic), "{at}");
        nothing_is_known(&image);
    }
}

#[test]
fn what_lies_behind_the_size_stays() {
    for discard in [&["-f"][..], &["-f", "-K"]] {
        let image = Image::new("behind", 64 * MIB);
        let noise = vec![0xa5u8; 64 << 20];
        image.file().write_all_at(&noise, 0).unwrap();
        // Backups of other filesystems, and a partition table's: not ours.
        for (at, magic) in [
            (40 * MIB + 56, &b"\x53\xef"[..]),
            (64 * MIB - 512, b"EFI PART"),
        ] {
            image.file().write_all_at(magic, at).unwrap();
        }
        let mut before = vec![0; 32 << 20];
        image.file().read_exact_at(&mut before, 32 * MIB).unwrap();
        // Not a whole number of blocks: the rest is not ours either.
        let size = (32 * MIB + 4095).to_string();
        let mut c = mkfs(&image, discard);
        let said = ok(c.arg(&size));
        assert!(said.contains("still contains: partition table"), "{said}");
        let mut after = vec![0; 32 << 20];
        image.file().read_exact_at(&mut after, 32 * MIB).unwrap();
        assert!(before == after, "{discard:?}");
    }
}
