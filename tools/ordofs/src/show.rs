// SPDX-License-Identifier: GPL-2.0

//! Structured values as JSON, or as indented text.

use anyhow::Result;
use ordofs_engine::engine::xattr;
use ordofs_engine::os::Time;
use serde_json::{json, Value};
use std::io::Write;

/// Prints a value to standard output.
pub fn print(v: &Value, as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, v)?;
        writeln!(out)?;
        return Ok(());
    }
    Ok(text(&mut out, v, 0)?)
}

fn is_flat(v: &Value) -> bool {
    match v {
        Value::Object(m) => m.values().all(|x| !x.is_object() && !x.is_array()),
        Value::Array(a) => a.iter().all(|x| x.is_number()),
        _ => true,
    }
}

fn flat(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => "-".into(),
        Value::Object(m) => {
            let parts: Vec<String> = m.iter().map(|(k, x)| format!("{k} {}", flat(x))).collect();
            parts.join(", ")
        }
        Value::Array(a) => a.iter().map(flat).collect::<Vec<_>>().join(" "),
        v => v.to_string(),
    }
}

fn text(out: &mut impl Write, v: &Value, depth: usize) -> std::io::Result<()> {
    let pad = "  ".repeat(depth);
    match v {
        Value::Object(m) => {
            let width = m.keys().map(String::len).max().unwrap_or(0);
            for (k, x) in m {
                if is_flat(x) {
                    writeln!(out, "{pad}{k:width$}  {}", flat(x))?;
                } else {
                    writeln!(out, "{pad}{k}")?;
                    text(out, x, depth + 1)?;
                }
            }
        }
        Value::Array(a) => {
            for x in a {
                if is_flat(x) {
                    writeln!(out, "{pad}{}", flat(x))?;
                } else {
                    text(out, x, depth)?;
                }
            }
        }
        v => writeln!(out, "{pad}{}", flat(v))?,
    }
    Ok(())
}

/// Bytes as text; what is no UTF-8 becomes a replacement character.
pub fn name(b: &[u8]) -> String {
    String::from_utf8_lossy(b).into_owned()
}

/// The full name of an extended attribute.
pub fn xattr_name(index: u8, rest: &[u8]) -> String {
    let prefix = match index {
        xattr::USER => "user.",
        xattr::TRUSTED => "trusted.",
        xattr::SECURITY => "security.",
        xattr::ACL_ACCESS => "system.posix_acl_access",
        xattr::ACL_DEFAULT => "system.posix_acl_default",
        _ => "?",
    };
    format!("{prefix}{}", name(rest))
}

/// The usual form of a UUID.
pub fn uuid(b: &[u8; 16]) -> String {
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

/// Seconds since 1970 with nanoseconds.
pub fn time(t: Time) -> Value {
    json!(format!("{}.{:09}", t.sec, t.nsec))
}
