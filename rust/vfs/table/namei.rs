// SPDX-License-Identifier: GPL-2.0

//! Operations on names.
//!
//! # Model
//!
//! Every operation goes through the filesystem at once; then the attributes that it changed are
//! copied into the VFS inodes ([`Inode::refresh`]), and the dentry cache follows.
//!
//! # Locking
//!
//! The VFS holds the parents' `i_rwsem` exclusively (shared for `lookup`), and that of inodes that
//! lose a name or, for directories, are moved.
//!
//! Tests: tests/vm/t/020-names.sh, 022-xattr.sh (inheritance).

use core::{ffi::CStr, ptr};
use kernel::{error::from_result, prelude::*};

use super::new_inode::InstallTables;
use super::prepared::PreparedNode;
use crate::bindings;
use crate::vfs::object::dentry::Dentry;
use crate::vfs::object::inode::{Inode, Locked, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use crate::vfs::traits::directory::{DirectoryOperations, NewNode, Rename};
use crate::vfs::traits::inode::InodeOperations;

/// The longest name in bytes.
const NAME_MAX: usize = bindings::NAME_MAX as usize;
/// The longest target of a symbolic link, without the zero byte after it.
const LINK_MAX: usize = bindings::PATH_MAX as usize - 1;

/// The node that a system call of the current task makes in `dir`: owner and mode by the idmapping
/// of the mount and the set-group-id rules.
///
/// # Safety
///
/// `idmap` is the idmapping of the mount that the system call came through.
unsafe fn new_node<'a, T: DirectoryOperations>(
    idmap: *mut bindings::mnt_idmap,
    dir: &Inode<T>,
    mode: u16,
) -> NewNode<'a> {
    let (mut mode, mut uid, mut gid) = (mode, 0, 0);
    // SAFETY: The directory is valid, and by this function's contract the idmapping; the others are local.
    unsafe { bindings::ordofs_new_owner(idmap, dir.as_ptr(), &mut mode, &mut uid, &mut gid) };
    NewNode {
        mode: u32::from(mode),
        uid,
        gid,
        rdev: 0,
        symlink: None,
        access_acl: None,
        default_acl: None,
        labels: &[],
        id: T::identity(dir.sb()),
    }
}

/// Creates a node and its name. `complete` adds to the node what it needs besides its mode.
///
/// # Safety
///
/// As the VFS calls the operations that create: `dir`'s `i_rwsem` is held exclusively, `dentry` is
/// a negative child of it, `idmap` is the mount's.
unsafe fn make<'a, T: DirectoryOperations + InstallTables>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: u16,
    complete: impl FnOnce(&mut NewNode<'a>),
) -> Result {
    // SAFETY: By this function's contract the VFS passed the directory, which it holds.
    let dir = unsafe { Inode::<T>::from_raw(dir) };
    // SAFETY: By this function's contract the VFS passed the dentry, and the lock of its parent is held.
    let name = unsafe { Dentry::<T>::from_raw(dentry) };
    if name.name().len() > NAME_MAX {
        return Err(ENAMETOOLONG);
    }
    // SAFETY: By this function's contract the idmapping is the mount's.
    let mut node = unsafe { new_node(idmap, dir, mode) };
    complete(&mut node);
    // SAFETY: By this function's contract the lock is held exclusively until this has returned.
    let dir = unsafe { Locked::new(dir) };
    let prepared = PreparedNode::new(&dir, name, &mut node)?;
    let data = T::create(&dir, name.name(), &prepared.complete(node))?;
    dir.refresh();
    // The name exists, so nothing may fail from here on.
    // SAFETY: By this function's contract the dentry is negative; the lock of its parent keeps it so.
    unsafe { prepared.instantiate(data, dentry) };
    settle(&dir)
}

/// Ends an operation on names in `dir`: with `dirsync` it is durable before the caller hears of it.
fn settle<T: InodeOperations>(dir: &Inode<T>) -> Result {
    // SAFETY: The inode is valid; reads flags.
    if unsafe { bindings::ordofs_is_dirsync(dir.as_ptr()) } {
        T::sync_inode(dir)?;
    }
    Ok(())
}

/// `lookup`.
///
/// # Safety
///
/// As the VFS calls it for a directory of `T`: `dir`'s `i_rwsem` is held, `dentry` is in look-up.
pub(super) unsafe extern "C" fn lookup<T: DirectoryOperations + InstallTables>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    _flags: c_uint,
) -> *mut bindings::dentry {
    // SAFETY: The VFS passes a directory of `T` that it holds.
    let dir = unsafe { Inode::<T>::from_raw(dir) };
    // SAFETY: The VFS holds the directory's `i_rwsem` at least shared, and the dentry is a child of it that is being
    // looked up, which no task renames.
    let name = unsafe { Dentry::<T>::from_raw(dentry) };
    dir.assert_shared();
    let find = || -> Result<*mut bindings::inode> {
        if name.name().len() > NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        match T::lookup(dir, name.name())? {
            None => Ok(ptr::null_mut()),
            Some(ino) => match Inode::get(dir.sb(), ino) {
                Ok(inode) => Ok(inode.into_raw()),
                // A name without an inode behind it.
                Err(e) if e == ESTALE => Err(EFSCORRUPTED),
                Err(e) => Err(e),
            },
        }
    };
    match find() {
        // SAFETY: The dentry is in look-up; the inode is null or comes with a reference, which this
        // call consumes.
        Ok(inode) => unsafe { bindings::d_splice_alias(inode, dentry) },
        Err(e) => e.to_ptr(),
    }
}

/// `create`.
///
/// # Safety
///
/// As the VFS calls it for a directory of `T`: `dir`'s `i_rwsem` is held exclusively, `dentry` is a negative
/// child of it, `idmap` is the mount's.
pub(super) unsafe extern "C" fn create<T: DirectoryOperations + InstallTables>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: u16,
) -> c_int {
    from_result(|| {
        let mode = (mode & !(S_IFMT as u16)) | S_IFREG as u16;
        // SAFETY: The VFS passes the mount's idmapping, a locked directory and a negative child of it.
        unsafe { make::<T>(idmap, dir, dentry, mode, |_| ()) }?;
        Ok(0)
    })
}

/// `mkdir`.
///
/// # Safety
///
/// As for `create`.
pub(super) unsafe extern "C" fn mkdir<T: DirectoryOperations + InstallTables>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: u16,
) -> *mut bindings::dentry {
    let mode = (mode & !(S_IFMT as u16)) | S_IFDIR as u16;
    // SAFETY: The VFS passes the mount's idmapping, a locked directory and a negative child of it.
    match unsafe { make::<T>(idmap, dir, dentry, mode, |_| ()) } {
        // The dentry that was passed is the one to use.
        Ok(()) => ptr::null_mut(),
        Err(e) => e.to_ptr(),
    }
}

/// `mknod`.
///
/// # Safety
///
/// As for `create`.
pub(super) unsafe extern "C" fn mknod<T: DirectoryOperations + InstallTables>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: u16,
    rdev: bindings::dev_t,
) -> c_int {
    from_result(|| {
        // SAFETY: No requirements: only computes.
        let rdev = unsafe { bindings::ordofs_encode_dev(rdev) };
        // SAFETY: The VFS passes the mount's idmapping, a locked directory and a negative child of it.
        unsafe { make::<T>(idmap, dir, dentry, mode, |node| node.rdev = rdev) }?;
        Ok(0)
    })
}

/// `symlink`.
///
/// # Safety
///
/// As for `create`; `target` is a string that ends with a zero byte.
pub(super) unsafe extern "C" fn symlink<T: DirectoryOperations + InstallTables>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    target: *const c_char,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a string that lives during the call.
        let target = unsafe { CStr::from_char_ptr(target) }.to_bytes();
        if target.len() > LINK_MAX {
            return Err(ENAMETOOLONG);
        }
        let mode = S_IFLNK as u16 | 0o777;
        // SAFETY: The VFS passes the mount's idmapping, a locked directory and a negative child of it.
        unsafe { make::<T>(idmap, dir, dentry, mode, |node| node.symlink = Some(target)) }?;
        Ok(0)
    })
}

/// `tmpfile`.
///
/// # Safety
///
/// As the VFS calls it for a directory of `T`: `file` is being opened and has a negative dentry without a name.
pub(super) unsafe extern "C" fn tmpfile<T: DirectoryOperations + InstallTables>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    file: *mut bindings::file,
    mode: u16,
) -> c_int {
    let make = || -> Result {
        // SAFETY: The VFS passes a directory of `T` that it holds.
        let dir = unsafe { Inode::<T>::from_raw(dir) };
        let mode = (mode & !(S_IFMT as u16)) | S_IFREG as u16;
        // SAFETY: The VFS passes the idmapping of the mount.
        let mut node = unsafe { new_node(idmap, dir, mode) };
        // SAFETY: The VFS passes a file that is being opened, with a dentry.
        let dentry = unsafe { (*file).__bindgen_anon_1.f_path.dentry };
        // SAFETY: The dentry is new and this call's alone, so it is not renamed.
        let name = unsafe { Dentry::<T>::from_raw(dentry) };
        let prepared = PreparedNode::new(dir, name, &mut node)?;
        let data = T::tmpfile(dir.sb(), &prepared.complete(node))?;
        // The inode has no names already, so `d_tmpfile`, which would take one away, is not used.
        // SAFETY: The file's dentry is the unnamed negative one that the VFS made for this call.
        unsafe { bindings::d_mark_tmpfile(file, prepared.as_ptr()) };
        // SAFETY: The dentry is negative, and this call's to instantiate.
        unsafe { prepared.instantiate(data, dentry) };
        Ok(())
    };
    let err = match make() {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    };
    // SAFETY: The VFS passes a file that is being opened; this is how `tmpfile` ends.
    unsafe { bindings::ordofs_finish_open_simple(file, err) }
}

/// `link`.
///
/// # Safety
///
/// As the VFS calls it: `dir`'s `i_rwsem` and that of `old`'s inode, both of one `T`, are held exclusively, `dentry`
/// is a negative child of `dir`.
pub(super) unsafe extern "C" fn link<T: DirectoryOperations + InstallTables>(
    old: *mut bindings::dentry,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a directory of `T` that it holds.
        let dir = unsafe { Inode::<T>::from_raw(dir) };
        // SAFETY: The VFS holds the directory's `i_rwsem` exclusively until this function has returned.
        let dir = unsafe { Locked::new(dir) };
        // SAFETY: The dentry is a child of the directory, whose lock is held.
        let name = unsafe { Dentry::<T>::from_raw(dentry) };
        // SAFETY: `old` is positive, and keeps its inode, which is one of `T`. Nothing else of it is looked at.
        let target = unsafe { Inode::<T>::from_raw(bindings::ordofs_d_inode(old)) };
        if name.name().len() > NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        target.assert_locked();
        T::link(&dir, name.name(), target)?;
        target.refresh();
        dir.refresh();
        // SAFETY: The dentry is negative, and the lock of its parent keeps it so; it is given a reference.
        unsafe { bindings::d_instantiate(dentry, target.hold().into_raw()) };
        settle(&dir)?;
        Ok(0)
    })
}

/// `unlink`, and `rmdir`: the filesystem refuses directories that are not empty.
///
/// # Safety
///
/// As the VFS calls them for a directory of `T`: `dir`'s `i_rwsem` and the victim's are held exclusively, `dentry`
/// is a positive child of `dir`.
pub(super) unsafe extern "C" fn unlink<T: DirectoryOperations + InstallTables>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a directory of `T` that it holds.
        let dir = unsafe { Inode::<T>::from_raw(dir) };
        // SAFETY: The VFS holds the directory's `i_rwsem` exclusively until this function has returned.
        let dir = unsafe { Locked::new(dir) };
        // SAFETY: The dentry is a child of the directory, whose lock is held.
        let name = unsafe { Dentry::<T>::from_raw(dentry) };
        let victim = name.inode().ok_or(ENOENT)?;
        victim.assert_locked();
        T::unlink(&dir, name.name(), victim)?;
        victim.refresh();
        dir.refresh();
        settle(&dir)?;
        Ok(0)
    })
}

/// The locks that a rename holds: lockdep, where it is there, knows.
fn assert_rename_locks<T: DirectoryOperations>(
    old_dir: &Inode<T>,
    new_dir: &Inode<T>,
    inodes: [Option<&Inode<T>>; 2],
) {
    old_dir.assert_locked();
    new_dir.assert_locked();
    // Directories that stay in their parent are not locked.
    for inode in inodes.into_iter().flatten() {
        if !inode.is_dir() {
            inode.assert_locked();
        }
    }
}

/// `rename`.
///
/// # Safety
///
/// As the VFS calls it: both directories are of one `T`, their `i_rwsem` and those of what is moved or replaced are
/// held exclusively as Documentation/filesystems/directory-locking.rst says.
pub(super) unsafe extern "C" fn rename<T: DirectoryOperations + InstallTables>(
    idmap: *mut bindings::mnt_idmap,
    old_dir: *mut bindings::inode,
    old_dentry: *mut bindings::dentry,
    new_dir: *mut bindings::inode,
    new_dentry: *mut bindings::dentry,
    flags: c_uint,
) -> c_int {
    from_result(|| {
        let known =
            bindings::RENAME_NOREPLACE | bindings::RENAME_EXCHANGE | bindings::RENAME_WHITEOUT;
        if flags & !known != 0 {
            return Err(EINVAL);
        }
        // SAFETY: The VFS passes directories of `T` that it holds.
        let old_dir = unsafe { Inode::<T>::from_raw(old_dir) };
        // SAFETY: The dentry is a child of the directory, whose lock is held.
        let old = unsafe { Dentry::<T>::from_raw(old_dentry) };
        // SAFETY: The VFS passes directories of `T` that it holds.
        let new_dir = unsafe { Inode::<T>::from_raw(new_dir) };
        // SAFETY: The dentry is a child of the directory, whose lock is held.
        let new = unsafe { Dentry::<T>::from_raw(new_dentry) };
        if new.name().len() > NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        let inode = old.inode().ok_or(ENOENT)?;
        let target = new.inode();
        let exchange = flags & bindings::RENAME_EXCHANGE != 0;
        if exchange && target.is_none() {
            return Err(ENOENT);
        }
        assert_rename_locks(old_dir, new_dir, [Some(inode), target]);
        let mut prepared = None;
        let whiteout = if flags & bindings::RENAME_WHITEOUT != 0 {
            // A character device 0:0 without permissions, made as mknod(2) would make it.
            // SAFETY: The VFS passes the idmapping of the mount.
            let mut node = unsafe { new_node(idmap, old_dir, S_IFCHR as u16) };
            let p = prepared.insert(PreparedNode::new(old_dir, old, &mut node)?);
            Some(p.complete(node))
        } else {
            None
        };
        // RENAME_NOREPLACE is the VFS's business: there is no target then.
        T::rename(&Rename {
            old_dir,
            old_name: old.name(),
            inode,
            new_dir,
            new_name: new.name(),
            target,
            exchange,
            whiteout,
        })?;
        // The whiteout's inode has no use now: look-ups read it.
        drop(prepared);
        inode.refresh();
        if let Some(target) = target {
            target.refresh();
        }
        old_dir.refresh();
        new_dir.refresh();
        settle(old_dir)?;
        if !ptr::eq(old_dir, new_dir) {
            settle(new_dir)?;
        }
        Ok(0)
    })
}
