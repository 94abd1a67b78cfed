// SPDX-License-Identifier: GPL-2.0

//! Mounting: the options, from the first to a mount or a remount. Fills `struct fs_context_operations`.

use kernel::prelude::*;

use crate::vfs::object::block::OpenDevice;
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::object::types::Types;

/// Why a mount or remount failed: the error, and one line for the user that says why.
pub(crate) struct MountError {
    /// What the system call returns.
    pub(crate) error: Error,
    /// What the log and the mount(8) message say; empty for errors that speak for themselves.
    pub(crate) reason: &'static str,
}

impl From<Error> for MountError {
    fn from(error: Error) -> Self {
        MountError { error, reason: "" }
    }
}

/// What a filesystem makes of one mount option.
pub(crate) enum Param {
    /// Understood and stored.
    Accepted,
    /// Not an option of this filesystem; the VFS names it in its message.
    Unknown,
    /// An option of this filesystem with a value that it cannot have; says what is expected.
    Invalid(&'static str),
}

/// How a filesystem is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Nothing may be written.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

impl Access {
    /// Whether it is [`Access::ReadOnly`].
    pub(crate) fn is_read_only(self) -> bool {
        self == Self::ReadOnly
    }
}

/// Whether POSIX access control lists are in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PosixAcls {
    /// They are not.
    Off,
    /// They are.
    On,
}

/// Mounting and remounting. `s_umount` is held exclusively in [`mount`](MountOperations::mount),
/// [`started`](MountOperations::started) and [`reconfigure`](MountOperations::reconfigure).
pub(crate) trait MountOperations: Types {
    /// Mount options.
    type Params: Send + Sync + 'static;

    /// The options before any is parsed: the defaults, or what is in force for a remount.
    fn initial_params(current: Option<&SuperBlock<Self>>) -> Self::Params;
    /// Takes one option.
    fn parse_param(params: &mut Self::Params, key: &[u8], value: Option<&[u8]>) -> Param;
    /// Whether POSIX access control lists are to be in force.
    fn posix_acls(params: &Self::Params) -> PosixAcls;
    /// Reads the filesystem on `dev`.
    fn mount(dev: OpenDevice, params: &Self::Params, access: Access) -> Result<Self, MountError>;
    /// The mount has succeeded and is about to become visible: start what runs in the background.
    fn started(&self, sb: &SuperBlock<Self>, access: Access) -> Result;
    /// Remount with other options. `access` is what the remount asks for; when it changes to read-only,
    /// everything was synced and no writer is left.
    fn reconfigure(
        sb: &SuperBlock<Self>,
        params: &Self::Params,
        access: Access,
    ) -> Result<(), MountError>;
}
