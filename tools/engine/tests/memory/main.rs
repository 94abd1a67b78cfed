// SPDX-License-Identifier: GPL-2.0

//! Every allocation of every operation fails once.
//!
//! The operation then either happened or did not, and says which; the error that it returns is the right one.
//! What is on disk is always a whole state that has everything that was acknowledged before, and space
//! is not lost. If the filesystem shuts down instead, the same is true of what it leaves behind.
//!
//! | module | what is in it |
//! |---|---|
//! | `bed` | the filesystems that operations are tried on |
//! | `action`, `names`, `data`, `attrs`, `durable`, `full` | the operations |
//! | `mounts` | mkfs, mount, unmount |
//! | `shrinks` | a filesystem becomes smaller |
//! | `trial`, `picture` | trying, and what has to be true |
//! | `tally`, `listed` | nothing was left out |

#[path = "../support/mod.rs"]
mod support;

mod action;
mod attrs;
mod bed;
mod data;
mod durable;
mod full;
mod listed;
mod mounts;
mod names;
mod picture;
mod shrinks;
mod tally;
mod trial;

use action::Action;
use bed::Scene;
use tally::Tally;

const ROOMY: &[&[Action]] = &[names::NAMES, data::DATA, attrs::ATTRS, durable::DURABLE];

fn operations(scene: Scene, actions: &[&[Action]]) {
    kernel::print::set_level(kernel::print::SILENT);
    let mut tally = Tally::default();
    for action in actions.iter().copied().flatten() {
        trial::try_all(action, scene, &mut tally);
    }
    tally.report();
}

#[test]
fn every_allocation_may_fail() {
    operations(Scene::Warm, ROOMY);
}

#[test]
fn every_allocation_may_fail_with_nothing_cached() {
    operations(Scene::Cold, ROOMY);
}

#[test]
fn every_allocation_may_fail_on_a_full_disk() {
    operations(Scene::Full, &[full::FULL]);
}

#[test]
fn every_allocation_of_mkfs_mount_and_unmount_may_fail() {
    kernel::print::set_level(kernel::print::SILENT);
    let mut tally = Tally::default();
    mounts::mkfs(&mut tally);
    mounts::mounts(ROOMY, &mut tally);
    mounts::unmount(&mut tally);
    tally.report();
}

#[test]
fn every_allocation_of_a_shrink_may_fail() {
    kernel::print::set_level(kernel::print::SILENT);
    let mut tally = Tally::default();
    shrinks::shrinks(&mut tally);
    tally.report();
}

#[test]
fn every_operation_is_tried() {
    listed::check();
}
