// SPDX-License-Identifier: GPL-2.0

//! Data I/O in flight: what happens between the page cache (or a direct I/O) and the device.
//!
//! # Model
//!
//! iomap collects folios, or the pages of a direct I/O, in a bio that is embedded in an *ioend*.
//!
//! A write comes here without an address ([`WriteIoend`]). The filesystem checksums its blocks, gives
//! a prefix of them an address, and submits that ([`WriteIoend::submit`]), until nothing is left. Each
//! part carries the filesystem's token for that write. When the device has answered, a work in the
//! queue for writes hands the token to [`FileData::write_ended`], and *then* the part is finished.
//! Parts count in their parent, so that the folios leave writeback (and a direct I/O completes)
//! only after the last part's mapping is in place.
//!
//! A read ([`submit_read`], [`direct_read_submit`]) goes to the queue for reads, where every block is
//! checked before anybody can see it.
//!
//! # Rules
//!
//! R6 for data: the ioend owns its bio, and with that its folios (under writeback, or locked for
//! reading), until it is finished. Nothing of the ioend is touched afterwards: the last folio may take
//! the inode with it.
//!
//! # Contexts
//!
//! End-of-I/O callbacks run in interrupts and do nothing but queue the work. The works sleep.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;

use super::file_data::FileData;
use super::iomap::{offset, BLOCK};
use super::window::Window;
use super::Inode;
use crate::bindings;
use crate::os::NoFs;

/// log2 of the unit of device addresses in bios.
const SECTOR_SHIFT: u32 = 9;

/// Memory of a folio or of a bounce buffer that is being read into.
///
/// # Invariants
///
/// `ptr` points to `len` bytes that are physically contiguous in the direct map, that stay during
/// `'a`, and that nobody else accesses in that time.
pub(crate) struct PageSlice<'a> {
    ptr: NonNull<u8>,
    len: usize,
    _memory: PhantomData<&'a mut [u8]>,
}

impl PageSlice<'_> {
    /// # Safety
    ///
    /// `ptr` and `len` are as the type invariants say, for a lifetime that the caller chooses.
    pub(super) unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            // SAFETY: Pointers into the direct map are not null.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            len,
            _memory: PhantomData,
        }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// The bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariants, and we have it exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    /// A part of it, cut to what there is.
    pub(crate) fn part(&mut self, start: usize, len: usize) -> PageSlice<'_> {
        let start = start.min(self.len);
        // INVARIANT: A part of memory that is borrowed from us.
        PageSlice {
            // SAFETY: Within the bounds.
            ptr: unsafe { self.ptr.add(start) },
            len: len.min(self.len - start),
            _memory: PhantomData,
        }
    }
}

/// Whether a message about bad data may go to the log: there could be very many.
pub(crate) fn message_allowed() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::ordofs_helper_message_allowed() }
}

impl<T: FileData> Inode<T> {
    /// Reads from the device at byte offset `addr` and waits. Both are multiples of the block size.
    pub(crate) fn read_device(&self, addr: u64, data: &mut PageSlice<'_>) -> Result {
        let len = u32::try_from(data.len).map_err(|_| EINVAL)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: The device is open as long as there are inodes. The bio comes from a mempool and has
        // room for one vector; the memory is physically contiguous and stays until the wait is over.
        let error = unsafe {
            let bio = bindings::bio_alloc_bioset(
                (*(*self.as_ptr()).i_sb).s_bdev,
                1,
                bindings::ORDOFS_OP_READ,
                bindings::ORDOFS_GFP_NOFS,
                &raw mut bindings::fs_bio_set,
            );
            (*bio).bi_iter.bi_sector = addr >> SECTOR_SHIFT;
            bindings::bio_add_virt_nofail(bio, data.ptr.as_ptr().cast(), len);
            let error = bindings::submit_bio_wait(bio);
            bindings::bio_put(bio);
            error
        };
        to_result(error)
    }
}

/// Fails an ioend that is not in flight.
///
/// # Safety
///
/// `ioend` is a valid ioend of ours; nobody uses it afterwards.
unsafe fn fail(ioend: *mut bindings::iomap_ioend, error: Error) {
    // SAFETY: The caller's promise; process context.
    unsafe { bindings::iomap_finish_ioends(ioend, error.to_errno()) };
}

/// What completes a write: allocated before it starts, because afterwards there is no way back.
#[repr(C)]
struct WriteWork<T: FileData> {
    work: bindings::work_struct,
    ioend: *mut bindings::iomap_ioend,
    /// `None` only before submission.
    write: Option<T::Write>,
    reach: u64,
}

/// An unsubmitted write, or what is left of one.
///
/// # Invariants
///
/// - `ioend` is a valid ioend with a write bio that is not in flight; its inode is of `T`.
/// - `vec` and `done` are a position in the bio's vectors, as they were before it was split.
/// - Every vector is a number of whole blocks.
pub(crate) struct WriteIoend<'a, T: FileData> {
    ioend: *mut bindings::iomap_ioend,
    /// Blocks that have not been submitted.
    left: u64,
    /// First of them.
    block: u64,
    /// Next block to be read by [`WriteIoend::checksums`]: index of the vector, bytes in it.
    vec: usize,
    done: usize,
    direct: bool,
    _inode: PhantomData<&'a Inode<T>>,
}

impl<'a, T: FileData> WriteIoend<'a, T> {
    /// # Safety
    ///
    /// `ioend` is an unsubmitted write of an inode of `T` whose bio covers whole blocks. The ioend
    /// becomes ours.
    unsafe fn new(ioend: *mut bindings::iomap_ioend, direct: bool) -> Self {
        // SAFETY: By the requirements.
        let (size, pos) = unsafe { ((*ioend).io_bio.bi_iter.bi_size, (*ioend).io_offset) };
        // INVARIANT: By the requirements; the position is the beginning.
        Self {
            ioend,
            left: u64::from(size) / BLOCK,
            block: offset(pos) / BLOCK,
            vec: 0,
            done: 0,
            direct,
            _inode: PhantomData,
        }
    }

    /// The file that is written to.
    pub(crate) fn inode(&self) -> &'a Inode<T> {
        // SAFETY: By the type invariants; the inode stays until the ioend is finished.
        unsafe { Inode::from_raw((*self.ioend).io_inode) }
    }

    /// The first block of what is left.
    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// How many blocks are left.
    pub(crate) fn blocks(&self) -> u64 {
        self.left
    }

    /// Whether this is direct I/O.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Appends the checksums of the next blocks to `sums` until there are `max`. Each call goes on
    /// where the last one stopped; the data does not change until it is written: folios are under
    /// writeback and the mapping has stable pages, direct writes have bounce buffers.
    pub(crate) fn checksums(
        &mut self,
        sums: &mut KVec<u32>,
        max: usize,
        checksum: fn(&[u8]) -> u32,
    ) -> Result {
        // SAFETY: By the type invariants.
        let bio = unsafe { &raw mut (*self.ioend).io_bio };
        // SAFETY: As above.
        let (vecs, count) = unsafe { ((*bio).bi_io_vec, usize::from((*bio).bi_vcnt)) };
        while sums.len() < max && self.vec < count {
            // SAFETY: The index is less than the number of vectors.
            let vec = unsafe { vecs.add(self.vec) };
            // SAFETY: As above.
            let len = unsafe { (*vec).bv_len } as usize;
            if self.done >= len {
                self.vec += 1;
                self.done = 0;
                continue;
            }
            // SAFETY: The vector's memory is contiguous in the direct map and stays with the bio; the
            // block is inside of it. Nobody writes to it, as said above.
            let data = unsafe {
                let address = bindings::ordofs_helper_bvec_virt(vec).cast::<u8>();
                core::slice::from_raw_parts(address.add(self.done), BLOCK as usize)
            };
            sums.push(checksum(data), GFP_KERNEL)?;
            self.done += BLOCK as usize;
        }
        Ok(())
    }

    /// Prepares to submit: what cannot fail any more once the filesystem has started the write.
    pub(crate) fn prepare(&self) -> Result<Prepared<T>> {
        let work = KBox::new(
            WriteWork {
                work: bindings::work_struct::default(),
                ioend: core::ptr::null_mut(),
                write: None,
                reach: 0,
            },
            GFP_KERNEL,
        )?;
        Ok(Prepared { work })
    }

    /// Submits the first `blocks` blocks (at least one) to device address `addr`, as the write that
    /// `write` stands for. Returns what is left.
    pub(crate) fn submit(
        mut self,
        blocks: u64,
        addr: u64,
        write: T::Write,
        prepared: Prepared<T>,
    ) -> Option<Self> {
        let blocks = blocks.min(self.left).max(1);
        let max = u32::try_from(blocks * BLOCK).unwrap_or(u32::MAX);
        // SAFETY: By the type invariants the ioend is ours. Split off parts count in it.
        let split = unsafe { bindings::iomap_split_ioend(self.ioend, max, false) };
        let status = self.inode().sb().pass(Window::DataIo);
        // An error is a pointer into the last page.
        if split as usize >= usize::MAX - 4095 {
            let error = to_result(split as isize as c_int).err().unwrap_or(EIO);
            // The write was started, so it is ended, too.
            let _ = T::write_ended(self.inode(), write, 0, Err(error));
            self.fail(error);
            return None;
        }
        let part = if split.is_null() { self.ioend } else { split };
        let mut work = prepared.work;
        work.ioend = part;
        work.write = Some(write);
        // SAFETY: The part is ours until it is submitted. The work is ours until the end of the I/O.
        unsafe {
            work.reach = offset((*part).io_offset).saturating_add((*part).io_size as u64);
            bindings::ordofs_helper_init_work(&raw mut work.work, Some(write_worker::<T>));
            (*part).io_private = KBox::into_raw(work).cast();
            (*part).io_sector = addr >> SECTOR_SHIFT;
            let bio = &raw mut (*part).io_bio;
            (*bio).bi_iter.bi_sector = addr >> SECTOR_SHIFT;
            bindings::ordofs_helper_bio_init_write(bio, Some(write_end_io::<T>));
            match status {
                Ok(()) => bindings::submit_bio(bio),
                Err(e) => {
                    // As if the device had answered with that.
                    (*bio).bi_status = bindings::errno_to_blk_status(e.to_errno());
                    bindings::bio_endio(bio);
                }
            }
        }
        if split.is_null() {
            return None;
        }
        self.block += blocks;
        self.left -= blocks;
        Some(self)
    }

    /// Ends what is left with an error.
    pub(crate) fn fail(self, error: Error) {
        // SAFETY: By the type invariants; we are consumed.
        unsafe { fail(self.ioend, error) };
    }
}

/// Memory for the completion of one part of a write.
pub(crate) struct Prepared<T: FileData> {
    work: KBox<WriteWork<T>>,
}

/// The device has answered a write. Any context.
///
/// # Safety
///
/// `bio` is of an ioend that [`WriteIoend::submit`] submitted, and has ended.
unsafe extern "C" fn write_end_io<T: FileData>(bio: *mut bindings::bio) {
    // SAFETY: By the requirements; until the work has run, all of these are valid.
    unsafe {
        let ioend = bio
            .byte_sub(offset_of!(bindings::iomap_ioend, io_bio))
            .cast::<bindings::iomap_ioend>();
        let work = (*ioend).io_private.cast::<WriteWork<T>>();
        let inode = Inode::<T>::from_raw((*ioend).io_inode);
        inode.fs().io().writes.queue(&raw mut (*work).work);
    }
}

/// Completes one part of a write.
///
/// # Safety
///
/// Called by the workqueue for a work of [`WriteIoend::submit`].
unsafe extern "C" fn write_worker<T: FileData>(work: *mut bindings::work_struct) {
    // SAFETY: The work is embedded in a box that was leaked for us. Nobody uses it once we run.
    let work = unsafe {
        KBox::from_raw(
            work.byte_sub(offset_of!(WriteWork<T>, work))
                .cast::<WriteWork<T>>(),
        )
    };
    let ioend = work.ioend;
    // SAFETY: The ioend is valid until it is finished below.
    let (inode, status) = unsafe {
        (
            Inode::<T>::from_raw((*ioend).io_inode),
            bindings::blk_status_to_errno((*ioend).io_bio.bi_status),
        )
    };
    let reach = work.reach;
    let result = {
        // Writeback for the sake of reclaim may wait for us: do not wait for reclaim's writeback.
        let _nofs = NoFs::enter();
        let write = KBox::into_inner(work).write;
        match write {
            Some(write) => T::write_ended(inode, write, reach, to_result(status)),
            None => Err(EIO),
        }
    };
    let error = result.err().map_or(0, |e| e.to_errno());
    // The mapping is in place (or the error known): now, and not before, the folios may go.
    // SAFETY: The ioend is ours, and not used afterwards.
    unsafe { bindings::iomap_finish_ioends(ioend, error) };
}

/// `writeback_submit`: the context's ioend is complete.
///
/// # Safety
///
/// Called by iomap with a context whose ioend was built by `iomap_add_to_ioend` for an inode of `T`.
pub(super) unsafe extern "C" fn writeback_submit<T: FileData>(
    wpc: *mut bindings::iomap_writepage_ctx,
    error: c_int,
) -> c_int {
    // SAFETY: By the requirements; the ioend becomes ours.
    let ioend = unsafe { (*wpc).wb_ctx.cast::<bindings::iomap_ioend>() };
    if let Err(e) = to_result(error) {
        // SAFETY: As above.
        unsafe { fail(ioend, e) };
        return error;
    }
    let _nofs = NoFs::enter();
    // SAFETY: As above. Dirty ranges are multiples of the block size.
    T::submit_write(unsafe { WriteIoend::new(ioend, false) });
    // An error of this ioend is in its folios and in the mapping; it is none of the next one's.
    0
}

/// `submit_io` for direct writes.
///
/// # Safety
///
/// Called by iomap with a bio of `iomap_ioend_bioset` for an inode of `T`.
pub(super) unsafe extern "C" fn direct_write_submit<T: FileData>(
    iter: *const bindings::iomap_iter,
    bio: *mut bindings::bio,
    pos: bindings::loff_t,
) {
    // SAFETY: By the requirements the bio is embedded in an ioend, which becomes ours; block
    // alignment was asked for.
    let ioend = unsafe {
        let ioend = bindings::iomap_init_ioend(
            (*iter).inode,
            bio,
            pos,
            bindings::IOMAP_IOEND_DIRECT as u16,
        );
        WriteIoend::<T>::new(ioend, true)
    };
    let _nofs = NoFs::enter();
    T::submit_write(ioend);
}

/// What verifies a read.
#[repr(C)]
struct ReadWork<T: FileData> {
    work: bindings::work_struct,
    ioend: *mut bindings::iomap_ioend,
    _inode: PhantomData<T>,
}

/// Attaches a [`ReadWork`] to a read that is about to be submitted.
///
/// # Safety
///
/// `ioend` is an initialised, unsubmitted ioend.
unsafe fn attach_read<T: FileData>(ioend: *mut bindings::iomap_ioend) -> Result {
    let work = KBox::new(
        ReadWork::<T> {
            work: bindings::work_struct::default(),
            ioend,
            _inode: PhantomData,
        },
        GFP_KERNEL,
    )?;
    let work = KBox::into_raw(work);
    // SAFETY: The memory was just leaked to us; the ioend is valid.
    unsafe {
        bindings::ordofs_helper_init_work(&raw mut (*work).work, Some(read_worker::<T>));
        (*ioend).io_private = work.cast();
    }
    Ok(())
}

/// `submit_read` for reads into the page cache.
///
/// # Safety
///
/// Called by iomap with a context whose bio is of `iomap_ioend_bioset`, for an inode of `T`.
pub(super) unsafe extern "C" fn submit_read<T: FileData>(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
) {
    let _nofs = NoFs::enter();
    // SAFETY: By the requirements. The bio becomes ours, and the context forgets it.
    unsafe {
        let bio = (*ctx).read_ctx.cast::<bindings::bio>();
        let ioend = bindings::iomap_init_ioend((*iter).inode, bio, (*ctx).read_ctx_file_offset, 0);
        match attach_read::<T>(ioend) {
            Ok(()) => bindings::iomap_bio_submit_read_endio(iter, ctx, Some(read_end_io::<T>)),
            Err(e) => {
                (*ctx).read_ctx = core::ptr::null_mut();
                fail(ioend, e);
            }
        }
    }
}

/// `submit_io` for direct reads.
///
/// # Safety
///
/// Called by iomap with a bio of `iomap_ioend_bioset` for an inode of `T`.
pub(super) unsafe extern "C" fn direct_read_submit<T: FileData>(
    iter: *const bindings::iomap_iter,
    bio: *mut bindings::bio,
    pos: bindings::loff_t,
) {
    // SAFETY: By the requirements the bio is embedded in an ioend, which becomes ours.
    unsafe {
        let flags = bindings::IOMAP_IOEND_DIRECT as u16;
        let ioend = bindings::iomap_init_ioend((*iter).inode, bio, pos, flags);
        match attach_read::<T>(ioend) {
            Ok(()) => {
                (*bio).bi_end_io = Some(read_end_io::<T>);
                bindings::submit_bio(bio);
            }
            Err(e) => fail(ioend, e),
        }
    }
}

/// The device has answered a read. Any context.
///
/// # Safety
///
/// `bio` is of an ioend with a [`ReadWork`], and has ended.
unsafe extern "C" fn read_end_io<T: FileData>(bio: *mut bindings::bio) {
    // SAFETY: By the requirements; until the work has run, all of these are valid.
    unsafe {
        let ioend = bio
            .byte_sub(offset_of!(bindings::iomap_ioend, io_bio))
            .cast::<bindings::iomap_ioend>();
        let work = (*ioend).io_private.cast::<ReadWork<T>>();
        let inode = Inode::<T>::from_raw((*ioend).io_inode);
        inode.fs().io().reads.queue(&raw mut (*work).work);
    }
}

/// Checks what was read, and finishes the read.
///
/// # Safety
///
/// Called by the workqueue for a work of [`attach_read`].
unsafe extern "C" fn read_worker<T: FileData>(work: *mut bindings::work_struct) {
    // SAFETY: The work is embedded in a box that was leaked for us. Nobody uses it once we run.
    let work = unsafe {
        KBox::from_raw(
            work.byte_sub(offset_of!(ReadWork<T>, work))
                .cast::<ReadWork<T>>(),
        )
    };
    let ioend = work.ioend;
    drop(work);
    let _nofs = NoFs::enter();
    // SAFETY: The ioend is valid until it is finished.
    unsafe {
        let status = bindings::blk_status_to_errno((*ioend).io_bio.bi_status);
        if let Err(e) = to_result(status) {
            fail(ioend, e);
        } else if u32::from((*ioend).io_flags) & bindings::IOMAP_IOEND_DIRECT != 0 {
            check_direct::<T>(ioend);
        } else {
            check_folios::<T>(ioend);
        }
    }
}

/// Checks the blocks of one contiguous piece; returns the first error.
fn check<T: FileData>(inode: &Inode<T>, pos: u64, addr: u64, data: &mut PageSlice<'_>) -> Result {
    let mut at = 0;
    while at < data.len() {
        let mut block = data.part(at, BLOCK as usize);
        T::check_block(inode, pos + at as u64, addr + at as u64, &mut block)?;
        at += BLOCK as usize;
    }
    Ok(())
}

/// Checks and finishes a direct read. Its first vector is the bounce buffer, the others are where the
/// data goes when all of it is good.
///
/// # Safety
///
/// `ioend` is a bounced direct read of an inode of `T` that has ended. It is gone afterwards.
unsafe fn check_direct<T: FileData>(ioend: *mut bindings::iomap_ioend) {
    // SAFETY: By the requirements; the bounce buffer is contiguous and ours until we finish.
    let result = unsafe {
        let inode = Inode::<T>::from_raw((*ioend).io_inode);
        let address = bindings::ordofs_helper_bvec_virt((*ioend).io_bio.bi_io_vec);
        let mut data = PageSlice::from_raw(address.cast(), (*ioend).io_size);
        let addr = (*ioend).io_sector << SECTOR_SHIFT;
        check(inode, offset((*ioend).io_offset), addr, &mut data)
    };
    let error = result.err().map_or(0, |e| e.to_errno());
    // SAFETY: The ioend is ours, and not used afterwards.
    unsafe { bindings::iomap_finish_ioends(ioend, error) };
}

/// Checks and finishes a read into the page cache, block by block: a bad block spoils neither its
/// folio's other blocks nor the other folios.
///
/// # Safety
///
/// `ioend` is a read into the page cache of an inode of `T` that has ended. It is gone afterwards.
unsafe fn check_folios<T: FileData>(ioend: *mut bindings::iomap_ioend) {
    // SAFETY: By the requirements. A folio is locked and not up to date where it is being read, until
    // `iomap_finish_folio_read` has been called for all of its bytes; the iterator does not look at a
    // folio again after it has gone on. The inode stays until the last folio is unlocked.
    unsafe {
        let bio = &raw mut (*ioend).io_bio;
        let inode = Inode::<T>::from_raw((*ioend).io_inode);
        let mut addr = (*ioend).io_sector << SECTOR_SHIFT;
        let mut fi = core::mem::zeroed::<bindings::folio_iter>();
        bindings::ordofs_helper_bio_first_folio(&raw mut fi, bio);
        while !fi.folio.is_null() {
            let folio = fi.folio;
            let pos = offset(bindings::ordofs_helper_folio_pos(folio)) + fi.offset as u64;
            let address = bindings::ordofs_helper_folio_address(folio, fi.offset);
            let mut data = PageSlice::from_raw(address.cast(), fi.length);
            // Runs of blocks with the same result.
            let (mut start, mut at, mut run) = (0, 0, 0);
            while at < fi.length {
                let mut block = data.part(at, BLOCK as usize);
                let result = T::check_block(inode, pos + at as u64, addr + at as u64, &mut block);
                let error = result.err().map_or(0, |e| e.to_errno());
                if error != run && at > start {
                    bindings::iomap_finish_folio_read(folio, fi.offset + start, at - start, run);
                    start = at;
                }
                run = error;
                at += BLOCK as usize;
            }
            bindings::iomap_finish_folio_read(folio, fi.offset + start, at - start, run);
            addr += fi.length as u64;
            bindings::ordofs_helper_bio_next_folio(&raw mut fi, bio);
        }
        bindings::bio_put(bio);
    }
}
