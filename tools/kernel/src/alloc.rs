// SPDX-License-Identifier: GPL-2.0

//! Fallible allocation: [`Vec`] and [`Box`] with the kernel's three allocators as type parameter.
//!
//! In user space all allocators are the same one, yet `KVec` and `KVVec` are different types here
//! as they are in the kernel, so that mixing them up does not compile in either world.

mod kbox;
mod kvec;

pub use kbox::Box;
pub use kvec::{DrainAll, InsertError, IntoIter, PushError, RemoveError, Vec};

/// An allocation failed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct AllocError;

/// The kernel's allocators.
pub mod allocator {
    use super::Allocator;

    /// `kmalloc()`
    pub struct Kmalloc;
    /// `vmalloc()`
    pub struct Vmalloc;
    /// `kvmalloc()`
    pub struct KVmalloc;

    impl Allocator for Kmalloc {
        const MAX: usize = 4 << 20;
    }
    impl Allocator for Vmalloc {}
    impl Allocator for KVmalloc {}
}

/// An allocator.
pub trait Allocator {
    /// The largest allocation that it can give, in bytes.
    const MAX: usize = i32::MAX as usize;
}

/// Allocation flags.
pub mod flags {
    /// Flags of an allocation; without effect in user space.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Flags(pub(crate) u32);

    impl core::ops::BitOr for Flags {
        type Output = Self;
        fn bitor(self, rhs: Self) -> Self {
            Self(self.0 | rhs.0)
        }
    }

    /// The allocation may sleep.
    pub const GFP_KERNEL: Flags = Flags(0xcc0);
    /// As [`GFP_KERNEL`], accounted to the control group.
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags(0x400cc0);
    /// The allocation must not sleep.
    pub const GFP_NOWAIT: Flags = Flags(0x2800);
    /// The allocation must not sleep and may use reserves.
    pub const GFP_ATOMIC: Flags = Flags(0x820);
    /// Zeroed memory.
    #[allow(non_upper_case_globals)]
    pub const __GFP_ZERO: Flags = Flags(0x100);
    /// No warning when it fails.
    #[allow(non_upper_case_globals)]
    pub const __GFP_NOWARN: Flags = Flags(0x2000);
}

pub use flags::Flags;

/// Types of which all zeroes are a value.
pub trait Zeroable: Sized {
    /// That value.
    fn zeroed() -> Self;
}

macro_rules! zeroable {
    ($($t:ty => $v:expr),*) => { $(impl Zeroable for $t { fn zeroed() -> Self { $v } })* };
}
zeroable!(u8 => 0, u16 => 0, u32 => 0, u64 => 0, usize => 0, u128 => 0);
zeroable!(i8 => 0, i16 => 0, i32 => 0, i64 => 0, isize => 0, i128 => 0, bool => false);

impl<T: Zeroable, const N: usize> Zeroable for [T; N] {
    fn zeroed() -> Self {
        core::array::from_fn(|_| T::zeroed())
    }
}

/// A vector in memory of `kmalloc()`.
pub type KVec<T> = Vec<T, allocator::Kmalloc>;
/// A vector in memory of `vmalloc()`.
pub type VVec<T> = Vec<T, allocator::Vmalloc>;
/// A vector in memory of `kvmalloc()`.
pub type KVVec<T> = Vec<T, allocator::KVmalloc>;
/// A box in memory of `kmalloc()`.
pub type KBox<T> = Box<T, allocator::Kmalloc>;
/// A box in memory of `vmalloc()`.
pub type VBox<T> = Box<T, allocator::Vmalloc>;
/// A box in memory of `kvmalloc()`.
pub type KVBox<T> = Box<T, allocator::KVmalloc>;
