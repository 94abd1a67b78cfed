#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# On a full disk: what was promised works (preallocated space, dirty pages), and so
# does everything that makes room.
# timeout: 300
set -euo pipefail

fails() { if "$@"; then echo "did not fail: $*"; exit 1; fi; }

mkfs.ordofs "$TEST_DEV" 200M <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'cd /; umount "$TEST_MNT"' EXIT
cd "$TEST_MNT"
fallocate -l 40M pre
dd if=/dev/urandom of=a bs=1M count=20 status=none
fails dd if=/dev/zero of=big bs=1M status=none
sync
fails fallocate -l 1G more
dd if=/dev/urandom of=pre bs=1M count=20 conv=notrunc oflag=direct status=none
dd if=/dev/urandom of=pre bs=1M count=20 seek=20 conv=notrunc,fsync status=none
truncate -s 12345 a
fallocate -p -o 100 -l 10000 big
fallocate -p -o 0 -l 1M big
rm big
sync
dd if=/dev/urandom of=again bs=1M count=60 conv=fsync status=none
cd /
umount "$TEST_MNT"
trap - EXIT
fsck.ordofs -n "$TEST_DEV"
