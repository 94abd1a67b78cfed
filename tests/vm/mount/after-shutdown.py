#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Caches things, shuts the filesystem down, asks again: after-shutdown.py DIRECTORY [DELETE]

DELETE is a file in sysfs that takes the device away; without it, it is the ioctl.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
import time

FS_IOC_SHUTDOWN = 0x8004587D
FS_IOC_FIEMAP = 0xC020660B
SIGBUS = 7

top, delete = sys.argv[1:]
path, folder, link = (os.path.join(top, n) for n in ("file", "folder", "link"))
with open(path, "wb") as f:
    f.write(os.urandom(1 << 20))
os.mkdir(folder)
os.symlink("file", link)
os.setxattr(path, "user.a", b"value")
os.sync()

# All of it is cached now.
fd = os.open(path, os.O_RDWR)
direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
assert len(os.pread(fd, 1 << 20, 0)) == 1 << 20
page = mmap.mmap(-1, 4096)
os.preadv(direct, [page], 0)
listing = os.open(top, os.O_RDONLY)
assert "file" in os.listdir(listing)
os.lseek(listing, 0, os.SEEK_SET)
os.getxattr(path, "user.a")
os.listxattr(path)
assert os.readlink(link) == "file"
shared = mmap.mmap(fd, 1 << 20)
private = mmap.mmap(fd, 1 << 20, mmap.MAP_PRIVATE, mmap.PROT_READ)

if delete:
    os.pwrite(fd, b"dirty", 0)
    with open(delete, "w") as f:
        f.write("1")
    # It takes a while until the device is gone.
    for _ in range(100):
        try:
            os.pread(fd, 1, 0)
        except OSError:
            break
        time.sleep(0.1)
else:
    fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", 2))

bad = []


def fails(name, what, also=errno.EIO):
    try:
        what()
    except OSError as e:
        if e.errno not in (errno.EIO, also):
            bad.append("%s: %s" % (name, e))
        return
    bad.append("%s went through" % name)


def dies(name, memory, store):
    pid = os.fork()
    if pid == 0:
        if store:
            memory[500000] = 1
        else:
            memory[500000]
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != SIGBUS:
        bad.append("%s: no bus error: %d" % (name, status))


def to_pipe():
    r, w = os.pipe()
    try:
        os.splice(fd, w, 4096, offset_src=0)
    finally:
        os.close(r)
        os.close(w)


null = os.open("/dev/null", os.O_WRONLY)
fiemap = struct.pack("=QQIIII", 0, 1 << 62, 0, 0, 0, 0)
fails("read", lambda: os.pread(fd, 4096, 0))
fails("read at the end", lambda: os.pread(fd, 4096, 1 << 20))
fails("direct read", lambda: os.preadv(direct, [page], 0))
fails("splice", to_pipe)
fails("sendfile", lambda: os.sendfile(null, fd, 0, 4096))
fails("copy_file_range", lambda: os.copy_file_range(fd, fd, 4096, 0, 1 << 19))
fails("open", lambda: os.open(path, os.O_RDONLY))
fails("open of a directory", lambda: os.open(folder, os.O_RDONLY))
fails("readdir", lambda: os.listdir(listing))
fails("lookup", lambda: os.stat(os.path.join(top, "nothing")))
fails("getxattr", lambda: os.getxattr(path, "user.a"))
fails("getxattr of none", lambda: os.getxattr(path, "user.b"))
fails("listxattr", lambda: os.listxattr(path))
fails("SEEK_DATA", lambda: os.lseek(fd, 0, os.SEEK_DATA))
fails("SEEK_HOLE", lambda: os.lseek(fd, 0, os.SEEK_HOLE))
fails("fiemap", lambda: fcntl.ioctl(fd, FS_IOC_FIEMAP, fiemap))
fails("write", lambda: os.pwrite(fd, b"x", 10))
fails("truncate", lambda: os.ftruncate(fd, 100))
fails("fallocate", lambda: os.posix_fallocate(fd, 0, 1 << 21))
# The first call reports the dirty data that was lost, with the device's error.
fails("fsync", lambda: os.fsync(fd), errno.ENODEV)
fails("fsync again", lambda: os.fsync(fd))
fails("fsync of a directory", lambda: os.fsync(listing))
fails("create", lambda: os.open(path + "2", os.O_CREAT | os.O_WRONLY))
fails("mkdir", lambda: os.mkdir(path + "3"))
fails("unlink", lambda: os.unlink(path))
fails("rename", lambda: os.rename(path, path + "4"))
fails("link", lambda: os.link(path, path + "5"))
fails("chmod", lambda: os.chmod(path, 0o600))
fails("setxattr", lambda: os.setxattr(path, "user.a", b"other"))
dies("load", private, False)
dies("load from a shared mapping", shared, False)
dies("store", shared, True)
# What the VFS has in memory can still be read, as on other filesystems but XFS. When a device goes, the VFS drops
# names.
for name, what in (
    ("stat", lambda: os.stat(path)),
    ("statfs", lambda: os.statvfs(top)),
    ("readlink", lambda: os.readlink(link)),
):
    try:
        what()
    except OSError as e:
        if not delete or name != "readlink":
            bad.append("%s: %s" % (name, e))
if bad:
    sys.exit("after the shutdown:\n" + "\n".join(bad))
