#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# statx(2) reports every flag that chattr(1) can set and that it has an attribute for, alone and with others,
# of files and directories, and its mask has the attributes that it can report.
# timeout: 60
set -euo pipefail

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
touch "$TEST_MNT/file"
mkdir "$TEST_MNT/folder"
python3 /run/ordofs/tests/mount/flags.py "$TEST_MNT/file" "$TEST_MNT/folder"
chattr +S +A +d "$TEST_MNT/file"
umount "$TEST_MNT"
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
[ "$(lsattr -d "$TEST_MNT/file" | cut -d ' ' -f 1 | tr -d -)" = SdA ]
python3 /run/ordofs/tests/mount/flags.py --only d "$TEST_MNT/file"
umount "$TEST_MNT"
