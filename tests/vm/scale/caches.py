#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Fill and empty the caches of a mount: caches.py WHAT DIRECTORY EXTENTS FILES

attributes: read the large attributes that ordofs-populate made, for their nodes.
write:      write EXTENTS single blocks, so few in each file that their maps stay after the commit.
check:      read a part of both.
And caches.py hog MIB takes memory and gives it back.
"""
import mmap
import os
import struct
import sys

BLOCK = 4096
PER_FILE = 125


def attributes(folder, _extents, files, step=1):
    for i in range(0, files, step):
        value = os.getxattr("%s/attributes/%d" % (folder, i), "user.large")
        assert value == struct.pack("<I", i) * (65536 // 4), i


def write(folder, extents, _files):
    # A processor each.
    child = os.fork()
    for number in range(0 if child else 1, extents // PER_FILE, 2):
        fd = os.open("%s/extents%d" % (folder, number), os.O_CREAT | os.O_RDWR)
        for block in range(PER_FILE):
            os.pwrite(fd, struct.pack("<II", number, block), 2 * block * BLOCK)
        os.close(fd)
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the other process failed"
    os.sync()


def check(folder, extents, files):
    attributes(folder, extents, files, 50)
    for number in range(0, extents // PER_FILE, 50):
        with open("%s/extents%d" % (folder, number), "rb") as f:
            data = f.read()
        for block in range(PER_FILE):
            at = 2 * block * BLOCK
            assert data[at:at + 8] == struct.pack("<II", number, block), (number, block)
            assert not any(data[at + 8:at + 2 * BLOCK]), (number, block)


def hog(mib):
    hold = []
    for _ in range(mib // 16):
        piece = mmap.mmap(-1, 16 << 20)
        for page in range(0, 16 << 20, BLOCK):
            piece[page] = 1
        hold.append(piece)


if sys.argv[1] == "hog":
    hog(int(sys.argv[2]))
else:
    {"attributes": attributes, "write": write, "check": check}[sys.argv[1]](
        sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
