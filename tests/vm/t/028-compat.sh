#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# 32-bit programs: positions in a directory fit their `long`, a listing in any number of calls is whole, a
# seek to any position loses no name, and ioctls, statfs and file sizes are as for others.
# timeout: 200
set -euo pipefail

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
mkdir "$TEST_MNT/dir" "$TEST_MNT/empty"
(cd "$TEST_MNT/dir" && seq -f 'name-of-a-file-%05.0f' 5000 | xargs touch)
python3 /run/ordofs/tests/mount/compat.py "$TEST_MNT"
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
