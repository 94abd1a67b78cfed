// SPDX-License-Identifier: GPL-2.0

//! Running a command to its end.

use std::process::{Command, Output};

/// Runs a command. Returns its result, and all that it printed.
pub fn run(command: &mut Command) -> (Output, String) {
    let out = command.output();
    let out = out.unwrap_or_else(|e| panic!("{command:?}: {e} (packages: scripts/packages)"));
    let text = [&out.stdout[..], &out.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (out, text)
}

/// Runs a command that must succeed. Returns what it printed.
pub fn ok(command: &mut Command) -> String {
    let (out, text) = run(command);
    assert!(
        out.status.success(),
        "{command:?}: {:?}: {text}",
        out.status
    );
    text
}

/// Runs a command that no signal may end. Returns its exit status.
pub fn status(command: &mut Command) -> i32 {
    let status = command.status();
    let status = status.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    status.code().expect("no signal")
}
