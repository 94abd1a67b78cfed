#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# File handles survive a crash. The handle of a file that a crash removed never opens another
# file, even if that file has the same inode number. FS_IOC_GETVERSION shows the generation.
# timeout: 60
set -euo pipefail

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs -o commit=300 "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
h() { python3 /run/ordofs/tests/names/handles.py "$TEST_MNT" /tmp/handles "$1"; }
h make
umount "$TEST_MNT"
mount -t ordofs -o commit=300 "$TEST_DEV" "$TEST_MNT"
h check
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
