#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mkfs.ordofs over other filesystems, on a device: fsck without a type finds nothing of them to
# "repair"; with a size, what lies behind it stays.
# timeout: 180
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

for other in "ext4 -q -F" "ext4 -q -F -b 1024" "xfs -q -f" "btrfs -q -f"; do
	wipefs -qa "$TEST_DEV"
	# shellcheck disable=SC2086 # words
	mkfs.$other "$TEST_DEV"
	if mkfs.ordofs -K "$TEST_DEV" </dev/null >/dev/null 2>&1; then fail "over $other without -f"; fi
	mkfs.ordofs -f -K "$TEST_DEV" >/dev/null
	[ -z "$(blkid -p "$TEST_DEV")" ] || fail "$other: blkid: $(blkid -p "$TEST_DEV")"
	[ -z "$(wipefs "$TEST_DEV")" ] || fail "$other: $(wipefs "$TEST_DEV")"
	# What fsck(8) runs when the type is not known.
	s=0
	e2fsck -y "$TEST_DEV" >/tmp/said 2>&1 || s=$?
	[ $s = 8 ] || fail "$other: e2fsck: $s: $(cat /tmp/said)"
	fsck.ordofs -n "$TEST_DEV"
done

mib=1048576
size=$(blockdev --getsize64 "$TEST_DEV")
# A pattern behind the size: at once, in the middle, and at the end of the device.
places="64 65 $((size / mib / 2)) $((size / mib - 1))"
head -c $mib /dev/urandom >/tmp/pattern
for at in $places; do
	dd if=/tmp/pattern of="$TEST_DEV" bs=1M seek="$at" conv=notrunc,fsync status=none
done
mkfs.ordofs -f "$TEST_DEV" 64M >/dev/null
for at in $places; do
	dd if="$TEST_DEV" bs=1M skip="$at" count=1 iflag=direct status=none | cmp - /tmp/pattern ||
		fail "mkfs with a size of 64 MiB changed what is at $at MiB"
done
fsck.ordofs -n "$TEST_DEV"
