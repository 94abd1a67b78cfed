#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every allocation, or every bio, of every system call fails once, or of the kernel threads that work behind it.

  nth.py DEVICE MOUNTPOINT memory|io[/workers] [STEP [FIRST]]

The kernel fails the n-th attempt of a task that wrote n to its fail-nth file
(Documentation/fault-injection), if it was built for that.  Each operation is
done with n = 1, 2, ... until it ends before the n-th attempt; with a STEP only
with every STEP-th n, from FIRST or a random one on.  It must answer
with success or one of a few errors; the filesystem goes on or has shut itself
down, and then it is mounted again.  What was synced is compared in
the end.  Prints how many failures were injected.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import re
import struct
import sys

DEVICE, TOP = sys.argv[1:3]
MODE, _, WHO = sys.argv[3].partition("/")
STEP = int(sys.argv[4] or 1) if len(sys.argv) > 4 else 1
FIRST = int(sys.argv[5]) if len(sys.argv) > 5 else random.randint(1, STEP)
DEBUG = "/sys/kernel/debug/"
BLOCK = 4096
ALLOWED = {errno.ENOMEM, errno.EIO, errno.ENOSPC, errno.EROFS, errno.EUCLEAN}
FS_IOC_SHUTDOWN = 0x8004587D
FS_IOC_FIEMAP = 0xC020660B
FS_IOC_SETFLAGS = 0x40086602
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
MS_RDONLY, MS_REMOUNT = 1, 32
AT_FDCWD = -100
MADV_POPULATE_WRITE = 23
libc = ctypes.CDLL(None, use_errno=True)


def wanted(name):
    return re.search(os.environ.get("OPERATIONS", ""), "%s: %s" % (sys.argv[3], name))


def put(path, value):
    with open(path, "w", encoding="ascii") as f:
        f.write(value)


def prepare():
    for kind in "failslab", "fail_page_alloc":
        put(DEBUG + kind + "/verbose", "0")
        put(DEBUG + kind + "/ignore-gfp-wait", "N")
    # Those that cannot wait would still count as attempts: no cache is marked, no order so large.
    put(DEBUG + "failslab/cache-filter", "N" if MODE == "memory" else "Y")
    put(DEBUG + "fail_page_alloc/min-order", "0" if MODE == "memory" else "100")
    put(DEBUG + "fail_make_request/verbose", "0")
    put("/sys/block/%s/make-it-fail" % os.path.basename(DEVICE), "0" if MODE == "memory" else "1")


class Nth:
    """The fail-nth file of this task."""

    def __init__(self):
        self.fd = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
        self.injected = 0

    @staticmethod
    def put(fd, n):
        try:
            os.pwrite(fd, b"%d" % n, 0)
        except OSError as e:
            if e.errno != errno.ESRCH:
                raise

    @staticmethod
    def get(fd):
        """What is left of n; -1 if the thread has ended."""
        try:
            return int(os.pread(fd, 32, 0).strip(b"\0\n "))
        except OSError as e:
            if e.errno != errno.ESRCH:
                raise
            return -1

    def run(self, n, action):
        """Returns whether the n-th attempt was reached, and the errno of the action (0)."""
        error = 0
        self.put(self.fd, n)
        try:
            action()
        except OSError as e:
            error = e.errno
        left = self.get(self.fd)
        self.put(self.fd, 0)
        self.injected += left == 0
        return left == 0, error


class Workers(Nth):
    """The fail-nth files of the kernel's threads, which then fail in what they do behind an operation."""

    @staticmethod
    def sync():
        top = os.open(TOP, os.O_RDONLY)
        try:
            call("syncfs", top)
        finally:
            os.close(top)

    def run(self, n, action):
        error, fds = 0, []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/comm" % pid, encoding="ascii") as f:
                    if f.read().startswith(("kworker/", "ordofs")):
                        fds.append(os.open("/proc/%s/fail-nth" % pid, os.O_RDWR))
            except OSError:
                # It has ended.
                pass
        for fd in fds:
            self.put(fd, n)
        try:
            action()
            # The work behind the operation happens now.
            self.sync()
        except OSError as e:
            error = e.errno
            # syncfs(2) reports a lost write once more. The next attempt must not see the error of this one.
            try:
                self.sync()
            except OSError:
                pass
        came = 0
        for fd in fds:
            came += self.get(fd) == 0
            self.put(fd, 0)
            os.close(fd)
        self.injected += came
        return came > 0, error


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return result


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
    """The files that an operation works on: made without faults, new for each attempt.

    What it holds was synced before the operation: in the end each block is as it was, or one of what
    the operation may make of it, under one of the names that it may then have.
    """

    def __init__(self, number, operation):
        self.operation = operation
        self.acknowledged = False
        self.dir = "%s/d%d" % (TOP, number)
        os.mkdir(self.dir)
        self.file = self.dir + "/file"
        self.name = self.dir + "/new"
        self.number = number
        self.page = None
        self.data = pattern(number, 16)
        self.fd = os.open(self.file, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            os.write(self.fd, self.data)
            os.setxattr(self.file, "user.one", b"1" * 100)
            os.fsync(self.fd)
        except OSError:
            self.leave()
            raise

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def leave(self):
        """Nothing but the number is needed for the comparison at the end."""
        self.close()
        self.page = self.data = None

    def cold(self):
        put("/proc/sys/vm/drop_caches", "3")

    def compare(self):
        """Compares with what was acknowledged."""
        op = self.operation
        names = [n for n in (self.file, self.name) if os.path.isfile(n) and os.stat(n).st_size > 0]
        if not names and op.gone:
            return
        assert names, "%s: %s: acknowledged, and lost" % (op.name, self.file)
        data = pattern(self.number, 16)
        with open(names[0], "rb") as f:
            got = f.read(len(data))
            for b in range(16):
                old, new = (d[b * BLOCK:(b + 1) * BLOCK] for d in (data, got))
                assert new == old or new in op.blocks(data, b), \
                    "%s: %s: block %d: acknowledged, and lost" % (op.name, self.file, b)
            if self.acknowledged:
                f.seek(64 * BLOCK)
                assert f.read(len(data)) == data, "%s: %s: acknowledged, and lost" % (op.name, self.file)
        if op.name != "removexattr":
            assert os.getxattr(names[0], "user.one") == b"1" * 100, "%s: attribute lost" % self.file


class Operation:
    """name; before: without faults; do: with; to: (from block, to block, byte) that it may leave there;
    gone: the file may be gone; alone: no filesystem to sync may be left."""

    def __init__(self, name, before, do, to=(0, 0, 0), gone=False, alone=False):
        self.name, self.before, self.do, self.to = name, before, do, to
        self.gone, self.alone = gone, alone

    def blocks(self, data, b):
        start, end, content = self.to
        if not start <= b < end:
            return ()
        if content == "begin":
            return (data[(b - start) * BLOCK:][:BLOCK],)
        if content == "cut":
            return (b"", data[b * BLOCK:][:7])
        return (bytes(BLOCK),)


def buffered(b):
    os.pwrite(b.fd, b.data, 32 * BLOCK)


def opened(flags, action):
    def run(b):
        fd = os.open(b.file, os.O_RDWR | flags)
        try:
            action(b, fd)
        finally:
            os.close(fd)
    return run


def aligned(b):
    b.page = mmap.mmap(-1, 8 * BLOCK)
    b.page[:] = b.data[:8 * BLOCK]


def dirty(b):
    os.pwrite(b.fd, b.data, 64 * BLOCK)


def acknowledge(b):
    os.fsync(b.fd)
    b.acknowledged = True


def syncfs(b):
    call("syncfs", b.fd)
    b.acknowledged = True


def synchronous(b, fd):
    os.pwrite(fd, b.data, 64 * BLOCK)
    b.acknowledged = True


def mapped(b):
    """A store that fails is a signal: the kernel is asked to make the pages writable, as for a store."""
    page = mmap.mmap(b.fd, 16 * BLOCK, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    try:
        page.madvise(MADV_POPULATE_WRITE)
        page.flush()
    except OSError as e:
        # A process would have got a SIGBUS.
        raise OSError(errno.EIO, "mapping") if e.errno == errno.EFAULT else e
    finally:
        page.close()


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


def rename(flags):
    return lambda b: call("renameat2", AT_FDCWD, b.file.encode(), AT_FDCWD, b.name.encode(), flags)


def acl(b):
    entries = ((1, 7, -1), (2, 6, 1000), (4, 5, -1), (0x10, 7, -1), (0x20, 4, -1))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *e) for e in entries)
    os.setxattr(b.file, "system.posix_acl_access", value)


def extents(b):
    fcntl.ioctl(b.fd, FS_IOC_FIEMAP, bytearray(struct.pack("=QQIIII", 0, 1 << 40, 1, 0, 8, 0)) +
                bytearray(56 * 8))


def by_handle(b):
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 120, 0), 128)
    call("name_to_handle_at", AT_FDCWD, b.file.encode(), handle, ctypes.byref(ctypes.c_int()), 0)
    os.close(call("open_by_handle_at", b.fd, handle, os.O_RDONLY))


def freeze(b):
    fcntl.ioctl(b.fd, FIFREEZE, 0)
    try:
        fcntl.ioctl(b.fd, FITHAW, 0)
    except OSError:
        # The filesystem has shut down.
        if dead():
            fcntl.ioctl(b.fd, FITHAW, 0)
        raise


def remount(flags):
    return lambda b: call("mount", None, TOP.encode(), None, MS_REMOUNT | flags, None)


OPERATIONS = [Operation(*o) for o in (
    ("create", None, create),
    ("mkdir", None, lambda b: os.mkdir(b.name)),
    ("symlink", None, lambda b: os.symlink("x" * 3000, b.name)),
    ("readlink", lambda b: os.symlink("x" * 3000, b.name), lambda b: os.readlink(b.name)),
    ("mknod", None, lambda b: os.mknod(b.name, 0o010644)),
    ("link", None, lambda b: os.link(b.file, b.name)),
    ("unlink", None, lambda b: os.unlink(b.file), (0, 0, 0), True),
    ("rmdir", lambda b: os.mkdir(b.name), lambda b: os.rmdir(b.name)),
    ("rename", None, lambda b: os.rename(b.file, b.name)),
    ("rename over", create, lambda b: os.rename(b.file, b.name)),
    ("exchange", create, rename(2)),
    ("rename with a whiteout", None, rename(4)),
    ("tmpfile", None, tmpfile),
    ("lookup, cold", Bed.cold, lambda b: os.stat(b.file)),
    ("readdir, cold", Bed.cold, lambda b: os.listdir(b.dir)),
    ("by handle, cold", Bed.cold, by_handle),
    ("read, cold", Bed.cold, read),
    ("read", None, read),
    ("buffered write", None, buffered),
    ("direct write", aligned, opened(os.O_DIRECT, lambda b, fd: os.pwrite(fd, b.page, 8 * BLOCK)), (8, 16, "begin")),
    ("direct read", aligned, opened(os.O_DIRECT, lambda b, fd: os.preadv(fd, [b.page], 0))),
    ("mapped write", None, mapped),
    ("synchronous write", None, opened(os.O_DSYNC, synchronous)),
    ("copy", None, lambda b: os.copy_file_range(b.fd, b.fd, 8 * BLOCK, 0, 64 * BLOCK)),
    ("fsync of data", dirty, acknowledge),
    ("fsync of a name", create, lambda b: os.fsync(b.fd)),
    ("syncfs", dirty, syncfs),
    ("freeze", dirty, freeze),
    ("allocate", None, fallocate(0, 100, 64)),
    ("punch", None, fallocate(3, 2, 5), (2, 7, 0)),
    ("zero", None, fallocate(16, 2, 5), (2, 7, 0)),
    ("truncate", None, lambda b: os.truncate(b.file, 5 * BLOCK + 7), (5, 16, "cut")),
    ("extend", None, lambda b: os.truncate(b.file, 1 << 40)),
    ("fiemap", None, extents),
    ("seek", None, lambda b: os.lseek(b.fd, 0, os.SEEK_HOLE)),
    ("chmod", None, lambda b: os.chmod(b.file, 0o600)),
    ("chattr", None, lambda b: fcntl.ioctl(b.fd, FS_IOC_SETFLAGS, struct.pack("l", 0x80))),
    ("setacl", None, acl),
    ("setxattr", None, lambda b: os.setxattr(b.file, "user.two", b"2" * 20000)),
    ("getxattr, cold", Bed.cold, lambda b: os.getxattr(b.file, "user.one")),
    ("listxattr", None, lambda b: os.listxattr(b.file)),
    ("removexattr", None, lambda b: os.removexattr(b.file, "user.one")),
    ("statfs", None, lambda b: os.statvfs(TOP)),
    ("remount, read-only", Bed.close, remount(MS_RDONLY)),
    ("remount, writable", lambda b: b.close() or remount(MS_RDONLY)(b), remount(0)),
    ("umount", lambda b: dirty(b) or b.close(), lambda b: umount(), (0, 0, 0), False, True),
)]


# These make a name, and must not leave it there if they fail.
MAKES = ("create", "mkdir", "symlink", "mknod", "link")


class Run:
    def __init__(self):
        self.nth = Workers() if WHO else Nth()
        self.shutdowns = self.failed = self.made = 0
        self.beds = []

    def bed(self, operation):
        try:
            bed = Bed(self.made, operation)
        except OSError:
            self.late()
            self.made += 1
            bed = Bed(self.made, operation)
        self.made += 1
        self.beds.append(bed)
        return bed

    def late(self):
        """Returns whether a worker has failed since. Called where an error has been caught."""
        if not WHO or not dead():
            raise
        self.shutdowns += 1
        self.again()

    def again(self):
        if os.path.ismount(TOP):
            umount()
        mount()

    def one(self, op, n):
        bed = self.bed(op)
        try:
            if op.before:
                op.before(bed)
        except OSError:
            bed.leave()
            self.late()
            return True
        try:
            came, error = self.nth.run(n, lambda: op.do(bed))
        finally:
            bed.leave()
        # A worker's failure may show only now.
        assert error == 0 or error in ALLOWED and (came or WHO and dead()), \
            "%s, attempt %d: %s" % (op.name, n, os.strerror(error))
        self.failed += error != 0
        if error and op.name in MAKES and not dead():
            assert not os.path.lexists(bed.name), "%s, attempt %d: failed, and the name is there" % (op.name, n)
        if not os.path.ismount(TOP):
            mount()
        elif dead():
            self.shutdowns += 1
            self.again()
        elif os.statvfs(TOP).f_flag & os.ST_RDONLY:
            remount(0)(bed)
        return came

    def operation(self, op):
        n, count = FIRST, 0
        while self.one(op, n):
            n, count = n + STEP, count + 1
            assert n < 5000, "%s never ends" % op.name
        print("%s: %d" % (op.name, count), flush=True)

    def mounts(self):
        """Mounting, with a log to replay."""
        op = Operation("mount", None, None)
        n, count, came = FIRST, -1, True
        while came:
            bed = self.bed(op)
            dirty(bed)
            acknowledge(bed)
            fcntl.ioctl(bed.fd, FS_IOC_SHUTDOWN, struct.pack("I", 2))
            bed.leave()
            umount()
            came, error = self.nth.run(n, mount)
            assert error == 0 or error in ALLOWED and came, "mount, attempt %d: %s" % (n, os.strerror(error))
            if error:
                mount()
            n, count = n + STEP, count + 1
        print("mount: %d" % count, flush=True)

    def compare(self):
        self.again()
        for bed in self.beds:
            bed.compare()


print("trace: the n-th of them, n = %d, %d ..." % (FIRST, FIRST + STEP), flush=True)
prepare()
run = Run()
for entry in OPERATIONS:
    if wanted(entry.name) and not (WHO and entry.alone):
        run.operation(entry)
if wanted("mount") and not WHO:
    run.mounts()
run.compare()
print("trace: %d failures of %s%s injected, %d operations failed, %d shutdowns, %d files are as they were" % (
    run.nth.injected, "allocations" if MODE == "memory" else "bios", " behind operations" if WHO else "",
    run.failed, run.shutdowns, len(run.beds)))
