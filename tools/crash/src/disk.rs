// SPDX-License-Identifier: GPL-2.0

//! Devices in memory: one that records, and one that holds a crash state.
//!
//! Both lie over an immutable [`Image`] with shared blocks, so making a device costs nothing.
//!
//! **Time** is counted in ticks. An operation of the device is issued at one tick and done at a
//! later one. A flush covers the writes that were done when it was issued. Several operations may
//! be under way at once: a flush does not cover a write that was issued before it and done after
//! it.
//!
//! Tests: tools/crash/tests/recovery.rs.

use kernel::prelude::Result;
use ordofs_engine::os::{Backend, Block, Device};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a block.
pub const SIZE: usize = 4096;
/// Bytes of a sector. A device writes a sector as a whole or not at all.
pub const SECTOR: usize = 512;

/// The content of a block.
pub type Data = Arc<[u8; SIZE]>;

/// A hasher for block numbers.
#[derive(Default)]
pub struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Block number to content.
pub type Blocks = HashMap<u64, Data, BuildHasherDefault<Plain>>;

/// The content of a medium. A block has the content of the newest layer that has it, and is zero if
/// none does.
#[derive(Clone, Default)]
pub struct Image {
    /// Size in blocks.
    pub blocks: u64,
    /// Newest first.
    layers: Vec<Arc<Blocks>>,
}

impl Image {
    /// A medium of zeroes.
    pub fn new(blocks: u64) -> Self {
        Self {
            blocks,
            layers: Vec::new(),
        }
    }

    /// This image with the blocks of `over` written.
    pub fn with(&self, over: Blocks) -> Self {
        let mut layers = vec![Arc::new(over)];
        layers.extend(self.layers.iter().cloned());
        Self {
            blocks: self.blocks,
            layers,
        }
    }

    /// The same content in one layer.
    pub fn flat(&self) -> Self {
        let mut all = Blocks::default();
        for layer in self.layers.iter().rev() {
            all.extend(layer.iter().map(|(k, v)| (*k, v.clone())));
        }
        Self {
            blocks: self.blocks,
            layers: vec![Arc::new(all)],
        }
    }

    /// A block, if it was ever written.
    pub fn get(&self, block: u64) -> Option<&Data> {
        self.layers.iter().find_map(|l| l.get(&block))
    }

    fn read(&self, block: u64, buf: &mut [u8; SIZE]) {
        match self.get(block) {
            Some(d) => *buf = **d,
            None => buf.fill(0),
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A point in time, counted in events of the device.
pub type Tick = u64;

/// One recorded operation.
#[derive(Clone, Debug)]
pub struct Io {
    /// When it was issued.
    pub issued: Tick,
    /// When it was done; [`Tick::MAX`] while it is under way.
    pub done: Tick,
    /// What it is.
    pub what: What,
}

/// What an operation is.
#[derive(Clone, Debug)]
pub enum What {
    /// A write of a block.
    Write {
        /// Which one.
        block: u64,
        /// What.
        data: Data,
        /// Durable when it is done.
        fua: bool,
    },
    /// A flush.
    Flush,
    /// A discard. After it, what the blocks have is not said ([`gone`]).
    Discard {
        /// First block.
        start: u64,
        /// Number of blocks.
        len: u64,
    },
}

/// What a discarded block has: never what it had. Every second one is zero.
pub fn gone(block: u64) -> Data {
    static GARBAGE: OnceLock<[Data; 2]> = OnceLock::new();
    let both = GARBAGE.get_or_init(|| [Arc::new([0; SIZE]), Arc::new([0xdb; SIZE])]);
    both[(block % 2) as usize].clone()
}

/// Called for an operation that was issued and is not done; the argument says whether it is a flush.
pub type Hook = Box<dyn FnMut(bool) + Send>;

struct Record {
    base: Image,
    ios: Vec<Io>,
    now: Blocks,
    ticks: Tick,
}

impl Record {
    /// Was the block ever written?
    fn has(&self, block: u64) -> bool {
        self.now.contains_key(&block) || self.base.get(block).is_some()
    }

    fn issue(&mut self, what: What) -> usize {
        self.ticks += 1;
        self.ios.push(Io {
            issued: self.ticks,
            done: Tick::MAX,
            what,
        });
        self.ios.len() - 1
    }
}

struct Inner {
    blocks: u64,
    record: Mutex<Record>,
    hook: Mutex<Option<Hook>>,
}

/// A device that records; clones share the record.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

impl Recorder {
    /// A device over this image, with an empty record.
    pub fn new(base: Image) -> Self {
        let blocks = base.blocks;
        let record = Record {
            base,
            ios: Vec::new(),
            now: Blocks::default(),
            ticks: 0,
        };
        Self(Arc::new(Inner {
            blocks,
            record: Mutex::new(record),
            hook: Mutex::new(None),
        }))
    }

    /// A [`Device`] for the engine.
    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// The present tick.
    pub fn ticks(&self) -> Tick {
        lock(&self.0.record).ticks
    }

    /// The record so far.
    pub fn take(&self) -> Vec<Io> {
        lock(&self.0.record).ios.clone()
    }

    /// The image at the beginning of the record.
    pub fn base(&self) -> Image {
        lock(&self.0.record).base.clone()
    }

    /// Makes everything recorded durable, and begins a new record.
    pub fn rebase(&self) {
        let mut r = lock(&self.0.record);
        let now = std::mem::take(&mut r.now);
        r.base = r.base.with(now).flat();
        r.ios.clear();
        r.ticks = 0;
    }

    /// The present content, as a reader sees it.
    pub fn image(&self) -> Image {
        let r = lock(&self.0.record);
        r.base.with(r.now.clone())
    }

    /// Calls `hook` from now on for each write and flush, after it was issued and before it is done.
    /// The hook may use the device; its own operations do not call it again.
    pub fn set_hook(&self, hook: Option<Hook>) {
        *lock(&self.0.hook) = hook;
    }

    fn hooked(&self, flush: bool) {
        let taken = lock(&self.0.hook).take();
        if let Some(mut hook) = taken {
            hook(flush);
            lock(&self.0.hook).get_or_insert(hook);
        }
    }

    /// Issues the write of a block, which stays under way until [`Recorder::done`].
    pub fn issue(&self, block: u64, data: &[u8; SIZE], fua: bool) -> usize {
        let mut r = lock(&self.0.record);
        let data = Arc::new(*data);
        r.now.insert(block, data.clone());
        r.issue(What::Write { block, data, fua })
    }

    /// Completes an operation.
    pub fn done(&self, index: usize) {
        let mut r = lock(&self.0.record);
        r.ticks += 1;
        let t = r.ticks;
        if let Some(io) = r.ios.get_mut(index) {
            io.done = t;
        }
    }

    /// Zeros where nothing was ever written change nothing, and are not recorded: so there are not too
    /// many crash states when the filesystem grows.
    fn write_any(&self, block: u64, data: &[u8; SIZE], fua: bool) -> Result {
        if *data == [0; SIZE] && !lock(&self.0.record).has(block) {
            return Ok(());
        }
        let i = self.issue(block, data, fua);
        self.hooked(false);
        self.done(i);
        Ok(())
    }
}

impl Backend for Recorder {
    fn blocks(&self) -> u64 {
        self.0.blocks
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result {
        let r = lock(&self.0.record);
        match r.now.get(&block) {
            Some(d) => *buf = **d,
            None => r.base.read(block, buf),
        }
        Ok(())
    }
    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write_any(block, data, false)
    }
    fn flush(&self) -> Result {
        let i = lock(&self.0.record).issue(What::Flush);
        self.hooked(true);
        self.done(i);
        Ok(())
    }
    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write_any(block, data, true)
    }
    fn write_fua_all(&self, reqs: &[(u64, &Block)]) -> Result {
        let all = reqs.iter().map(|(at, data)| self.issue(*at, data, true));
        let all: Vec<usize> = all.collect();
        self.hooked(false);
        all.into_iter().for_each(|i| self.done(i));
        Ok(())
    }
    /// Discards of neighbours, one right after the other, are one: so there are not too many crash
    /// states.
    fn discard(&self, start: u64, len: u64) -> Result {
        let mut r = lock(&self.0.record);
        for block in start..start + len {
            if r.has(block) {
                r.now.insert(block, gone(block));
            }
        }
        let joins = r.ios.last_mut().and_then(|io| match &mut io.what {
            What::Discard { start: at, len: n } if *at + *n == start => Some(n),
            _ => None,
        });
        if let Some(n) = joins {
            *n += len;
        } else {
            r.issue(What::Discard { start, len });
        }
        r.ticks += 1;
        let t = r.ticks;
        if let Some(io) = r.ios.last_mut() {
            io.done = t;
        }
        Ok(())
    }
}

struct ScratchInner {
    base: Image,
    over: Mutex<Blocks>,
    readonly: bool,
}

/// A device with the content of an image; writes stay in memory. Clones share the content.
#[derive(Clone)]
pub struct Scratch(Arc<ScratchInner>);

impl Scratch {
    /// A device over this image.
    pub fn new(base: Image) -> Self {
        Self::with(base, false)
    }

    /// A device over this image that refuses writes.
    pub fn readonly(base: Image) -> Self {
        Self::with(base, true)
    }

    fn with(base: Image, readonly: bool) -> Self {
        Self(Arc::new(ScratchInner {
            base,
            over: Mutex::new(Blocks::default()),
            readonly,
        }))
    }

    /// A [`Device`] for the engine.
    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// Was anything written?
    pub fn changed(&self) -> bool {
        !lock(&self.0.over).is_empty()
    }

    /// The present content.
    pub fn image(&self) -> Image {
        self.0.base.with(lock(&self.0.over).clone())
    }

    /// Reads a block.
    pub fn block(&self, block: u64, buf: &mut [u8; SIZE]) {
        match lock(&self.0.over).get(&block) {
            Some(d) => *buf = **d,
            None => self.0.base.read(block, buf),
        }
    }
}

impl Backend for Scratch {
    fn blocks(&self) -> u64 {
        self.0.base.blocks
    }
    fn readonly(&self) -> bool {
        self.0.readonly
    }
    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result {
        self.block(block, buf);
        Ok(())
    }
    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        lock(&self.0.over).insert(block, Arc::new(*data));
        Ok(())
    }
    fn flush(&self) -> Result {
        Ok(())
    }
    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write(block, data)
    }
    fn discard(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }
}
