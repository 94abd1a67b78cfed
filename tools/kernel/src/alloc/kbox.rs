// SPDX-License-Identifier: GPL-2.0

//! [`Box`]: one value on the heap.

use super::{AllocError, Allocator, Flags, Zeroable};
use core::borrow::{Borrow, BorrowMut};
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;

/// One value on the heap of allocator `A`.
pub struct Box<T: ?Sized, A: Allocator>(std::boxed::Box<T>, PhantomData<A>);

impl<T, A: Allocator> Box<T, A> {
    /// Allocates memory and moves `x` there.
    pub fn new(x: T, _flags: Flags) -> Result<Self, AllocError> {
        if crate::fault::should_fail() || size_of::<T>() > A::MAX {
            return Err(AllocError);
        }
        Ok(Self(std::boxed::Box::new(x), PhantomData))
    }

    /// A value of all zeroes.
    pub fn zeroed(flags: Flags) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        Self::new(T::zeroed(), flags)
    }

    /// Allocates memory, moves `x` there and pins it.
    pub fn pin(x: T, flags: Flags) -> Result<Pin<Self>, AllocError>
    where
        T: Unpin,
        A: 'static,
    {
        Ok(Self::into_pin(Self::new(x, flags)?))
    }

    /// Pins the value where it is.
    pub fn into_pin(this: Self) -> Pin<Self>
    where
        T: Unpin,
    {
        Pin::new(this)
    }

    /// Moves the value out.
    pub fn into_inner(b: Self) -> T {
        *b.0
    }

    /// Leaks the value, which lives for ever.
    pub fn leak<'a>(b: Self) -> &'a mut T {
        std::boxed::Box::leak(b.0)
    }
}

impl<T: ?Sized, A: Allocator> Deref for Box<T, A> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized, A: Allocator> DerefMut for Box<T, A> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: ?Sized, A: Allocator> Borrow<T> for Box<T, A> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized, A: Allocator> BorrowMut<T> for Box<T, A> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized + fmt::Debug, A: Allocator> fmt::Debug for Box<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display, A: Allocator> fmt::Display for Box<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}
