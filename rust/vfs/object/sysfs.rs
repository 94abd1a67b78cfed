// SPDX-License-Identifier: GPL-2.0

//! A mount's directory in sysfs: `/sys/fs/<type>/<device>`.
//!
//! # Model
//!
//! The filesystem's type names the files and says what is in each ([`File`], one value a file). A
//! directory ([`Directory`]) is made when the filesystem has been mounted and is the first thing to go
//! when it is unmounted.
//!
//! # Lifetime
//!
//! A kobject may outlive its directory: whoever has a reference keeps it. So the memory is freed only after
//! `release` was called, which [`Directory`]'s drop waits for. The files' functions use the mounted
//! filesystem; `kobject_del` returns only after the last of them has returned and none can be called
//! any more, and it comes first.

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::sync::Completion;
use kernel::types::Opaque;

use crate::bindings;
use crate::vfs::object::super_block::Mounted;
use crate::vfs::FileSystem;

#[cfg(ordofs_debug)]
use crate::vfs::window::Window;

/// Bytes that a file can have: what the kernel gives for one.
const MAX: usize = 4096;

/// What is behind a file.
enum Content<T: FileSystem> {
    /// The filesystem says what is in it.
    Value(fn(&T, &mut dyn fmt::Write) -> fmt::Result),
    /// A delay point.
    #[cfg(ordofs_debug)]
    Tag(Window),
    /// Bugs on purpose.
    #[cfg(ordofs_planted)]
    Planted,
}

/// One file of the directory.
#[repr(C)]
pub(crate) struct File<T: FileSystem> {
    attr: bindings::attribute,
    content: Content<T>,
}

// SAFETY: Never changes; the name is static.
unsafe impl<T: FileSystem> Sync for File<T> {}

impl<T: FileSystem> File<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "`as_char_ptr` is not for constants; the cast says that chars are bytes"
    )]
    const fn make(name: &'static CStr, mode: u16, content: Content<T>) -> Self {
        let mut attr: bindings::attribute = pin_init::zeroed();
        attr.name = name.as_ptr().cast();
        attr.mode = mode;
        Self { attr, content }
    }

    /// A file that can be read by all; what `show` writes, with a newline behind it.
    pub(crate) const fn value(
        name: &'static CStr,
        show: fn(&T, &mut dyn fmt::Write) -> fmt::Result,
    ) -> Self {
        Self::make(name, 0o444, Content::Value(show))
    }

    /// The file that makes bugs happen.
    #[cfg(ordofs_planted)]
    const PLANTED: &'static Self = &Self::make(c"planted", 0o200, Content::Planted);

    /// The file of a delay point.
    #[cfg(ordofs_debug)]
    const fn tag(window: Window) -> Self {
        Self::make(window.name(), 0o600, Content::Tag(window))
    }

    /// The files of all delay points.
    #[cfg(ordofs_debug)]
    const TAGS: &'static [Self; Window::COUNT] = &{
        // The order is that of the windows' numbers.
        let w = Window::ALL;
        [
            Self::tag(w[0]),
            Self::tag(w[1]),
            Self::tag(w[2]),
            Self::tag(w[3]),
            Self::tag(w[4]),
            Self::tag(w[5]),
            Self::tag(w[6]),
            Self::tag(w[7]),
            Self::tag(w[8]),
            Self::tag(w[9]),
        ]
    };
}

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
// SAFETY: As above.
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
        // SAFETY: By the type invariant; its memory is the kernel's own.
        unsafe { bindings::kobject_put(self.0.as_ptr()) };
    }
}

/// `kobj` is the first field, so that a pointer to it is a pointer to this.
#[pin_data]
#[repr(C)]
struct Inner<T: FileSystem> {
    #[pin]
    kobj: Opaque<bindings::kobject>,
    #[pin]
    released: Completion,
    mounted: *const Mounted<T>,
}

/// The directory of a mounted filesystem.
///
/// # Invariants
///
/// `inner.kobj` is initialised, we own its first reference, and `inner.mounted` is valid while this
/// exists.
pub(crate) struct Directory<T: FileSystem> {
    inner: Pin<KBox<Inner<T>>>,
}

// SAFETY: Kobjects have their own locks, and the filesystem is `Send` and `Sync`.
unsafe impl<T: FileSystem> Send for Directory<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for Directory<T> {}

impl<T: FileSystem> Directory<T> {
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
    /// `mounted` is valid until the directory is dropped.
    pub(crate) unsafe fn new(
        parent: &TypeDirectory,
        name: &CStr,
        mounted: *const Mounted<T>,
    ) -> Result<Self> {
        let inner = KBox::pin_init(
            pin_init!(Inner {
                kobj: Opaque::zeroed(),
                released <- Completion::new(),
                mounted,
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
        for file in T::FILES {
            // SAFETY: The directory is there; the attribute is static.
            to_result(unsafe { bindings::sysfs_create_file_ns(kobj, &file.attr, ptr::null()) })?;
        }
        #[cfg(ordofs_planted)]
        // SAFETY: As above.
        to_result(unsafe {
            bindings::sysfs_create_file_ns(kobj, &File::<T>::PLANTED.attr, ptr::null())
        })?;
        #[cfg(ordofs_debug)]
        directory.add_tags()?;
        Ok(directory)
    }

    /// Makes the delay points' directory.
    #[cfg(ordofs_debug)]
    fn add_tags(&self) -> Result {
        let mut list = [ptr::null_mut::<bindings::attribute>(); Window::COUNT + 1];
        for (to, file) in list.iter_mut().zip(File::<T>::TAGS) {
            // Not written to, in spite of the type.
            *to = (&raw const file.attr).cast_mut();
        }
        let mut group: bindings::attribute_group = pin_init::zeroed();
        group.name = c"errortag".as_char_ptr();
        group.__bindgen_anon_2.attrs = list.as_mut_ptr();
        // SAFETY: The directory is there; the attributes are static; group and list are only read
        // during the call.
        to_result(unsafe { bindings::sysfs_create_group(self.inner.kobj.get(), &group) })
    }
}

impl<T: FileSystem> Drop for Directory<T> {
    fn drop(&mut self) {
        let kobj = self.inner.kobj.get();
        // SAFETY: By the type invariants. After `kobject_del` no function of a file runs or will run;
        // the files go with the directory.
        unsafe {
            bindings::kobject_del(kobj);
            bindings::kobject_put(kobj);
        }
        // Others may have references for a moment longer.
        self.inner.released.wait_for_completion();
    }
}

/// The last reference to a kobject is gone.
///
/// # Safety
///
/// Called by the kernel for the kobject of an [`Inner`].
unsafe extern "C" fn release<T: FileSystem>(kobj: *mut bindings::kobject) {
    // SAFETY: By the requirements; the memory stays until the completion has been seen. The kernel does
    // not use the kobject after this.
    unsafe { &*kobj.cast::<Inner<T>>() }.released.complete_all();
}

/// A file is read.
///
/// # Safety
///
/// Called by sysfs for a file of a [`Directory`] with a page to fill.
unsafe extern "C" fn show<T: FileSystem>(
    kobj: *mut bindings::kobject,
    attr: *mut bindings::attribute,
    buf: *mut c_char,
) -> isize {
    // SAFETY: By the requirements `kobj` and `attr` are first fields of these; the directory exists
    // while its files' functions run, so that the filesystem is valid.
    let (mounted, file) = unsafe {
        (
            &*(*kobj.cast::<Inner<T>>()).mounted,
            &*attr.cast::<File<T>>(),
        )
    };
    // SAFETY: The buffer is a page and ours during the call.
    let to = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), MAX) };
    let mut text = Text { to, len: 0 };
    let written = match &file.content {
        Content::Value(show) => show(mounted.fs(), &mut text),
        #[cfg(ordofs_debug)]
        Content::Tag(window) => mounted.tags().show(*window, &mut text),
        #[cfg(ordofs_planted)]
        Content::Planted => Ok(()),
    };
    match written.and_then(|()| text.write_str("\n")) {
        Ok(()) => text.len as isize,
        Err(_) => EIO.to_errno() as isize,
    }
}

/// A file is written.
///
/// # Safety
///
/// Called by sysfs for a file of a [`Directory`] with `len` bytes.
unsafe extern "C" fn store<T: FileSystem>(
    kobj: *mut bindings::kobject,
    attr: *mut bindings::attribute,
    buf: *const c_char,
    len: usize,
) -> isize {
    // SAFETY: As in `show`.
    let (mounted, file) = unsafe {
        (
            &*(*kobj.cast::<Inner<T>>()).mounted,
            &*attr.cast::<File<T>>(),
        )
    };
    // SAFETY: The buffer has that many bytes.
    let text = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), len) };
    let result = match &file.content {
        Content::Value(_) => {
            let _ = (mounted, text);
            Err(EACCES)
        }
        #[cfg(ordofs_debug)]
        Content::Tag(window) => mounted.tags().store(*window, text),
        #[cfg(ordofs_planted)]
        Content::Planted => crate::vfs::testing::planted::plant(text),
    };
    match result {
        Ok(()) => len as isize,
        Err(e) => e.to_errno() as isize,
    }
}
