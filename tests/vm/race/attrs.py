# SPDX-License-Identifier: GPL-2.0
"""Attributes against the write-back of the inode.

The flusher is held where the VFS takes an inode for clean already and the filesystem
does not have its times yet. What is changed meanwhile must not be undone when it goes
on; an fsync that comes meanwhile must wait for it; and what it cannot store for want
of memory it must try again.
"""
import os
import struct
import time

from bed import BLOCK, check, get, main, put, Child

VM = "/proc/sys/vm/"
WINDOW = "inode_write"
ACL = "system.posix_acl_access"


def acl(owner, user, group, mask, other):
    entries = ((1, owner, -1), (2, user, 1000), (4, group, -1), (0x10, mask, -1), (0x20, other, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *e) for e in entries)


class Flusher:
    """The kernel's flusher, set to write back every tenth of a second all that is that old."""

    NAMES = ("dirty_expire_centisecs", "dirty_writeback_centisecs")

    def __enter__(self):
        self.old = [get(VM + n) for n in self.NAMES]
        for name in self.NAMES:
            put(VM + name, "10")
        # The flusher thread still sleeps for the time that was set before.
        os.sync()
        return self

    def __exit__(self, *_):
        for name, old in zip(self.NAMES, self.old):
            put(VM + name, old)

    @staticmethod
    def running():
        return True

    name = "flusher"


def attributes(path):
    st = os.stat(path)
    listed = sorted(os.listxattr(path))
    return {
        "mode": oct(st.st_mode), "owner": (st.st_uid, st.st_gid), "links": st.st_nlink,
        "mtime": st.st_mtime_ns, "ctime": st.st_ctime_ns,
        "xattrs": {n: os.getxattr(path, n) for n in listed},
    }


def same(bed, name, want, when):
    got = attributes(bed.path(name))
    check(got == want, "%s %s: %s, was %s" % (name, when, got, want))


def go_on(bed):
    """All tasks that are held go on, and have ended what was held."""
    bed.tag(WINDOW, "off")
    until = time.monotonic() + 30
    while bed.held(WINDOW):
        assert time.monotonic() < until, "the flusher does not go on"
        time.sleep(0.01)


def changed_meanwhile(bed, flusher, name, change):
    """Makes the inode dirty, has its write-back held, changes it."""
    path = bed.path(name)
    os.sync()
    bed.hold(WINDOW)
    if os.path.isdir(path):
        # A directory is only dirty when it was read.
        os.utime(path, ns=(0, os.stat(path).st_mtime_ns))
        os.listdir(path)
    else:
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, b"x" * BLOCK, 0)
        os.close(fd)
    bed.wait_held(WINDOW, flusher)
    change(path)
    want = attributes(path)
    go_on(bed)
    # The flusher may run now or not.
    time.sleep(0.3)
    same(bed, name, want, "after the write-back")
    os.sync()
    same(bed, name, want, "after a sync")
    bed.cut_power()
    bed.after_power_cut()
    same(bed, name, want, "after a power cut")


def names(path):
    os.utime(path, ns=(1, 1000 * 10**9))
    os.mkdir(path + "/sub")
    os.chmod(path, 0o711)


def all_of_it(path):
    os.chmod(path, 0o604)
    os.chown(path, 12, 34)
    os.setxattr(path, ACL, acl(6, 4, 0, 4, 0))
    os.chmod(path, 0o620)
    os.setxattr(path, "user.x", b"y")
    os.utime(path, ns=(2000 * 10**9, 1000 * 10**9 + 5))


def fsync_waits(bed, flusher):
    """R8: an fsync returns when the times are durable that another task is writing."""
    fd = bed.open("file")
    os.sync()
    bed.hold(WINDOW)
    os.pwrite(fd, b"y" * BLOCK, 0)
    bed.wait_held(WINDOW, flusher)
    want = attributes(bed.path("file"))
    for call in os.fsync, os.fdatasync:
        child = Child(call.__name__, call, fd)
        check(child.runs_for(bed.patience), "%s returned while the inode was being written" % call.__name__)
    child = Child("fsync", os.fsync, fd)
    check(child.runs_for(bed.patience), "fsync returned while the inode was being written")
    go_on(bed)
    assert child.join() == 0
    bed.cut_power()
    os.close(fd)
    bed.after_power_cut()
    same(bed, "file", want, "after fsync and a power cut")


def tried_again(bed, flusher):
    """One allocation of the flusher fails."""
    fd = bed.open("file")
    os.sync()
    bed.tag(WINDOW, "error=12 times=1")
    hits = "hits="
    before = get("%s/errortag/%s" % (bed.sys, WINDOW)).split(hits)[1].split()[0]
    os.pwrite(fd, b"z" * BLOCK, 0)
    want = attributes(bed.path("file"))
    until = time.monotonic() + 30
    while get("%s/errortag/%s" % (bed.sys, WINDOW)).split(hits)[1].split()[0] == before:
        assert time.monotonic() < until, "nobody came to " + WINDOW
        time.sleep(0.01)
    assert flusher.running()
    time.sleep(0.1)
    bed.tag(WINDOW, "off")
    os.sync()
    bed.cut_power()
    os.close(fd)
    bed.after_power_cut()
    same(bed, "file", want, "after a write-back without memory, sync and a power cut")


def test(bed):
    with Flusher() as flusher:
        os.close(bed.open("file"))
        os.mkdir(bed.path("dir"))
        changed_meanwhile(bed, flusher, "file", all_of_it)
        changed_meanwhile(bed, flusher, "dir", names)
        fsync_waits(bed, flusher)
        tried_again(bed, flusher)


main(test)
