// SPDX-License-Identifier: GPL-2.0

//! Structured values as JSON, or as indented text.
//!
//! # Model
//!
//! The nodes and records of a tree are a list that makes its elements one at a time, while it is
//! printed. So the memory does not grow with the filesystem.
//!
//! Tests: below, and `tests/vm/t/071-scale.sh`.

use anyhow::Result;
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::os::Time;
use serde_json::{json, Value};
use std::io::{self, BufWriter, Write};

/// Passes the elements of a list, one by one, to a function.
pub type Each = Box<dyn Fn(&mut dyn FnMut(Value) -> io::Result<()>) -> Result<()>>;

/// A value. Parts of it may be made while it is printed.
pub enum Doc {
    /// A value that fits into memory.
    Value(Value),
    /// Fields, in this order.
    Fields(Vec<(&'static str, Doc)>),
    /// Any number of elements.
    List(Each),
}

impl From<Value> for Doc {
    fn from(v: Value) -> Self {
        Self::Value(v)
    }
}

/// Prints a value to standard output.
pub fn print(doc: &Doc, as_json: bool) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    if as_json {
        json_of(&mut out, doc, 0)?;
        writeln!(out)?;
    } else {
        text_of(&mut out, doc, 0)?;
    }
    Ok(out.flush()?)
}

/// Prints JSON with an indentation of two blanks a level.
fn json_of(out: &mut impl Write, doc: &Doc, depth: usize) -> Result<()> {
    let pad = "  ".repeat(depth);
    match doc {
        Doc::Value(v) => json_value(out, v, &pad)?,
        Doc::Fields(fields) => {
            let mut before = "{";
            for (key, value) in fields {
                write!(out, "{before}\n{pad}  {}: ", Value::from(*key))?;
                json_of(out, value, depth + 1)?;
                before = ",";
            }
            write!(out, "\n{pad}}}")?;
        }
        Doc::List(each) => {
            let mut before = "[";
            let inner = "  ".repeat(depth + 1);
            each(&mut |v| {
                write!(out, "{before}\n{inner}")?;
                before = ",";
                json_value(out, &v, &inner)
            })?;
            match before {
                "[" => write!(out, "[]")?,
                _ => write!(out, "\n{pad}]")?,
            }
        }
    }
    Ok(())
}

/// Prints a value as JSON. JSON strings contain no line breaks, so each line break belongs to the
/// layout and can be indented.
fn json_value(out: &mut impl Write, v: &Value, pad: &str) -> io::Result<()> {
    let pretty = serde_json::to_string_pretty(v)?;
    write!(out, "{}", pretty.replace('\n', &format!("\n{pad}")))
}

fn text_of(out: &mut impl Write, doc: &Doc, depth: usize) -> Result<()> {
    let pad = "  ".repeat(depth);
    match doc {
        Doc::Value(v) => text(out, v, depth)?,
        Doc::Fields(fields) => {
            let width = fields.iter().map(|(k, _)| k.len()).max().unwrap_or(0);
            for (key, value) in fields {
                match value {
                    Doc::Value(v) if is_flat(v) => writeln!(out, "{pad}{key:width$}  {}", flat(v))?,
                    v => {
                        writeln!(out, "{pad}{key}")?;
                        text_of(out, v, depth + 1)?;
                    }
                }
            }
        }
        Doc::List(each) => each(&mut |v| element(out, &v, &pad, depth))?,
    }
    Ok(())
}

/// Prints an element of a list as text.
fn element(out: &mut impl Write, v: &Value, pad: &str, depth: usize) -> io::Result<()> {
    if is_flat(v) {
        return writeln!(out, "{pad}{}", flat(v));
    }
    text(out, v, depth)
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

fn text(out: &mut impl Write, v: &Value, depth: usize) -> io::Result<()> {
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
                element(out, x, &pad, depth)?;
            }
        }
        v => writeln!(out, "{pad}{}", flat(v))?,
    }
    Ok(())
}

/// Bytes as text. Bytes that are not UTF-8 become replacement characters.
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

/// A UUID in its usual form.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of these elements.
    fn list(of: &[Value]) -> Doc {
        let of = of.to_vec();
        Doc::List(Box::new(move |f| {
            Ok(of.iter().cloned().try_for_each(&mut *f)?)
        }))
    }

    #[test]
    fn what_comes_one_by_one_looks_like_what_is_at_once() {
        let some = [json!({"a": 1, "b": [1, "two\nlines"]}), json!(3)];
        let whole = json!({"none": [], "some": some, "deep": {"text": "\"", "nothing": {}}});
        let doc = Doc::Fields(vec![
            ("none", list(&[])),
            ("some", list(&some)),
            (
                "deep",
                Doc::Fields(vec![
                    ("text", json!("\"").into()),
                    ("nothing", json!({}).into()),
                ]),
            ),
        ]);
        let mut out = Vec::new();
        json_of(&mut out, &doc, 0).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            serde_json::to_string_pretty(&whole).unwrap()
        );
    }

    #[test]
    fn a_list_that_fails_fails_the_print() {
        let doc = Doc::Fields(vec![(
            "list",
            Doc::List(Box::new(|_| anyhow::bail!("no more of it"))),
        )]);
        let failed = json_of(&mut Vec::new(), &doc, 0).unwrap_err();
        assert_eq!(failed.to_string(), "no more of it");
        assert!(text_of(&mut Vec::new(), &doc, 0).is_err());
    }
}
