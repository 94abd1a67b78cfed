// SPDX-License-Identifier: GPL-2.0

//! Values on the command line: sizes, UUIDs, labels, owners.

use ordofs_engine::os::random_u64;
use std::str::FromStr;

/// Bytes of a label.
pub const LABEL_LEN: usize = ordofs_engine::engine::format::superblock::LABEL_LEN;

/// A number in decimal digits and nothing else: `parse` alone would take a sign.
fn number<T: FromStr>(s: &str) -> Option<T> {
    let all_digits = s.bytes().all(|b| b.is_ascii_digit());
    s.parse().ok().filter(|_| all_digits)
}

pub use ordofs_cli::size;

/// 32 hexadecimal digits with hyphens, `random` or `nil`.
pub fn uuid(s: &str) -> Result<[u8; 16], String> {
    match s {
        "random" => return Ok(random_uuid()),
        "nil" => return Ok([0; 16]),
        _ => {}
    }
    let hyphens = [8, 13, 18, 23];
    let shape = s.len() == 36 && hyphens.iter().all(|i| s.as_bytes()[*i] == b'-');
    // Only hexadecimal digits: `from_str_radix` would take a sign.
    let digits: String = s.chars().filter(char::is_ascii_hexdigit).collect();
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

/// A UUID in its usual form.
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

/// UID:GID. 4294967295 is not a valid id: chown(2) takes it as -1, "do not change", and the kernel
/// lets no process change an inode that has it.
pub fn owner(s: &str) -> Result<(u32, u32), String> {
    let (u, g) = s.split_once(':').ok_or("give UID:GID")?;
    let id = |v: &str| match number(v) {
        Some(u32::MAX) => Err(format!("{v} is not a valid id: the greatest is 4294967294")),
        Some(n) => Ok(n),
        None => Err(format!("'{v}' is not a numeric id")),
    };
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
        assert_eq!(
            (size("3P"), size("4EiB"), size("15e")),
            (Ok(3 << 50), Ok(1 << 62), Ok(15 << 60))
        );
        assert!(size("16E").is_err() && size("M").is_err() && size("1.5G").is_err());
        assert!(size("+16M").is_err() && size("-1").is_err() && size("16 M").is_err());
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(show_uuid(&uuid(text).unwrap()), text);
        assert!(uuid("0123").is_err() && uuid("0123456789abcdef0123456789abcdef0123").is_err());
        assert!(uuid("éé234567-89ab-cdef-0123-456789abcd").is_err());
        assert!(uuid("+1234567-89ab-cdef-0123-456789abcdef").is_err());
        assert_eq!(random_uuid()[6] >> 4, 4);
        assert!(label(&"x".repeat(64)).is_ok() && label(&"x".repeat(65)).is_err());
        assert_eq!(owner("1:2"), Ok((1, 2)));
        assert_eq!(
            owner("4294967294:4294967294"),
            Ok((u32::MAX - 1, u32::MAX - 1))
        );
        for s in ["4294967295:0", "0:4294967295", "4294967296:0", "-1:0"] {
            assert!(owner(s).is_err(), "{s}");
        }
        for s in ["+1:0", "1", ":", "1:", ":1", "1:2:3", " 1:2"] {
            assert!(owner(s).is_err(), "{s}");
        }
    }
}
