// SPDX-License-Identifier: GPL-2.0

//! `fsck.ordofs --repair` as a program: exit statuses, the undo file; and repairs of filesystems whose
//! records of space lie. `tools/fuzz/tests/repair` has the repairs of all other structures.

mod make;

use make::*;
use ordofs_engine::engine::format::ag::{run_class, NEVER_USED, NOT_TRUSTED, NO_ALLOCATION};
use ordofs_engine::engine::format::group::full_record;
use ordofs_engine::engine::format::superblock::STATE_REPAIR;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::os::mem::MemDisk;
use ordofs_fsck::repair;
use ordofs_testkit::image::Image;
use ordofs_testkit::run::run;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const CLEAN: i32 = 0;
const CORRECTED: i32 = 1;
const ERRORS_LEFT: i32 = 4;
const OPERATIONAL: i32 = 8;

/// Runs fsck.ordofs. Returns its status, and what it printed.
fn fsck(image: &Image, how: &[&str]) -> (i32, String) {
    let mut c = Command::new(env!("CARGO_BIN_EXE_fsck-ordofs"));
    let (out, text) = run(c.args(how).arg(image.path()));
    (out.status.code().expect("no signal"), text)
}

/// Damages the nodes of a kind.
fn damage(image: &Image, kind: u8) {
    let file = image.file();
    for block in 256..8192 {
        let mut head = [0; 64];
        file.read_exact_at(&mut head, block * 4096).expect("read");
        if head.starts_with(b"ORDN") && head[40] == kind {
            file.write_all_at(b"!", block * 4096 + 100).expect("write");
        }
    }
}

fn content(image: &Image) -> Vec<u8> {
    std::fs::read(image.path()).expect("the image")
}

/// A path for an undo file, which is removed when the value is dropped.
struct UndoPath(PathBuf);

impl UndoPath {
    fn new(image: &Image) -> Self {
        let path = PathBuf::from(format!("{}.undo", image.path().display()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn arg(&self) -> &str {
        self.0.to_str().expect("a name")
    }
}

impl Drop for UndoPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_repair_corrects_and_only_if_asked() {
    let image = Image::formatted("repair-status", 32 << 20);
    assert_eq!(fsck(&image, &["--repair"]).0, CLEAN);
    for how in ["--repair", "-y"] {
        // The AG tree.
        damage(&image, 6);
        let before = content(&image);
        for keep in [&["-n"][..], &["-p"], &["-a"], &[], &["-n", "--repair"]] {
            let (status, text) = fsck(&image, keep);
            assert_eq!(status, ERRORS_LEFT, "{keep:?}: {text}");
            assert!(before == content(&image), "{keep:?} wrote");
        }
        let (status, text) = fsck(&image, &[how]);
        assert_eq!(status, CORRECTED, "{text}");
        assert_eq!(fsck(&image, &["-n"]).0, CLEAN);
        assert_eq!(fsck(&image, &["--repair"]).0, CLEAN);
    }
}

#[test]
fn what_cannot_be_repaired_stays_as_it_is() {
    let image = Image::formatted("repair-not", 32 << 20);
    let sb = Superblock::read(&image.disk().device()).unwrap_or_else(|e| panic!("{}", e.reason));
    let newer = Superblock {
        ro_compat: 1 << 9,
        ..sb
    };
    newer.write(&image.disk().device()).expect("write");
    damage(&image, 6);
    let before = content(&image);
    let (status, text) = fsck(&image, &["--repair"]);
    assert_eq!(status, ERRORS_LEFT, "{text}");
    assert!(text.contains("ro_compat"), "{text}");
    assert!(before == content(&image));
}

#[test]
fn an_undo_file_brings_the_old_content_back() {
    let image = Image::formatted("repair-undo", 32 << 20);
    damage(&image, 6);
    damage(&image, 7);
    let before = content(&image);
    let undo = UndoPath::new(&image);
    let (status, text) = fsck(&image, &["--repair", "--undo", undo.arg()]);
    assert_eq!(status, CORRECTED, "{text}");
    let after = content(&image);
    assert!(before != after);
    // It is not overwritten.
    damage(&image, 6);
    let again = content(&image);
    let (status, text) = fsck(&image, &["--repair", "--undo", undo.arg()]);
    assert_eq!(status, OPERATIONAL, "{text}");
    assert!(again == content(&image));
    // Another filesystem, of the same size.
    let other = Image::formatted("repair-other", 32 << 20);
    let untouched = content(&other);
    let (status, text) = fsck(&other, &["--undo-from", undo.arg()]);
    assert_eq!(status, OPERATIONAL, "{text}");
    assert!(untouched == content(&other));
    image.file().write_all_at(&after, 0).expect("write");
    let (status, text) = fsck(&image, &["--undo-from", undo.arg()]);
    assert_eq!(status, CORRECTED, "{text}");
    assert!(before == content(&image), "{text}");
}

#[test]
fn a_damaged_undo_file_is_refused() {
    let image = Image::formatted("repair-undo-bad", 32 << 20);
    damage(&image, 6);
    let undo = UndoPath::new(&image);
    assert_eq!(
        fsck(&image, &["--repair", "--undo", undo.arg()]).0,
        CORRECTED
    );
    let good = std::fs::read(&undo.0).expect("the file");
    let after = content(&image);
    let mut head = good.clone();
    head[20] ^= 1;
    for bad in [&head[..], &good[..1000], b"no undo file"] {
        std::fs::write(&undo.0, bad).expect("write");
        let (status, text) = fsck(&image, &["--undo-from", undo.arg()]);
        assert_eq!(status, OPERATIONAL, "{text}");
        assert!(after == content(&image));
    }
    // A record of a repair that came to its end.
    let mut record = good.clone();
    record[4096 + 16 + 100] ^= 1;
    std::fs::write(&undo.0, &record).expect("write");
    let (status, text) = fsck(&image, &["--undo-from", undo.arg()]);
    assert_eq!(status, OPERATIONAL, "{text}");
    assert!(after == content(&image));
    // The repair was cut off while it saved a block: what was saved before is all that was written.
    std::fs::write(&undo.0, &good[..good.len() - 100]).expect("write");
    let (status, text) = fsck(&image, &["--undo-from", undo.arg()]);
    assert_eq!(status, CORRECTED, "{text}");
    assert!(text.contains("cut off"), "{text}");
}

#[test]
fn an_undo_file_is_of_no_use_after_a_mount() {
    let image = Image::formatted("repair-undo-late", 32 << 20);
    damage(&image, 6);
    let undo = UndoPath::new(&image);
    let how = ["--repair", "--undo", undo.arg()];
    assert_eq!(fsck(&image, &how).0, CORRECTED);
    let sb = Superblock::read(&image.disk().device()).unwrap_or_else(|e| panic!("{}", e.reason));
    let later = Superblock {
        generation: sb.generation + 1,
        ..sb
    };
    later.write(&image.disk().device()).expect("write");
    let after = content(&image);
    let (status, text) = fsck(&image, &["--undo-from", undo.arg()]);
    assert_eq!(status, OPERATIONAL, "{text}");
    assert!(text.contains("mounted"), "{text}");
    assert!(after == content(&image));
}

/// Damage that a mount has found is a reason for a repair, and forgotten after it.
#[test]
fn damage_that_a_mount_has_found_is_looked_for() {
    let image = Image::formatted("repair-state", 32 << 20);
    let mut sb =
        Superblock::read(&image.disk().device()).unwrap_or_else(|e| panic!("{}", e.reason));
    sb.state |= STATE_REPAIR;
    sb.write(&image.disk().device()).expect("write");
    assert_eq!(fsck(&image, &["--repair"]).0, CORRECTED);
    let sb = Superblock::read(&image.disk().device()).unwrap_or_else(|e| panic!("{}", e.reason));
    assert_eq!(sb.state & STATE_REPAIR, 0);
    assert_eq!(fsck(&image, &["--repair"]).0, CLEAN);
}

/// Repairs a filesystem. Returns what was said.
fn repaired(disk: &MemDisk) -> Vec<String> {
    kernel::print::set_level(kernel::print::SILENT);
    let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
    repair::apply(&plan, &disk.device()).expect("no error");
    assert_eq!(complaints(disk), [""; 0]);
    plan.said
}

#[test]
fn records_of_space_are_built_anew() {
    type Lie = fn(&mut Make);
    let lies: [Lie; 12] = [
        |m| m.ag = |ag, rec| rec.free -= u32::from(ag == 1),
        |m| m.ag = |ag, rec| rec.longest -= u8::from(ag == 2),
        |m| m.ag = |ag, rec| rec.flags |= if ag == 1 { NOT_TRUSTED } else { 0 },
        |m| m.ag = |ag, rec| rec.flags |= if ag == 2 { NO_ALLOCATION } else { 0 },
        |m| m.ag = |ag, rec| rec.flags |= if ag == 2 { NEVER_USED } else { 0 },
        |m| {
            m.ag = |ag, rec| {
                rec.longest = if ag == 2 {
                    run_class(8192)
                } else {
                    rec.longest
                }
            }
        },
        |m| m.ags = |ags| drop(ags.remove(2)),
        |m| m.ags = |ags| ags.push((77, ags[0].1.clone())),
        |m| {
            m.groups = |ag, items| {
                if ag == 2 {
                    items.clear();
                    items.push((0, full_record(1).to_vec()))
                }
            }
        },
        |m| {
            m.groups = |ag, items| {
                if ag == 1 {
                    items.iter_mut().for_each(|i| i.1[2] ^= 1)
                }
            }
        },
        |m| m.sb = |sb| sb.free -= 5,
        |m| {
            m.sb = |sb| {
                sb.inodes = 1;
                sb.state |= STATE_REPAIR
            }
        },
    ];
    for (i, lie) in lies.iter().enumerate() {
        let mut make = of_all_forms();
        lie(&mut make);
        let disk = make.on_disk();
        repaired(&disk);
        let sb = Superblock::read(&disk.device()).unwrap_or_else(|e| panic!("{i}: {}", e.reason));
        assert_eq!(sb.state, 0, "{i}");
    }
}

/// The time does not grow with what is not in use, and no block is read that nothing leads to.
#[test]
fn a_hundred_tebibytes_are_repaired_at_once() {
    let mut make = Make::new(25 << 30);
    make.nodes = 40_000;
    make.ag = |ag, rec| rec.free -= u32::from(ag == 0);
    let disk = make.on_disk();
    // The root of the AG tree.
    let sb = Superblock::read(&disk.device()).unwrap_or_else(|e| panic!("{}", e.reason));
    disk.corrupt(sb.ag_root.expect("a root").addr, 99, 1);
    let begin = Instant::now();
    repaired(&disk);
    let took = begin.elapsed();
    println!("{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
