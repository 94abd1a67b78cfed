// SPDX-License-Identifier: GPL-2.0

//! Values on the command line: sizes, UUIDs, labels, owners.

use ordofs_engine::os::random_u64;

/// Bytes of a label.
pub const LABEL_LEN: usize = ordofs_engine::engine::format::superblock::LABEL_LEN;

/// A number of bytes with an optional K, M, G or T.
pub fn size(s: &str) -> Result<u64, String> {
    let digits = s.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match s[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        u => return Err(format!("unknown unit '{u}': use K, M, G or T")),
    };
    let n: u64 = digits.parse().map_err(|_| format!("'{s}' is not a size"))?;
    n.checked_mul(1 << shift)
        .ok_or_else(|| format!("'{s}' is too large"))
}

/// 32 hexadecimal digits with hyphens, `random` or `nil`.
pub fn uuid(s: &str) -> Result<[u8; 16], String> {
    match s {
        "random" => return Ok(random_uuid()),
        "nil" => return Ok([0; 16]),
        _ => {}
    }
    let hyphens = [8, 13, 18, 23];
    let shape = s.len() == 36 && hyphens.iter().all(|i| s.as_bytes()[*i] == b'-');
    let digits: String = s.chars().filter(|c| *c != '-').collect();
    if !shape || digits.len() != 32 {
        return Err(format!(
            "'{s}' is not a UUID (8-4-4-4-12 hexadecimal digits)"
        ));
    }
    let n = u128::from_str_radix(&digits, 16).map_err(|_| format!("'{s}' is not a UUID"))?;
    Ok(n.to_be_bytes())
}

/// A new random UUID (version 4).
pub fn random_uuid() -> [u8; 16] {
    let n = u128::from(random_u64()) << 64 | u128::from(random_u64());
    let mut b = n.to_be_bytes();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    b
}

/// The usual form of a UUID.
pub fn show_uuid(b: &[u8; 16]) -> String {
    let h = format!("{:032x}", u128::from_be_bytes(*b));
    format!(
        "{}-{}-{}-{}-{}",
        &h[..8],
        &h[8..12],
        &h[12..16],
        &h[16..20],
        &h[20..]
    )
}

/// A label, padded with zeroes.
pub fn label(s: &str) -> Result<[u8; LABEL_LEN], String> {
    let mut out = [0; LABEL_LEN];
    match out.get_mut(..s.len()) {
        _ if s.contains('\0') => Err("a label has no zero bytes".into()),
        Some(place) => {
            place.copy_from_slice(s.as_bytes());
            Ok(out)
        }
        None => Err(format!(
            "a label has at most {LABEL_LEN} bytes, this one has {}",
            s.len()
        )),
    }
}

/// UID:GID
pub fn owner(s: &str) -> Result<(u32, u32), String> {
    let (u, g) = s.split_once(':').ok_or("give UID:GID")?;
    let id = |v: &str| v.parse().map_err(|_| format!("'{v}' is not a numeric id"));
    Ok((id(u)?, id(g)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("1x").is_err() && size("").is_err() && size("99999999999T").is_err());
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(show_uuid(&uuid(text).unwrap()), text);
        assert!(uuid("0123").is_err() && uuid("0123456789abcdef0123456789abcdef0123").is_err());
        assert!(uuid("éé234567-89ab-cdef-0123-456789abcd").is_err());
        assert_eq!(random_uuid()[6] >> 4, 4);
        assert!(label(&"x".repeat(64)).is_ok() && label(&"x".repeat(65)).is_err());
        assert_eq!(owner("1:2"), Ok((1, 2)));
    }
}
