# SPDX-License-Identifier: GPL-2.0
"""R4, look again under the lock: a write and a page fault reserve the same block.

A write into a hole is held between its first look, which found that space must be
reserved, and its second. Meanwhile a store to the same block makes it delalloc. The
write must find that out and give its reservation back. Otherwise the block is
reserved twice, and the second reservation is never released.
"""
import mmap
import os

from bed import BLOCK, check, main, Child

LEN = 4 * BLOCK


def write(bed):
    assert os.pwrite(bed.open("file"), b"w" * 100, 0) == 100


def store(bed):
    area = mmap.mmap(bed.open("file"), LEN)
    area[2000] = ord("s")


def free(bed):
    """Free blocks when nothing is dirty, and nothing waits to be freed."""
    os.sync()
    os.sync()
    return os.statvfs(bed.mnt).f_bfree


def race(bed):
    bed.hold("map_write")
    writer = Child("write", write, bed)
    bed.wait_held("map_write", writer)
    storer = Child("store", store, bed)
    assert storer.join() == 0
    bed.tag("map_write", "off")
    assert writer.join() == 0


def test(bed):
    fd = bed.open("file")
    os.ftruncate(fd, LEN)
    before = free(bed)
    race(bed)
    bed.evidence(("window", "map_write enter"), ("fault", ""), ("delalloc", "used"),
                 ("map_write", "delalloc"), ("fault_done", ""), ("window", "map_write leave"),
                 ("delalloc", "used"), ("map_write", "delalloc"))
    os.fsync(fd)
    blocks = os.fstat(fd).st_blocks * 512 // BLOCK
    os.ftruncate(fd, 0)
    os.ftruncate(fd, LEN)
    after = free(bed)
    # And once more with a power cut.
    race(bed)
    os.fsync(fd)
    bed.cut_power()
    os.close(fd)
    bed.after_power_cut()
    data = bed.read("file", LEN)
    want = bytearray(LEN)
    want[:100] = b"w" * 100
    want[2000] = ord("s")
    check(data == bytes(want), "data of the write or of the store")
    print("blocks of the file: %d; free blocks before and after: %d, %d" % (blocks, before, after))
    check(after == before, "%d reserved blocks were never released" % (before - after))
    check(blocks == 1, "%d blocks of a file that has one" % blocks)


main(test)
