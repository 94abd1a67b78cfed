// SPDX-License-Identifier: GPL-2.0

//! A filesystem as a whole: making it, mounting it, replaying its log.

pub mod mkfs;
pub mod mount;
mod replay;
