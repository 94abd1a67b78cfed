# SPDX-License-Identifier: GPL-2.0
"""R3: a store through a memory mapping while a hole is punched under it.

punch-fault.py FILE: the punch is held between dropping the pages and freeing
the blocks. A store that comes in that window has to happen before or after the
punch as a whole: with the layout lock it waits, and is there afterwards. Exit
status 0: it is there; 1: it is lost.
"""
import ctypes
import mmap
import os
import sys
import threading
import time

PARAM = "/sys/module/ordofs/parameters/"
LEN = 65536
libc = ctypes.CDLL(None, use_errno=True)


def setting(name, value=None):
    if value is None:
        with open(PARAM + name) as f:
            return int(f.read())
    with open(PARAM + name, "w") as f:
        f.write(str(value))
    return value


def punch(fd):
    if libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(LEN)):
        os._exit(2)


def main():
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, b"a" * LEN)
    os.fsync(fd)
    area = mmap.mmap(fd, LEN)
    # A child stores: a fault that waits then stops nothing else.
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(ready, 1)
        area[8192] = ord("b")
        os._exit(0)
    before = setting("held_0")
    setting("hold_0", 1500)
    puncher = threading.Thread(target=punch, args=(fd,))
    puncher.start()
    while setting("held_0") == before:
        time.sleep(0.01)
    setting("hold_0", 0)
    # Now it is in the window.
    os.write(go, b"g")
    os.waitpid(child, 0)
    puncher.join()
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    area.close()
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")
    got = os.pread(fd, 1, 8192)
    rest = os.pread(fd, 4096, 0)
    print("after the punch: store", got, "rest zero", rest == bytes(4096))
    sys.exit(0 if got == b"b" and rest == bytes(4096) else 1)


main()
