// SPDX-License-Identifier: GPL-2.0

//! `ordofs cat --keep-going`: zeros in place of what is damaged, and a list of it.

use ordofs_engine::engine::{Fs, MountOptions, NewInode, S_IFREG};
use ordofs_engine::os::{crc32c, Block};
use ordofs_testkit::image::Image;
use std::os::unix::fs::FileExt;
use std::process::{Command, Output};

const BLOCKS: u64 = 9;

/// A filesystem with a file of blocks of 1, 2, 3 and so on, the last one not whole. Returns the
/// first block on the device.
fn make() -> (Image, u64) {
    let image = Image::formatted("keep-going", 32 << 20);
    let dev = image.disk().device();
    let fs = Fs::mount(image.disk().device(), MountOptions::default());
    let fs = fs.map_err(|e| e.reason).expect("mount");
    let new = NewInode {
        mode: S_IFREG | 0o644,
        ..NewInode::default()
    };
    let root = fs.iget(fs.root_ino()).expect("root");
    let file = fs.create(&root, b"file", &new).expect("create");
    let data = |i: u64| {
        let mut b = Block::zeroed().expect("memory");
        b.fill(i as u8 + 1);
        b
    };
    let blocks: Vec<Block> = (0..BLOCKS).map(data).collect();
    let sums: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
    let s = fs.start_write(&file, 0, &sums, true).expect("start");
    assert_eq!(s.len, BLOCKS);
    let first = s.phys;
    let writes: Vec<(u64, &Block)> = (first..).zip(&blocks).collect();
    dev.write(&writes).expect("write");
    let size = BLOCKS * 4096 - 100;
    fs.finish_write(s.ordered, size, Ok(())).expect("finish");
    fs.iput(file);
    fs.iput(root);
    fs.unmount().expect("unmount");
    (image, first)
}

fn cat(image: &Image, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ordofs"));
    c.arg("cat").args(args).arg(image.path()).arg("/file");
    c.output().expect("ordofs")
}

#[test]
fn damaged_blocks_are_zeros_and_listed() {
    let (image, first) = make();
    let good = cat(&image, &[]);
    assert_eq!(good.status.code(), Some(0));
    assert_eq!(good.stdout.len() as u64, BLOCKS * 4096 - 100);
    let going = cat(&image, &["--keep-going"]);
    assert_eq!(
        (going.status.code(), &going.stdout),
        (Some(0), &good.stdout)
    );

    let mut want = good.stdout;
    for block in [3u64, 8] {
        let file = image.file();
        file.write_all_at(&[0xff], (first + block) * 4096 + 7)
            .expect("damage");
        let end = want.len().min(block as usize * 4096 + 4096);
        want[block as usize * 4096..end].fill(0);
    }
    assert_eq!(cat(&image, &[]).status.code(), Some(1));
    let going = cat(&image, &["--keep-going"]);
    assert_eq!(going.status.code(), Some(1));
    assert!(going.stdout == want);
    let said = String::from_utf8_lossy(&going.stderr).into_owned();
    assert!(said.contains("file blocks 3 to 3"), "{said}");
    assert!(said.contains("file blocks 8 to 8"), "{said}");
    assert!(said.contains("2 blocks cannot be read"), "{said}");
}
