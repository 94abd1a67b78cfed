#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What docs/MOUNT.md says of ioctls and system calls: interface.py DIRECTORY OTHER-DIRECTORY (of one mount)"""
import ctypes
import errno
import fcntl
import os
import struct
import sys

FS_IOC_SHUTDOWN = 0x8004587D
FS_IOC_GETVERSION = 0x80087601
FS_IOC32_GETVERSION = 0x80047601
FS_IOC_SETFLAGS = 0x40086602
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
FITRIM = 0xC0185879
FICLONE = 0x40049409
COMPRESS, DIRSYNC = 0x4, 0x10000
COLLAPSE, KEEP_SIZE, PUNCH, ZERO = 8, 1, 2, 0x10
RWF_NOWAIT = 8
XFLAG_NODUMP = 0x80

libc = ctypes.CDLL(None, use_errno=True)


def fails(code, what, *arguments):
    try:
        what(*arguments)
    except OSError as e:
        assert e.errno == code, f"{arguments}: {errno.errorcode[e.errno]} instead of {errno.errorcode[code]}"
        return
    sys.exit(f"went through: {arguments}")


def fallocate(fd, mode, at, length):
    r = libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length))
    if r:
        raise OSError(ctypes.get_errno(), "fallocate")


folder, other = sys.argv[1:]
path = os.path.join(folder, "interface")
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * 65536)
os.fsync(fd)
directory = os.open(folder, os.O_RDONLY)

# The generation, by both numbers, of files and directories.
for at in fd, directory:
    wide = struct.unpack("I", fcntl.ioctl(at, FS_IOC_GETVERSION, b"\0" * 8)[:4])
    assert struct.unpack("I", fcntl.ioctl(at, FS_IOC32_GETVERSION, b"\0" * 4)) == wide
# Flags that are not those of chattr, and the extended form.
fails(errno.EOPNOTSUPP, fcntl.ioctl, fd, FS_IOC_SETFLAGS, struct.pack("L", COMPRESS))
fails(errno.EOPNOTSUPP, fcntl.ioctl, fd, FS_IOC_SETFLAGS, struct.pack("L", DIRSYNC))
fcntl.ioctl(directory, FS_IOC_SETFLAGS, struct.pack("L", DIRSYNC))
fcntl.ioctl(directory, FS_IOC_SETFLAGS, struct.pack("L", 0))
# The second number is an extent size hint, the fourth a project.
attributes = struct.pack("IIIII8x", XFLAG_NODUMP, 0, 0, 0, 0)
fcntl.ioctl(fd, FS_IOC_FSSETXATTR, attributes)
assert fcntl.ioctl(fd, FS_IOC_FSGETXATTR, b"\0" * 28) == attributes
fails(errno.EOPNOTSUPP, fcntl.ioctl, fd, FS_IOC_FSSETXATTR, struct.pack("IIIII8x", 0, 4096, 0, 0, 0))
fails(errno.EOPNOTSUPP, fcntl.ioctl, fd, FS_IOC_FSSETXATTR, struct.pack("IIIII8x", 0, 0, 0, 7, 0))
# Free space is discarded, but for the beginning.
start, trimmed, least = struct.unpack("QQQ", fcntl.ioctl(directory, FITRIM, struct.pack("QQQ", 1 << 20, 2**64 - 1, 0)))
assert start == 1 << 20 and trimmed > 0 and trimmed % 4096 == 0 and least > 0, (start, trimmed, least)
for start, length, least in (2**64 - 1, 2**64 - 1, 0), (0, 4095, 0), (0, 1 << 30, (32 << 20) + 1):
    fails(errno.EINVAL, fcntl.ioctl, fd, FITRIM, struct.pack("QQQ", start, length, least))
assert libc.ioctl(fd, ctypes.c_ulong(FITRIM), ctypes.c_void_p(8)) == -1
assert ctypes.get_errno() == errno.EFAULT
# Calls that are not supported.
clone = os.open(os.path.join(other, "clone"), os.O_RDWR | os.O_CREAT)
fails(errno.EOPNOTSUPP, fcntl.ioctl, clone, FICLONE, fd)
fails(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE, 0, 4096)
for mode in 0, KEEP_SIZE, PUNCH | KEEP_SIZE, ZERO, ZERO | KEEP_SIZE:
    fallocate(fd, mode, 4096, 4096)
fails(errno.EOPNOTSUPP, os.preadv, fd, [bytearray(10)], 0, RWF_NOWAIT)
fails(errno.EOPNOTSUPP, os.pwritev, fd, [b"y"], 0, RWF_NOWAIT)
# Shutting down takes a capability, a readable argument and a known number.
fails(errno.EINVAL, fcntl.ioctl, fd, FS_IOC_SHUTDOWN, struct.pack("I", 3))
assert libc.ioctl(fd, ctypes.c_ulong(FS_IOC_SHUTDOWN), ctypes.c_void_p(8)) == -1
assert ctypes.get_errno() == errno.EFAULT
child = os.fork()
if child == 0:
    os.setuid(1000)
    fails(errno.EPERM, fcntl.ioctl, fd, FS_IOC_SHUTDOWN, struct.pack("I", 2))
    fails(errno.EPERM, fcntl.ioctl, fd, FITRIM, struct.pack("QQQ", 0, 1 << 30, 0))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
