// SPDX-License-Identifier: GPL-2.0

//! Random damage to filesystems with everything in them, and what a repair makes of it.
//!
//! # Model
//!
//! Each seed damages a few blocks of an image. After the repair the checker must find nothing, a
//! second repair must find nothing to do, and every inode that lies in undamaged blocks must be as it
//! was: attributes, data, extended attributes, target, and its names in directories that are
//! undamaged themselves. The undo file must bring the damaged image back byte for byte. A repair that
//! is cut off after any number of writes leaves the old image, damaged as it was, or the new one.
//!
//! The inodes that the log of the image changes are left out, because a repair may lose the log.
//!
//! ORDOFS_REPAIR_SEEDS=FROM..TO replaces the few seeds of each run.

mod album;
mod device;
mod files;
mod logs;
mod made;
mod nodes;
mod random;
mod superblocks;
mod support;
