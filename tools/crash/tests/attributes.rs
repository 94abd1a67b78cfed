// SPDX-License-Identifier: GPL-2.0

//! Changes that must be whole, and attributes that must not be undone: whiteouts, access control
//! lists with the permissions that go with them, changes while the kernel writes the inode back,
//! generation numbers and change counters. Each test also shows that the check fails without the protection.

mod common;

use common::first_violation;
use ordofs_crash::engine::mutant::Mutant;
use ordofs_crash::run::{Effort, Violation};
use ordofs_crash::workload::Op;

fn violation(ops: &[Op], mutant: Option<Mutant>) -> Option<Violation> {
    let effort = Effort {
        states: 500,
        deep: 4,
    };
    first_violation(ops, effort, mutant, 2)
}

fn holds_only_with(mutant: Mutant, ops: &[Op]) {
    let real = violation(ops, None);
    assert!(real.is_none(), "{ops:?}: {real:?}");
    let mutated = violation(ops, Some(mutant));
    assert!(mutated.is_some(), "{ops:?}: the mutant was not caught");
}

#[test]
fn an_fsync_in_the_middle_of_a_rename_leaves_no_half_of_a_whiteout() {
    for inside in 1..5 {
        let ops = [Op::FsyncInside(inside), Op::Whiteout("A/f", "B/f")];
        let real = violation(&ops, None);
        assert!(real.is_none(), "{ops:?}: {real:?}");
    }
    // The records of the whiteout: inode, attribute, rename, name.
    holds_only_with(
        Mutant::LogSplit,
        &[Op::FsyncInside(3), Op::Whiteout("A/f", "B/g")],
    );
}

#[test]
fn an_fsync_in_the_middle_leaves_no_list_without_its_permissions() {
    holds_only_with(
        Mutant::LogSplit,
        &[Op::FsyncInside(1), Op::SetAcl("A/f", 0o604)],
    );
    holds_only_with(
        Mutant::LogSplit,
        &[
            Op::SetAcl("A/f", 0o604),
            Op::FsyncInside(1),
            Op::Chmod("A/f", 0o640),
        ],
    );
}

#[test]
fn a_write_back_of_the_inode_undoes_no_change() {
    let changes = [
        Op::Chmod("A/f", 0o600),
        Op::Chown("A/f", 7),
        Op::Utimes("A/f", 1000),
        Op::SetAcl("A/f", 0o604),
    ];
    for change in changes {
        holds_only_with(Mutant::AttrsEarly, &[Op::WriteInode("A/f"), change]);
    }
    // The change by the VFS makes the inode dirty again.
    let real = violation(&[Op::WriteInode("A/f"), Op::Append("A/f", 100)], None);
    assert!(real.is_none(), "{real:?}");
    holds_only_with(
        Mutant::AttrsEarly,
        &[
            Op::SetAcl("B/g", 0o604),
            Op::WriteInode("B/g"),
            Op::Chmod("B/g", 0o644),
            Op::Utimes("B/g", 5),
        ],
    );
}

#[test]
fn a_created_inode_keeps_its_generation_number() {
    for create in [
        Op::Create("A/x"),
        Op::Mkdir("A/x"),
        Op::Whiteout("A/f", "B/f"),
    ] {
        holds_only_with(Mutant::NewGeneration, &[create, Op::Fsync("B/g")]);
    }
}

#[test]
fn the_change_counter_does_not_go_back() {
    holds_only_with(
        Mutant::ChangeBack,
        &[
            Op::Append("A/f", 100),
            Op::Mmap("A/f", 0, 10),
            Op::Fsync("A/f"),
        ],
    );
}

#[test]
fn a_truncation_goes_on_at_its_cut() {
    holds_only_with(
        Mutant::CutForgotten,
        &[Op::TruncateInVain("A/f", 0), Op::Commit(usize::MAX)],
    );
}
