#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""File handles and generations: handles.py MOUNTPOINT STATE make|check

`make` notes the handles of files in STATE, some of which were synced, and shuts the
filesystem down. `check`, on the next mount, finds those that were synced, and not
those that are gone, although their numbers are in use again.
"""
import ctypes
import errno
import fcntl
import json
import os
import struct
import sys

FS_IOC_SHUTDOWN = 0x8004587D
FS_IOC_GETVERSION = 0x80087601
AT_FDCWD = -100
top, state, what = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)


def handle(path):
    raw = ctypes.create_string_buffer(struct.pack("=Ii", 120, 0), 128)
    mount_id = ctypes.c_int()
    if libc.name_to_handle_at(AT_FDCWD, path.encode(), raw, ctypes.byref(mount_id), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    size = struct.unpack_from("=I", raw)[0]
    return raw.raw[:8 + size].hex()


def by_handle(text):
    at = os.open(top, os.O_RDONLY)
    try:
        fd = libc.open_by_handle_at(at, bytes.fromhex(text), os.O_RDONLY)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return fd
    finally:
        os.close(at)


def version(fd):
    return struct.unpack_from("I", fcntl.ioctl(fd, FS_IOC_GETVERSION, bytes(8)))[0]


def describe(path):
    fd = os.open(path, os.O_RDONLY)
    st = os.fstat(fd)
    text = handle(path)
    found = version(fd)
    os.close(fd)
    assert struct.unpack_from("=I", bytes.fromhex(text), 8 + 8)[0] == found, (text, found)
    return {"ino": st.st_ino, "handle": text, "version": found}


def make():
    notes = {"kept": {}, "lost": {}}
    for name in "a", "b", "dir":
        path = os.path.join(top, name)
        if name == "dir":
            os.mkdir(path)
        else:
            with open(path, "w", encoding="ascii") as f:
                f.write(name)
        notes["kept"][name] = describe(path)
    fd = os.open(os.path.join(top, "a"), os.O_RDONLY)
    os.fsync(fd)
    for n in range(5):
        path = os.path.join(top, "lost-%d" % n)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR))
        notes["lost"][path] = describe(path)
    fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", 2))
    with open(state, "w", encoding="ascii") as f:
        json.dump(notes, f)


def check():
    with open(state, encoding="ascii") as f:
        notes = json.load(f)
    for name, note in notes["kept"].items():
        assert describe(os.path.join(top, name)) == note, name
        fd = by_handle(note["handle"])
        assert os.fstat(fd).st_ino == note["ino"] and version(fd) == note["version"]
        os.close(fd)
    again = 0
    for n, (path, note) in enumerate(notes["lost"].items()):
        assert not os.path.exists(path), path
        new = os.path.join(top, "new-%d" % n)
        os.close(os.open(new, os.O_CREAT | os.O_RDWR))
        again += describe(new)["ino"] == note["ino"]
        assert describe(new)["version"] != note["version"]
    for note in notes["lost"].values():
        try:
            by_handle(note["handle"])
            sys.exit("a handle of a file that is gone opens another one")
        except OSError as e:
            assert e.errno == errno.ESTALE, e
    assert again, "no number was used again: nothing was tested"


{"make": make, "check": check}[what]()
