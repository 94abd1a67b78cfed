// SPDX-License-Identifier: GPL-2.0

//! Fallible allocation: [`Vec`] and [`Box`] with the kernel's three allocators as a type parameter.
//!
//! In user space all allocators are the same one. `KVec` and `KVVec` are different types here all
//! the same, as they are in the kernel, so that code that mixes them up compiles in neither world.

pub mod allocator;
pub mod flags;
mod kbox;
mod kvec;
mod zeroable;

pub use allocator::{AllocError, Allocator};
pub use flags::Flags;
pub use kbox::Box;
pub use kvec::{DrainAll, InsertError, IntoIter, PushError, RemoveError, Vec};
pub use zeroable::Zeroable;

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
