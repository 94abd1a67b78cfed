#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""System calls of a 32-bit program, by `int 0x80` from a 64-bit one: compat.py DIRECTORY

The guest has no 32-bit programs; to the kernel the calls are the same. Their memory has to lie below 4 GiB.
"""
import ctypes
import errno
import mmap
import os
import struct
import sys

MAP_32BIT = 0x40
OPEN, CLOSE, UNLINK, LSEEK, GETDENTS, IOCTL, STATFS, FSTATFS = 5, 6, 10, 19, 141, 54, 99, 100
LLSEEK, FTRUNCATE64, FSTAT64, GETDENTS64, STATFS64 = 140, 194, 197, 220, 268
O_RDONLY, O_RDWR, O_DIRECTORY, O_LARGEFILE = 0, 2, 0o200000, 0o100000
FS_IOC32_GETFLAGS, FS_IOC32_SETFLAGS, FIGETBSZ = 0x80046601, 0x40046602, 2
FS_IOC_FIEMAP = 0xC020660B
NODUMP = 0x40

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
SIZE = 1 << 20
memory = libc.mmap(None, SIZE, 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT, -1, 0)
assert memory and memory < 1 << 32
# int call(int number, int a, int b, int c, int d, int e)
code = bytes.fromhex(
    "53 55"  # push rbx, rbp
    "89 f8"  # eax = edi: the number
    "89 f3"  # ebx = esi: a
    "87 ca"  # ecx <-> edx: ecx = b, edx = c
    "44 89 c6"  # esi = r8d: d
    "44 89 cf"  # edi = r9d: e
    "cd 80"  # int 0x80
    "5d 5b c3"  # pop rbp, rbx; ret
)
ctypes.memmove(memory, code, len(code))
call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 6)(memory)
BUFFER = memory + 4096


def system(number, *args):
    r = call(number, *args, *[0] * (5 - len(args)))
    if -4096 < r < 0:
        raise OSError(-r, os.strerror(-r))
    return r


def put(data, at=BUFFER):
    ctypes.memmove(at, data, len(data))
    return at


def get(n):
    return ctypes.string_at(BUFFER, n)


def open32(path, flags=O_RDONLY):
    return system(OPEN, put(path.encode() + b"\0"), flags | O_LARGEFILE)


def getdents(fd, size, wide):
    """(name, position behind it, inode)..."""
    n = system(GETDENTS64 if wide else GETDENTS, fd, BUFFER, size)
    data, out, at = get(n), [], 0
    while at < n:
        if wide:
            ino, off, length, _ = struct.unpack_from("<QqHB", data, at)
            name = data[at + 19 : at + length]
        else:
            ino, off, length = struct.unpack_from("<LLH", data, at)
            name = data[at + 10 : at + length - 1]
        assert 0 <= off < 1 << 31, "position %#x does not fit a long" % off
        out.append((name.split(b"\0")[0].decode(), off, ino))
        at += length
    return out


def listing(fd, size, wide):
    out = []
    while True:
        some = getdents(fd, size, wide)
        if not some:
            return out
        out += some


top = sys.argv[1]
folder = os.path.join(top, "dir")
truth = {n: os.stat(os.path.join(folder, n)).st_ino for n in os.listdir(folder)}
whole = sorted(list(truth) + [".", ".."])
for wide in (False, True):
    for size in (300, 4096, 65536):
        fd = open32(folder, O_DIRECTORY)
        found = listing(fd, size, wide)
        names = [f[0] for f in found]
        assert sorted(names) == whole, "%d names, %d different" % (len(names), len(set(names)))
        assert all(truth.get(n, i) == i for n, _, i in found)
        # The end stays the end.
        assert getdents(fd, size, wide) == []
        here = system(LSEEK, fd, 0, os.SEEK_CUR)
        assert here < 1 << 31
        # Asking for the position in the middle is not a seek.
        system(LSEEK, fd, 0, os.SEEK_SET)
        again = getdents(fd, 4096, wide)
        system(LSEEK, fd, 0, os.SEEK_CUR)
        again += listing(fd, size, wide)
        assert sorted(f[0] for f in again) == whole
        # After a seek to the position of an entry, the same entries follow, and none is lost.
        for i in list(range(0, len(found), 397)) + [0, 1, 2, 3, len(found) - 1]:
            system(LSEEK, fd, found[i][1], os.SEEK_SET)
            rest = {f[0] for f in listing(fd, size, wide)}
            lost = set(names[i + 1 :]) - rest
            assert not lost, "lost behind %d: %s" % (i, sorted(lost)[:3])
            assert len(rest) <= len(found) - i + 2, "from the beginning again"
        # 64 bits of the position.
        system(LLSEEK, fd, 0, found[7][1], BUFFER, os.SEEK_SET)
        assert {f[0] for f in listing(fd, size, wide)} >= set(names[8:])
        system(CLOSE, fd)
# Both kinds of program with one open directory: nothing is lost.
fd = open32(folder, O_DIRECTORY)
first = {f[0] for f in getdents(fd, 4096, True)}
rest = set(os.listdir(fd))
assert first | rest == set(whole) | rest and rest == set(truth)
os.lseek(fd, 0, os.SEEK_SET)
system(CLOSE, fd)
fd = open32(os.path.join(top, "empty"), O_DIRECTORY)
assert [f[0] for f in listing(fd, 300, False)] == [".", ".."]
system(CLOSE, fd)

# rm -r as an old program does it: in turns.
fd = open32(folder, O_DIRECTORY)
gone = 0
while True:
    some = [f[0] for f in getdents(fd, 2000, False) if f[0] not in (".", "..")]
    if not some:
        break
    for name in some:
        system(UNLINK, put(os.path.join(folder, name).encode() + b"\0"))
        gone += 1
assert os.listdir(folder) == [] and gone == len(truth), gone
system(CLOSE, fd)

# Other calls.
path = os.path.join(top, "file")
open(path, "w").close()
fd = open32(path, O_RDWR)
system(FTRUNCATE64, fd, 0, 5)  # 5 << 32, the halves in their order
system(FSTAT64, fd, BUFFER)
size = struct.unpack_from("<Q", get(96), 44)[0]
assert size == os.stat(path).st_size == 5 << 32, size
system(IOCTL, fd, FS_IOC32_SETFLAGS, put(struct.pack("I", NODUMP)))
system(IOCTL, fd, FS_IOC32_GETFLAGS, put(struct.pack("I", 0)))
assert struct.unpack("I", get(4)) == (NODUMP,)
system(IOCTL, fd, FIGETBSZ, put(struct.pack("I", 0)))
assert struct.unpack("I", get(4)) == (4096,)
system(IOCTL, fd, FS_IOC_FIEMAP, put(struct.pack("=QQIIII", 0, 1 << 62, 0, 0, 0, 0)))
put(os.path.join(top, "file").encode() + b"\0", BUFFER + 4096)
system(STATFS, BUFFER + 4096, BUFFER)
kind, bsize, blocks = struct.unpack_from("<III", get(64))
assert (kind, bsize, blocks) == (0x4F72646F, 4096, os.statvfs(top).f_blocks)
system(STATFS64, BUFFER + 4096, 84, BUFFER)
kind, bsize, blocks = struct.unpack_from("<IIQ", get(84))
assert (kind, bsize, blocks) == (0x4F72646F, 4096, os.statvfs(top).f_blocks)
# FS_IOC_SHUTDOWN comes last; flags that do not exist are refused.
try:
    system(IOCTL, fd, 0x8004587D, put(struct.pack("I", 9)))
    sys.exit("flags 9 were taken")
except OSError as e:
    assert e.errno == errno.EINVAL, e
print("trace: %d names in calls of 32 bits" % len(truth))
