#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes the image of a hibernation, and does not use it: hibernation.py DIRECTORY SYSFS

All programs but this one are frozen first, then the kernel's threads. Files are written before and after
that: from when the image is made on, nothing of them may get to the disk.
"""
import fcntl
import os
import struct
import sys
import time

FREEZE, UNFREEZE, FREE, CREATE_IMAGE = 0x3301, 0x3302, 0x3305, 0x40043311
# Several intervals of commits.
FROZEN = 5

top, counters = sys.argv[1:]


def commits():
    with open(os.path.join(counters, "commits")) as f:
        return int(f.read())


def write(name):
    for i in range(10):
        with open(os.path.join(top, "%s-%d" % (name, i)), "w") as f:
            f.write("text" * 100000)


snapshot = os.open("/dev/snapshot", os.O_RDONLY)
fcntl.ioctl(snapshot, FREEZE)
try:
    write("before")
    made = fcntl.ioctl(snapshot, CREATE_IMAGE, struct.pack("i", 0))
    if struct.unpack("i", made) == (0,):
        sys.exit("no image was made")
    before = commits()
    write("after")
    time.sleep(FROZEN)
    between = commits() - before
    fcntl.ioctl(snapshot, FREE)
finally:
    fcntl.ioctl(snapshot, UNFREEZE)
if between != 0:
    sys.exit("%d commits while the image was made" % between)
for _ in range(60):
    if commits() > before:
        break
    time.sleep(0.5)
else:
    sys.exit("no commit after all was thawed")
print("no commit in %d s with the kernel's threads frozen, and one after" % FROZEN)
