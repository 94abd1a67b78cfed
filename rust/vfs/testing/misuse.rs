// SPDX-License-Identifier: GPL-2.0

//! What the types of this directory rule out: code that must not compile, in builds that
//! `scripts/check-misuse` makes. Each line names the compiler's error for it.
//!
//! The compiler looks for errors of types first and for errors of lifetimes only where there are none of
//! the former, so there are two builds.

use crate::vfs::object::iocb::{Iocb, OpenFile, Source};
use crate::vfs::traits::file_system::FileSystem;
use crate::vfs::{Inode, Locked, SuperBlock};

#[cfg(ordofs_misuse_types)]
mod types {
    use super::*;

    fn goes_to_another_task(_: impl Send) {}

    fn writes_with_the_lock_held_shared<T: FileSystem>(
        iocb: &mut Iocb<'_, T>,
        from: &mut Source<'_>,
    ) {
        let mut iocb = iocb.lock_shared();
        let _ = iocb.buffered_write(from); // E0599
    }

    fn changes_the_layout_with_the_lock_held_shared<T: FileSystem>(iocb: &mut Iocb<'_, T>) {
        let iocb = iocb.lock_shared();
        let _ = iocb.locked(); // E0599
    }

    fn writes_without_the_lock<T: FileSystem>(iocb: &mut Iocb<'_, T>, from: &mut Source<'_>) {
        let _ = iocb.buffered_write(from); // E0599
    }

    fn sets_the_size_without_the_lock<T: FileSystem>(inode: &Inode<T>) {
        inode.set_size(0); // E0599
    }

    fn locks_the_layout_without_the_lock<T: FileSystem>(inode: &Inode<T>) {
        let _ = inode.lock_layout(); // E0599
    }

    fn shows_the_lock_of_another_inode<T: FileSystem>(file: &OpenFile<T>, other: &Inode<T>) {
        let lock = other.lock_exclusive();
        let _ = file.modified(&lock); // E0599
    }

    fn another_task_gets_the_lock<T: FileSystem>(inode: &Inode<T>) {
        goes_to_another_task(inode.lock_exclusive()); // E0277
    }

    fn another_task_gets_the_proof<T: FileSystem>(inode: Locked<'_, T>) {
        goes_to_another_task(inode); // E0277
    }

    fn another_task_gets_the_layout_lock<T: FileSystem>(inode: &Locked<'_, T>) {
        goes_to_another_task(inode.lock_layout()); // E0277
    }
}

#[cfg(ordofs_misuse_lifetimes)]
mod lifetimes {
    use super::*;
    use crate::vfs::object::inode::InodeRef;

    fn keeps_an_inode_beyond_the_mount<T: FileSystem>(
        sb: &SuperBlock<T>,
    ) -> Option<InodeRef<'static, T>> {
        Inode::get(sb, 1).ok() // lifetime
    }

    fn keeps_the_proof_beyond_the_lock<T: FileSystem>(inode: &Inode<T>) -> Locked<'_, T> {
        let lock = inode.lock_exclusive();
        lock.locked() // E0515
    }

    fn uses_the_iocb_past_its_guard<T: FileSystem>(iocb: &mut Iocb<'_, T>) {
        let locked = iocb.lock_shared();
        let again = iocb.lock_shared(); // E0499
        drop((locked, again));
    }
}
