# SPDX-License-Identifier: GPL-2.0
"""Writeback that fails: which calls return the error, and how often.

Truncation and the like write a range first. They fail if this fails, and not because
something else failed, whether anybody has heard of that or not. An open file is told of
an error once.
"""
import ctypes
import errno
import mmap
import os

from bed import BLOCK, check, libc, main, Child

WRITE = 2


def fails(what, *args):
    try:
        what(*args)
    except OSError as e:
        return e.errno == errno.EIO
    return False


def fail_once(bed, fd, pos):
    """Writeback of the block at `pos` fails, and no call has returned the error yet."""
    os.pwrite(fd, b"x" * BLOCK, pos)
    before = bed.events()[-1].when
    bed.tag("data_io", "error=5 times=1")
    # A call that waits for it would return the error.
    assert libc.sync_file_range(fd, ctypes.c_long(pos), ctypes.c_long(BLOCK), WRITE) == 0
    bed.wait_event("ordered_finish", "error -5", after=before)
    bed.tag("data_io", "off")


def sync_page(bed, pos):
    page = mmap.mmap(bed.open("other"), BLOCK, offset=pos)
    page.flush()


def truncate(bed, size):
    os.truncate(bed.path("other"), size)


def new(bed, name, blocks):
    fd = bed.open(name)
    os.pwrite(fd, b"o" * blocks * BLOCK, 0)
    os.fsync(fd)
    return fd


def test(bed):
    # The file's own range fails: no size over lost data, whatever failed before in the same way.
    fd = new(bed, "own", 1)
    fail_once(bed, fd, 0)
    os.pwrite(fd, b"a" * BLOCK, BLOCK)
    bed.tag("data_io", "error=5 times=1")
    check(fails(os.ftruncate, fd, 8 * BLOCK), "the size was raised over lost data")
    bed.tag("data_io", "off")
    check(fails(os.fsync, fd), "fsync does not tell of the lost data")
    os.fsync(fd)
    os.close(fd)

    # fsync returns an older error while a truncation waits for its own I/O.
    fd = new(bed, "other", 8)
    fail_once(bed, fd, 0)
    os.pwrite(fd, b"a" * BLOCK, 8 * BLOCK)
    bed.hold("data_io")
    cutter = Child("truncate", truncate, bed, 16 * BLOCK)
    bed.wait_held("data_io", cutter)
    syncer = Child("msync", sync_page, bed, 4 * BLOCK)
    syncer.runs_for(bed.patience)
    bed.tag("data_io", "off")
    check(cutter.join() == 0, "truncate failed because of the error of another page")
    syncer.join()
    check(fails(os.fsync, fd), "fsync does not tell of the error that was somebody else's")
    os.close(fd)

    # A synchronous write brings the appended blocks before it along: one error, returned once.
    plain = new(bed, "range", 1)
    fd = bed.open("range", os.O_DSYNC)
    os.pwrite(plain, b"a" * BLOCK, BLOCK)
    bed.tag("data_io", "error=5 times=1")
    check(fails(os.pwrite, fd, b"b" * BLOCK, 2 * BLOCK), "a synchronous write lost data")
    bed.tag("data_io", "off")
    check(not fails(os.fsync, fd), "the same error is told twice")
    check(fails(os.fsync, plain), "the other open file is not told")
    check(not fails(os.fsync, plain), "the other open file is told twice")
    os.close(plain)
    os.close(fd)


if __name__ == "__main__":
    main(test)
