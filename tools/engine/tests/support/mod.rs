// SPDX-License-Identifier: GPL-2.0

//! What the engine's tests share: an independent model filesystem, and a driver that does to an engine
//! what the kernel's page cache and VFS do, and to the model the same.

#![allow(dead_code, clippy::unwrap_used)]

pub mod content;
pub mod driver;
pub mod forge;
pub mod model;
pub mod ops;
