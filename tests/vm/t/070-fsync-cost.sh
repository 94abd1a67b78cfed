#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What 1024 fsyncs of 4 KiB cost, by the disk's own counters: one flush for
# data and log together, at most two writes; shared by threads that come
# together; and less time than ext4, xfs and btrfs in the same VM.
# timeout: 600
set -euo pipefail

disk=${TEST_DEV#/dev/}
cost() { python3 /run/ordofs/tests/cost/fsync-cost.py "$TEST_MNT" "$disk" "$1"; }
field() { sed -n "s/.*\b$2=\([0-9]*\).*/\1/p" <<<"$1"; }

make_fs() {
	wipefs -qa "$TEST_DEV"
	case $1 in
	xfs | btrfs) "mkfs.$1" -q -f "$TEST_DEV" ;;
	ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$TEST_DEV" ;;
	ordofs) mkfs.ordofs -f "$TEST_DEV" >/dev/null ;;
	esac
	mount -t "$1" "$TEST_DEV" "$TEST_MNT"
}

declare -A median
for fs in ordofs ext4 xfs btrfs; do
	if [ "$fs" != ordofs ] && ! modprobe "$fs"; then
		echo "$fs: not in this kernel"
		continue
	fi
	make_fs "$fs"
	one=$(cost 1)
	many=$(cost 16)
	umount "$TEST_MNT"
	echo "$fs: one thread: $one"
	echo "$fs: 16 threads: $many"
	median[$fs]=$(field "$one" median_us)
	if [ "$fs" = ordofs ]; then
		fsck.ordofs -n "$TEST_DEV"
		[ "$(field "$one" writes)" -le 2150 ]
		[ "$(field "$one" flushes)" -le 1080 ]
		# Threads that wait together share a flush.
		[ "$(field "$many" flushes)" -lt 512 ]
	fi
done
for fs in "${!median[@]}"; do
	[ "$fs" = ordofs ] || [ "${median[ordofs]}" -lt "${median[$fs]}" ] ||
		{ echo "an fsync takes longer than on $fs"; exit 1; }
done
