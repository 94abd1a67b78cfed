// SPDX-License-Identifier: GPL-2.0

//! Data I/O in flight: what happens between the page cache (or a direct I/O) and the device.
//!
//! # Model
//!
//! iomap collects folios, or the pages of a direct I/O, in a bio that is embedded in an *ioend*.
//!
//! A write comes here without an address ([`WriteIoend`]). The filesystem checksums its blocks, gives
//! a prefix of them an address, and submits that ([`WriteIoend::submit`]), until nothing is left. Each
//! part carries the filesystem's token for that write. When the device has completed it, a work in the
//! queue for writes hands the token to [`IoendOperations::write_ended`], and *then* the part is finished.
//! Parts count in their parent, so that the folios leave writeback (and a direct I/O completes)
//! only after the last part's mapping is in place.
//!
//! A read (`read`) goes to the queue for reads, where every block is checked before it can be seen: in runs
//! of up to [`check::RUN`] blocks, whose checksums are computed first and compared together
//! ([`IoendOperations::check_run`]).
//!
//! # Stable data
//!
//! A write's checksum must be of the bytes that the device gets. The mapping has stable pages: a folio
//! is write-protected before its writeback starts, and a task that stores to it waits in
//! `page_mkwrite` until the writeback has ended. That says nothing of a task that *has* references to
//! the folio's pages from before, to write to them without the page table: a direct read from another
//! file into a mapping of ours (`pin_user_pages`), an NFS read, a debugger. Such folios are noticed when
//! they are added to an ioend ([`copy::mark_if_shared`]); the ioend's data is then copied, block by block, and
//! checksums and device get the copies.
//!
//! Noticing is complete, because at that moment the folio is locked, under writeback and write-protected:
//!
//! - A reference for writing is taken through a writable page table entry only (`FOLL_WRITE`), which the
//!   fault handler makes after `page_mkwrite` has marked the inode. `page_mkwrite` waits for writeback
//!   (`fault_next` in `rust/vfs/table/iomap.rs`), so none is made from now on until the data is on the device.
//! - `gup_slow` looks at the entry under the page table lock, and so does `folio_mkclean`, which
//!   write-protects: the reference was counted before that, or there is none.
//! - `gup_fast` takes its reference first and looks at the entry again afterwards; `folio_mkclean`
//!   changes the entry first, and the references are counted after a full barrier. One of them sees the
//!   other: if the count is missed, `gup_fast` gives its reference back and takes the slow path.
//! - `FOLL_LONGTERM` (registered buffers of io_uring, RDMA) is refused for mappings of files that track
//!   dirty pages, as ours do.
//!
//! A folio without such references is not copied, and is read by address only
//! ([`BlockData`](crate::vfs::object::memory::BlockData)): no Rust reference to it is made.
//!
//! # Memory
//!
//! Writeback must not fail for want of memory: its pages would be clean and their data lost. bios and
//! ioends come from mempools; the few small objects and the copies that a write needs besides are
//! tried again until they are there ([`wait_for_memory`](crate::vfs::object::memory::wait_for_memory)), as the
//! kernel's own `__GFP_NOFAIL` allocations in this path are (iomap's folio state). Pages cannot be made dirty again instead: of a large folio,
//! iomap remembers at this point neither which of its blocks were dirty nor which are up to date.
//!
//! # Rules
//!
//! R6 for data: the ioend owns its bio, and with that its folios (under writeback, or locked for
//! reading), until it is finished. Nothing of the ioend is touched afterwards: the last folio may take
//! the inode with it.
//!
//! # Files
//!
//! | file | what |
//! |---|---|
//! | `operations` | what the filesystem does for an ioend |
//! | `copy` | copies of data that others may write to |
//! | `write` | a write from the page cache or a direct I/O until it is submitted |
//! | `write_end` | its end |
//! | `read` | a read from its submission to its end |
//! | `check` | runs of blocks against their checksums |
//! | `check_folios` | the end of a read into the page cache, block by block |
//! | `finish` | giving an ioend back to iomap |
//!
//! # Contexts
//!
//! End-of-I/O callbacks run in interrupts and do nothing but queue the work. The works sleep.
//! An ioend that has been taken over is always finished: [`WriteIoend`] fails it when it is dropped.

pub(crate) mod check;
mod check_folios;
pub(in crate::vfs) mod copy;
mod finish;
pub(crate) mod operations;
pub(in crate::vfs) mod read;
pub(crate) mod write;
mod write_end;

pub(crate) use operations::IoendOperations;
pub(crate) use write::WriteIoend;
