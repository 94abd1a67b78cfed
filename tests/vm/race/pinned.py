# SPDX-License-Identifier: GPL-2.0
"""Checksums of pages that are being written to past the page table.

A direct read from another device goes into a shared mapping of a file: its pages are
pinned, and the device writes to them when it likes. fsync of the file meanwhile
computes checksums, and is held before it sends the data to the device; then the other
device answers. What fsync acknowledged must be readable: as it was before the answer,
or as it was afterwards.
"""
import mmap
import os
import time

from bed import BLOCK, Bed, aligned, check, main, Child

N = 24
STORED = b"s" * N * BLOCK
ARRIVES = b"a" * N * BLOCK
DM = "ordofs-pinned"


def read_into(bed, source, ready):
    page = mmap.mmap(bed.open("file"), len(STORED))
    page[:] = STORED
    os.write(ready, b"x")
    assert os.preadv(source, [page], 0) == len(ARRIVES)


def sync(bed):
    os.fsync(bed.open("file"))


def sleeps(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        return f.read().rpartition(")")[2].split()[0] == "D"


def test(bed):
    device = os.environ["SCRATCH_DEV"]
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    assert os.pwritev(fd, [aligned(ARRIVES)], 0) == len(ARRIVES)
    os.close(fd)
    table = "0 %s linear %s 0" % (Bed.run("blockdev", "--getsz", device).strip(), device)
    Bed.run("dmsetup", "create", DM, "--table", table)
    try:
        pinned(bed)
    finally:
        Bed.run("dmsetup", "resume", DM)
        Bed.run("dmsetup", "remove", "--retry", DM)


def pinned(bed):
    source = os.open("/dev/mapper/" + DM, os.O_RDONLY | os.O_DIRECT)
    Bed.run("dmsetup", "suspend", "--noflush", "--nolockfs", DM)
    fd = bed.open("file")
    os.ftruncate(fd, len(STORED))
    wait, ready = os.pipe()
    reader = Child("direct read", read_into, bed, source, ready)
    os.close(ready)
    assert os.read(wait, 1) == b"x"
    os.close(wait)
    until = time.monotonic() + 30
    slept = 0
    while slept < 10:
        assert reader.running() and time.monotonic() < until, "the read does not wait"
        slept = slept + 1 if sleeps(reader.pid) else 0
        time.sleep(0.02)

    bed.hold("data_io")
    syncer = Child("fsync", sync, bed)
    bed.wait_held("data_io", syncer)
    Bed.run("dmsetup", "resume", DM)
    os.close(source)
    assert reader.join() == 0
    bed.tag("data_io", "off")
    assert syncer.join() == 0
    bed.evidence(("window", "data_io enter"), ("window", "data_io leave"),
                 ("ordered_finish", "error 0"))
    os.close(fd)
    bed.cut_power()
    bed.after_power_cut()
    # Replay takes data that does not match its checksums for a power cut in the middle of the batch.
    check(os.path.exists(bed.path("file")), "a file that fsync acknowledged is gone")
    for n in range(N):
        data = bed.read("file", BLOCK, n * BLOCK)
        check(data is not None, "block %d, which fsync acknowledged, cannot be read" % n)
        check(data in (STORED[:BLOCK], ARRIVES[:BLOCK]), "block %d is a mixture" % n)


if __name__ == "__main__":
    main(test)
