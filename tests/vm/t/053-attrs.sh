#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# chmod, chown, utimes, setfacl and operations on names against the write-back of the inode, and an
# fsync against it: the window held open, a power cut, replay.
# timeout: 240
# variant: debug ordofs_debug
exec python3 /run/ordofs/tests/race/attrs.py
