// SPDX-License-Identifier: GPL-2.0

//! Cargo allows no dot in the name of a program, so this puts a link with the real name beside it.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    // target/PROFILE/build/PACKAGE-HASH/out
    let Some(dir) = Path::new(&out).ancestors().nth(3) else {
        return;
    };
    let link = dir.join("fsck.ordofs");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("fsck-ordofs", &link).expect("link in the target directory");
}
