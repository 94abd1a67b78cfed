#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Many files and many extents: many.py make|check DIRECTORY FILES EXTENTS

make: FILES files of a few bytes in directories of 1000, and one file whose every
second block is there, EXTENTS of them: half preallocated, half written.
check: all of that is there, and nothing else.
"""
import os
import sys

BLOCK = 4096
PER_DIRECTORY = 1000
WRITTEN = 1000  # of the extents, alternately so many are written and preallocated


def text(number):
    return b"%d\n" % number


def make(folder, files, extents):
    # Two processes, each with every second directory.
    child = os.fork()
    make_files(folder, files, 0 if child else 1)
    if not child:
        os._exit(0)
    make_extents(folder, extents)
    assert os.waitpid(child, 0)[1] == 0, "the other process failed"


def make_files(folder, files, part):
    for first in range(part * PER_DIRECTORY, files, 2 * PER_DIRECTORY):
        name = "%s/d%04d" % (folder, first // PER_DIRECTORY)
        os.mkdir(name)
        fd = os.open(name, os.O_RDONLY)
        for number in range(first, min(first + PER_DIRECTORY, files)):
            # Every tenth has content, since the test is about metadata.
            if number % 10:
                os.mknod("f%06d" % number, 0o100640, dir_fd=fd)
                continue
            file = os.open("f%06d" % number, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640, dir_fd=fd)
            os.write(file, text(number))
            os.close(file)
        os.close(fd)


def make_extents(folder, extents):
    file = os.open(folder + "/extents", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    for number in range(extents):
        if number // WRITTEN % 2:
            os.pwrite(file, text(number), 2 * number * BLOCK)
        else:
            os.posix_fallocate(file, 2 * number * BLOCK, BLOCK)
    os.ftruncate(file, 2 * extents * BLOCK)
    os.fsync(file)
    os.close(file)


def check(folder, files, extents):
    seen = 0
    for entry in os.scandir(folder):
        if not entry.is_dir():
            assert entry.name == "extents", entry.name
            continue
        for file in os.scandir(entry.path):
            number = int(file.name[1:])
            assert entry.name == "d%04d" % (number // PER_DIRECTORY), file.path
            seen += 1
            # Every third has its inode looked at; dump and fsck see all of them.
            if number % 3:
                continue
            status = file.stat()
            want = text(number) if number % 10 == 0 else b""
            assert status.st_size == len(want) and status.st_mode == 0o100640, file.path
            if number % 1000 == 0:
                with open(file.path, "rb") as f:
                    assert f.read() == want, file.path
    assert seen == files, "%d of %d files" % (seen, files)
    file = os.open(folder + "/extents", os.O_RDONLY)
    status = os.fstat(file)
    assert status.st_size == 2 * extents * BLOCK
    assert status.st_blocks == extents * (BLOCK // 512), status.st_blocks
    for number in range(0, extents, 501):
        want = text(number) if number // WRITTEN % 2 else b""
        data = os.pread(file, 2 * BLOCK, 2 * number * BLOCK)
        assert data == want + bytes(2 * BLOCK - len(want)), number
    os.close(file)


{"make": make, "check": check}[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
