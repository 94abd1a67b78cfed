// SPDX-License-Identifier: GPL-2.0

//! The engine of this crate can be any of its mutants (rust/engine/mutant.rs).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=ordofs_mutants");
}
