// SPDX-License-Identifier: GPL-2.0

//! The block device under a filesystem, as the metadata code sees it.
//!
//! # Model
//!
//! Every call is synchronous: it returns when the device has completed. A batch of writes is handed
//! over as a whole; neighbours become one bio, all bios go out under one plug, and the call waits for
//! the last of them. File data does not pass through here (see `ioend`).
//!
//! # Rules
//!
//! R6: a buffer under I/O is borrowed for the whole call (shared for writes, exclusively for reads), and the
//! call does not return before the I/O has ended, also when it fails half-way. So the borrow checker sees to it
//! that no buffer is freed or changed while the device uses it.
//!
//! Runs in process context; allocations are `GFP_NOFS` from mempools, so that writes make progress
//! when memory is short.
//!
//! Tests: tests/vm/t/063-write-errors.sh, 066-dead-blocks.sh, 070-fsync-cost.sh (requests and
//! flushes).

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::Completion;

use crate::bindings;
use crate::vfs::os::Buffer;

/// log2 of the unit of device addresses in bios.
pub(in crate::vfs) const SECTOR_SHIFT: u32 = 9;
/// Pages of one bio.
const MAX_VECS: usize = 256;

/// The block device of a superblock that is being mounted.
///
/// # Invariants
///
/// `bdev` points to a block device that stays open for as long as this exists.
pub(crate) struct OpenDevice {
    bdev: NonNull<bindings::block_device>,
    /// `s_id` of the superblock: what the kernel's messages call the device.
    name: [u8; 32],
}

impl OpenDevice {
    /// # Safety
    ///
    /// `sb` is a valid superblock with an open block device, which stays open until the returned value, and
    /// what is made of it, is dropped.
    pub(in crate::vfs) unsafe fn from_super(sb: *mut bindings::super_block) -> Result<Self> {
        // SAFETY: By this function's contract `sb` is valid; the field does not change while the device is
        // open.
        let bdev = NonNull::new(unsafe { (*sb).s_bdev }).ok_or(ENODEV)?;
        // SAFETY: By this function's contract `sb` is valid; the array is as long as `name`, has its final
        // content before a device is looked at, and `c_char` is a byte.
        let name = unsafe { (&raw const (*sb).s_id).cast::<[u8; 32]>().read() };
        // INVARIANT: By this function's contract it stays open.
        Ok(Self { bdev, name })
    }
}

/// An open block device, in blocks of `BYTES` bytes.
///
/// # Invariants
///
/// `open.bdev` points to a block device that stays open for as long as this exists.
pub struct BlockDevice<const BYTES: usize> {
    open: OpenDevice,
    /// See [`BlockDevice::lost`].
    lost: AtomicBool,
}

// SAFETY: The block layer's interface may be used from any thread.
unsafe impl<const BYTES: usize> Send for BlockDevice<BYTES> {}
// SAFETY: The block layer's interface may be used from many threads at once.
unsafe impl<const BYTES: usize> Sync for BlockDevice<BYTES> {}

/// Several writing bios and the one who waits for them all.
#[pin_data]
struct Batch<'a> {
    /// The device's [`BlockDevice::lost`].
    lost: &'a AtomicBool,
    /// Bios in flight, and one for the submitter.
    pending: AtomicU32,
    /// The first error, or 0.
    error: AtomicI32,
    #[pin]
    done: Completion,
}

impl<'a> Batch<'a> {
    fn new(lost: &'a AtomicBool) -> impl PinInit<Self> {
        pin_init!(Self {
            lost,
            pending: AtomicU32::new(1),
            error: AtomicI32::new(0),
            done <- Completion::new(),
        })
    }

    /// One of those that are pending has ended. After the last one, `self` may be gone.
    fn ended(&self, error: i32) {
        if error != 0 {
            // Before the error can be seen, and so before a flush that comes later can end.
            self.lost.store(true, Ordering::Release);
            let _ = self
                .error
                .compare_exchange(0, error, Ordering::Relaxed, Ordering::Relaxed);
        }
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.complete_all();
        }
    }

    /// Submits a bio as one of the batch.
    ///
    /// # Safety
    ///
    /// `bio` is complete and the caller's, who gives it away. Before the batch or the bio's buffers end,
    /// the caller calls [`Batch::wait`].
    unsafe fn start(&self, bio: *mut bindings::bio) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        // SAFETY: By this function's contract the bio is the caller's. The batch lives until `wait` has seen the
        // end of the bio, which is counted as pending.
        unsafe { (*bio).bi_private = core::ptr::from_ref(self).cast_mut().cast() };
        // SAFETY: By this function's contract the bio is the caller's.
        unsafe { (*bio).bi_end_io = Some(batch_end_io) };
        // SAFETY: By this function's contract the bio is complete, and is given away here.
        unsafe { bindings::submit_bio(bio) };
    }

    /// Waits for all that were submitted.
    fn wait(&self) -> Result {
        self.ended(0);
        self.done.wait_for_completion();
        to_result(self.error.load(Ordering::Relaxed))
    }
}

/// Completion of one bio of a [`Batch`].
///
/// # Safety
///
/// `bio` has completed, and its `bi_private` is a [`Batch`] in which it is counted as pending.
unsafe extern "C" fn batch_end_io(bio: *mut bindings::bio) {
    // SAFETY: The block layer passes a bio that has ended, and that is valid until it is put below.
    let (batch, status) = unsafe { ((*bio).bi_private.cast::<Batch<'_>>(), (*bio).bi_status) };
    // SAFETY: Only computes.
    let error = unsafe { bindings::blk_status_to_errno(status) };
    // SAFETY: The submitter's reference was given to the bio layer, which passes it on to us.
    unsafe { bindings::bio_put(bio) };
    // SAFETY: The batch waits for this bio, which is pending in it up to this call.
    unsafe { (*batch).ended(error) };
}

/// The neighbours at the beginning of `reqs`: how many requests one bio takes.
fn run_length<const BYTES: usize>(reqs: &[(u64, &Buffer<BYTES>)]) -> usize {
    let mut n = 1;
    while n < reqs.len() && n < MAX_VECS {
        match reqs[n - 1].0.checked_add(1) {
            Some(next) if next == reqs[n].0 => n += 1,
            _ => break,
        }
    }
    n
}

impl<const BYTES: usize> BlockDevice<BYTES> {
    /// A block in the units in which bios are addressed.
    const SECTORS: u64 = {
        assert!(BYTES % (1 << SECTOR_SHIFT) == 0 && BYTES <= kernel::page::PAGE_SIZE);
        (BYTES >> SECTOR_SHIFT) as u64
    };

    /// The device of a superblock, in blocks of `BYTES` bytes.
    pub(crate) fn new(open: OpenDevice) -> Self {
        // INVARIANT: As `open`'s.
        Self {
            open,
            lost: AtomicBool::new(false),
        }
    }

    fn as_ptr(&self) -> *mut bindings::block_device {
        self.open.bdev.as_ptr()
    }

    /// What the kernel's messages call the device.
    pub fn name(&self) -> &str {
        let len = self.open.name.iter().position(|&b| b == 0);
        let text = self.open.name.get(..len.unwrap_or(self.open.name.len()));
        core::str::from_utf8(text.unwrap_or(&[])).unwrap_or("?")
    }

    /// The device's number: tells filesystems apart in traces.
    pub fn id(&self) -> u32 {
        // SAFETY: By the type invariant, the device is valid; the number does not change.
        unsafe { (*self.as_ptr()).bd_dev }
    }

    /// Size of the device in blocks.
    pub fn blocks(&self) -> u64 {
        // SAFETY: By the type invariant, the device is valid.
        unsafe { bindings::ordofs_helper_bdev_bytes(self.as_ptr()) / BYTES as u64 }
    }

    /// Whether the device refuses writes.
    pub fn readonly(&self) -> bool {
        // SAFETY: By the type invariant, the device is valid.
        unsafe { bindings::ordofs_helper_bdev_readonly(self.as_ptr()) }
    }

    /// Checks that `[block, block + len)` is on the device; returns the first sector.
    fn sector(&self, block: u64, len: u64) -> Result<u64> {
        match block.checked_add(len) {
            Some(end) if end <= self.blocks() => Ok(block * Self::SECTORS),
            _ => Err(EIO),
        }
    }

    /// A bio of this device for `vecs` blocks that start at `sector`.
    fn alloc(&self, vecs: usize, op: bindings::blk_opf_t, sector: u64) -> *mut bindings::bio {
        // SAFETY: The device is valid. A mempool stands behind the allocation, and a request that
        // may sleep for at most `BIO_MAX_VECS` vectors never fails.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                self.as_ptr(),
                vecs.min(MAX_VECS) as u16,
                op,
                bindings::ORDOFS_GFP_NOFS,
                &raw mut bindings::fs_bio_set,
            )
        };
        // SAFETY: The bio was just allocated and is ours.
        unsafe { (*bio).bi_iter.bi_sector = sector };
        bio
    }

    /// Reads one block.
    pub fn read(&self, block: u64, buf: &mut Buffer<BYTES>) -> Result {
        self.read_run(block, core::slice::from_mut(buf))
    }

    /// Reads blocks that lie one behind the other, from `first` on. After an error, what the buffers
    /// hold is not said.
    pub fn read_run(&self, first: u64, bufs: &mut [Buffer<BYTES>]) -> Result {
        let op = bindings::ORDOFS_OP_READ | bindings::ORDOFS_REQ_META;
        // The block layer takes the priority of the task.
        self.read_with(first, bufs, op, 0)
    }

    /// Reads blocks as [`Self::read_run`] does, with the lowest priority: others go before, whatever
    /// the priority of the task. No task that holds a lock may wait for it.
    pub fn read_background(&self, first: u64, bufs: &mut [Buffer<BYTES>]) -> Result {
        let op = bindings::ORDOFS_OP_READ;
        self.read_with(first, bufs, op, bindings::ORDOFS_IOPRIO_IDLE)
    }

    /// [`Self::read_run`] with these flags and this priority.
    fn read_with(
        &self,
        first: u64,
        bufs: &mut [Buffer<BYTES>],
        op: bindings::blk_opf_t,
        priority: u16,
    ) -> Result {
        let mut sector = self.sector(first, bufs.len() as u64)?;
        for run in bufs.chunks_mut(MAX_VECS) {
            let bio = self.alloc(run.len(), op, sector);
            sector += run.len() as u64 * Self::SECTORS;
            // SAFETY: The bio is ours and not submitted.
            unsafe { (*bio).bi_ioprio = priority };
            for buf in run {
                // SAFETY: The buffer is one page of the direct map, and the bio, which is ours, has
                // room for all of the run. The I/O ends before the call below returns, and meanwhile
                // the buffers are borrowed (R6).
                unsafe {
                    bindings::bio_add_virt_nofail(bio, buf.as_mut_ptr().cast(), BYTES as u32)
                };
            }
            // SAFETY: The bio is ours and complete; the call waits for its end.
            let error = unsafe { bindings::submit_bio_wait(bio) };
            // SAFETY: The I/O has ended; the reference is ours.
            unsafe { bindings::bio_put(bio) };
            to_result(error)?;
        }
        Ok(())
    }

    /// Writes blocks: submits all, merges neighbours, waits for all; returns the first error.
    pub fn write(&self, reqs: &[(u64, &Buffer<BYTES>)]) -> Result {
        for &(block, _) in reqs {
            self.sector(block, 1)?;
        }
        let op = bindings::ORDOFS_OP_WRITE | bindings::ORDOFS_REQ_META | bindings::ORDOFS_REQ_SYNC;
        self.submit(reqs, op)
    }

    /// Writes a block that nothing depends on: if that fails, nothing that was accepted before is lost
    /// (see [`BlockDevice::lost`]).
    pub fn write_spare(&self, block: u64, buf: &Buffer<BYTES>) -> Result {
        self.write_spare_run(&[(block, buf)])
    }

    /// Writes blocks as [`Self::write_spare`] does: submits all, merges neighbours, waits for all.
    pub fn write_spare_run(&self, reqs: &[(u64, &Buffer<BYTES>)]) -> Result {
        for &(block, _) in reqs {
            self.sector(block, 1)?;
        }
        let op = bindings::ORDOFS_OP_WRITE | bindings::ORDOFS_REQ_META | bindings::ORDOFS_REQ_SYNC;
        self.submit_to(&AtomicBool::new(false), reqs, op)
    }

    /// Writes blocks to stable storage, at the same time. What was written before is not covered: see
    /// `flush`.
    pub fn write_fua(&self, reqs: &[(u64, &Buffer<BYTES>)]) -> Result {
        for &(block, _) in reqs {
            self.sector(block, 1)?;
        }
        let op = bindings::ORDOFS_OP_WRITE
            | bindings::ORDOFS_REQ_META
            | bindings::ORDOFS_REQ_SYNC
            | bindings::ORDOFS_REQ_FUA;
        self.submit(reqs, op)
    }

    /// Writes blocks to stable storage, and with them everything whose write had ended before: one
    /// request and one flush.
    ///
    /// A device with a FUA of its own would make these blocks stable and nothing else: there the
    /// flush goes before the write. The block layer gives other devices FUA by a flush of all of the
    /// cache after the write (Documentation/block/writeback_cache_control.rst), which is all that is
    /// wanted.
    pub fn write_stable(&self, reqs: &[(u64, &Buffer<BYTES>)]) -> Result {
        for &(block, _) in reqs {
            self.sector(block, 1)?;
        }
        let op = bindings::ORDOFS_OP_WRITE | bindings::ORDOFS_REQ_META | bindings::ORDOFS_REQ_SYNC;
        // What does not fit into one bio goes before.
        let mut at = 0;
        while let Some(rest) = reqs.get(at..) {
            let n = run_length(rest);
            if n >= rest.len() {
                break;
            }
            at += n;
        }
        let (first, last) = reqs.split_at_checked(at).ok_or(EINVAL)?;
        if !first.is_empty() {
            self.submit(first, op)?;
        }
        // SAFETY: The device is valid.
        let flags = if unsafe { bindings::ordofs_helper_bdev_fua_flushes(self.as_ptr()) } {
            bindings::ORDOFS_REQ_FUA
        } else {
            bindings::ORDOFS_REQ_FUA | bindings::ORDOFS_REQ_PREFLUSH
        };
        self.submit(last, op | flags)
    }

    /// Submits `reqs`, whose addresses were checked, and waits.
    fn submit(&self, reqs: &[(u64, &Buffer<BYTES>)], op: bindings::blk_opf_t) -> Result {
        self.submit_to(&self.lost, reqs, op)
    }

    /// As [`Self::submit`]; a failure sets `lost`.
    fn submit_to(
        &self,
        lost: &AtomicBool,
        mut reqs: &[(u64, &Buffer<BYTES>)],
        op: bindings::blk_opf_t,
    ) -> Result {
        pin_init::stack_pin_init!(let batch = Batch::new(lost));
        let batch: Pin<&mut Batch<'_>> = batch;
        let batch: &Batch<'_> = &batch;
        let mut plug = core::mem::MaybeUninit::<bindings::blk_plug>::uninit();
        // SAFETY: Initializes the plug, which stays where it is until it is finished below.
        unsafe { bindings::blk_start_plug(plug.as_mut_ptr()) };
        while let (Some(first), Some((run, rest))) =
            (reqs.first(), reqs.split_at_checked(run_length(reqs)))
        {
            let bio = self.alloc(run.len(), op, first.0 * Self::SECTORS);
            for (_, buf) in run {
                // SAFETY: The buffer is one page of the direct map that is only read, and the bio
                // has room. `wait` below returns after the I/O, and until then the buffer is
                // borrowed (R6).
                unsafe {
                    bindings::bio_add_virt_nofail(bio, buf.as_ptr().cast_mut().cast(), BYTES as u32)
                };
            }
            // SAFETY: The bio is ours and complete; `wait` follows below.
            unsafe { batch.start(bio) };
            reqs = rest;
        }
        // SAFETY: Started above, in this task.
        unsafe { bindings::blk_finish_plug(plug.as_mut_ptr()) };
        batch.wait()
    }

    /// Makes everything that was written (and has ended) before stable.
    pub fn flush(&self) -> Result {
        pin_init::stack_pin_init!(let batch = Batch::new(&self.lost));
        let batch: Pin<&mut Batch<'_>> = batch;
        let batch: &Batch<'_> = &batch;
        // Not `blkdev_issue_flush`: its caller learns of a failure when another task's later flush may have
        // ended already.
        let op =
            bindings::ORDOFS_OP_WRITE | bindings::ORDOFS_REQ_SYNC | bindings::ORDOFS_REQ_PREFLUSH;
        // SAFETY: The bio is ours and has no data; `wait` follows.
        unsafe { batch.start(self.alloc(0, op, 0)) };
        batch.wait()
    }

    /// Has a write or a flush of this mount failed? Then the device may have dropped any write that it
    /// had accepted, and a flush that succeeds later proves nothing.
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// The unit in which the device discards, in bytes; 0 if it cannot.
    pub fn discard_unit(&self) -> u64 {
        // SAFETY: The device is valid.
        unsafe { bindings::ordofs_helper_bdev_discard_unit(self.as_ptr()) }
    }

    /// Discards `[start, start + len)`: the blocks are not needed any more. A device that cannot
    /// make use of that is no error.
    pub fn discard(&self, start: u64, len: u64) -> Result {
        let sector = self.sector(start, len)?;
        // SAFETY: The device is valid.
        if len == 0 || !unsafe { bindings::ordofs_helper_bdev_can_discard(self.as_ptr()) } {
            return Ok(());
        }
        // SAFETY: The device is valid, the range was checked.
        to_result(unsafe {
            bindings::blkdev_issue_discard(
                self.as_ptr(),
                sector,
                len * Self::SECTORS,
                bindings::ORDOFS_GFP_NOFS,
            )
        })
    }
}
