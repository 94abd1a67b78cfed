// SPDX-License-Identifier: GPL-2.0

//! Allocation flags.

/// Flags of an allocation; without effect in user space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub(crate) u32);

impl core::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

/// The allocation may sleep.
pub const GFP_KERNEL: Flags = Flags(0xcc0);
/// As [`GFP_KERNEL`], accounted to the control group.
pub const GFP_KERNEL_ACCOUNT: Flags = Flags(0x400cc0);
/// The allocation must not sleep.
pub const GFP_NOWAIT: Flags = Flags(0x2800);
/// The allocation must not sleep and may use reserves.
pub const GFP_ATOMIC: Flags = Flags(0x820);
/// Zeroed memory.
#[allow(non_upper_case_globals)]
pub const __GFP_ZERO: Flags = Flags(0x100);
/// No warning when it fails.
#[allow(non_upper_case_globals)]
pub const __GFP_NOWARN: Flags = Flags(0x2000);
