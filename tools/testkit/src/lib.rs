// SPDX-License-Identifier: GPL-2.0

//! What the tests of the programs share: image files, standard outputs that take nothing, and
//! running a command.

pub mod image;
pub mod output;
pub mod run;
