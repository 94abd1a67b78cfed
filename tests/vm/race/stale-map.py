# SPDX-License-Identifier: GPL-2.0
"""R5: a write through a mapping that is no longer true.

stale-map.py FILE: a preallocated block has dirty data. A write into the same
block looks the mapping up ("preallocated, reads as zeroes") and is held before
it locks the folio. Meanwhile the data is written back and its page reclaimed.
With the old mapping the write would take the rest of the block for zeroes.
Exit status 0: the data is there; 1: it is lost.
"""
import ctypes
import os
import sys
import threading
import time

PARAM = "/sys/module/ordofs/parameters/"
libc = ctypes.CDLL(None, use_errno=True)


def setting(name, value=None):
    if value is None:
        with open(PARAM + name) as f:
            return int(f.read())
    with open(PARAM + name, "w") as f:
        f.write(str(value))
    return value


def main():
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.posix_fallocate(fd, 0, 4096)
    os.pwrite(fd, b"a" * 4096, 0)
    before = setting("held_1")
    setting("hold_1", 3000)
    writer = threading.Thread(target=os.pwrite, args=(fd, b"b", 100))
    writer.start()
    while setting("held_1") == before:
        time.sleep(0.01)
    setting("hold_1", 0)
    # SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER: nothing but writeback
    if libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7):
        sys.exit(2)
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("1")
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    writer.join()
    data = os.pread(fd, 4096, 0)
    good = b"a" * 100 + b"b" + b"a" * 3995
    print("the block is", "good" if data == good else "lost: %r..." % data[:8])
    sys.exit(0 if data == good else 1)


main()
