// SPDX-License-Identifier: GPL-2.0

//! The blocks of an image that a recipe changes.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::base::Base;
use crate::structure::Structure;
use crate::Bytes;
use ordofs_engine::os::mem::Image;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The changed blocks of an image.
pub struct Changes<'a> {
    base: &'a Base,
    blocks: BTreeMap<u64, Box<Bytes>>,
    /// What was done, in words.
    pub words: Vec<String>,
}

impl<'a> Changes<'a> {
    /// None yet.
    pub fn new(base: &'a Base) -> Self {
        Self {
            base,
            blocks: BTreeMap::new(),
            words: Vec::new(),
        }
    }

    /// The blocks of the device.
    pub fn blocks(&self) -> u64 {
        self.base.blocks
    }

    /// The blocks that the image has content in.
    pub fn image_blocks(&self) -> impl Iterator<Item = &'a u64> {
        self.base.image.keys()
    }

    /// What is where in the image.
    pub fn structure(&self) -> &'a Structure {
        &self.base.structure
    }

    /// A block as it is now.
    pub fn block(&self, at: u64) -> &Bytes {
        match self.blocks.get(&at) {
            Some(b) => b,
            None => self.base.image.get(&at).map_or(&[0; 4096], |b| &**b),
        }
    }

    /// A block to be changed.
    pub fn block_mut(&mut self, at: u64) -> &mut Bytes {
        let old = self.base.image.get(&at).map_or([0; 4096], |b| **b);
        self.blocks.entry(at).or_insert_with(|| Box::new(old))
    }

    /// Whether a block is to be sealed.
    pub fn changed(&self, at: u64) -> bool {
        self.blocks.contains_key(&at)
    }

    /// The whole image.
    pub fn image(self) -> Image {
        let mut image = self.base.image.clone();
        for (at, b) in self.blocks {
            image.insert(at, Arc::new(*b));
        }
        image
    }
}
