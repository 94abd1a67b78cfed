#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# 200,000 files and a file of 100,000 extents survive umount and mount; ordofs
# dump shows all of them, fsck finds nothing. Memory for it is bounded: the VM
# has 2 GB, the caches may be dropped on the way.
# timeout: 1200
set -euo pipefail

files=${FILES:-200000}
extents=${EXTENTS:-100000}
many() {
	local begin=$SECONDS
	python3 /run/ordofs/tests/scale/many.py "$1" "$TEST_MNT" "$files" "$extents"
	echo "$1: $((SECONDS - begin)) s"
}

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
many make
echo 2 >/proc/sys/vm/drop_caches
umount "$TEST_MNT"

mount -t ordofs "$TEST_DEV" "$TEST_MNT"
many check
ino=$(stat -c %i "$TEST_MNT/extents")
umount "$TEST_MNT"

dirs=$(((files + 999) / 1000))
seen=$(ordofs --json dump tree "$TEST_DEV" inode | grep -c '"inode":')
echo "dump: $seen inodes"
[ "$seen" -eq $((files + dirs + 2)) ]
seen=$(ordofs --json dump inode "$TEST_DEV" "$ino" | grep -c '"file_block":')
echo "dump: $seen extents"
[ "$seen" -eq "$extents" ]
begin=$SECONDS
fsck.ordofs -n "$TEST_DEV"
echo "fsck: $((SECONDS - begin)) s"
