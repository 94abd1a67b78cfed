// SPDX-License-Identifier: GPL-2.0

//! Counts what was tried; an operation that nothing was tried on is a mistake in this test.

use super::bed::Scene;
use std::collections::BTreeMap;

#[derive(Default)]
struct Count {
    frugal: bool,
    failures: u64,
    errors: u64,
    shutdowns: u64,
}

#[derive(Default)]
pub struct Tally {
    /// By scene, since what needs memory in one may need none in another.
    counts: BTreeMap<(&'static str, Scene), Count>,
}

impl Tally {
    pub fn operation(&mut self, name: &'static str, scene: Scene, frugal: bool) {
        let new = Count {
            frugal,
            ..Count::default()
        };
        let old = self.counts.insert((name, scene), new);
        assert!(old.is_none(), "{name} is there twice");
    }

    pub fn failure(&mut self, name: &'static str, scene: Scene, error: bool, shutdown: bool) {
        let c = self.counts.get_mut(&(name, scene)).expect("operation");
        c.failures += 1;
        c.errors += u64::from(error);
        c.shutdowns += u64::from(shutdown);
    }

    /// Prints the numbers. Each operation must have met a failure, unless it asks for no memory.
    pub fn report(&self) {
        let mut sum = Count::default();
        let mut names: BTreeMap<&str, (bool, u64)> = BTreeMap::new();
        for ((name, scene), c) in &self.counts {
            println!(
                "{name}, {scene:?}: {} failures, {} errors, {} shutdowns",
                c.failures, c.errors, c.shutdowns
            );
            sum.failures += c.failures;
            sum.errors += c.errors;
            sum.shutdowns += c.shutdowns;
            let n = names.entry(name).or_default();
            n.0 |= c.frugal;
            n.1 += c.failures;
        }
        println!(
            "{} operations, {} failures, {} errors, {} shutdowns",
            names.len(),
            sum.failures,
            sum.errors,
            sum.shutdowns
        );
        for (name, (frugal, failures)) in names {
            assert_eq!(failures == 0, frugal, "{name}: {failures} failures");
        }
    }
}
