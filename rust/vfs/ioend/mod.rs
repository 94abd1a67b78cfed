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
//! checked before anybody can see it: in runs of up to [`RUN`] blocks, whose checksums are computed first
//! and compared together ([`FileData::check_run`]).
//!
//! # Stable data
//!
//! A write's checksum must be of the bytes that the device gets. The mapping has stable pages: a folio
//! is write-protected before its writeback starts, and whoever wants to store to it waits in
//! `page_mkwrite` until the writeback has ended. That says nothing of a task that *has* references to
//! the folio's pages from before, to write to them without the page table: a direct read from another
//! file into a mapping of ours (`pin_user_pages`), an NFS read, a debugger. Such folios are noticed when
//! they are added to an ioend ([`bounce_if_shared`]); the ioend's data is then copied, block by block, and
//! checksums and device get the copies.
//!
//! Noticing is complete, because at that moment the folio is locked, under writeback and write-protected:
//!
//! - A reference for writing is taken through a writable page table entry only (`FOLL_WRITE`), which the
//!   fault handler makes after `page_mkwrite` has marked the inode. `page_mkwrite` waits for writeback
//!   ([`fault_next`](crate::vfs::table::iomap)), so none is made from now on until the data is on the device.
//! - `gup_slow` looks at the entry under the page table lock, and so does `folio_mkclean`, which
//!   write-protects: the reference was counted before that, or there is none.
//! - `gup_fast` takes its reference first and looks at the entry again afterwards; `folio_mkclean`
//!   changes the entry first, and the references are counted after a full barrier. One of them sees the
//!   other: if the count is missed, `gup_fast` gives its reference back and takes the slow path.
//! - `FOLL_LONGTERM` (registered buffers of io_uring, RDMA) is refused for mappings of files that track
//!   dirty pages, as ours do.
//!
//! A folio without such references is not copied, and is read by address only ([`BlockData`]): no Rust
//! reference to it is made.
//!
//! # Memory
//!
//! Writeback must not fail for want of memory: its pages would be clean and their data lost. bios and
//! ioends come from mempools; the few small objects and the copies that a write needs besides are
//! tried again until they are there ([`wait_for_memory`]), as the kernel's own `__GFP_NOFAIL` allocations
//! in this path are (iomap's folio state). Pages cannot be made dirty again instead: of a large folio,
//! iomap remembers at this point neither which of its blocks were dirty nor which are up to date.
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
//! An ioend that has been taken over is always finished: [`WriteIoend`] fails it when it is dropped.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;

use crate::bindings;
use crate::os::{Block, NoFs};
use crate::vfs::table::iomap::{offset, BLOCK};
use crate::vfs::traits::file_data::FileData;
use crate::vfs::window::Window;
use crate::vfs::Inode;

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
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
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

    /// The blocks it consists of, whole ones.
    fn blocks(&self) -> impl Iterator<Item = BlockData<'_>> {
        (0..self.len / BLOCK as usize).map(|i| BlockData {
            // INVARIANT: A block of memory that is borrowed from us.
            // SAFETY: Within the bounds.
            ptr: unsafe { self.ptr.add(i * BLOCK as usize) },
            _memory: PhantomData,
        })
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

/// The content of one block, read by address only: user space may have the page mapped, so that no Rust
/// reference to it may exist.
///
/// # Invariants
///
/// `ptr` points to [`BLOCK`] bytes in the direct map that stay during `'a`.
#[derive(Clone, Copy)]
pub(crate) struct BlockData<'a> {
    ptr: NonNull<u8>,
    _memory: PhantomData<&'a [u8]>,
}

impl<'a> BlockData<'a> {
    /// # Safety
    ///
    /// `ptr` is as the type invariants say, for a lifetime that the caller chooses.
    unsafe fn from_raw(ptr: *mut u8) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            // SAFETY: Pointers into the direct map are not null.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            _memory: PhantomData,
        }
    }

    /// Its CRC-32C.
    pub(crate) fn crc32c(self) -> u32 {
        // The kernel leaves the inversions before and after to the caller.
        // SAFETY: Valid for reads of a block by the type invariants.
        !unsafe { bindings::crc32c(!0, self.ptr.as_ptr().cast(), BLOCK as usize) }
    }

    /// A copy. What is written to the block meanwhile is in it or not.
    fn copy(self) -> Result<Block> {
        let mut copy = Block::zeroed()?;
        // SAFETY: Both are valid for a block, and the new one is ours alone.
        unsafe {
            bindings::ordofs_helper_copy(
                copy.as_mut_ptr().cast(),
                self.ptr.as_ptr().cast(),
                BLOCK as usize,
            )
        };
        Ok(copy)
    }
}

impl<'a> From<&'a Block> for BlockData<'a> {
    fn from(block: &'a Block) -> Self {
        // INVARIANT: A borrowed block.
        Self {
            ptr: NonNull::from(&**block).cast(),
            _memory: PhantomData,
        }
    }
}

/// Waits until memory may have been freed. Returns whether to try again after `error`: yes if memory was
/// all that was missing.
pub(in crate::vfs) fn wait_for_memory(error: Error) -> bool {
    let missing = error == ENOMEM;
    if missing {
        // SAFETY: May sleep, as all of its callers may.
        unsafe { bindings::ordofs_helper_wait_for_memory() };
    }
    missing
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
    /// What the device reads, if it is not the ioend's own memory.
    copies: KVec<Block>,
}

/// Blocks of a write that are copied at a time: bounds the memory, and is no more than a bio holds.
const COPIES: u64 = 64;

/// The `io_private` of an ioend that is being built and whose data is to be copied.
static COPY: u8 = 0;

fn copy_mark() -> *mut c_void {
    core::ptr::from_ref(&COPY).cast_mut().cast()
}

/// Marks the ioend to be copied if somebody else may write to the folio that was just added to it.
///
/// # Safety
///
/// `ioend` is an unsubmitted write of an inode of `T`, `folio` is locked, has been write-protected by
/// `folio_clear_dirty_for_io` and is under writeback; the task has one reference to it.
pub(in crate::vfs) unsafe fn bounce_if_shared<T: FileData>(
    inode: &Inode<T>,
    ioend: *mut bindings::iomap_ioend,
    folio: *mut bindings::folio,
) {
    // SAFETY: By the requirements.
    if inode.has_been_writable() && unsafe { bindings::ordofs_helper_folio_is_shared(folio) } {
        // SAFETY: By the requirements; before submission the field is nobody else's.
        unsafe { (*ioend).io_private = copy_mark() };
    }
}

/// An unsubmitted write, or what is left of one. Dropping it fails the I/O.
///
/// # Invariants
///
/// - `ioend` is null (it was given away), or a valid ioend of ours with a write bio that is not in
///   flight; its inode is of `T`.
/// - `vec` and `done` are a position in the bio's vectors, as they were before it was split.
/// - Every vector is a number of whole blocks.
/// - `sums` are the checksums of the next blocks, and `copies`, if `copied`, are their content.
#[must_use = "dropping a write fails it"]
pub(crate) struct WriteIoend<'a, T: FileData> {
    ioend: *mut bindings::iomap_ioend,
    /// Blocks that have not been submitted.
    left: u64,
    /// First of them.
    block: u64,
    /// Next block to be read by [`WriteIoend::checksums`]: index of the vector, bytes in it.
    vec: usize,
    done: usize,
    sums: KVec<u32>,
    copies: KVec<Block>,
    copied: bool,
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
        let (size, pos, mark) = unsafe {
            let private = (*ioend).io_private;
            (*ioend).io_private = core::ptr::null_mut();
            ((*ioend).io_bio.bi_iter.bi_size, (*ioend).io_offset, private)
        };
        // INVARIANT: By the requirements; the position is the beginning.
        Self {
            ioend,
            left: u64::from(size) / BLOCK,
            block: offset(pos) / BLOCK,
            vec: 0,
            done: 0,
            sums: KVec::new(),
            copies: KVec::new(),
            copied: mark == copy_mark(),
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

    /// The checksums of the first of the blocks that are left: at least one, at most `max`. What they are
    /// of does not change until it is written: folios are under writeback and copied if somebody may write
    /// to them nevertheless, direct writes have bounce buffers. After an error it may be called again.
    pub(crate) fn checksums(&mut self, max: u64) -> Result<&[u32]> {
        let max = if self.copied { max.min(COPIES) } else { max } as usize;
        // SAFETY: By the type invariants.
        let bio = unsafe { &raw mut (*self.ioend).io_bio };
        // SAFETY: As above.
        let (vecs, count) = unsafe { ((*bio).bi_io_vec, usize::from((*bio).bi_vcnt)) };
        while self.sums.len() < max && self.vec < count {
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
            // block is inside of it.
            let data = unsafe {
                let address = bindings::ordofs_helper_bvec_virt(vec).cast::<u8>();
                BlockData::from_raw(address.add(self.done))
            };
            self.sums.reserve(1, GFP_KERNEL)?;
            if self.copied {
                self.copies.reserve(1, GFP_KERNEL)?;
                let copy = data.copy()?;
                self.sums
                    .push(T::checksum(BlockData::from(&copy)), GFP_KERNEL)?;
                self.copies.push(copy, GFP_KERNEL)?;
            } else {
                self.sums.push(T::checksum(data), GFP_KERNEL)?;
            }
            self.done += BLOCK as usize;
        }
        if self.sums.is_empty() {
            return Err(EIO);
        }
        Ok(self.sums.as_slice())
    }

    /// Forgets the checksums of the first `blocks` blocks, which have been submitted; returns their copies.
    fn taken(&mut self, blocks: u64) -> KVec<Block> {
        let n = (blocks as usize).min(self.sums.len());
        if !self.copied {
            self.sums.copy_within(n.., 0);
            self.sums.truncate(self.sums.len() - n);
            return KVec::new();
        }
        // What was copied in vain is copied again.
        let mut copies = core::mem::replace(&mut self.copies, KVec::new());
        copies.truncate(n);
        let mut back = (self.sums.len() - n) * BLOCK as usize;
        self.sums.clear();
        while back > self.done && self.vec > 0 {
            back -= self.done;
            self.vec -= 1;
            // SAFETY: By the type invariants; the index was one of a vector's.
            self.done = unsafe { (*(*self.ioend).io_bio.bi_io_vec.add(self.vec)).bv_len } as usize;
        }
        self.done = self.done.saturating_sub(back);
        copies
    }

    /// Prepares to submit: what cannot fail any more once the filesystem has started the write.
    pub(crate) fn prepare(&self) -> Result<Prepared<T>> {
        let work = KBox::new(
            WriteWork {
                work: bindings::work_struct::default(),
                ioend: core::ptr::null_mut(),
                write: None,
                reach: 0,
                copies: KVec::new(),
            },
            GFP_KERNEL,
        )?;
        Ok(Prepared { work })
    }

    /// Whether what failed with `error` before the write was started is to be tried again: see the module's
    /// description. Waits before it says so. A direct write just fails, with nothing lost.
    pub(crate) fn retry(&self, error: Error) -> bool {
        !self.direct && wait_for_memory(error)
    }

    /// Submits the first `blocks` blocks (at least one, at most as many as [`WriteIoend::checksums`] last
    /// returned) to device address `addr`, as the write that `write` stands for. Returns what is left.
    pub(crate) fn submit(
        mut self,
        blocks: u64,
        addr: u64,
        write: T::Write,
        prepared: Prepared<T>,
    ) -> Option<Self> {
        let blocks = blocks.min(self.left).min(self.sums.len() as u64);
        if blocks == 0 {
            // Nothing was checksummed. The write was started, so it is ended, too.
            let _ = T::write_ended(self.inode(), write, 0, Err(EIO));
            self.fail(EIO);
            return None;
        }
        let max = u32::try_from(blocks * BLOCK).unwrap_or(u32::MAX);
        // SAFETY: By the type invariants the ioend is ours. Split off parts count in it.
        let split = unsafe { bindings::iomap_split_ioend(self.ioend, max, false) };
        let status = self.inode().sb().pass(Window::DataIo);
        // An error is a pointer into the last page.
        if split as usize >= usize::MAX - 4095 {
            let error = to_result(split as isize as c_int).err().unwrap_or(EIO);
            // As above.
            let _ = T::write_ended(self.inode(), write, 0, Err(error));
            self.fail(error);
            return None;
        }
        let copied = self.copied;
        let part = if split.is_null() { self.ioend } else { split };
        let mut work = prepared.work;
        work.ioend = part;
        work.write = Some(write);
        work.copies = self.taken(blocks);
        // SAFETY: The part is ours until it is submitted. The work is ours until the end of the I/O.
        unsafe {
            work.reach = offset((*part).io_offset).saturating_add((*part).io_size as u64);
            bindings::ordofs_helper_init_work(&raw mut work.work, Some(write_worker::<T>));
            (*part).io_sector = addr >> SECTOR_SHIFT;
        }
        if split.is_null() {
            // The parts keep it: it is finished after the last of them.
            self.ioend = core::ptr::null_mut();
        } else {
            self.block += blocks;
            self.left -= blocks;
        }
        let bio = if copied {
            // SAFETY: The part is ours, and the work has its copies.
            unsafe { copied_bio(part, &work.copies) }
        } else {
            // SAFETY: The bio is part of the part.
            unsafe { &raw mut (*part).io_bio }
        };
        // SAFETY: The bio is complete but for the end of its I/O, and ours until it is submitted; it owns
        // the work from then on.
        unsafe {
            let work = KBox::into_raw(work);
            (*part).io_private = work.cast();
            (*bio).bi_iter.bi_sector = addr >> SECTOR_SHIFT;
            if copied {
                (*bio).bi_private = work.cast();
                bindings::ordofs_helper_bio_init_write(bio, Some(copied_end_io::<T>));
            } else {
                bindings::ordofs_helper_bio_init_write(bio, Some(write_end_io::<T>));
            }
            match status {
                Ok(()) => bindings::submit_bio(bio),
                Err(e) => {
                    // As if the device had answered with that.
                    (*bio).bi_status = bindings::errno_to_blk_status(e.to_errno());
                    bindings::bio_endio(bio);
                }
            }
        }
        (!self.ioend.is_null()).then_some(self)
    }

    /// Ends what is left with an error. The pages will be clean without having been written, which the
    /// error says.
    pub(crate) fn fail(mut self, error: Error) {
        self.end(error);
    }

    fn end(&mut self, error: Error) {
        if self.ioend.is_null() {
            return;
        }
        if !self.direct {
            let (pos, len) = (self.block * BLOCK, self.left * BLOCK);
            T::lose_dirty(self.inode(), pos, len, error);
        }
        let ioend = core::mem::replace(&mut self.ioend, core::ptr::null_mut());
        // SAFETY: By the type invariants; it is not used afterwards.
        unsafe { fail(ioend, error) };
    }
}

impl<T: FileData> Drop for WriteIoend<'_, T> {
    fn drop(&mut self) {
        // Folios that stayed under writeback would hang whoever waits for them.
        self.end(EIO);
    }
}

/// A bio that writes `copies` in the place of the bio of `part`.
///
/// # Safety
///
/// `part` is a valid ioend. The copies stay until the I/O has ended, and there are no more than
/// [`COPIES`].
unsafe fn copied_bio(part: *mut bindings::iomap_ioend, copies: &[Block]) -> *mut bindings::bio {
    // SAFETY: By the requirements. The bio comes from a mempool and has room for the copies, each of which
    // is a page of the direct map that is only read.
    unsafe {
        let bio = bindings::bio_alloc_bioset(
            (*part).io_bio.bi_bdev,
            copies.len().min(COPIES as usize) as u16,
            bindings::ORDOFS_OP_WRITE,
            bindings::ORDOFS_GFP_NOFS,
            &raw mut bindings::fs_bio_set,
        );
        bindings::ordofs_helper_bio_like(bio, &raw mut (*part).io_bio);
        for copy in copies.iter().take(COPIES as usize) {
            let address = copy.as_ptr().cast_mut().cast();
            bindings::bio_add_virt_nofail(bio, address, BLOCK as u32);
        }
        bio
    }
}

/// Memory for the completion of one part of a write.
pub(crate) struct Prepared<T: FileData> {
    work: KBox<WriteWork<T>>,
}

/// The device has answered a write of copies. Any context.
///
/// # Safety
///
/// `bio` is one of [`copied_bio`] that [`WriteIoend::submit`] submitted, and has ended.
unsafe extern "C" fn copied_end_io<T: FileData>(bio: *mut bindings::bio) {
    // SAFETY: By the requirements the bio's private data is the work; until that has run, all of these
    // are valid. The bio is ours.
    unsafe {
        let work = (*bio).bi_private.cast::<WriteWork<T>>();
        let ioend = (*work).ioend;
        (*ioend).io_bio.bi_status = (*bio).bi_status;
        bindings::bio_put(bio);
        write_end_io::<T>(&raw mut (*ioend).io_bio);
    }
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

/// `writeback_submit`: the context's ioend is complete. `error` is what ended writeback after it.
///
/// # Safety
///
/// Called by iomap with a context whose ioend was built by `iomap_add_to_ioend` for an inode of `T`.
pub(in crate::vfs) unsafe extern "C" fn writeback_submit<T: FileData>(
    wpc: *mut bindings::iomap_writepage_ctx,
    error: c_int,
) -> c_int {
    // SAFETY: By the requirements; the ioend becomes ours.
    let ioend = unsafe { (*wpc).wb_ctx.cast::<bindings::iomap_ioend>() };
    let _nofs = NoFs::enter();
    // An error is that of a folio which could not be added. What was added before is written.
    // SAFETY: As above. Dirty ranges are multiples of the block size.
    T::submit_write(unsafe { WriteIoend::new(ioend, false) });
    // An error of this ioend is in its folios and in the mapping; it is none of the next one's.
    error
}

/// `submit_io` for direct writes.
///
/// # Safety
///
/// Called by iomap with a bio of `iomap_ioend_bioset` for an inode of `T`.
pub(in crate::vfs) unsafe extern "C" fn direct_write_submit<T: FileData>(
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
pub(in crate::vfs) unsafe extern "C" fn submit_read<T: FileData>(
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
pub(in crate::vfs) unsafe extern "C" fn direct_read_submit<T: FileData>(
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

/// Blocks that are checked together, whatever bio they came in: as many as an extent record of ours has.
/// Their checksums are on the stack.
const RUN: usize = 256;

/// Judges blocks by their checksums: the good ones together, the others one by one with `slow`. `ended`
/// gets a number of blocks and their result, in order, and can stop it with an error.
fn judge<T: FileData>(
    inode: &Inode<T>,
    pos: u64,
    addr: u64,
    sums: &[u32],
    mut slow: impl FnMut(usize, u64, u64) -> Result,
    mut ended: impl FnMut(usize, Result) -> Result,
) -> Result {
    let mut at = 0;
    while let Some(rest) = sums.get(at..).filter(|r| !r.is_empty()) {
        let off = at as u64 * BLOCK;
        // What could not be looked up is for the slow way to say.
        let good = T::check_run(inode, pos + off, addr + off, rest).unwrap_or(0);
        let good = good.min(rest.len());
        if good > 0 {
            ended(good, Ok(()))?;
        }
        at += good;
        if good < rest.len() {
            let off = at as u64 * BLOCK;
            let result = slow(at, pos + off, addr + off);
            ended(1, result)?;
            at += 1;
        }
    }
    Ok(())
}

/// Checks contiguous blocks that were read from byte `addr` of the device for byte `pos` of the file;
/// returns the first error.
pub(crate) fn check_blocks<T: FileData>(
    inode: &Inode<T>,
    pos: u64,
    addr: u64,
    data: &mut PageSlice<'_>,
) -> Result {
    const BYTES: usize = RUN * BLOCK as usize;
    let mut sums = [0; RUN];
    let mut at = 0;
    while at < data.len() {
        let mut run = data.part(at, BYTES);
        let mut n = 0;
        for (sum, block) in sums.iter_mut().zip(run.blocks()) {
            *sum = T::checksum(block);
            n += 1;
        }
        let (pos, addr) = (pos + at as u64, addr + at as u64);
        judge(
            inode,
            pos,
            addr,
            sums.get(..n).unwrap_or(&[]),
            |i, pos, addr| {
                let mut block = run.part(i * BLOCK as usize, BLOCK as usize);
                T::check_block(inode, pos, addr, &mut block)
            },
            |_, result| result,
        )?;
        at += BYTES;
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
        check_blocks(inode, offset((*ioend).io_offset), addr, &mut data)
    };
    let error = result.err().map_or(0, |e| e.to_errno());
    // SAFETY: The ioend is ours, and not used afterwards.
    unsafe { bindings::iomap_finish_ioends(ioend, error) };
}

/// A place in the folios of a bio. It does not look at a folio again after it has left it.
#[derive(Clone, Copy)]
struct FolioWalk {
    fi: bindings::folio_iter,
    at: usize,
}

impl FolioWalk {
    /// The beginning.
    ///
    /// # Safety
    ///
    /// `bio` is a valid bio of folios.
    unsafe fn new(bio: *mut bindings::bio) -> Self {
        let mut walk = Self {
            // SAFETY: Plain data, to be filled in.
            fi: unsafe { core::mem::zeroed() },
            at: 0,
        };
        // SAFETY: By the requirements.
        unsafe { bindings::ordofs_helper_bio_first_folio(&raw mut walk.fi, bio) };
        walk
    }

    /// The folio of the next block, and where in it the block is.
    ///
    /// # Safety
    ///
    /// `bio` is that of [`FolioWalk::new`]; the folios from the next one on are still there.
    unsafe fn next(&mut self, bio: *mut bindings::bio) -> Option<(*mut bindings::folio, usize)> {
        if !self.fi.folio.is_null() && self.at >= self.fi.length {
            // SAFETY: By the requirements.
            unsafe { bindings::ordofs_helper_bio_next_folio(&raw mut self.fi, bio) };
            self.at = 0;
        }
        if self.fi.folio.is_null() {
            return None;
        }
        let off = self.fi.offset + self.at;
        self.at += BLOCK as usize;
        Some((self.fi.folio, off))
    }
}

/// Neighbouring blocks of a folio whose reads have ended in the same way.
struct Ended {
    folio: *mut bindings::folio,
    off: usize,
    len: usize,
    error: c_int,
}

impl Ended {
    /// Nothing.
    fn new() -> Self {
        Self {
            folio: core::ptr::null_mut(),
            off: 0,
            len: 0,
            error: 0,
        }
    }

    /// Ends their reads.
    ///
    /// # Safety
    ///
    /// See [`Ended::add`].
    unsafe fn flush(&mut self) {
        if self.len > 0 {
            // SAFETY: By the requirements.
            unsafe {
                bindings::iomap_finish_folio_read(self.folio, self.off, self.len, self.error)
            };
            self.len = 0;
        }
    }

    /// One more block.
    ///
    /// # Safety
    ///
    /// The folio is locked for a read of that block which has not been ended, and which is ours to end.
    unsafe fn add(&mut self, folio: *mut bindings::folio, off: usize, error: c_int) {
        if self.folio != folio || self.off + self.len != off || self.error != error {
            // SAFETY: By the requirements of the calls before.
            unsafe { self.flush() };
            (self.folio, self.off, self.error) = (folio, off, error);
        }
        self.len += BLOCK as usize;
    }
}

/// Checks and finishes a read into the page cache. Each block has its own result: a bad one spoils
/// neither its folio's other blocks nor the other folios.
///
/// # Safety
///
/// `ioend` is a read into the page cache of an inode of `T` that has ended. It is gone afterwards.
unsafe fn check_folios<T: FileData>(ioend: *mut bindings::iomap_ioend) {
    // SAFETY: By the requirements. The inode stays until the last folio is unlocked.
    let (bio, inode, mut addr) = unsafe {
        (
            &raw mut (*ioend).io_bio,
            Inode::<T>::from_raw((*ioend).io_inode),
            (*ioend).io_sector << SECTOR_SHIFT,
        )
    };
    // One goes ahead and computes checksums, the other follows and ends the reads. A folio is locked and
    // not up to date where it is being read, until `iomap_finish_folio_read` has been called for all of
    // its bytes: the first one is in it or in a later one until then.
    // SAFETY: By the requirements.
    let mut ahead = unsafe { FolioWalk::new(bio) };
    let mut behind = ahead;
    let mut done = Ended::new();
    let mut sums = [0; RUN];
    loop {
        let (mut n, mut pos) = (0, 0);
        while let Some(sum) = sums.get_mut(n) {
            let mut next = ahead;
            // SAFETY: See above; nothing from here on has been ended.
            let Some((folio, off)) = (unsafe { next.next(bio) }) else {
                break;
            };
            // SAFETY: The folio is locked, and contiguous in the direct map.
            let (here, block) = unsafe {
                let address = bindings::ordofs_helper_folio_address(folio, off);
                (
                    offset(bindings::ordofs_helper_folio_pos(folio)) + off as u64,
                    BlockData::from_raw(address.cast()),
                )
            };
            // What lies together on the device may have holes between in the file.
            if n == 0 {
                pos = here;
            } else if here != pos + n as u64 * BLOCK {
                break;
            }
            *sum = T::checksum(block);
            ahead = next;
            n += 1;
        }
        if n == 0 {
            break;
        }
        // Where `slow` finds its block: the one after all that have been ended.
        let (place, end) = (core::cell::Cell::new(behind), &mut done);
        let _ = judge(
            inode,
            pos,
            addr,
            sums.get(..n).unwrap_or(&[]),
            |_, pos, addr| {
                let mut at = place.get();
                // SAFETY: See above; the block has not been ended. Nobody else reads or writes it.
                unsafe {
                    let (folio, off) = at.next(bio).ok_or(EIO)?;
                    let address = bindings::ordofs_helper_folio_address(folio, off);
                    let mut data = PageSlice::from_raw(address.cast(), BLOCK as usize);
                    T::check_block(inode, pos, addr, &mut data)
                }
            },
            |n, result| {
                let error = result.err().map_or(0, |e| e.to_errno());
                let mut at = place.get();
                for _ in 0..n {
                    // SAFETY: See above; these blocks have not been ended.
                    unsafe {
                        let (folio, off) = at.next(bio).ok_or(EIO)?;
                        end.add(folio, off, error);
                    }
                }
                place.set(at);
                Ok(())
            },
        );
        behind = place.get();
        addr += n as u64 * BLOCK;
    }
    // SAFETY: The last blocks have not been ended. Then the bio is ours, and not used afterwards.
    unsafe {
        done.flush();
        bindings::bio_put(bio);
    }
}
