#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What 1024 fsyncs of 4 KiB cost, by the disk's own counters: one flush for
# data and log together, at most two writes; shared by threads that come
# together; and less time than ext4, xfs and btrfs, in turns with each of them.
# timeout: 600
set -euo pipefail

# 1024 appends by 1 thread and by 16, on all filesystems of this kernel: a line for each.
cost() {
	SAMPLES=$RESULT_DIR/samples bash "$TESTS_DIR/bench.sh" "$TEST_DEV" "$SCRATCH_DEV" "$SCRATCH_DEV" "$SCRATCH_DEV" -- \
		--rounds 1 --scale 2 --only append-fsync-1 append-fsync-16
}
compare() { python3 /run/ordofs/tests/cost/fsync-compare.py "$TEST_MNT" "$SCRATCH_MNT"; }
field() { sed -n "s/.*\b$2=\([0-9]*\).*/\1/p" <<<"$1"; }

make_fs() { # TYPE DEVICE MOUNT-POINT
	wipefs -qa "$2"
	case $1 in
	xfs | btrfs) "mkfs.$1" -q -f "$2" ;;
	ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$2" ;;
	ordofs) mkfs.ordofs -f "$2" >/dev/null ;;
	esac
	mount -t "$1" "$2" "$3"
}

costs=$(cost)
while read -r line; do echo "trace: $line"; done <<<"$costs"
one=$(grep '^append-fsync-1 .*ordofs' <<<"$costs")
many=$(grep '^append-fsync-16 .*ordofs' <<<"$costs")
[ "$(field "$one" ops)" = 1024 ]
[ "$(field "$one" writes)" -le 2150 ]
[ "$(field "$one" flushes)" -le 1080 ]
# Threads that wait together share a flush.
[ "$(field "$many" flushes)" -lt 512 ]
fsck.ordofs -n "$TEST_DEV"

slower=0
for fs in ext4 xfs btrfs; do
	if ! modprobe "$fs"; then
		echo "trace: $fs: not in this kernel"
		continue
	fi
	make_fs ordofs "$TEST_DEV" "$TEST_MNT"
	make_fs "$fs" "$SCRATCH_DEV" "$SCRATCH_MNT"
	both=$(compare)
	umount "$TEST_MNT" "$SCRATCH_MNT"
	ours=$(field "$(grep "^$TEST_MNT " <<<"$both")" median_us)
	theirs=$(field "$(grep "^$SCRATCH_MNT " <<<"$both")" median_us)
	echo "trace: in turns: ordofs $ours us, $fs $theirs us an fsync"
	[ "$ours" -lt "$theirs" ] || slower=1
done
[ "$slower" = 0 ] || { echo "an fsync takes longer than on a peer"; exit 1; }
