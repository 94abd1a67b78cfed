#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Fills the log: fill-log.py DIRECTORY DISK

16 files grow by 4 KiB and an fsync in turn, a batch of one block each, until the
log is full but for one step.  The mount must not commit because of the time (-o
commit=300).  Prints how many fsyncs that took, and the blocks of the log in use.
"""
import os
import sys

folder, disk = sys.argv[1:]


def value(name):
    with open("/sys/fs/ordofs/%s/%s" % (disk, name), encoding="ascii") as f:
        return int(f.read())


files = [os.open("%s/grows.%d" % (folder, i), os.O_CREAT | os.O_WRONLY, 0o644)
         for i in range(16)]
os.sync()
commits, size = value("commits"), value("log_blocks")
done = used = step = 0
while used + 2 * step <= size:
    for fd in files * 4:
        os.write(fd, b"a" * 4096)
        os.fsync(fd)
        done += 1
    step, used = max(step, value("log_used") - used), value("log_used")
    if value("commits") != commits:
        sys.exit("a commit emptied the log after %d fsyncs" % done)
print("trace: %d fsyncs, %d of %d blocks of the log" % (done, used, size))
