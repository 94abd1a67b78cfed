// SPDX-License-Identifier: GPL-2.0

//! The old blocks of the nodes of space trees: a commit neither forgets them nor writes to them.

mod common;

use common::first_violation;
use ordofs_crash::engine::mutant::Mutant;
use ordofs_crash::run::Effort;
use ordofs_crash::workload::Op;

const OPS: [Op; 5] = [
    Op::Append("A/f", 9000),
    Op::Sync,
    Op::Create("A/g"),
    Op::Sync,
    Op::Truncate("A/f", 0),
];

fn caught(mutant: Mutant) {
    let effort = Effort {
        states: 400,
        deep: 1,
    };
    let real = first_violation(&OPS, effort, None, 2);
    assert!(real.is_none(), "{real:?}");
    let mutated = first_violation(&OPS, effort, Some(mutant), 2);
    assert!(mutated.is_some(), "{mutant:?} was not caught");
}

#[test]
fn old_nodes_of_space_trees_do_not_leak() {
    caught(Mutant::DeferredForgotten);
}

#[test]
fn old_nodes_of_space_trees_are_whole_until_the_commit_is_durable() {
    caught(Mutant::DeferredAtOnce);
}
