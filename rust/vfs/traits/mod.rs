// SPDX-License-Identifier: GPL-2.0

//! What a filesystem implements.

pub(crate) mod file_data;
