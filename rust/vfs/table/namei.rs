// SPDX-License-Identifier: GPL-2.0

//! Operations on names.
//!
//! # Model
//!
//! Every operation goes through the filesystem at once; then the attributes that it changed are
//! copied into the VFS inodes ([`Inode::refresh`]), and the dentry cache is told.
//!
//! # Locking
//!
//! The VFS holds the parents' `i_rwsem` exclusively (shared for `lookup`), and that of inodes that
//! lose a name or, for directories, are moved.

use core::{ffi::CStr, marker::PhantomData, ptr};
use kernel::{error::from_result, prelude::*};

use crate::vfs::{
    object::inode::*, table::prepared::Prepared, Dentry, FileSystem, NewNode, Rename,
};
use crate::{bindings, vfs::traits::file_data::FileData};

/// The longest name in bytes.
const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, without the zero byte after it.
const LINK_MAX: usize = 4095;

/// The operation table of directories' inodes.
struct Tables<T: FileData>(PhantomData<T>);

impl<T: FileData> Tables<T> {
    const DIR: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(lookup::<T>),
        create: Some(create::<T>),
        link: Some(link::<T>),
        unlink: Some(unlink::<T>),
        symlink: Some(symlink::<T>),
        mkdir: Some(mkdir::<T>),
        rmdir: Some(unlink::<T>),
        mknod: Some(mknod::<T>),
        rename: Some(rename::<T>),
        tmpfile: Some(tmpfile::<T>),
        getattr: Some(crate::vfs::table::setattr::getattr::<T>),
        setattr: Some(crate::vfs::table::setattr::setattr::<T>),
        listxattr: Some(crate::vfs::table::xattr::list::<T>),
        get_inode_acl: Some(crate::vfs::table::acl::get::<T>),
        set_acl: Some(crate::vfs::table::acl::set::<T>),
        fileattr_get: Some(crate::vfs::table::fileattr::get::<T>),
        fileattr_set: Some(crate::vfs::table::fileattr::set::<T>),
        ..pin_init::zeroed()
    };
}

/// Operations of directories.
pub(crate) fn dir_inode_ops<T: FileData>() -> *const bindings::inode_operations {
    &Tables::<T>::DIR
}

/// The node that a system call of the current task makes in `dir`: owner and mode by the idmapping
/// of the mount and the set-group-id rules.
///
/// # Safety
///
/// `idmap` is the idmapping of the mount that the system call came through.
unsafe fn new_node<'a, T: FileSystem>(
    idmap: *mut bindings::mnt_idmap,
    dir: &Inode<T>,
    mode: u16,
) -> NewNode<'a> {
    let (mut mode, mut uid, mut gid) = (mode, 0, 0);
    // SAFETY: `dir` is valid, the others by the caller's promise or local.
    unsafe {
        bindings::ordofs_new_owner(idmap, dir.as_ptr(), &mut mode, &mut uid, &mut gid);
    }
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

/// Creates a node and its name.
///
/// # Safety
///
/// As the VFS calls the operations that create: `dir`'s `i_rwsem` is held exclusively, `dentry` is
/// a negative child of it.
unsafe fn make<T: FileData>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    new: impl FnOnce(&Inode<T>) -> NewNode<'_>,
) -> Result {
    // SAFETY: By the caller's promise.
    let (dir, name) = unsafe { (Inode::<T>::from_raw(dir), Dentry::<T>::from_raw(dentry)) };
    if name.name().len() > NAME_MAX {
        return Err(ENAMETOOLONG);
    }
    let mut node = new(dir);
    // SAFETY: By the caller's promise.
    let dir = unsafe { Locked::new(dir) };
    let prepared = Prepared::new(&dir, name, &mut node)?;
    let data = T::create(&dir, name.name(), &prepared.complete(node))?;
    dir.refresh();
    // The name exists, so nothing may fail from here on.
    // SAFETY: The dentry is negative.
    unsafe { prepared.instantiate(data, dentry) };
    settle(&dir)
}

/// Ends an operation on names in `dir`: with `dirsync` it is durable before the caller hears of it.
fn settle<T: FileSystem>(dir: &Inode<T>) -> Result {
    // SAFETY: The inode is valid.
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
unsafe extern "C" fn lookup<T: FileData>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    _flags: c_uint,
) -> *mut bindings::dentry {
    // SAFETY: The VFS holds `dir`'s `i_rwsem` at least shared, and `dentry` is a child of it that
    // is being looked up, which nobody renames.
    let (dir, name) = unsafe { (Inode::<T>::from_raw(dir), Dentry::<T>::from_raw(dentry)) };
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
unsafe extern "C" fn create<T: FileData>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: u16,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS calls it.
        unsafe {
            make::<T>(dir, dentry, |dir| {
                new_node(idmap, dir, (mode & !(S_IFMT as u16)) | S_IFREG as u16)
            })?;
        }
        Ok(0)
    })
}

/// `mkdir`.
///
/// # Safety
///
/// As for `create`.
unsafe extern "C" fn mkdir<T: FileData>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: u16,
) -> *mut bindings::dentry {
    // SAFETY: As the VFS calls it.
    let result = unsafe {
        make::<T>(dir, dentry, |dir| {
            new_node(idmap, dir, (mode & !(S_IFMT as u16)) | S_IFDIR as u16)
        })
    };
    match result {
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
unsafe extern "C" fn mknod<T: FileData>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: u16,
    rdev: bindings::dev_t,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS calls it.
        unsafe {
            make::<T>(dir, dentry, |dir| NewNode {
                rdev: bindings::ordofs_encode_dev(rdev),
                ..new_node(idmap, dir, mode)
            })?;
        }
        Ok(0)
    })
}

/// `symlink`.
///
/// # Safety
///
/// As for `create`; `target` is a string that ends with a zero byte.
unsafe extern "C" fn symlink<T: FileData>(
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
        // SAFETY: As the VFS calls it.
        unsafe {
            make::<T>(dir, dentry, |dir| NewNode {
                symlink: Some(target),
                ..new_node(idmap, dir, S_IFLNK as u16 | 0o777)
            })?;
        }
        Ok(0)
    })
}

/// `tmpfile`.
///
/// # Safety
///
/// As the VFS calls it for a directory of `T`: `file` is being opened and has a negative dentry without a name.
unsafe extern "C" fn tmpfile<T: FileData>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    file: *mut bindings::file,
    mode: u16,
) -> c_int {
    let make = || -> Result {
        // SAFETY: As the VFS calls it.
        let dir = unsafe { Inode::<T>::from_raw(dir) };
        // SAFETY: As the VFS calls it.
        let mut node = unsafe { new_node(idmap, dir, (mode & !(S_IFMT as u16)) | S_IFREG as u16) };
        // SAFETY: The file's dentry is new and nobody else's.
        let dentry = unsafe { (*file).__bindgen_anon_1.f_path.dentry };
        // SAFETY: As above.
        let name = unsafe { Dentry::<T>::from_raw(dentry) };
        let prepared = Prepared::new(dir, name, &mut node)?;
        let data = T::tmpfile(dir.sb(), &prepared.complete(node))?;
        // SAFETY: The file's dentry is the unnamed negative one that the VFS made for this call. The inode
        // has no names already, so `d_tmpfile`, which would take one away, is not used.
        unsafe {
            bindings::d_mark_tmpfile(file, prepared.as_ptr());
            prepared.instantiate(data, dentry);
        }
        Ok(())
    };
    let err = match make() {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    };
    // SAFETY: As the VFS wants `tmpfile` to end.
    unsafe { bindings::ordofs_finish_open_simple(file, err) }
}

/// `link`.
///
/// # Safety
///
/// As the VFS calls it: `dir`'s `i_rwsem` and that of `old`'s inode, both of one `T`, are held exclusively, `dentry`
/// is a negative child of `dir`.
unsafe extern "C" fn link<T: FileData>(
    old: *mut bindings::dentry,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS holds the `i_rwsem` of `dir` and of the inode exclusively; `old` is
        // positive, and we look at its inode only.
        let (dir, name, target) = unsafe {
            (
                Locked::new(Inode::<T>::from_raw(dir)),
                Dentry::<T>::from_raw(dentry),
                Inode::<T>::from_raw(bindings::ordofs_d_inode(old)),
            )
        };
        if name.name().len() > NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        target.assert_locked();
        T::link(&dir, name.name(), target)?;
        target.refresh();
        dir.refresh();
        // SAFETY: The dentry is negative; it is given a reference.
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
unsafe extern "C" fn unlink<T: FileData>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS holds the `i_rwsem` of `dir` and of the victim exclusively.
        let (dir, name) = unsafe {
            (
                Locked::new(Inode::<T>::from_raw(dir)),
                Dentry::<T>::from_raw(dentry),
            )
        };
        let victim = name.inode().ok_or(ENOENT)?;
        victim.assert_locked();
        T::unlink(&dir, name.name(), victim)?;
        victim.refresh();
        dir.refresh();
        settle(&dir)?;
        Ok(0)
    })
}

/// `rename`.
///
/// # Safety
///
/// As the VFS calls it: both directories are of one `T`, their `i_rwsem` and those of what is moved or replaced are
/// held exclusively as Documentation/filesystems/directory-locking.rst says.
unsafe extern "C" fn rename<T: FileData>(
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
        // SAFETY: The VFS holds both directories' `i_rwsem` exclusively.
        let (old_dir, old, new_dir, new) = unsafe {
            (
                Inode::<T>::from_raw(old_dir),
                Dentry::<T>::from_raw(old_dentry),
                Inode::<T>::from_raw(new_dir),
                Dentry::<T>::from_raw(new_dentry),
            )
        };
        if new.name().len() > NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        let inode = old.inode().ok_or(ENOENT)?;
        let target = new.inode();
        let exchange = flags & bindings::RENAME_EXCHANGE != 0;
        if exchange && target.is_none() {
            return Err(ENOENT);
        }
        old_dir.assert_locked();
        new_dir.assert_locked();
        // Directories that stay in their parent are not locked.
        for file in [Some(inode), target].into_iter().flatten() {
            if !file.is_dir() {
                file.assert_locked();
            }
        }
        let mut prepared = None;
        let whiteout = if flags & bindings::RENAME_WHITEOUT != 0 {
            // A character device 0:0 without permissions, made as mknod(2) would make it.
            // SAFETY: As the VFS calls it.
            let mut node = unsafe { new_node(idmap, old_dir, S_IFCHR as u16) };
            let p = prepared.insert(Prepared::new(old_dir, old, &mut node)?);
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
        // Nobody has use for the whiteout's inode now: look-ups read it.
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
