# SPDX-License-Identifier: GPL-2.0
"""Error tags are turned on and off under load, and nothing is left behind.

Several processes write, fault, punch and sync; meanwhile every tag is set to short
delays, to errors where that is harmless, to countdowns, and off again. Afterwards
nobody waits, all tags are off after the last write, the data is what the processes
say it is, and everything that was reserved is free again.
"""
import ctypes
import mmap
import os
import random
import time

from bed import BLOCK, aligned, check, drop_caches, fallocate, get, libc, main, Child

SECONDS, HITS = 8, 100
STOP = "/tmp/tags-stop"
BLOCKS = 64
PUNCH = 1 | 2


def load(bed, number):
    """Works on a file of its own, and compares it with what it must be."""
    rng = random.Random(number)
    name = "load%d" % number
    fd, direct = bed.open(name), bed.open(name, os.O_DIRECT)
    os.ftruncate(fd, BLOCKS * BLOCK)
    want = bytearray(BLOCKS * BLOCK)
    area = mmap.mmap(fd, len(want))
    while not os.path.exists(STOP):
        at = rng.randrange(BLOCKS - 8) * BLOCK
        n = rng.randrange(1, 8) * BLOCK
        fill = bytes([rng.randrange(1, 256)]) * n
        what = rng.randrange(6)
        if what == 0:
            os.pwrite(fd, fill[:-100], at + 50)
            want[at + 50:at + n - 50] = fill[:-100]
        elif what == 1:
            os.pwritev(direct, [aligned(fill)], at)
            want[at:at + n] = fill
        elif what == 2:
            area[at:at + n] = fill
            want[at:at + n] = fill
        elif what == 3:
            fallocate(fd, PUNCH, at, n)
            want[at:at + n] = bytes(n)
        elif what == 4:
            os.fsync(fd)
        else:
            libc.posix_fadvise(fd, ctypes.c_long(0), ctypes.c_long(0), os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, n, at) == want[at:at + n], "%s at %d" % (name, at)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, len(want), 0) == want, name
    area.close()
    os.unlink(bed.path(name))


def free(bed):
    os.sync()
    os.sync()
    return os.statvfs(bed.mnt).f_bfree


def hits(bed, tags):
    texts = [get("%s/errortag/%s" % (bed.sys, tag)) for tag in tags]
    return sum(int(text.split("hits=")[1].split()[0]) for text in texts)


def test(bed):
    tags = sorted(os.listdir(bed.sys + "/errortag"))
    # What is refused changes nothing.
    for bad in ("x", "delay=", "delay=-1", "error=0", "error=5000", "when=3", "1 2 x"):
        try:
            bed.tag("mapped", bad)
        except OSError:
            pass
        else:
            check(False, "the tag took %r" % bad)
        check(get(bed.sys + "/errortag/mapped").startswith("delay=0 error=0"), bad)
    before = free(bed)
    if os.path.exists(STOP):
        os.unlink(STOP)
    children = [Child("load %d" % i, load, bed, i) for i in range(4)]
    start = time.monotonic()
    rng = random.Random(1)
    writes = 0
    # So long, and until enough has been held.
    while time.monotonic() < start + SECONDS or hits(bed, tags) < HITS:
        assert time.monotonic() < start + 120, "the tags did nothing"
        # Never on for all at once, or nothing would go on at all.
        for tag in rng.sample(tags, 3):
            bed.tag(tag, rng.choice(["delay=%d" % rng.randrange(1, 30), "3 times=2",
                                     "delay=20 after=%d times=1" % rng.randrange(5), "500"]))
        drop_caches(2)
        time.sleep(rng.random() / 20)
        for tag in rng.sample(tags, 6):
            bed.tag(tag, rng.choice(["off", "0", "delay=0"]))
        writes += 9
    for tag in tags:
        bed.tag(tag, "off")
    os.close(os.open(STOP, os.O_CREAT | os.O_WRONLY))
    for child in children:
        check(child.join() == 0, "%s failed" % child.name)
    for tag in tags:
        text = get("%s/errortag/%s" % (bed.sys, tag)).strip()
        print("%-18s %s" % (tag, text))
        check(text.startswith("delay=0 error=0 after=0 times=0") and text.endswith("waiting=0"),
              "left behind: %s" % text)
    print("trace: %d writes to tags under load, %d times somebody was held" % (
        writes, hits(bed, tags)))
    after = free(bed)
    check(after == before, "%d blocks are missing" % (before - after))

    # Unmounting goes through windows that are held open, and the next mount knows nothing of them.
    fd = bed.open("late")
    os.pwrite(fd, b"l" * BLOCK, 0)
    os.close(fd)
    for tag in tags:
        bed.tag(tag, "delay=200")
    bed.umount()
    bed.mount()
    for tag in tags:
        text = get("%s/errortag/%s" % (bed.sys, tag)).strip()
        check(text.startswith("delay=0 error=0") and "hits=0" in text, "after a mount: " + text)
    check(bed.read("late", BLOCK) == b"l" * BLOCK, "what was written back while unmounting")

    # Errors: an I/O that fails is reported, and the filesystem is whole.
    bed.tag("data_io", "error=5 times=1")
    fd = bed.open("bad")
    os.pwrite(fd, b"b" * BLOCK, 0)
    try:
        os.fsync(fd)
    except OSError as e:
        print("an injected error:", e.strerror)
    else:
        check(False, "an I/O error was not reported")
    os.close(fd)


main(test)
