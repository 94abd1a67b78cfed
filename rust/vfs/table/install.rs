// SPDX-License-Identifier: GPL-2.0

//! The tables of callbacks of inodes: which an inode gets, by its type.
//!
//! Tests: tests/vm/t/020-names.sh, 060-data-paths.sh.

use core::marker::PhantomData;

use crate::bindings;
use crate::vfs::object::inode::{Inode, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use crate::vfs::table::new_inode::InstallTables;
use crate::vfs::table::{
    acl,
    address_space,
    dir,
    file_ops,
    fileattr,
    iomap,
    namei,
    setattr,
    xattr, //
};
use crate::vfs::traits::directory::DirectoryOperations;
use crate::vfs::traits::file_system::FileSystem;
use crate::vfs::traits::inode::Attrs;
use crate::vfs::traits::xattr::XattrOperations;

/// The tables of a filesystem.
struct Tables<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    const HAS_ACLS: bool = <T as XattrOperations>::HAS_SET_ACL;
    const HAS_CREATE: bool = <T as DirectoryOperations>::HAS_CREATE;
    const HAS_UNLINK: bool = <T as DirectoryOperations>::HAS_UNLINK;

    const ANY: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(setattr::getattr::<T>),
        setattr: Some(setattr::setattr::<T>),
        listxattr: Some(xattr::list::<T>),
        ..pin_init::zeroed()
    };
    const SPECIAL: bindings::inode_operations = bindings::inode_operations {
        get_inode_acl: if_has!(Self::HAS_ACLS, acl::get::<T>),
        set_acl: if_has!(Self::HAS_ACLS, acl::set::<T>),
        ..Self::ANY
    };
    const REGULAR: bindings::inode_operations = bindings::inode_operations {
        fiemap: Some(iomap::fiemap::<T>),
        fileattr_get: Some(fileattr::get::<T>),
        fileattr_set: Some(fileattr::set::<T>),
        ..Self::SPECIAL
    };
    // `get_link` is for the VFS to know a symbolic link; it takes the target from `i_link`.
    const SYMLINK: bindings::inode_operations = bindings::inode_operations {
        get_link: Some(bindings::simple_get_link),
        ..Self::ANY
    };
    const DIR: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(namei::lookup::<T>),
        create: if_has!(Self::HAS_CREATE, namei::create::<T>),
        mkdir: if_has!(Self::HAS_CREATE, namei::mkdir::<T>),
        mknod: if_has!(Self::HAS_CREATE, namei::mknod::<T>),
        symlink: if_has!(Self::HAS_CREATE, namei::symlink::<T>),
        link: if_has!(<T as DirectoryOperations>::HAS_LINK, namei::link::<T>),
        unlink: if_has!(Self::HAS_UNLINK, namei::unlink::<T>),
        rmdir: if_has!(Self::HAS_UNLINK, namei::unlink::<T>),
        rename: if_has!(<T as DirectoryOperations>::HAS_RENAME, namei::rename::<T>),
        tmpfile: if_has!(<T as DirectoryOperations>::HAS_TMPFILE, namei::tmpfile::<T>),
        fileattr_get: Some(fileattr::get::<T>),
        fileattr_set: Some(fileattr::set::<T>),
        ..Self::SPECIAL
    };

    const REF_SPECIAL: &'static bindings::inode_operations = &Self::SPECIAL;
    const REF_REGULAR: &'static bindings::inode_operations = &Self::REGULAR;
    const REF_SYMLINK: &'static bindings::inode_operations = &Self::SYMLINK;
    const REF_DIR: &'static bindings::inode_operations = &Self::DIR;
}

impl<T: FileSystem> InstallTables for T {
    unsafe fn install_tables(inode: &Inode<Self>, attrs: &Attrs) {
        let ptr = inode.as_ptr();
        let table = match attrs.mode & S_IFMT {
            S_IFREG => Tables::<T>::REF_REGULAR,
            S_IFDIR => Tables::<T>::REF_DIR,
            S_IFLNK => Tables::<T>::REF_SYMLINK,
            _ => Tables::<T>::REF_SPECIAL,
        };
        // SAFETY: By this function's contract the inode is new, so no other task looks at the field.
        unsafe { (*ptr).i_op = table };
        match attrs.mode & S_IFMT {
            S_IFREG => {
                // SAFETY: The inode is new, so no other task looks at the field.
                unsafe { (*ptr).__bindgen_anon_3.i_fop = file_ops::file_operations::<T>() };
                // SAFETY: The inode is new, and its mapping is its own.
                let mapping = unsafe { (*ptr).i_mapping };
                // SAFETY: The mapping is valid, and no page of it can be there yet.
                unsafe { (*mapping).a_ops = address_space::address_space_operations::<T>() };
                // SAFETY: The mapping is valid, and no page of it can be there yet.
                unsafe { bindings::ordofs_helper_mapping_init(mapping) };
            }
            S_IFDIR => {
                // SAFETY: The inode is new, so no other task looks at the field.
                unsafe { (*ptr).__bindgen_anon_3.i_fop = dir::dir_file_ops::<T>() };
            }
            S_IFLNK => {
                // INVARIANT: The pointer is into `link`, whose memory does not move.
                // SAFETY: The inode is new, so no other task looks at the field.
                unsafe { (*ptr).__bindgen_anon_5.i_link = inode.link_target() };
            }
            // SAFETY: The inode is new, and the mode is that of a device, a fifo or a socket.
            _ => unsafe {
                bindings::ordofs_init_special_inode(ptr, attrs.mode as u16, attrs.rdev);
            },
        }
    }
}
