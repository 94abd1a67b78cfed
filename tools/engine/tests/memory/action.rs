// SPDX-License-Identifier: GPL-2.0

//! An operation to try, and what it promises.

use super::bed::Bed;
use kernel::prelude::Result;

pub type Run = fn(&Bed) -> Result;

pub struct Action {
    pub name: &'static str,
    /// What comes before it and succeeds.
    pub before: fn(&Bed),
    pub run: Run,
    /// It may be done in part when it fails.
    pub steps: bool,
    /// A power cut takes nothing of it back.
    pub durable: bool,
    /// It asks for no memory.
    pub frugal: bool,
}

/// One that happens or does not.
pub const fn whole(name: &'static str, run: Run) -> Action {
    Action {
        name,
        before: |_| (),
        run,
        steps: false,
        durable: false,
        frugal: false,
    }
}

/// One that consists of several steps.
pub const fn steps(name: &'static str, run: Run) -> Action {
    Action {
        steps: true,
        ..whole(name, run)
    }
}

impl Action {
    pub const fn after(self, before: fn(&Bed)) -> Self {
        Self { before, ..self }
    }

    pub const fn durable(self) -> Self {
        Self {
            durable: true,
            ..self
        }
    }

    pub const fn frugal(self) -> Self {
        Self {
            frugal: true,
            ..self
        }
    }
}
