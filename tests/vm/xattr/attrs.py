#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Extended attributes by system calls: attrs.py check|fill|show DIRECTORY"""
import errno
import hashlib
import os
import sys
import time


def fails(number, call, *args, **more):
    """The call fails with this error."""
    try:
        call(*args, **more)
    except OSError as e:
        assert e.errno == number, (e, errno.errorcode[number])
        return
    sys.exit(f"{call.__name__}{args} went through, wanted {errno.errorcode[number]}")


def libc():
    import ctypes
    return ctypes.CDLL(None, use_errno=True), ctypes


def raw_list(path, size):
    """listxattr(2) with a buffer of this size; the error as a negative number."""
    lib, ct = libc()
    buf = ct.create_string_buffer(max(size, 1))
    n = lib.listxattr(path.encode(), buf if size else None, ct.c_size_t(size))
    return n if n >= 0 else -ct.get_errno()


def raw_get(path, name, size):
    lib, ct = libc()
    buf = ct.create_string_buffer(max(size, 1))
    n = lib.getxattr(path.encode(), name.encode(), buf if size else None, ct.c_size_t(size))
    return n if n >= 0 else -ct.get_errno()


def check():
    """One by one, as xattr(7) says."""
    open("f", "w").close()
    os.mkdir("d")
    os.symlink("f", "l")
    os.mkfifo("p")
    fails(errno.ENODATA, os.getxattr, "f", "user.a")
    fails(errno.ENODATA, os.removexattr, "f", "user.a")
    fails(errno.ENODATA, os.setxattr, "f", "user.a", b"x", os.XATTR_REPLACE)
    os.setxattr("f", "user.a", b"x", os.XATTR_CREATE)
    fails(errno.EEXIST, os.setxattr, "f", "user.a", b"x", os.XATTR_CREATE)
    os.setxattr("f", "user.a", b"longer", os.XATTR_REPLACE)
    assert os.getxattr("f", "user.a") == b"longer"
    os.setxattr("f", "user.empty", b"")
    assert os.getxattr("f", "user.empty") == b""
    assert raw_get("f", "user.a", 0) == 6
    assert raw_get("f", "user.a", 5) == -errno.ERANGE
    assert raw_get("f", "user.a", 6) == 6
    assert raw_get("f", "user.a", 65536) == 6
    names = ["user.a", "user.empty"]
    assert sorted(os.listxattr("f")) == names
    size = sum(len(n) + 1 for n in names)
    assert raw_list("f", 0) == size
    assert raw_list("f", size) == size
    assert raw_list("f", size - 1) == -errno.ERANGE
    assert raw_list("d", 0) == 0

    fails(errno.EOPNOTSUPP, os.setxattr, "f", "nothing.a", b"x")
    fails(errno.EOPNOTSUPP, os.setxattr, "f", "system.a", b"x")
    fails(errno.EINVAL, os.setxattr, "f", "user.", b"x")
    fails(errno.ERANGE, os.setxattr, "f", "user." + "n" * 251, b"x")
    os.setxattr("f", "user." + "n" * 250, b"x")
    fails(errno.E2BIG, os.setxattr, "f", "user.long", b"x" * 65537)
    os.setxattr("f", "user.long", b"y" * 65536)
    assert os.getxattr("f", "user.long") == b"y" * 65536
    os.setxattr("f", "user.long", b"z" * 65535)
    assert os.getxattr("f", "user.long") == b"z" * 65535
    os.removexattr("f", "user.long")
    fails(errno.ENODATA, os.getxattr, "f", "user.long")

    # user. is for files and directories, the others are for everything.
    os.setxattr("d", "user.a", b"dir")
    for odd in ("l", "p"):
        fails(errno.EPERM, os.setxattr, odd, "user.a", b"x", follow_symlinks=False)
        os.setxattr(odd, "trusted.a", odd.encode(), follow_symlinks=False)
        assert os.getxattr(odd, "trusted.a", follow_symlinks=False) == odd.encode()
        assert os.listxattr(odd, follow_symlinks=False) == ["trusted.a"]
    os.setxattr("f", "security.test", b"s")

    # The change time goes up, the modification time stays.
    before = os.stat("f")
    time.sleep(0.02)
    os.setxattr("f", "user.time", b"t")
    after = os.stat("f")
    assert after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns

    # trusted. is not shown to others.
    os.setxattr("f", "trusted.a", b"x")
    assert "trusted.a" in os.listxattr("f")
    os.chmod("f", 0o666)
    pid = os.fork()
    if pid == 0:
        os.setresuid(1000, 1000, 1000)
        ok = "trusted.a" not in os.listxattr("f") and "user.a" in os.listxattr("f")
        fails(errno.EPERM, os.setxattr, "f", "trusted.b", b"x")
        fails(errno.ENODATA, os.getxattr, "f", "trusted.a")
        os.setxattr("f", "user.by-1000", b"x")
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0

    # Bad lists are refused: not a multiple of an entry, unknown version, no sense.
    acl = "system.posix_acl_access"
    for bad in (b"x", b"\2\0\0\0xyz", b"\3\0\0\0" + b"\0" * 8, b"\2\0\0\0" + b"\xff" * 8):
        try:
            os.setxattr("f", acl, bad)
            sys.exit(f"a bad list was taken: {bad}")
        except OSError as e:
            assert e.errno in (errno.EINVAL, errno.EOPNOTSUPP), e
    fails(errno.EACCES, os.setxattr, "f", "system.posix_acl_default",
          b"\2\0\0\0" + b"".join(t + b"\7\0\xff\xff\xff\xff" for t in (b"\1\0", b"\4\0", b"\x20\0")))

    # Capabilities go when the file is written.
    os.setxattr("f", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    with open("f", "w") as f:
        f.write("x")
    fails(errno.ENODATA, os.getxattr, "f", "security.capability")


def fill():
    """A lot on one file, some on many."""
    open("many", "w").close()
    for i in range(200):
        os.setxattr("many", f"user.attribute-{i}", bytes([i]) * (i * i % 3000))
    for i in range(0, 200, 3):
        os.setxattr("many", f"user.attribute-{i}", b"new" * i)
    for i in range(0, 200, 7):
        os.removexattr("many", f"user.attribute-{i}")
    assert len(os.listxattr("many")) == 200 - len(range(0, 200, 7))
    for i in range(50):
        name = f"file-{i}"
        open(name, "w").close()
        os.setxattr(name, "user.long", os.urandom(1300 * i))
        os.setxattr(name, "user.short", os.urandom(i))
        if i % 5 == 0:
            os.setxattr(name, "user.long", os.urandom(40000))
        if i % 7 == 0:
            os.removexattr(name, "user.long")


def show():
    """Everything, to compare it."""
    for where, dirs, files in sorted(os.walk(".")):
        for name in sorted(dirs + files):
            path = os.path.join(where, name)
            st = os.lstat(path)
            print(path, oct(st.st_mode), st.st_ctime_ns)
            for attr in sorted(os.listxattr(path, follow_symlinks=False)):
                value = os.getxattr(path, attr, follow_symlinks=False)
                print("   ", attr, len(value), hashlib.sha256(value).hexdigest())


os.chdir(sys.argv[2])
{"check": check, "fill": fill, "show": show}[sys.argv[1]]()
