#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# On a full disk, what has reserved space works (preallocated blocks, dirty pages), and so
# does everything that frees space. What statfs calls available can be allocated, and
# what is refused stays refused until something is freed.
# timeout: 300
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs "$TEST_DEV" 200M <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'cd /; umount "$TEST_MNT"' EXIT
cd "$TEST_MNT"
available=$(stat -f -c %a .)
fallocate -l $(((available - 128) * 4096)) all
rm all
sync
fallocate -l 40M pre
dd if=/dev/urandom of=a bs=1M count=20 status=none
fails dd if=/dev/zero of=big bs=1M status=none
# Most of that is dirty pages, which reserve space for metadata that they will not need.
attribute() { setfattr -n "user.$1" -v "$2" a 2>/dev/null; }
value=$(printf '%01024d' 0)
large=0
while attribute "large$large" "$value"; do large=$((large + 1)); done
for small in {1..50}; do fails attribute "small$small" x; done
sync
for small in {51..100}; do fails attribute "small$small" x; done
echo "trace: full-disk $large attributes of 1 KiB"
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
