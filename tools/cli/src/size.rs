// SPDX-License-Identifier: GPL-2.0

//! Sizes on the command line.
//!
//! Tests: `tools/mkfs/src/value.rs`.

/// A number of bytes with an optional K, M, G, T, P or E.
pub fn size(s: &str) -> Result<u64, String> {
    let digits = s.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match s[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "p" | "pib" => 50,
        "e" | "eib" => 60,
        u => return Err(format!("unknown unit '{u}': use K, M, G, T, P or E")),
    };
    // `parse` alone would take a sign.
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    let n: Option<u64> = digits.parse().ok().filter(|_| all_digits);
    let n = n.ok_or_else(|| format!("'{s}' is not a size"))?;
    n.checked_mul(1 << shift)
        .ok_or_else(|| format!("'{s}' is too large"))
}
