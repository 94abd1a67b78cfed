// SPDX-License-Identifier: GPL-2.0

//! The kernel's tracepoints (`rust/fs/os/trace.rs`) have no effect in user space.

/// Defines functions that do nothing.
macro_rules! events {
    ($($name:ident($($ty:ty),*);)*) => {$(
        #[doc = concat!("The event `", stringify!($name), "`.")]
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        pub fn $name($(_: $ty),*) {}
    )*};
}

events! {
    map_read(u32, u64, u64, u64, u32, u64, u64);
    map_write(u32, u64, u64, u64, u32, u64, u64);
    delalloc(u32, u64, u64, u64, u64);
    ordered_insert(u32, u64, u64, u64, u64, u64, bool, bool);
    ordered_mapped(u32, u64, u64, u64, u64, u64, bool, bool);
    ordered_finish(u32, u64, u64, u64, u64, i32);
    release_maps(u32, u64, u64, u64, u64, u64, bool);
    fsync_start(u32, u64);
    fsync_wait(u32, u64, u64, u64);
    fsync_collect(u32, u64, u64, u64);
    log_batch(u32, u64, u64, u64, u64, i32);
    commit_start(u32, u64, u64);
    commit_durable(u32, u64, u64);
    node_read(u32, u64, u32, u64, i32);
    node_shrink(u32, u64, u64, u64);
}
