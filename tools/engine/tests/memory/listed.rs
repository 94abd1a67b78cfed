// SPDX-License-Identifier: GPL-2.0

//! An operation that is added to the engine must be added to this test.

use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// What every operation, every mount or `sync` calls, so that these tests need not call it.
const INSIDE: &[&str] = &["begin", "reserve", "mend_superblocks", "commit_all"];

/// The sources in a directory and under it.
fn sources(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.append(&mut sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(std::fs::read_to_string(path).expect("source"));
        }
    }
    found
}

/// The methods of `Fs` that others can call and that can fail.
fn operations(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in source.split("\nimpl Fs {\n").skip(1) {
        let body = part.split("\n}\n").next().expect("body");
        for f in body.split("\n    pub fn ").skip(1) {
            let head = f.split(" {\n").next().expect("head");
            if head.contains("-> Result") {
                found.push(head.split(['(', '<']).next().expect("name").to_string());
            }
        }
    }
    found
}

pub fn check() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = sources(&here.join("../../rust/engine"));
    let engine: Vec<String> = engine.iter().flat_map(|s| operations(s)).collect();
    assert!(
        engine.len() > 30,
        "only {} operations: {engine:?}",
        engine.len()
    );
    let tests = sources(&here.join("tests/memory")).concat();
    for name in engine.iter().filter(|n| !INSIDE.contains(&n.as_str())) {
        let called = [".", "Fs::"].map(|by| format!("{by}{name}("));
        assert!(
            called.iter().any(|c| tests.contains(c)),
            "the operation {name} is not tried"
        );
    }
}
