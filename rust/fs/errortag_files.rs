// SPDX-License-Identifier: GPL-2.0

//! `/sys/fs/ordofs/<device>/errortag`: a file for each window. Only in debug builds.
//!
//! Tests: tests/vm/t/047-error-tags.sh.

use core::fmt;

use kernel::prelude::*;

use super::os::Window;
use super::OrdoFs;
use crate::vfs::object::sysfs::File;

/// The window of a number.
const fn window<const N: usize>() -> Window {
    Window::ALL[N]
}

fn show<const N: usize>(fs: &OrdoFs, out: &mut dyn fmt::Write) -> fmt::Result {
    fs.tags.show(window::<N>(), out)
}

fn store<const N: usize>(fs: &OrdoFs, text: &[u8]) -> Result {
    fs.tags.store(window::<N>(), text)
}

/// The file of a window.
const fn file<const N: usize>() -> File<OrdoFs> {
    File::setting(window::<N>().name(), show::<N>, store::<N>)
}

/// The files, in the order of the windows' numbers.
pub(super) const FILES: &[File<OrdoFs>] = &[
    file::<0>(),
    file::<1>(),
    file::<2>(),
    file::<3>(),
    file::<4>(),
    file::<5>(),
    file::<6>(),
    file::<7>(),
    file::<8>(),
    file::<9>(),
];

const _: () = assert!(FILES.len() == Window::COUNT);
