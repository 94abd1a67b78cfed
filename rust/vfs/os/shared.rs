// SPDX-License-Identifier: GPL-2.0

//! Shared ownership.

use core::{marker::PhantomData, ops::Deref, ptr::NonNull};
use kernel::{
    prelude::*,
    sync::{
        atomic::Acquire,
        Refcount, //
    },
};

struct Inner<T> {
    count: Refcount,
    value: T,
}

/// A counted reference to a value. There are no weak references.
///
/// # Invariants
///
/// `ptr` comes from [`KBox::into_raw`], and this object owns one count of `count`, so that the
/// memory is valid for as long as this object lives.
pub struct Shared<T> {
    ptr: NonNull<Inner<T>>,
    _owns: PhantomData<Inner<T>>,
}

// SAFETY: A `Shared<T>` gives `&T` to every thread that has one, which needs `T: Sync`, and the
// last one drops the value, wherever it is, which needs `T: Send`.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: A `&Shared<T>` can be cloned into a `Shared<T>` of another thread, which is as if it were sent there.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Moves `value` into newly allocated memory.
    pub fn new(value: T) -> Result<Self> {
        // The value goes from where it is to the heap: no copy of a big one on the kernel's stack.
        let inner = KBox::<Inner<T>>::new_uninit(GFP_KERNEL)?.write(Inner {
            count: Refcount::new(1),
            value,
        });
        // INVARIANT: The pointer comes from `KBox::into_raw`, and the count of one is ours.
        Ok(Self {
            // SAFETY: `KBox::into_raw` never returns null.
            ptr: unsafe { NonNull::new_unchecked(KBox::into_raw(inner)) },
            _owns: PhantomData,
        })
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: By the type invariant the memory is valid while `self` lives. No task has a
        // mutable reference: `get_mut` borrows the only `Shared` there is.
        unsafe { self.ptr.as_ref() }
    }

    /// Exclusive access to the value, if this is the only reference.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        // A count of one cannot grow: growing it takes another reference, or a borrow of this one,
        // which is borrowed exclusively here. Acquire pairs with the release of the decrements of
        // former owners, so that whatever they did to the value has happened before.
        if this.inner().count.as_atomic().load(Acquire) != 1 {
            return None;
        }
        // SAFETY: By the type invariant the memory is valid, and as argued above there is no other
        // reference to it for as long as the result is borrowed.
        Some(unsafe { &mut (*this.ptr.as_ptr()).value })
    }

    /// Whether both are references to the same value.
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        a.ptr == b.ptr
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // Counts saturate: overflow leaks the value and never frees it early.
        self.inner().count.inc();
        // INVARIANT: The count just added belongs to the new object.
        Self {
            ptr: self.ptr,
            _owns: PhantomData,
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.inner().count.dec_and_test() {
            // SAFETY: By the type invariant the pointer comes from `KBox::into_raw`. The count is
            // zero, so this was the last owner; `dec_and_test` orders the former owners' accesses
            // before this.
            drop(unsafe { KBox::from_raw(self.ptr.as_ptr()) });
        }
    }
}
