#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Stops a filesystem (FS_IOC_SHUTDOWN): shutdown.py DIRECTORY FLAGS"""
import errno
import fcntl
import os
import struct
import sys

FS_IOC_SHUTDOWN = 0x8004587D
fd = os.open(sys.argv[1], os.O_RDONLY)
try:
    fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", 9))
    sys.exit("flags 9 were taken")
except OSError as e:
    assert e.errno == errno.EINVAL, e
fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", int(sys.argv[2])))
for what in (lambda: os.mkdir(os.path.join(sys.argv[1], "after-shutdown")), lambda: os.fsync(fd)):
    try:
        what()
        sys.exit("an operation went through after the shutdown")
    except OSError as e:
        assert e.errno == errno.EIO, e
