#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A damaged block is an I/O error in every kind of read, and the blocks beside it can be read.
# timeout: 60
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT"' EXIT
f=$TEST_MNT/file
dd if=/dev/urandom of="$f" bs=4k count=64 status=none
sync
cp "$f" /tmp/good
first=$(filefrag -v "$f" | awk '/^ +0:/ { print $4 + 0; exit }')
umount "$TEST_MNT"
dd if=/dev/zero of="$TEST_DEV" bs=4k seek=$((first + 5)) count=1 conv=notrunc status=none
mount -t ordofs "$TEST_DEV" "$TEST_MNT"

fails cat "$f" >/dev/null
for flag in nocache direct; do
	for block in 4 5 6; do
		status=0
		dd if="$f" of=/tmp/block bs=4k skip=$block count=1 iflag=$flag status=none || status=$?
		if [ "$block" -eq 5 ]; then
			[ "$status" -ne 0 ]
		else
			[ "$status" -eq 0 ]
			cmp -i $((block * 4096)):0 -n 4096 /tmp/good /tmp/block
		fi
	done
done
# A write of a part of it fails, a write of all of it succeeds.
fails dd if=/dev/zero of="$f" bs=1 seek=$((5 * 4096 + 7)) count=1 conv=notrunc status=none
dd if=/tmp/good of="$f" bs=4k seek=5 skip=5 count=1 conv=notrunc status=none
cmp /tmp/good "$f"
dmesg | grep "block 5: bad data in disk block $((first + 5))"
