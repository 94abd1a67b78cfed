# SPDX-License-Identifier: GPL-2.0
"""R1, ordered before mapped: fsync meets a direct write into preallocated blocks.

The writer is held between ordered extent and extent map, and then with its data
not yet sent to the device. An fsync of the same file comes in the first window. It
must not collect before the pair is complete, and must not return before the I/O of
what it may have collected has ended; else the log describes blocks that were never
written, and replay makes what lies there appear in the file.
"""
import os

from bed import BLOCK, aligned, check, fallocate, main, write_back, Child

N = 4
STALE = b"x" * N * BLOCK
NEW = b"n" * N * BLOCK
SAFE = b"s" * BLOCK


def write_direct(bed):
    fd = bed.open("file", os.O_DIRECT)
    assert os.pwritev(fd, [aligned(NEW)], 0) == len(NEW)


def sync(bed):
    os.fsync(bed.open("file"))


def test(bed):
    fd = bed.open("file")
    fallocate(fd, 0, 0, 16 * BLOCK)
    os.close(fd)
    bed.spoil("file", STALE)
    fd = bed.open("file")
    # The fsync below must make this durable, whatever happens to the direct write.
    os.pwrite(fd, SAFE, 8 * BLOCK)
    write_back(fd)

    bed.hold("ordered_inserted")
    bed.hold("data_io")
    writer = Child("writer", write_direct, bed)
    bed.wait_held("ordered_inserted", writer)
    window = bed.wait_event("window", "ordered_inserted enter")
    syncer = Child("fsync", sync, bed)
    bed.wait_event("fsync_start", unless=syncer, after=window.when)
    early = None
    if not syncer.runs_for(bed.patience):
        early = "fsync returned while a write was between ordered extent and extent map"
    bed.tag("ordered_inserted", "off")
    bed.wait_held("data_io", writer)
    if early is None:
        # It must wait for the ordered extent now; if it has ended already, that is wrong.
        bed.wait_event("fsync_wait", unless=syncer, after=window.when)
        if not syncer.runs_for(bed.patience):
            early = "fsync returned while the data of a mapping was in flight"
    if early is None:
        bed.tag("data_io", "off")
        assert writer.join() == 0 and syncer.join() == 0
        bed.evidence(("ordered_insert", "direct"), ("window", "ordered_inserted enter"),
                     ("fsync_start", ""), ("window", "ordered_inserted leave"),
                     ("ordered_mapped", "direct"), ("fsync_wait", "in flight 1"),
                     ("window", "data_io leave"), ("ordered_finish", "error 0"),
                     ("fsync_collect", ""), ("log_batch", "error 0"))
        bed.cut_power()
    else:
        # The power goes before the device has seen the data.
        print(early)
        bed.cut_power()
        bed.tag("data_io", "error=5")
        writer.join()
    os.close(fd)
    bed.after_power_cut()
    data = bed.read("file", len(NEW))
    check(data in (bytes(len(NEW)), NEW),
          "stale blocks appear in the file: %r" % (data and data[:8]))
    check(bed.read("file", BLOCK, 8 * BLOCK) == SAFE, "data that an fsync acknowledged")
    check(early is None, early)
    check(data == NEW, "data of a direct write that an fsync acknowledged")


main(test)
