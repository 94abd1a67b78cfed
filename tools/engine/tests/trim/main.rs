// SPDX-License-Identifier: GPL-2.0

//! FITRIM: exactly the free blocks are discarded, beside what others do, and allocation never fails
//! because of it.

#![allow(clippy::unwrap_used)]

#[path = "../support/ags.rs"]
mod ags;
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../support/counting.rs"]
mod counting;
mod damage;
mod disk;
mod durable;
mod ranges;
mod space;
