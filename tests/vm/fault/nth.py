#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every allocation, or every bio, of every system call fails once.

  nth.py DEVICE MOUNTPOINT memory|io [STEP [FIRST]]

The kernel fails the n-th attempt of a task that wrote n to its fail-nth file
(Documentation/fault-injection), if it was built for that.  Each operation is
done with n = 1, 2, ... until it ends before the n-th attempt; with a STEP only
with every STEP-th n, from FIRST or a random one on.  It must answer
with success or one of a few errors; the filesystem goes on or has shut itself
down, and then it is mounted again.  What an fsync acknowledged is compared in
the end.  Prints how many failures were injected.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
import sys

DEVICE, TOP, MODE = sys.argv[1:4]
STEP = int(sys.argv[4] or 1) if len(sys.argv) > 4 else 1
FIRST = int(sys.argv[5]) if len(sys.argv) > 5 else random.randint(1, STEP)
DEBUG = "/sys/kernel/debug/"
BLOCK = 4096
ALLOWED = {errno.ENOMEM, errno.EIO, errno.ENOSPC, errno.EROFS, errno.EUCLEAN}
FS_IOC_SHUTDOWN = 0x8004587D
libc = ctypes.CDLL(None, use_errno=True)


def put(path, value):
    with open(path, "w", encoding="ascii") as f:
        f.write(value)


def prepare():
    memory = "N" if MODE == "memory" else "Y"
    for kind in "failslab", "fail_page_alloc":
        put(DEBUG + kind + "/verbose", "0")
        put(DEBUG + kind + "/ignore-gfp-wait", memory)
    put(DEBUG + "fail_page_alloc/min-order", "0")
    put(DEBUG + "fail_make_request/verbose", "0")
    put("/sys/block/%s/make-it-fail" % os.path.basename(DEVICE), "0" if MODE == "memory" else "1")


class Nth:
    """The fail-nth file of this task."""

    def __init__(self):
        self.fd = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
        self.injected = 0

    def run(self, n, action):
        """Has the n-th attempt come, and the errno of the action (0)."""
        error = 0
        os.pwrite(self.fd, b"%d" % n, 0)
        try:
            action()
        except OSError as e:
            error = e.errno
        left = int(os.pread(self.fd, 32, 0).strip(b"\0\n "))
        os.pwrite(self.fd, b"0", 0)
        self.injected += left == 0
        return left == 0, error


def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def mount():
    call("mount", DEVICE.encode(), TOP.encode(), b"ordofs", 0, None)


def umount():
    call("umount2", TOP.encode(), 0)


def pattern(number, blocks):
    return b"".join(b"%016d%08d" % (number, b) * (BLOCK // 24) + b"-" * (BLOCK % 24)
                    for b in range(blocks))


def dead():
    with open("/sys/fs/ordofs/%s/shutdown" % os.path.basename(DEVICE), encoding="ascii") as f:
        return f.read().strip() != "0"


class Bed:
    """What an operation works on: made without faults, new for each attempt."""

    acknowledged = {}

    def __init__(self, number):
        self.number = number
        self.dir = "%s/d%d" % (TOP, number)
        os.mkdir(self.dir)
        self.file = self.dir + "/file"
        self.data = pattern(number, 16)
        self.fd = os.open(self.file, os.O_CREAT | os.O_RDWR, 0o644)
        os.write(self.fd, self.data)
        os.fsync(self.fd)
        os.setxattr(self.file, "user.one", b"1" * 100)
        self.name = self.dir + "/new"

    def done(self):
        os.close(self.fd)

    def cold(self):
        put("/proc/sys/vm/drop_caches", "3")


def buffered(b):
    os.pwrite(b.fd, b.data, 32 * BLOCK)


def direct(b):
    fd = os.open(b.file, os.O_RDWR | os.O_DIRECT)
    try:
        os.pwrite(fd, b.page, 8 * BLOCK)
    finally:
        os.close(fd)


def aligned(b):
    b.page = mmap.mmap(-1, 8 * BLOCK)
    b.page[:] = b.data[:8 * BLOCK]


def dirty(b):
    os.pwrite(b.fd, b.data, 64 * BLOCK)


def acknowledge(b):
    os.fsync(b.fd)
    Bed.acknowledged[b.file] = (64 * BLOCK, b.data)


def read(b):
    os.posix_fadvise(b.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    got = os.pread(b.fd, len(b.data), 0)
    assert got == b.data, "%s: wrong data" % b.file


def tmpfile(b):
    fd = os.open(b.dir, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(fd, b"t" * 100)
    finally:
        os.close(fd)


def fallocate(mode, start, blocks):
    return lambda b: call("fallocate", b.fd, mode, ctypes.c_long(start * BLOCK),
                          ctypes.c_long(blocks * BLOCK))


def create(b):
    os.close(os.open(b.name, os.O_CREAT | os.O_WRONLY, 0o644))


# Name, what is done before without faults, the operation.
OPERATIONS = [
    ("create", None, create),
    ("mkdir", None, lambda b: os.mkdir(b.name)),
    ("symlink", None, lambda b: os.symlink("x" * 3000, b.name)),
    ("mknod", None, lambda b: os.mknod(b.name, 0o010644)),
    ("link", None, lambda b: os.link(b.file, b.name)),
    ("unlink", None, lambda b: os.unlink(b.file)),
    ("rmdir", lambda b: os.mkdir(b.name), lambda b: os.rmdir(b.name)),
    ("rename", None, lambda b: os.rename(b.file, b.name)),
    ("rename over", create, lambda b: os.rename(b.file, b.name)),
    ("tmpfile", None, tmpfile),
    ("lookup, cold", Bed.cold, lambda b: os.stat(b.file)),
    ("readdir, cold", Bed.cold, lambda b: os.listdir(b.dir)),
    ("read, cold", Bed.cold, read),
    ("read", None, read),
    ("buffered write", None, buffered),
    ("direct write", aligned, direct),
    ("fsync of data", dirty, acknowledge),
    ("fsync of a name", create, lambda b: os.fsync(b.fd)),
    ("syncfs", dirty, lambda b: os.sync()),
    ("allocate", None, fallocate(0, 100, 64)),
    ("punch", None, fallocate(3, 2, 5)),
    ("zero", None, fallocate(16, 2, 5)),
    ("truncate", None, lambda b: os.truncate(b.file, 5 * BLOCK + 7)),
    ("extend", None, lambda b: os.truncate(b.file, 1 << 40)),
    ("chmod", None, lambda b: os.chmod(b.file, 0o600)),
    ("setxattr", None, lambda b: os.setxattr(b.file, "user.two", b"2" * 20000)),
    ("getxattr, cold", Bed.cold, lambda b: os.getxattr(b.file, "user.one")),
    ("listxattr", None, lambda b: os.listxattr(b.file)),
    ("removexattr", None, lambda b: os.removexattr(b.file, "user.one")),
    ("statfs", None, lambda b: os.statvfs(TOP)),
]


class Run:
    def __init__(self):
        self.nth = Nth()
        self.number = self.shutdowns = 0

    def again(self):
        umount()
        mount()

    def one(self, name, before, action, n):
        self.number += 1
        bed = Bed(self.number)
        try:
            if before:
                before(bed)
            came, error = self.nth.run(n, lambda: action(bed))
        finally:
            bed.done()
        assert error == 0 or error in ALLOWED and came, \
            "%s, attempt %d: %s" % (name, n, os.strerror(error))
        if dead():
            self.shutdowns += 1
            Bed.acknowledged.pop(bed.file, None) if error else None
            self.again()
        return came

    def operation(self, name, before, action):
        n, count = FIRST, 0
        while self.one(name, before, action, n):
            n, count = n + STEP, count + 1
            assert n < 5000, "%s never ends" % name
        print("%s: %d" % (name, count), flush=True)

    def mounts(self):
        """Mounting, with a log to replay."""
        n, count, came = FIRST, -1, True
        while came:
            self.number += 1
            bed = Bed(self.number)
            dirty(bed)
            acknowledge(bed)
            fcntl.ioctl(bed.fd, FS_IOC_SHUTDOWN, struct.pack("I", 2))
            bed.done()
            umount()
            came, error = self.nth.run(n, mount)
            assert error == 0 or error in ALLOWED, "mount, attempt %d: %s" % (n, os.strerror(error))
            if error:
                mount()
            n, count = n + STEP, count + 1
        print("mount: %d" % count, flush=True)

    def compare(self):
        self.again()
        for name, (at, data) in Bed.acknowledged.items():
            with open(name, "rb") as f:
                f.seek(at)
                assert f.read(len(data)) == data, "%s: acknowledged, and lost" % name


print("trace: the n-th of them, n = %d, %d ..." % (FIRST, FIRST + STEP), flush=True)
prepare()
run = Run()
for entry in OPERATIONS:
    run.operation(*entry)
run.mounts()
run.compare()
print("trace: %d failures of %s injected, %d shutdowns, %d acknowledged files are there" % (
    run.nth.injected, "allocations" if MODE == "memory" else "bios", run.shutdowns,
    len(Bed.acknowledged)))
