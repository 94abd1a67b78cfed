// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! | option | meaning |
//! |---|---|
//! | `commit=SECONDS` | at most so long until what happened is durable by itself (1 to 300; default 5) |
//! | `discard`, `nodiscard` | tell the device of freed blocks (default: no) |
//! | `acl`, `noacl` | obey POSIX access control lists (default: yes) |
//! | `norecovery` | change nothing on the device, whatever is left of a crash; read-only mounts only |
//! | `rescue=log` | if the log is damaged before its end, go on without what comes after the damage |
//! | `rescue=data` | reads return data that does not match its checksum; read-only mounts only |
//! | `rescue=older` | go on from an older superblock if the newest may be lost, and its commit with it |
//!
//! Tests: tests/vm/t/021-mount.sh, 032-interface.sh.

use core::{fmt, str};
use kernel::prelude::*;

use crate::{
    engine::MountOptions,
    vfs::traits::mount::{Access, MountError, Param},
};

/// The longest time between commits.
const COMMIT_MAX: u32 = 300;

/// The options of a mount.
pub(crate) struct Params {
    pub(super) commit_secs: u32,
    pub(super) discard: bool,
    pub(super) norecovery: bool,
    pub(super) rescue_log: bool,
    pub(super) rescue_older: bool,
    pub(super) rescue_data: bool,
    pub(super) acl: bool,
}

impl Params {
    /// The options in force, or the defaults.
    pub(super) fn from_options(o: &MountOptions, norecovery: bool, acl: bool) -> Self {
        Self {
            commit_secs: o.commit_secs,
            discard: o.discard,
            norecovery,
            rescue_log: o.rescue_log,
            rescue_older: o.rescue_older,
            rescue_data: false,
            acl,
        }
    }

    /// For the engine.
    pub(super) fn options(&self, access: Access) -> MountOptions {
        MountOptions {
            read_only: access.is_read_only(),
            commit_secs: self.commit_secs,
            discard: self.discard,
            recovery: !self.norecovery,
            rescue_log: self.rescue_log,
            rescue_older: self.rescue_older,
            reaper: true,
            rescue_records: false,
            // All: the shrinker takes what is wanted elsewhere.
            cache_nodes: u64::MAX,
        }
    }

    /// What cannot be combined.
    pub(super) fn check(&self, access: Access) -> Result<(), MountError> {
        if self.norecovery && !access.is_read_only() {
            return Err(MountError {
                error: EINVAL,
                reason: "norecovery is for read-only mounts: add ro",
            });
        }
        if self.rescue_data && !access.is_read_only() {
            return Err(MountError {
                error: EINVAL,
                reason: "rescue=data is for read-only mounts: add ro",
            });
        }
        if self.norecovery && self.rescue_log {
            return Err(MountError {
                error: EINVAL,
                reason: "norecovery and rescue=log exclude each other",
            });
        }
        Ok(())
    }

    /// Takes one option.
    pub(super) fn parse(&mut self, key: &[u8], value: Option<&[u8]>) -> Param {
        let flag = |target: &mut bool, on: bool| {
            if value.is_some() {
                return Param::Invalid("takes no value");
            }
            *target = on;
            Param::Accepted
        };
        match key {
            b"commit" => match value.and_then(number) {
                Some(n) if (1..=COMMIT_MAX).contains(&n) => {
                    self.commit_secs = n;
                    Param::Accepted
                }
                _ => Param::Invalid("needs a number of seconds from 1 to 300"),
            },
            b"discard" => flag(&mut self.discard, true),
            b"nodiscard" => flag(&mut self.discard, false),
            b"acl" => flag(&mut self.acl, true),
            b"noacl" => flag(&mut self.acl, false),
            b"norecovery" => flag(&mut self.norecovery, true),
            b"rescue" => match value {
                Some(b"log") => {
                    self.rescue_log = true;
                    Param::Accepted
                }
                Some(b"older") => {
                    self.rescue_older = true;
                    Param::Accepted
                }
                Some(b"data") => {
                    self.rescue_data = true;
                    Param::Accepted
                }
                _ => Param::Invalid("needs what to give up: log, older or data"),
            },
            _ => Param::Unknown,
        }
    }

    /// Writes the options that are not the defaults.
    pub(super) fn show(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let default = MountOptions::default();
        if self.commit_secs != default.commit_secs {
            write!(out, ",commit={}", self.commit_secs)?;
        }
        if self.discard {
            out.write_str(",discard")?;
        }
        if !self.acl {
            out.write_str(",noacl")?;
        }
        if self.norecovery {
            out.write_str(",norecovery")?;
        }
        if self.rescue_log {
            out.write_str(",rescue=log")?;
        }
        if self.rescue_older {
            out.write_str(",rescue=older")?;
        }
        if self.rescue_data {
            out.write_str(",rescue=data")?;
        }
        Ok(())
    }
}

fn number(text: &[u8]) -> Option<u32> {
    str::from_utf8(text).ok()?.parse().ok()
}
