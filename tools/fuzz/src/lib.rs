// SPDX-License-Identifier: GPL-2.0

//! Structure-aware fuzzing of OrdoFS images.
//!
//! # Model
//!
//! A *recipe* is a string of bytes, which [`mutate`] reads as a few changes to one of the [`base`]
//! images: to fields of a superblock, of nodes and of log batches, to the items of leaves, to records
//! of space, and to pointers. Then it makes all checksums right again, from the changed node up to both copies of the
//! superblock, so the engine cannot refuse the image for them and has to judge what it says. Some
//! recipes damage blocks afterwards, and leave those checksums wrong.
//!
//! [`exercise`] checks the image, mounts it, reads all of it, works with it and checks it again. It
//! panics, or returns an error, if the engine panics, breaks an invariant of its own, writes where it
//! must not, or does not agree with the checker:
//!
//! - What a read-only mount or a refused mount leaves is what it found.
//! - If the checker finds nothing wrong with an image, it can be mounted and read without an error.
//! - An image that was in order is in order after all operations and the unmount. A log counts as part
//!   of the image: replay refuses it, or the filesystem is in order with it.
//!
//! | module | what it is |
//! |---|---|
//! | [`base`] | the images that recipes change |
//! | [`structure`] | what is where in an image: superblocks, nodes and the pointers to them, batches |
//! | [`changes`] | the blocks that a recipe changes |
//! | [`leaf`] | the items of a leaf, taken apart and put together |
//! | [`mutate`] | recipes |
//! | [`edit`] | changes of bytes and of items |
//! | [`space`] | what they do to the trees of space |
//! | [`seal`] | right checksums and sums for changed blocks |
//! | [`exercise`] | what is done with an image |
//! | [`read`], [`work`] | reading all of a filesystem; changing it |
//! | [`judge`] | one recipe from bytes to a verdict; smaller recipes that fail alike |
//!
//! The programs are `ordofs-fuzz` (random recipes, the corpus, images for other programs) and, with
//! the feature `coverage`, a target for libFuzzer, which prefers recipes that reach new code.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

pub mod base;
pub mod changes;
pub mod edit;
pub mod exercise;
pub mod judge;
pub mod leaf;
pub mod mutate;
pub mod read;
pub mod seal;
pub mod space;
pub mod structure;
pub mod work;

/// A block in bytes.
pub type Bytes = [u8; ordofs_crash::engine::BLOCK_SIZE];
