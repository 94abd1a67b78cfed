// SPDX-License-Identifier: GPL-2.0

//! Standard outputs that take nothing.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

/// A file on a full device: every write to it fails with ENOSPC.
pub fn full() -> Stdio {
    let file = OpenOptions::new().write(true).open("/dev/full");
    file.expect("/dev/full").into()
}

/// A pipe without a reader: every write to it fails with EPIPE.
pub fn closed() -> Stdio {
    let reader = Command::new("true").stdin(Stdio::piped()).spawn();
    let mut reader = reader.expect("true(1)");
    let pipe = reader.stdin.take().expect("its pipe");
    reader.wait().expect("its end");
    pipe.into()
}
