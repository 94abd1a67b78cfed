// SPDX-License-Identifier: GPL-2.0

//! `ordofs-fuzz-coverage`: recipes by libFuzzer, which keeps those that reach new code.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ordofs_fuzz::base::{self, Base};
use ordofs_fuzz::exercise::exercise;
use ordofs_fuzz::judge::{changes, LIMIT};
use std::sync::OnceLock;
use std::time::Instant;

static BASES: OnceLock<Vec<Base>> = OnceLock::new();

fuzz_target!(|recipe: &[u8]| {
    let bases = BASES.get_or_init(|| {
        kernel::print::set_level(kernel::print::SILENT);
        base::all()
    });
    let Some(c) = changes(bases, recipe) else {
        return;
    };
    let words = c.words.join("\n");
    let begin = Instant::now();
    let r = exercise(c.blocks(), c.image());
    // Wall time, so more than the CPU time that is allowed.
    assert!(begin.elapsed() < 20 * LIMIT, "{words}\nit took too long");
    if let Err(text) = r {
        panic!("{words}\n{text}");
    }
});
