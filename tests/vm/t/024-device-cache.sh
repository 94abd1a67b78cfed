#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The filesystem reads and writes past the device's own page cache, which stays as long as a process
# has the device open (udev does for a moment after each writer): a mount sees what was written
# through that cache, and a read through it sees what a mount wrote.
# timeout: 60
set -euo pipefail

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
dd if=/dev/urandom of="$TEST_MNT/file" bs=4k count=8 status=none
sync
first=$(filefrag -v "$TEST_MNT/file" | awk '/^ +0:/ { print $4 + 0 }')
umount "$TEST_MNT"

exec 9<"$TEST_DEV"
# Udev would read the partition table again, which flushes; it keeps off a locked device.
udevadm settle --timeout=20
flock -x 9
dd if=/dev/zero of="$TEST_DEV" bs=4k seek="$first" count=1 conv=notrunc status=none
head -c 1M "$TEST_DEV" >/tmp/cached
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
if cat "$TEST_MNT/file" >/dev/null 2>&1; then
	echo "reads a block that was overwritten before the mount"
	exit 1
fi
touch "$TEST_MNT/new"
umount "$TEST_MNT"

head -c 1M "$TEST_DEV" >/tmp/through-cache
dd if="$TEST_DEV" of=/tmp/from-disk bs=1M count=1 iflag=direct status=none
if cmp -s /tmp/cached /tmp/from-disk; then
	echo "the mount wrote nothing: this shows nothing"
	exit 1
fi
cmp /tmp/through-cache /tmp/from-disk
exec 9<&-
