// SPDX-License-Identifier: GPL-2.0

//! Attributes: from the filesystem to the VFS inode.
//!
//! Tests: tests/vm/t/053-attrs.sh, 029-flags.sh.

use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::traits::inode::{Attrs, InodeOperations};

impl<T: InodeOperations> Inode<T> {
    /// Copies what operations change in the filesystem into the VFS inode: number of names, ctime and change
    /// counter; of directories also size and mtime. Other times stay: the VFS's are the newer ones.
    pub(in crate::vfs) fn refresh(&self) {
        let ptr = self.as_ptr();
        let dir = self.is_dir();
        T::show(self.data(), &|| Some(self.times().ctime), &mut |attrs| {
            if self.nlink() != attrs.nlink {
                // SAFETY: The inode is valid. This runs in the critical section in which all copies of this
                // attribute run.
                unsafe { bindings::set_nlink(ptr, attrs.nlink) };
            }
            // SAFETY: The inode is valid. All copies of the time run in this critical section; the VFS's own
            // updates are atomic against it.
            unsafe { bindings::ordofs_inode_set_ctime(ptr, attrs.ctime.sec, attrs.ctime.nsec) };
            if attrs.raised != 0 {
                // SAFETY: The inode is valid; the VFS's own updates of the counter are atomic against this one.
                unsafe { bindings::ordofs_inode_add_change(ptr, attrs.raised) };
            }
            if dir {
                // SAFETY: The inode is valid. All copies of a directory's time run in this critical section.
                unsafe { bindings::ordofs_inode_set_mtime(ptr, attrs.mtime.sec, attrs.mtime.nsec) };
                self.store_size(attrs.size);
            }
        });
    }

    /// Sets all attributes of a new inode.
    ///
    /// # Safety
    ///
    /// The inode is new (`I_NEW`), this task fills it, and its data is set.
    pub(in crate::vfs) unsafe fn init_attrs(&self, attrs: &Attrs) {
        let ptr = self.as_ptr();
        // SAFETY: By this function's contract no other task looks at the field.
        unsafe { (*ptr).i_mode = attrs.mode as u16 };
        // SAFETY: By this function's contract no other task looks at the number of names.
        unsafe { bindings::set_nlink(ptr, attrs.nlink) };
        // SAFETY: By this function's contract no other task looks at the owner.
        unsafe { bindings::ordofs_inode_set_owner(ptr, attrs.uid, attrs.gid) };
        // SAFETY: By this function's contract no other task looks at the field.
        unsafe { (*ptr).i_generation = attrs.generation };
        // SAFETY: By this function's contract no other task looks at the field.
        unsafe { (*ptr).i_blocks = attrs.sectors };
        // SAFETY: By this function's contract no other task looks at the time.
        unsafe { bindings::ordofs_inode_set_atime(ptr, attrs.atime.sec, attrs.atime.nsec) };
        // SAFETY: By this function's contract no other task looks at the time.
        unsafe { bindings::ordofs_inode_set_mtime(ptr, attrs.mtime.sec, attrs.mtime.nsec) };
        self.store_size(attrs.size);
        self.apply_flags(attrs.flags);
        T::show(self.data(), &|| None, &mut |shown| {
            // SAFETY: By this function's contract no other task looks at the time.
            unsafe { bindings::ordofs_inode_set_ctime(ptr, shown.ctime.sec, shown.ctime.nsec) };
            // SAFETY: By this function's contract no other task looks at the counter.
            unsafe { bindings::ordofs_inode_set_change(ptr, shown.change) };
        });
    }

    /// Makes the VFS obey flags (`FS_*_FL`). The inode is new, or `i_rwsem` is held exclusively.
    pub(in crate::vfs) fn apply_flags(&self, flags: u32) {
        let pairs = [
            (bindings::FS_SYNC_FL, bindings::ORDOFS_S_SYNC),
            (bindings::FS_IMMUTABLE_FL, bindings::ORDOFS_S_IMMUTABLE),
            (bindings::FS_APPEND_FL, bindings::ORDOFS_S_APPEND),
            (bindings::FS_NOATIME_FL, bindings::ORDOFS_S_NOATIME),
            (bindings::FS_DIRSYNC_FL, bindings::ORDOFS_S_DIRSYNC),
        ];
        let (mut set, mut mask) = (0, 0);
        for (disk, memory) in pairs {
            mask |= memory;
            if flags & disk != 0 {
                set |= memory;
            }
        }
        // SAFETY: The inode is valid; the flags are changed atomically.
        unsafe { bindings::inode_set_flags(self.as_ptr(), set, mask) };
    }
}
