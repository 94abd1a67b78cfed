#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Which filesystem has the faster fsync: fsync-compare.py DIRECTORY DIRECTORY...

Appends 4 KiB to a file in each directory and calls fsync, 512 times in all, in
turns of 16, so that whatever else the machine does meanwhile slows all of them
alike.  Prints a line for each, with the median time of an fsync:
  DIRECTORY median_us=N
"""
import os
import statistics
import sys
import time

TURNS, EACH = 32, 16
DATA = b"o" * 4096

folders = sys.argv[1:]
files = [os.open(f + "/fsync-compare", os.O_CREAT | os.O_WRONLY, 0o644) for f in folders]
times = [[] for _ in folders]
os.sync()
# The first turn warms up.
for turn in range(TURNS + 1):
    for fd, mine in zip(files, times):
        for _ in range(EACH):
            os.write(fd, DATA)
            begin = time.monotonic_ns()
            os.fsync(fd)
            if turn > 0:
                mine.append(time.monotonic_ns() - begin)
for folder, mine in zip(folders, times):
    print("%s median_us=%d" % (folder, statistics.median(mine) / 1000))
