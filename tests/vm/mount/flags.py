#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Sets flags in every combination and compares the attributes of statx(2): flags.py PATH...

flags.py --only FLAGS PATH... sets none: these are there.
"""
import ctypes
import fcntl
import itertools
import os
import struct
import sys

AT_FDCWD = -100
FS_IOC_SETFLAGS = 0x40086602
# Name: the flag of FS_IOC_SETFLAGS, the attribute of statx, which is none for some.
FLAGS = {"i": (0x10, 0x10), "a": (0x20, 0x20), "d": (0x40, 0x40), "S": (8, 0), "A": (0x80, 0)}
EVERY = 0x70

libc = ctypes.CDLL(None)


def check(path, flags):
    buffer = ctypes.create_string_buffer(256)
    assert libc.statx(AT_FDCWD, path.encode(), 0, 0x7FF, buffer) == 0
    attributes = struct.unpack_from("Q", buffer, 8)[0]
    mask = struct.unpack_from("Q", buffer, 56)[0]
    want = sum(FLAGS[f][1] for f in flags)
    if mask & EVERY != EVERY or attributes & EVERY != want:
        sys.exit("%s %s: attributes %#x of %#x" % (path, flags, attributes, mask))


if sys.argv[1] == "--only":
    for path in sys.argv[3:]:
        check(path, sys.argv[2])
    sys.exit()
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    for n in range(len(FLAGS) + 1):
        for flags in itertools.combinations(FLAGS, n):
            value = sum(FLAGS[f][0] for f in flags)
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("L", value))
            check(path, flags)
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("L", 0))
