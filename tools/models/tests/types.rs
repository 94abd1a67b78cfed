// SPDX-License-Identifier: GPL-2.0

//! What the types forbid: code that breaks a rule of order inside the engine, and must not compile.
//!
//! # Model
//!
//! Doctests with `compile_fail` are outside of the crate, where everything is private anyway. This
//! test copies the engine's sources, adds a module that does what it must not (a second way to
//! start a write, delalloc without a second look), and compiles the copy. Each intruder names the
//! error that it expects; without intruders the same copy compiles.
//!
//! The compiler checks for one kind of error after the other and stops at the first that it finds,
//! so the intruders come in groups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module that must not compile: its name, the expected error, its code.
struct Intruder(&'static str, &'static str, &'static str);

const USES: &str = "use crate::engine::inode::starting::*; use crate::engine::inode::maps::extent_map::*;
use crate::engine::inode::ordered::*; use crate::engine::inode::maps::*; use crate::engine::inode::maps::range::Range;
use crate::engine::btree::NodeStore; use crate::engine::btree::Node;
use crate::engine::*; use crate::os::*; use kernel::prelude::*;\n";

/// Errors of types and private functions.
const TYPES: &[Intruder] = &[
    Intruder(
        "r1_shared_side_from_elsewhere",
        "E0624",
        "fn f(i: &Inode) { let _ = SharedSide::enter(&i.ordered_sem); }",
    ),
    Intruder(
        "r1_ordered_extent_without_the_lock",
        "E0061",
        "fn f(s: &mut OrderedSet, w: NewWrite) { let _ = s.insert(w); }",
    ),
    Intruder(
        "r1_map_before_ordered_extent",
        "E0308",
        "fn f(m: &mut Maps, w: NewWrite) { let _ = m.extent_maps.insert_in_flight(&w); }",
    ),
    Intruder(
        "r1_forged_ordered_extent",
        "E0624",
        "fn f(s: &mut OrderedSet, r: &SharedSide<'_>, w: NewWrite) { let _ = s.token(r, w); }",
    ),
    Intruder(
        "r1_collect_without_the_lock",
        "E0061",
        "fn f(m: &Maps) { let _ = m.extent_maps.unsaved_from(0); }",
    ),
    Intruder(
        "r4_delalloc_without_a_second_look",
        "E0624",
        "fn f(m: &mut Maps, r: Range<()>) { let _ = m.delalloc.insert(r); }",
    ),
];

/// Private fields: values that code outside cannot make.
const FORGED: &[Intruder] = &[
    Intruder(
        "r1_forged_right",
        "E0451",
        "fn f<'a>(i: &'a Shared<Inode>, d: &'a Device) -> Starting<'a> \
         { Starting { inode: i, device: d, side: SharedSide { _shared: None } } }",
    ),
    Intruder(
        "r1_forged_collector",
        "E0451",
        "fn f<'a>() -> Collecting<'a> { Collecting { _exclusive: None } }",
    ),
    Intruder(
        "r4_forged_guard",
        "E0451",
        "fn f(m: &mut Maps) -> DelallocGuard<'_> { DelallocGuard { maps: m } }",
    ),
];

/// Errors of borrowing.
const BORROWS: &[Intruder] = &[
    Intruder(
        "r1_one_write_ends_twice",
        "E0382",
        "fn f(fs: &Fs, o: Ordered) \
         { let _ = fs.finish_write(o, 0, Ok(())); let _ = fs.finish_write(o, 0, Ok(())); }",
    ),
    Intruder(
        "r4_guard_from_the_shared_lock",
        "E0596",
        "fn f(i: &Inode, s: &NodeStore) { let m = i.maps.read(); \
         let _ = m.delalloc_guard().insert(s, 0, 1); }",
    ),
    Intruder(
        "r6_node_used_after_it_was_given_away",
        "E0382",
        "fn f(s: &NodeStore, n: Shared<Node>) -> u64 { s.insert(n); n.addr() }",
    ),
    Intruder(
        "r6_shared_node_is_not_for_writing",
        "E0596",
        "fn f(n: &mut Shared<Node>) -> &mut Node { &mut *n }",
    ),
];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for entry in fs::read_dir(from).expect("sources") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

/// The libraries of this name that builds have left, newest first.
fn libraries(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = (fs::read_dir(folder).expect("deps"))
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| {
            let file = p.file_name().and_then(|f| f.to_str()).unwrap_or("");
            file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
        })
        .collect();
    found.sort_by_key(|p| fs::metadata(p).and_then(|m| m.modified()).ok());
    found.reverse();
    found
}

/// Compiles a copy of the engine with these intruders. Returns whether it compiles, and the
/// compiler's messages.
fn compile(group: &str, intruders: &[Intruder], kernel: &Path, engine: &Path) -> (bool, String) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("types")
        .join(group);
    let _ = fs::remove_dir_all(&folder);
    copy(&top.join("rust/engine"), &folder.join("engine"));
    let mut modules = fs::read_to_string(folder.join("engine/mod.rs")).expect("mod.rs");
    for Intruder(name, _, code) in intruders {
        modules += &format!("mod {name};\n");
        let text = format!("{USES}{code}\n");
        fs::write(folder.join(format!("engine/{name}.rs")), text).expect("intruder");
    }
    fs::write(folder.join("engine/mod.rs"), modules).expect("mod.rs");
    let root = folder.join("lib.rs");
    let text =
        "#![no_std]\npub use ordofs_engine::os;\n#[path = \"engine/mod.rs\"]\npub mod engine;\n";
    fs::write(&root, text).expect("lib.rs");
    let with = |name: &str, path: &Path| format!("{name}={}", path.display());
    let output = Command::new(std::env::var("RUSTC").unwrap_or("rustc".into()))
        .args([
            "--edition=2021",
            "--crate-type=lib",
            "--crate-name=intruders",
        ])
        .args([
            "--emit=metadata",
            "--error-format=short",
            "--cap-lints=allow",
        ])
        .arg("--out-dir")
        .arg(&folder)
        .arg("-L")
        .arg(with("dependency", kernel.parent().expect("deps")))
        .arg("--extern")
        .arg(with("kernel", kernel))
        .arg("--extern")
        .arg(with("ordofs_engine", engine))
        .arg(&root)
        .output()
        .expect("rustc");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn what_the_types_forbid() {
    let exe = std::env::current_exe().expect("this test");
    let deps = exe.parent().expect("deps");
    // A build leaves old libraries behind. Use those with which the unchanged engine compiles.
    let mut said = String::new();
    let fits = libraries(deps, "ordofs_engine")
        .into_iter()
        .take(4)
        .find_map(|e| {
            libraries(deps, "kernel").into_iter().take(4).find_map(|k| {
                let (good, text) = compile("none", &[], &k, &e);
                if said.is_empty() {
                    said = text;
                }
                good.then(|| (k, e.clone()))
            })
        });
    let (kernel, engine) = fits.unwrap_or_else(|| panic!("the engine does not compile: {said}"));
    let mut missing = Vec::new();
    for (group, intruders) in [("types", TYPES), ("forged", FORGED), ("borrows", BORROWS)] {
        let (_, said) = compile(group, intruders, &kernel, &engine);
        for Intruder(name, error, _) in intruders {
            let file = format!("/{name}.rs:");
            let mut own = said.lines().filter(|l| l.contains(&file));
            match own.find(|l| l.contains(&format!("error[{error}]"))) {
                Some(line) => {
                    let what = line.split("error").nth(1).unwrap_or("");
                    println!("{name}: error{what}");
                }
                None => missing.push(format!("{name}: no {error} in:\n{said}")),
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
