// SPDX-License-Identifier: GPL-2.0

//! A device with a volatile cache, and what a power cut leaves of it.
//!
//! # Model
//!
//! A write is volatile until a flush that began after it has ended, unless it was written with FUA.
//! Of each block a power cut leaves the durable version or any volatile one. Blocks that were never
//! written hold [`STALE`]: data that was deleted long ago, and that no read may return.
//!
//! Operations take time: the schedule may switch to another task before and in the middle of each.
//! Before every operation that changes something, the device notes some of the states in which a
//! power cut at that moment could leave it ([`Cut`]).

use kernel::prelude::Result;
use ordofs_models::os::atomic::{AtomicU64, Ordering};
use shuttle::rand::Rng;
use shuttle::thread;
use std::collections::hash_map::DefaultHasher;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Size of all devices in blocks: the smallest that mkfs accepts.
pub const BLOCKS: u64 = 4096;
/// The byte that fills blocks that were never written.
pub const STALE: u8 = 0xEE;

type Data = [u8; 4096];

/// The content of a block, with its hash.
#[derive(Clone)]
pub struct Content {
    hash: u64,
    data: Arc<Data>,
}

impl Content {
    fn new(data: &Data) -> Self {
        let mut h = DefaultHasher::new();
        h.write(data);
        Self {
            hash: h.finish(),
            data: Arc::new(*data),
        }
    }
}

/// The content of a device. Cheap to copy.
#[derive(Clone, Default)]
pub struct Image {
    base: Arc<BTreeMap<u64, Content>>,
    delta: BTreeMap<u64, Content>,
}

impl Image {
    /// The same content as one piece.
    pub fn flat(&self) -> Self {
        let mut all = (*self.base).clone();
        all.extend(self.delta.iter().map(|(b, c)| (*b, c.clone())));
        Self {
            base: Arc::new(all),
            delta: BTreeMap::new(),
        }
    }

    /// A hash. Equal images of one base have the same.
    pub fn hash(&self) -> u64 {
        let mut h = DefaultHasher::new();
        for (b, c) in &self.delta {
            h.write_u64(*b);
            h.write_u64(c.hash);
        }
        h.finish()
    }

    fn read(&self, block: u64, buf: &mut Data) {
        match self.delta.get(&block).or_else(|| self.base.get(&block)) {
            Some(c) => buf.copy_from_slice(&c.data[..]),
            None => buf.fill(STALE),
        }
    }
}

/// A device after a power cut, for the engine without shuttle.
pub struct Remains(Mutex<Image>);

impl Remains {
    /// A device with this content.
    pub fn device(image: Image) -> ordofs_engine::os::Device {
        ordofs_engine::os::Device::new(Self(Mutex::new(image)))
    }
}

impl ordofs_engine::os::Backend for Remains {
    fn blocks(&self) -> u64 {
        BLOCKS
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut Data) -> Result {
        self.0.lock().expect("image").read(block, buf);
        Ok(())
    }
    fn write(&self, block: u64, data: &Data) -> Result {
        let mut image = self.0.lock().expect("image");
        image.delta.insert(block, Content::new(data));
        Ok(())
    }
    fn flush(&self) -> Result {
        Ok(())
    }
    fn write_fua(&self, block: u64, data: &Data) -> Result {
        self.write(block, data)
    }
    fn discard(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }
}

/// A state in which a power cut could leave the device.
#[derive(Clone)]
pub struct Cut {
    /// The content of the device.
    pub image: Image,
    /// How many events of the scenario had happened.
    pub events: usize,
}

struct State {
    durable: Image,
    volatile: Vec<(u64, Content)>,
    reading: Vec<u64>,
    read_twice: Option<u64>,
    cuts: Vec<Cut>,
}

impl State {
    fn make_durable(&mut self, block: u64, data: &Data) {
        self.volatile.retain(|(b, _)| *b != block);
        self.durable.delta.insert(block, Content::new(data));
    }
}

struct Inner {
    state: Mutex<State>,
    /// Accessed where the schedule may switch to another task.
    turn: AtomicU64,
    events: Mutex<usize>,
    slow: AtomicBool,
}

/// The device; clones share it.
#[derive(Clone)]
pub struct Disk(Arc<Inner>);

impl Disk {
    /// A device with this content, whose operations are all fast.
    pub fn new(image: Image) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                durable: image,
                volatile: Vec::new(),
                reading: Vec::new(),
                read_twice: None,
                cuts: Vec::new(),
            }),
            turn: AtomicU64::new(0),
            events: Mutex::new(0),
            slow: AtomicBool::new(false),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("a task panicked")
    }

    /// Lets the schedule switch to another task.
    fn turn(&self) {
        self.0.turn.load(Ordering::SeqCst);
    }

    /// Makes some operations take very long from now on.
    pub fn slow_down(&self) {
        self.0.slow.store(true, Relaxed);
    }

    /// Models the duration of an operation. Now and then it is so long that other tasks get far.
    fn work(&self) {
        if !self.0.slow.load(Relaxed) {
            return;
        }
        self.turn();
        if shuttle::rand::thread_rng().gen_range(0..4u8) == 0 {
            let n = shuttle::rand::thread_rng().gen_range(0..60u8);
            for _ in 0..n {
                thread::yield_now();
            }
        }
    }

    /// Notes an event of the scenario that must have a place in the order of events.
    pub fn event(&self) {
        *self.0.events.lock().expect("events") += 1;
    }

    /// The content of the device if nothing is lost.
    pub fn image(&self) -> Image {
        let s = self.state();
        let mut image = s.durable.clone();
        image.delta.extend(s.volatile.iter().cloned());
        image
    }

    /// A block that two tasks read at the same time, if there was one.
    pub fn read_twice(&self) -> Option<u64> {
        self.state().read_twice
    }

    /// Notes states in which a power cut could leave the device now: nothing volatile survives, all
    /// of it does, or a part.
    pub fn may_fail_now(&self) {
        let events = *self.0.events.lock().expect("events");
        let mut s = self.state();
        let mut images = vec![s.durable.clone()];
        if !s.volatile.is_empty() {
            let mut all = s.durable.clone();
            all.delta.extend(s.volatile.iter().cloned());
            images.push(all);
        }
        if s.volatile.len() > 1 {
            let bits: u64 = shuttle::rand::thread_rng().gen();
            let mut some = s.durable.clone();
            for (i, (b, c)) in s.volatile.iter().enumerate() {
                if bits >> (i % 64) & 1 != 0 {
                    some.delta.insert(*b, c.clone());
                }
            }
            images.push(some);
        }
        s.cuts
            .extend(images.into_iter().map(|image| Cut { image, events }));
    }

    /// All states noted so far.
    pub fn cuts(&self) -> Vec<Cut> {
        self.may_fail_now();
        std::mem::take(&mut self.state().cuts)
    }
}

impl ordofs_models::os::Backend for Disk {
    fn blocks(&self) -> u64 {
        BLOCKS
    }

    fn readonly(&self) -> bool {
        false
    }

    fn read(&self, block: u64, buf: &mut Data) -> Result {
        {
            let mut s = self.state();
            if s.reading.contains(&block) {
                s.read_twice = Some(block);
            }
            s.reading.push(block);
        }
        self.work();
        let mut s = self.state();
        match s.volatile.iter().rev().find(|(b, _)| *b == block) {
            Some((_, c)) => buf.copy_from_slice(&c.data[..]),
            None => s.durable.read(block, buf),
        }
        if let Some(i) = s.reading.iter().position(|b| *b == block) {
            s.reading.swap_remove(i);
        }
        Ok(())
    }

    fn write(&self, block: u64, data: &Data) -> Result {
        self.work();
        self.may_fail_now();
        self.state().volatile.push((block, Content::new(data)));
        self.turn();
        Ok(())
    }

    fn flush(&self) -> Result {
        let n = self.state().volatile.len();
        self.work();
        self.may_fail_now();
        {
            let mut s = self.state();
            // Only what was written before the flush began. Another flush may have been faster.
            let n = n.min(s.volatile.len());
            let done: Vec<_> = s.volatile.drain(..n).collect();
            s.durable.delta.extend(done);
        }
        self.turn();
        Ok(())
    }

    fn write_fua(&self, block: u64, data: &Data) -> Result {
        self.work();
        self.may_fail_now();
        self.state().make_durable(block, data);
        self.turn();
        Ok(())
    }

    /// In one step: the crash simulator has what lies in between.
    fn write_fua_all(&self, reqs: &[(u64, &ordofs_models::os::Block)]) -> Result {
        self.work();
        self.may_fail_now();
        {
            let mut s = self.state();
            for (block, data) in reqs {
                s.make_durable(*block, data);
            }
        }
        self.turn();
        Ok(())
    }

    fn discard(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }
}
