// SPDX-License-Identifier: GPL-2.0

//! Kernel errors: [`Error`], [`Result`] and all codes that `kernel::error::code` declares.

use crate::alloc::AllocError;
use core::fmt;

/// The error codes.
#[rustfmt::skip]
pub mod code {
    use super::Error;

    #[doc = "Operation not permitted."]
    pub const EPERM: Error = Error(-1);
    #[doc = "No such file or directory."]
    pub const ENOENT: Error = Error(-2);
    #[doc = "No such process."]
    pub const ESRCH: Error = Error(-3);
    #[doc = "Interrupted system call."]
    pub const EINTR: Error = Error(-4);
    #[doc = "I/O error."]
    pub const EIO: Error = Error(-5);
    #[doc = "No such device or address."]
    pub const ENXIO: Error = Error(-6);
    #[doc = "Argument list too long."]
    pub const E2BIG: Error = Error(-7);
    #[doc = "Exec format error."]
    pub const ENOEXEC: Error = Error(-8);
    #[doc = "Bad file number."]
    pub const EBADF: Error = Error(-9);
    #[doc = "No child processes."]
    pub const ECHILD: Error = Error(-10);
    #[doc = "Try again."]
    pub const EAGAIN: Error = Error(-11);
    #[doc = "Out of memory."]
    pub const ENOMEM: Error = Error(-12);
    #[doc = "Permission denied."]
    pub const EACCES: Error = Error(-13);
    #[doc = "Bad address."]
    pub const EFAULT: Error = Error(-14);
    #[doc = "Block device required."]
    pub const ENOTBLK: Error = Error(-15);
    #[doc = "Device or resource busy."]
    pub const EBUSY: Error = Error(-16);
    #[doc = "File exists."]
    pub const EEXIST: Error = Error(-17);
    #[doc = "Cross-device link."]
    pub const EXDEV: Error = Error(-18);
    #[doc = "No such device."]
    pub const ENODEV: Error = Error(-19);
    #[doc = "Not a directory."]
    pub const ENOTDIR: Error = Error(-20);
    #[doc = "Is a directory."]
    pub const EISDIR: Error = Error(-21);
    #[doc = "Invalid argument."]
    pub const EINVAL: Error = Error(-22);
    #[doc = "File table overflow."]
    pub const ENFILE: Error = Error(-23);
    #[doc = "Too many open files."]
    pub const EMFILE: Error = Error(-24);
    #[doc = "Not a typewriter."]
    pub const ENOTTY: Error = Error(-25);
    #[doc = "Text file busy."]
    pub const ETXTBSY: Error = Error(-26);
    #[doc = "File too large."]
    pub const EFBIG: Error = Error(-27);
    #[doc = "No space left on device."]
    pub const ENOSPC: Error = Error(-28);
    #[doc = "Illegal seek."]
    pub const ESPIPE: Error = Error(-29);
    #[doc = "Read-only file system."]
    pub const EROFS: Error = Error(-30);
    #[doc = "Too many links."]
    pub const EMLINK: Error = Error(-31);
    #[doc = "Broken pipe."]
    pub const EPIPE: Error = Error(-32);
    #[doc = "Math argument out of domain of func."]
    pub const EDOM: Error = Error(-33);
    #[doc = "Math result not representable."]
    pub const ERANGE: Error = Error(-34);
    #[doc = "Resource deadlock would occur."]
    pub const EDEADLK: Error = Error(-35);
    #[doc = "File name too long."]
    pub const ENAMETOOLONG: Error = Error(-36);
    #[doc = "No record locks available."]
    pub const ENOLCK: Error = Error(-37);
    #[doc = "Invalid system call number."]
    pub const ENOSYS: Error = Error(-38);
    #[doc = "Directory not empty."]
    pub const ENOTEMPTY: Error = Error(-39);
    #[doc = "Too many symbolic links encountered."]
    pub const ELOOP: Error = Error(-40);
    #[doc = "No message of desired type."]
    pub const ENOMSG: Error = Error(-42);
    #[doc = "Identifier removed."]
    pub const EIDRM: Error = Error(-43);
    #[doc = "Channel number out of range."]
    pub const ECHRNG: Error = Error(-44);
    #[doc = "Level 2 not synchronized."]
    pub const EL2NSYNC: Error = Error(-45);
    #[doc = "Level 3 halted."]
    pub const EL3HLT: Error = Error(-46);
    #[doc = "Level 3 reset."]
    pub const EL3RST: Error = Error(-47);
    #[doc = "Link number out of range."]
    pub const ELNRNG: Error = Error(-48);
    #[doc = "Protocol driver not attached."]
    pub const EUNATCH: Error = Error(-49);
    #[doc = "No CSI structure available."]
    pub const ENOCSI: Error = Error(-50);
    #[doc = "Level 2 halted."]
    pub const EL2HLT: Error = Error(-51);
    #[doc = "Invalid exchange."]
    pub const EBADE: Error = Error(-52);
    #[doc = "Invalid request descriptor."]
    pub const EBADR: Error = Error(-53);
    #[doc = "Exchange full."]
    pub const EXFULL: Error = Error(-54);
    #[doc = "No anode."]
    pub const ENOANO: Error = Error(-55);
    #[doc = "Invalid request code."]
    pub const EBADRQC: Error = Error(-56);
    #[doc = "Invalid slot."]
    pub const EBADSLT: Error = Error(-57);
    #[doc = "Bad font file format."]
    pub const EBFONT: Error = Error(-59);
    #[doc = "Device not a stream."]
    pub const ENOSTR: Error = Error(-60);
    #[doc = "No data available."]
    pub const ENODATA: Error = Error(-61);
    #[doc = "Timer expired."]
    pub const ETIME: Error = Error(-62);
    #[doc = "Out of streams resources."]
    pub const ENOSR: Error = Error(-63);
    #[doc = "Machine is not on the network."]
    pub const ENONET: Error = Error(-64);
    #[doc = "Package not installed."]
    pub const ENOPKG: Error = Error(-65);
    #[doc = "Object is remote."]
    pub const EREMOTE: Error = Error(-66);
    #[doc = "Link has been severed."]
    pub const ENOLINK: Error = Error(-67);
    #[doc = "Advertise error."]
    pub const EADV: Error = Error(-68);
    #[doc = "Srmount error."]
    pub const ESRMNT: Error = Error(-69);
    #[doc = "Communication error on send."]
    pub const ECOMM: Error = Error(-70);
    #[doc = "Protocol error."]
    pub const EPROTO: Error = Error(-71);
    #[doc = "Multihop attempted."]
    pub const EMULTIHOP: Error = Error(-72);
    #[doc = "RFS specific error."]
    pub const EDOTDOT: Error = Error(-73);
    #[doc = "Not a data message."]
    pub const EBADMSG: Error = Error(-74);
    #[doc = "Bad CRC detected."]
    pub const EFSBADCRC: Error = Error(-74);
    #[doc = "Value too large for defined data type."]
    pub const EOVERFLOW: Error = Error(-75);
    #[doc = "Name not unique on network."]
    pub const ENOTUNIQ: Error = Error(-76);
    #[doc = "File descriptor in bad state."]
    pub const EBADFD: Error = Error(-77);
    #[doc = "Remote address changed."]
    pub const EREMCHG: Error = Error(-78);
    #[doc = "Can not access a needed shared library."]
    pub const ELIBACC: Error = Error(-79);
    #[doc = "Accessing a corrupted shared library."]
    pub const ELIBBAD: Error = Error(-80);
    #[doc = ".lib section in a.out corrupted."]
    pub const ELIBSCN: Error = Error(-81);
    #[doc = "Attempting to link in too many shared libraries."]
    pub const ELIBMAX: Error = Error(-82);
    #[doc = "Cannot exec a shared library directly."]
    pub const ELIBEXEC: Error = Error(-83);
    #[doc = "Illegal byte sequence."]
    pub const EILSEQ: Error = Error(-84);
    #[doc = "Interrupted system call should be restarted."]
    pub const ERESTART: Error = Error(-85);
    #[doc = "Streams pipe error."]
    pub const ESTRPIPE: Error = Error(-86);
    #[doc = "Too many users."]
    pub const EUSERS: Error = Error(-87);
    #[doc = "Socket operation on non-socket."]
    pub const ENOTSOCK: Error = Error(-88);
    #[doc = "Destination address required."]
    pub const EDESTADDRREQ: Error = Error(-89);
    #[doc = "Message too long."]
    pub const EMSGSIZE: Error = Error(-90);
    #[doc = "Protocol wrong type for socket."]
    pub const EPROTOTYPE: Error = Error(-91);
    #[doc = "Protocol not available."]
    pub const ENOPROTOOPT: Error = Error(-92);
    #[doc = "Protocol not supported."]
    pub const EPROTONOSUPPORT: Error = Error(-93);
    #[doc = "Socket type not supported."]
    pub const ESOCKTNOSUPPORT: Error = Error(-94);
    #[doc = "Operation not supported on transport endpoint."]
    pub const EOPNOTSUPP: Error = Error(-95);
    #[doc = "Protocol family not supported."]
    pub const EPFNOSUPPORT: Error = Error(-96);
    #[doc = "Address family not supported by protocol."]
    pub const EAFNOSUPPORT: Error = Error(-97);
    #[doc = "Address already in use."]
    pub const EADDRINUSE: Error = Error(-98);
    #[doc = "Cannot assign requested address."]
    pub const EADDRNOTAVAIL: Error = Error(-99);
    #[doc = "Network is down."]
    pub const ENETDOWN: Error = Error(-100);
    #[doc = "Network is unreachable."]
    pub const ENETUNREACH: Error = Error(-101);
    #[doc = "Network dropped connection because of reset."]
    pub const ENETRESET: Error = Error(-102);
    #[doc = "Software caused connection abort."]
    pub const ECONNABORTED: Error = Error(-103);
    #[doc = "Connection reset by peer."]
    pub const ECONNRESET: Error = Error(-104);
    #[doc = "No buffer space available."]
    pub const ENOBUFS: Error = Error(-105);
    #[doc = "Transport endpoint is already connected."]
    pub const EISCONN: Error = Error(-106);
    #[doc = "Transport endpoint is not connected."]
    pub const ENOTCONN: Error = Error(-107);
    #[doc = "Cannot send after transport endpoint shutdown."]
    pub const ESHUTDOWN: Error = Error(-108);
    #[doc = "Too many references: cannot splice."]
    pub const ETOOMANYREFS: Error = Error(-109);
    #[doc = "Connection timed out."]
    pub const ETIMEDOUT: Error = Error(-110);
    #[doc = "Connection refused."]
    pub const ECONNREFUSED: Error = Error(-111);
    #[doc = "Host is down."]
    pub const EHOSTDOWN: Error = Error(-112);
    #[doc = "No route to host."]
    pub const EHOSTUNREACH: Error = Error(-113);
    #[doc = "Operation already in progress."]
    pub const EALREADY: Error = Error(-114);
    #[doc = "Operation now in progress."]
    pub const EINPROGRESS: Error = Error(-115);
    #[doc = "Stale file handle."]
    pub const ESTALE: Error = Error(-116);
    #[doc = "Structure needs cleaning."]
    pub const EUCLEAN: Error = Error(-117);
    #[doc = "Filesystem is corrupted."]
    pub const EFSCORRUPTED: Error = Error(-117);
    #[doc = "Not a XENIX named type file."]
    pub const ENOTNAM: Error = Error(-118);
    #[doc = "No XENIX semaphores available."]
    pub const ENAVAIL: Error = Error(-119);
    #[doc = "Is a named type file."]
    pub const EISNAM: Error = Error(-120);
    #[doc = "Remote I/O error."]
    pub const EREMOTEIO: Error = Error(-121);
    #[doc = "Quota exceeded."]
    pub const EDQUOT: Error = Error(-122);
    #[doc = "No medium found."]
    pub const ENOMEDIUM: Error = Error(-123);
    #[doc = "Wrong medium type."]
    pub const EMEDIUMTYPE: Error = Error(-124);
    #[doc = "Operation Canceled."]
    pub const ECANCELED: Error = Error(-125);
    #[doc = "Required key not available."]
    pub const ENOKEY: Error = Error(-126);
    #[doc = "Key has expired."]
    pub const EKEYEXPIRED: Error = Error(-127);
    #[doc = "Key has been revoked."]
    pub const EKEYREVOKED: Error = Error(-128);
    #[doc = "Key was rejected by service."]
    pub const EKEYREJECTED: Error = Error(-129);
    #[doc = "Owner died."]
    pub const EOWNERDEAD: Error = Error(-130);
    #[doc = "State not recoverable."]
    pub const ENOTRECOVERABLE: Error = Error(-131);
    #[doc = "Operation not possible due to RF-kill."]
    pub const ERFKILL: Error = Error(-132);
    #[doc = "Memory page has hardware error."]
    pub const EHWPOISON: Error = Error(-133);
    #[doc = "Wrong file type for the intended operation."]
    pub const EFTYPE: Error = Error(-134);
    #[doc = "Restart the system call."]
    pub const ERESTARTSYS: Error = Error(-512);
    #[doc = "System call was interrupted by a signal and will be restarted."]
    pub const ERESTARTNOINTR: Error = Error(-513);
    #[doc = "Restart if no handler."]
    pub const ERESTARTNOHAND: Error = Error(-514);
    #[doc = "No ioctl command."]
    pub const ENOIOCTLCMD: Error = Error(-515);
    #[doc = "Restart by calling sys_restart_syscall."]
    pub const ERESTART_RESTARTBLOCK: Error = Error(-516);
    #[doc = "Driver requests probe retry."]
    pub const EPROBE_DEFER: Error = Error(-517);
    #[doc = "Open found a stale dentry."]
    pub const EOPENSTALE: Error = Error(-518);
    #[doc = "Parameter not supported."]
    pub const ENOPARAM: Error = Error(-519);
    #[doc = "Illegal NFS file handle."]
    pub const EBADHANDLE: Error = Error(-521);
    #[doc = "Update synchronization mismatch."]
    pub const ENOTSYNC: Error = Error(-522);
    #[doc = "Cookie is stale."]
    pub const EBADCOOKIE: Error = Error(-523);
    #[doc = "Operation is not supported."]
    pub const ENOTSUPP: Error = Error(-524);
    #[doc = "Buffer or request is too small."]
    pub const ETOOSMALL: Error = Error(-525);
    #[doc = "An untranslatable error occurred."]
    pub const ESERVERFAULT: Error = Error(-526);
    #[doc = "Type not supported by server."]
    pub const EBADTYPE: Error = Error(-527);
    #[doc = "Request initiated, but will not complete before timeout."]
    pub const EJUKEBOX: Error = Error(-528);
    #[doc = "iocb queued, will get completion event."]
    pub const EIOCBQUEUED: Error = Error(-529);
    #[doc = "Conflict with recalled state."]
    pub const ERECALLCONFLICT: Error = Error(-530);
    #[doc = "NFS file lock reclaim refused."]
    pub const ENOGRACE: Error = Error(-531);
}

const MAX_ERRNO: i32 = 4095;

#[rustfmt::skip]
const NAMES: &[(i32, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (8, "ENOEXEC"),
    (9, "EBADF"),
    (10, "ECHILD"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (15, "ENOTBLK"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (18, "EXDEV"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (25, "ENOTTY"),
    (26, "ETXTBSY"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (30, "EROFS"),
    (31, "EMLINK"),
    (32, "EPIPE"),
    (33, "EDOM"),
    (34, "ERANGE"),
    (35, "EDEADLK"),
    (36, "ENAMETOOLONG"),
    (37, "ENOLCK"),
    (38, "ENOSYS"),
    (39, "ENOTEMPTY"),
    (40, "ELOOP"),
    (42, "ENOMSG"),
    (43, "EIDRM"),
    (44, "ECHRNG"),
    (45, "EL2NSYNC"),
    (46, "EL3HLT"),
    (47, "EL3RST"),
    (48, "ELNRNG"),
    (49, "EUNATCH"),
    (50, "ENOCSI"),
    (51, "EL2HLT"),
    (52, "EBADE"),
    (53, "EBADR"),
    (54, "EXFULL"),
    (55, "ENOANO"),
    (56, "EBADRQC"),
    (57, "EBADSLT"),
    (59, "EBFONT"),
    (60, "ENOSTR"),
    (61, "ENODATA"),
    (62, "ETIME"),
    (63, "ENOSR"),
    (64, "ENONET"),
    (65, "ENOPKG"),
    (66, "EREMOTE"),
    (67, "ENOLINK"),
    (68, "EADV"),
    (69, "ESRMNT"),
    (70, "ECOMM"),
    (71, "EPROTO"),
    (72, "EMULTIHOP"),
    (73, "EDOTDOT"),
    (74, "EBADMSG"),
    (75, "EOVERFLOW"),
    (76, "ENOTUNIQ"),
    (77, "EBADFD"),
    (78, "EREMCHG"),
    (79, "ELIBACC"),
    (80, "ELIBBAD"),
    (81, "ELIBSCN"),
    (82, "ELIBMAX"),
    (83, "ELIBEXEC"),
    (84, "EILSEQ"),
    (85, "ERESTART"),
    (86, "ESTRPIPE"),
    (87, "EUSERS"),
    (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"),
    (90, "EMSGSIZE"),
    (91, "EPROTOTYPE"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (94, "ESOCKTNOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (96, "EPFNOSUPPORT"),
    (97, "EAFNOSUPPORT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (102, "ENETRESET"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (108, "ESHUTDOWN"),
    (109, "ETOOMANYREFS"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
    (115, "EINPROGRESS"),
    (116, "ESTALE"),
    (117, "EUCLEAN"),
    (118, "ENOTNAM"),
    (119, "ENAVAIL"),
    (120, "EISNAM"),
    (121, "EREMOTEIO"),
    (122, "EDQUOT"),
    (123, "ENOMEDIUM"),
    (124, "EMEDIUMTYPE"),
    (125, "ECANCELED"),
    (126, "ENOKEY"),
    (127, "EKEYEXPIRED"),
    (128, "EKEYREVOKED"),
    (129, "EKEYREJECTED"),
    (130, "EOWNERDEAD"),
    (131, "ENOTRECOVERABLE"),
    (132, "ERFKILL"),
    (133, "EHWPOISON"),
    (134, "EFTYPE"),
    (512, "ERESTARTSYS"),
    (513, "ERESTARTNOINTR"),
    (514, "ERESTARTNOHAND"),
    (515, "ENOIOCTLCMD"),
    (516, "ERESTART_RESTARTBLOCK"),
    (517, "EPROBE_DEFER"),
    (518, "EOPENSTALE"),
    (519, "ENOPARAM"),
    (521, "EBADHANDLE"),
    (522, "ENOTSYNC"),
    (523, "EBADCOOKIE"),
    (524, "ENOTSUPP"),
    (525, "ETOOSMALL"),
    (526, "ESERVERFAULT"),
    (527, "EBADTYPE"),
    (528, "EJUKEBOX"),
    (529, "EIOCBQUEUED"),
    (530, "ERECALLCONFLICT"),
    (531, "ENOGRACE"),
];

/// A kernel error code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(i32);

impl Error {
    /// The error of a negative errno; EINVAL when it is out of range.
    pub fn from_errno(errno: i32) -> Self {
        if (-MAX_ERRNO..0).contains(&errno) {
            Self(errno)
        } else {
            crate::pr_warn!(
                "attempted to create `Error` with out of range `errno`: {}\n",
                errno
            );
            code::EINVAL
        }
    }

    /// The negative errno.
    pub fn to_errno(self) -> i32 {
        self.0
    }

    /// The symbolic name (user space only: the kernel's `name` gives a C string).
    pub fn symbol(&self) -> Option<&'static str> {
        NAMES.iter().find(|(v, _)| *v == -self.0).map(|(_, n)| *n)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbol() {
            Some(name) => f.write_str(name),
            None => f.debug_tuple("Error").field(&-self.0).finish(),
        }
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        code::ENOMEM
    }
}

impl From<core::num::TryFromIntError> for Error {
    fn from(_: core::num::TryFromIntError) -> Self {
        code::EINVAL
    }
}

impl From<core::str::Utf8Error> for Error {
    fn from(_: core::str::Utf8Error) -> Self {
        code::EINVAL
    }
}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Self {
        code::EINVAL
    }
}

impl From<core::convert::Infallible> for Error {
    fn from(e: core::convert::Infallible) -> Self {
        match e {}
    }
}

/// A `Result` with an [`Error`].
pub type Result<T = (), E = Error> = core::result::Result<T, E>;
