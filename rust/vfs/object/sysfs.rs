// SPDX-License-Identifier: GPL-2.0

//! A mount's directory in sysfs: `/sys/fs/<type>/<device>`.
//!
//! # Model
//!
//! The filesystem names the files and says what is in each ([`File`], one value a file), in the directory or
//! in one of its subdirectories ([`Group`]). A directory ([`Directory`]) is made when the filesystem has been mounted and is the first thing to go
//! when it is unmounted.
//!
//! # Lifetime
//!
//! A kobject may outlive its directory: each reference keeps it. So the memory is freed only after
//! `release` was called, which [`Directory`]'s drop waits for. The files' functions use the mounted
//! filesystem; `kobject_del` returns only after the last of them has returned and none can be called
//! any more, and it comes first.
//!
//! Tests: tests/vm/t/035-observing.sh, 032-interface.sh, 047-error-tags.sh (files that can be
//! written).

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::sync::Completion;
use kernel::types::Opaque;

use super::types::Types;
use crate::bindings;

/// Writes the content of a file; a newline follows it.
pub(crate) type Show<T> = fn(&T, &mut dyn fmt::Write) -> fmt::Result;
/// Takes what was written to a file.
pub(crate) type Store<T> = fn(&T, &[u8]) -> Result;

/// One file of the directory.
///
/// `attr` is the first field, so that a pointer to it is a pointer to this.
#[repr(C)]
pub(crate) struct File<T: Types> {
    attr: bindings::attribute,
    show: Option<Show<T>>,
    store: Option<Store<T>>,
}

// SAFETY: Never changes; the name that it points to is static.
unsafe impl<T: Types> Sync for File<T> {}

impl<T: Types> File<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "`as_char_ptr` is not for constants; the cast says that chars are bytes"
    )]
    const fn make(
        name: &'static CStr,
        mode: u16,
        show: Option<Show<T>>,
        store: Option<Store<T>>,
    ) -> Self {
        let mut attr: bindings::attribute = pin_init::zeroed();
        attr.name = name.as_ptr().cast();
        attr.mode = mode;
        Self { attr, show, store }
    }

    /// A file that can be read by all.
    pub(crate) const fn value(name: &'static CStr, show: Show<T>) -> Self {
        Self::make(name, 0o444, Some(show), None)
    }

    /// A file that root can read and write.
    #[cfg_attr(not(ordofs_debug), allow(dead_code))]
    pub(crate) const fn setting(name: &'static CStr, show: Show<T>, store: Store<T>) -> Self {
        Self::make(name, 0o600, Some(show), Some(store))
    }

    /// A file that root can write.
    #[cfg_attr(not(ordofs_planted), allow(dead_code))]
    pub(crate) const fn command(name: &'static CStr, store: Store<T>) -> Self {
        Self::make(name, 0o200, None, Some(store))
    }
}

/// A subdirectory.
pub(crate) struct Group<T: Types> {
    /// Its name.
    pub(crate) name: &'static CStr,
    /// Its files.
    pub(crate) files: &'static [File<T>],
}

/// What is in a mount's directory.
pub(crate) struct Files<T: Types> {
    /// The files in the directory itself.
    pub(crate) files: &'static [File<T>],
    /// The subdirectories.
    pub(crate) groups: &'static [Group<T>],
}

/// Bytes that a file can have: a page, which is what sysfs gives for one.
const MAX: usize = kernel::page::PAGE_SIZE;

/// The buffer of a file that is being read.
struct Text<'a> {
    to: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.len.checked_add(s.len()).ok_or(fmt::Error)?;
        let room = self.to.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The directory of a type, `/sys/fs/<type>`, in which those of its mounts are.
///
/// # Invariants
///
/// We have a reference to the kobject.
pub(crate) struct TypeDirectory(NonNull<bindings::kobject>);

// SAFETY: Kobjects have their own locks; a reference may be used and dropped in any thread.
unsafe impl Send for TypeDirectory {}
// SAFETY: Kobjects have their own locks; a shared reference only lends the pointer.
unsafe impl Sync for TypeDirectory {}

impl TypeDirectory {
    /// Makes `/sys/fs/<name>`.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is copied; `fs_kobj` is there since boot.
        let raw =
            unsafe { bindings::kobject_create_and_add(name.as_char_ptr(), bindings::fs_kobj) };
        // INVARIANT: The reference of a new kobject is ours.
        Ok(Self(NonNull::new(raw).ok_or(ENOMEM)?))
    }
}

impl Drop for TypeDirectory {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours; the memory is the kernel's own.
        unsafe { bindings::kobject_put(self.0.as_ptr()) };
    }
}

/// `kobj` is the first field, so that a pointer to it is a pointer to this.
#[pin_data]
#[repr(C)]
struct Inner<T: Types> {
    #[pin]
    kobj: Opaque<bindings::kobject>,
    #[pin]
    released: Completion,
    fs: *const T,
}

/// The directory of a mounted filesystem.
///
/// # Invariants
///
/// `inner.kobj` is initialised, we own its first reference, and `inner.fs` is valid while this
/// exists.
pub(crate) struct Directory<T: Types> {
    inner: Pin<KBox<Inner<T>>>,
}

// SAFETY: Kobjects have their own locks, and the filesystem is `Send` and `Sync`.
unsafe impl<T: Types> Send for Directory<T> {}
// SAFETY: Kobjects have their own locks, and the filesystem is `Sync`.
unsafe impl<T: Types> Sync for Directory<T> {}

impl<T: Types> Directory<T> {
    const OPS: &'static bindings::sysfs_ops = &bindings::sysfs_ops {
        show: Some(show::<T>),
        store: Some(store::<T>),
    };
    const KIND: &'static bindings::kobj_type = &bindings::kobj_type {
        release: Some(release::<T>),
        sysfs_ops: Self::OPS,
        ..pin_init::zeroed()
    };

    /// Makes the directory `name` and its files.
    ///
    /// # Safety
    ///
    /// `fs` is valid until the directory is dropped.
    pub(crate) unsafe fn new(
        parent: &TypeDirectory,
        name: &CStr,
        fs: *const T,
        files: Files<T>,
    ) -> Result<Self> {
        let inner = KBox::pin_init(
            pin_init!(Inner {
                kobj: Opaque::zeroed(),
                released <- Completion::new(),
                fs,
            }),
            GFP_KERNEL,
        )?;
        let kobj = inner.kobj.get();
        // SAFETY: The kobject is zeroed, and pinned; the parent is valid; the name is copied.
        let added = to_result(unsafe {
            bindings::kobject_init_and_add(
                kobj,
                Self::KIND,
                parent.0.as_ptr(),
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        });
        // INVARIANT: Initialised, also when it could not be added. From here on, drop undoes it all.
        let directory = Self { inner };
        added?;
        for file in files.files {
            // SAFETY: The kobject is in sysfs since `kobject_init_and_add`; the attribute is static.
            to_result(unsafe { bindings::sysfs_create_file_ns(kobj, &file.attr, ptr::null()) })?;
        }
        for group in files.groups {
            directory.add(group)?;
        }
        Ok(directory)
    }

    /// Makes a subdirectory.
    fn add(&self, group: &Group<T>) -> Result {
        let mut list = KVec::with_capacity(group.files.len() + 1, GFP_KERNEL)?;
        for file in group.files {
            // Not written to, in spite of the type.
            list.push((&raw const file.attr).cast_mut(), GFP_KERNEL)?;
        }
        list.push(ptr::null_mut(), GFP_KERNEL)?;
        let mut raw: bindings::attribute_group = pin_init::zeroed();
        raw.name = group.name.as_char_ptr();
        raw.__bindgen_anon_2.attrs = list.as_mut_ptr();
        // SAFETY: The kobject is in sysfs since `kobject_init_and_add`. The attributes are static; the group
        // and the list, which ends with a null pointer, are only read during the call.
        to_result(unsafe { bindings::sysfs_create_group(self.inner.kobj.get(), &raw) })
    }
}

impl<T: Types> Drop for Directory<T> {
    fn drop(&mut self) {
        let kobj = self.inner.kobj.get();
        // SAFETY: By the type invariants the kobject is initialised. After this no function of a file runs or
        // will run; the files go with the directory.
        unsafe { bindings::kobject_del(kobj) };
        // SAFETY: By the type invariants the first reference is ours, and given up here.
        unsafe { bindings::kobject_put(kobj) };
        // Others may have references for a moment longer.
        self.inner.released.wait_for_completion();
    }
}

/// The last reference to a kobject is gone.
///
/// # Safety
///
/// Called by the kernel for the kobject of an [`Inner`].
unsafe extern "C" fn release<T: Types>(kobj: *mut bindings::kobject) {
    // SAFETY: By this function's contract `kobj` is the first field of an `Inner<T>`, whose memory stays
    // until the completion has been seen. The kernel does not use the kobject after this.
    unsafe { &*kobj.cast::<Inner<T>>() }.released.complete_all();
}

/// The filesystem and the file behind a callback of sysfs.
///
/// # Safety
///
/// `kobj` is that of a [`Directory`] of `T` and `attr` that of one of its files, as sysfs passes them to the
/// functions of [`Directory::OPS`]; both stay so for `'a`, which does not outlive the callback.
unsafe fn target<'a, T: Types>(
    kobj: *mut bindings::kobject,
    attr: *mut bindings::attribute,
) -> (&'a T, &'a File<T>) {
    // SAFETY: By this function's contract `kobj` is the first field of an `Inner<T>`. Dropping the directory
    // waits for the callback, so the memory stays.
    let fs = unsafe { (*kobj.cast::<Inner<T>>()).fs };
    // SAFETY: By the invariant of `Directory` the filesystem is valid while the directory exists, which is
    // until the callback has returned.
    let fs = unsafe { &*fs };
    // SAFETY: By this function's contract `attr` is the first field of a `File<T>`, which is static.
    let file = unsafe { &*attr.cast::<File<T>>() };
    (fs, file)
}

/// A file is read.
///
/// # Safety
///
/// Called by sysfs for a file of a [`Directory`] with a page to fill.
unsafe extern "C" fn show<T: Types>(
    kobj: *mut bindings::kobject,
    attr: *mut bindings::attribute,
    buf: *mut c_char,
) -> isize {
    // SAFETY: sysfs passes the kobject and the attribute of a file of a `Directory<T>`.
    let (fs, file) = unsafe { target::<T>(kobj, attr) };
    let Some(show) = file.show else {
        return EACCES.to_errno() as isize;
    };
    // SAFETY: sysfs passes a zeroed page that is this call's alone.
    let to = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), MAX) };
    let mut text = Text { to, len: 0 };
    match show(fs, &mut text).and_then(|()| text.write_str("\n")) {
        Ok(()) => text.len as isize,
        Err(_) => EIO.to_errno() as isize,
    }
}

/// A file is written.
///
/// # Safety
///
/// Called by sysfs for a file of a [`Directory`] with `len` bytes.
unsafe extern "C" fn store<T: Types>(
    kobj: *mut bindings::kobject,
    attr: *mut bindings::attribute,
    buf: *const c_char,
    len: usize,
) -> isize {
    // SAFETY: sysfs passes the kobject and the attribute of a file of a `Directory<T>`.
    let (fs, file) = unsafe { target::<T>(kobj, attr) };
    let Some(store) = file.store else {
        return EACCES.to_errno() as isize;
    };
    // SAFETY: sysfs passes a buffer of that many bytes that no task changes during the call.
    let text = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), len) };
    match store(fs, text) {
        Ok(()) => len as isize,
        Err(e) => e.to_errno() as isize,
    }
}
