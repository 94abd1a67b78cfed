// SPDX-License-Identifier: GPL-2.0

//! Types for which all zeroes are a value.

/// A type for which all zeroes are a value.
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
