#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Calls that must succeed on a read-only mount: read-only.py DIRECTORY FILE"""
import ctypes
import errno
import fcntl
import os
import struct
import sys

FIGETBSZ = 2
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 1
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
SYNC_FILE_RANGE_ALL = 7

libc = ctypes.CDLL(None, use_errno=True)
top, name = sys.argv[1:]
path = os.path.join(top, name)


def call(function, *args):
    if function(*args) != 0:
        e = ctypes.get_errno()
        sys.exit("%s: %s: %s" % (name, function.__name__, errno.errorcode[e]))


def refused(what, *args):
    try:
        what(*args)
    except OSError as e:
        assert e.errno == errno.EROFS, e
        return
    sys.exit("%s%r went through" % (what.__name__, args))


with open(path, "rb") as file:
    data = file.read()
    assert data
for here in (path, top):
    fd = os.open(here, os.O_RDONLY)
    call(libc.fsync, fd)
    call(libc.fdatasync, fd)
    call(libc.syncfs, fd)
    assert struct.unpack("i", fcntl.ioctl(fd, FIGETBSZ, struct.pack("i", 0))) == (4096,)
    if here == path:
        call(libc.sync_file_range, fd, ctypes.c_long(0), ctypes.c_long(0), SYNC_FILE_RANGE_ALL)
        request = struct.pack("=QQIIII", 0, 1 << 62, FIEMAP_FLAG_SYNC, 0, 0, 0)
        extents = struct.unpack("=QQIIII", fcntl.ioctl(fd, FS_IOC_FIEMAP, request))[3]
        assert extents > 0, extents
    os.fstat(fd)
    os.fstatvfs(fd)
    os.close(fd)
os.sync()
fd = os.open(top, os.O_RDONLY)
fcntl.ioctl(fd, FIFREEZE, 0)
os.listdir(top)
call(libc.fsync, fd)
fcntl.ioctl(fd, FITHAW, 0)
refused(os.mkdir, os.path.join(top, "no"))
refused(os.chmod, path, 0o600)
refused(os.truncate, path, 0)
