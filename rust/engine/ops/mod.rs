// SPDX-License-Identifier: GPL-2.0

//! The operations: methods of [`Fs`](crate::engine::fs::Fs), each in one transaction or several.
//!
//! | file | operations |
//! |---|---|
//! | [`namei`] | create, link, unlink, rename, attributes |
//! | [`dir`] | directory entries, targets of symbolic links |
//! | [`xattr`] | extended attributes |
//! | [`data`] | data writes (R1), mappings, checks of what was read |
//! | [`space`] | truncate, punch, preallocate, zero |
//! | `extents` | changes of the extent tree, for the two above |
//! | `inodes` | getting inodes and letting go of them |
//! | `reclaim` | what the shrinker frees |
//! | `statfs` | counts of blocks and inodes |

pub mod data;
pub mod dir;
pub(crate) mod extents;
mod inodes;
pub mod namei;
mod reclaim;
pub mod space;
mod statfs;
pub mod xattr;
