// SPDX-License-Identifier: GPL-2.0

//! Second copies of nodes: damage of one copy loses nothing and is healed, damage of both loses what is
//! under that node and nothing else.

#![allow(clippy::unwrap_used)]

#[path = "../support/ags.rs"]
mod ags;
#[allow(dead_code)]
#[path = "../support/census.rs"]
mod census;
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../support/counting.rs"]
mod counting;
mod damage;
mod disk;
mod healing;
mod layout;
mod sectors;
