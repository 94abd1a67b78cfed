#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compares link counts with the names that a walk finds: links.py DIRECTORY"""
import os
import stat
import sys

names, found, bad = {}, {}, 0
for root, dirs, files in os.walk(sys.argv[1]):
    for name in dirs + files:
        s = os.lstat(os.path.join(root, name))
        names[s.st_ino] = names.get(s.st_ino, 0) + 1
        found[s.st_ino] = s
    below = sum(not os.path.islink(os.path.join(root, d)) for d in dirs)
    have = os.stat(root).st_nlink
    if have != 2 + below:
        print(f"{root}: link count {have}, should be {2 + below}")
        bad += 1
for ino, s in found.items():
    if not stat.S_ISDIR(s.st_mode) and s.st_nlink != names[ino]:
        print(f"inode {ino}: link count {s.st_nlink}, should be {names[ino]}")
        bad += 1
print(f"{len(found)} inodes, {bad} bad")
sys.exit(bad != 0)
