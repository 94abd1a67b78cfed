#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What fsync costs: fsync-cost.py DIRECTORY DISK THREADS

Each thread appends 4 KiB to a file of its own and calls fsync, 1024 times in
all.  Prints the requests that the disk counted meanwhile (/sys/block/DISK/stat)
and the median and mean time of an fsync:
  fsyncs=1024 writes=N flushes=N median_us=N mean_us=N
"""
import os
import statistics
import sys
import threading
import time

TOTAL = 1024
folder, disk, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])


def counters():
    with open("/sys/block/%s/stat" % disk, encoding="ascii") as f:
        fields = [int(v) for v in f.read().split()]
    # Documentation/block/stat.rst: write I/Os, flush I/Os.
    return fields[4], fields[15]


def work(number, times, count):
    fd = os.open("%s/fsync-cost.%d" % (folder, number), os.O_CREAT | os.O_WRONLY, 0o644)
    data = bytes([number + 1]) * 4096
    start.wait()
    for _ in range(count):
        os.write(fd, data)
        begin = time.monotonic_ns()
        os.fsync(fd)
        times.append(time.monotonic_ns() - begin)
    os.close(fd)


start = threading.Barrier(threads + 1)
lists = [[] for _ in range(threads)]
workers = [threading.Thread(target=work, args=(i, lists[i], TOTAL // threads))
           for i in range(threads)]
for w in workers:
    w.start()
# The files' names are not part of what is measured.
time.sleep(0.2)
os.sync()
before = counters()
start.wait()
for w in workers:
    w.join()
after = counters()
times = [t for one in lists for t in one]
print("fsyncs=%d writes=%d flushes=%d median_us=%d mean_us=%d" % (
    len(times), after[0] - before[0], after[1] - before[1],
    statistics.median(times) / 1000, statistics.mean(times) / 1000))
