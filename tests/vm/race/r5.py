# SPDX-License-Identifier: GPL-2.0
"""R5, cached mappings expire: a write through a mapping that is no longer true.

A preallocated block has dirty data. A write into the same block looks the mapping
up ("preallocated, reads as zeroes") and is held before it locks the folio.
Meanwhile the data is written back and its page reclaimed. With the old mapping the
write would take the rest of the block for zeroes. The filesystem must see that the
mapping is stale. (The counterpart of xfs/559.)
"""
import os

from bed import BLOCK, check, drop_caches, main, write_back, Child


def write(bed):
    assert os.pwrite(bed.open("file"), b"b", 100) == 1


def test(bed):
    fd = bed.open("file")
    os.posix_fallocate(fd, 0, BLOCK)
    os.pwrite(fd, b"a" * BLOCK, 0)
    bed.hold("mapped")
    writer = Child("write", write, bed)
    bed.wait_held("mapped", writer)
    write_back(fd)
    drop_caches(1)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    bed.tag("mapped", "off")
    assert writer.join() == 0
    bed.evidence(("map_write", "unwritten"), ("window", "mapped enter"),
                 ("ordered_finish", "error 0"), ("window", "mapped leave"))
    stale = bed.events("map_stale", "for write")
    for event in stale:
        bed.show(event)
    os.fsync(fd)
    bed.cut_power()
    os.close(fd)
    bed.after_power_cut()
    data = bed.read("file", BLOCK)
    want = b"a" * 100 + b"b" + b"a" * (BLOCK - 101)
    check(data == want, "the rest of a block: %r..." % (data and data[:4]))
    check(stale, "a stale mapping was not seen")


main(test)
