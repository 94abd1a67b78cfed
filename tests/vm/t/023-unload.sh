#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A hundred times mount, work, unmount, rmmod, insmod: slab and memory use do not grow.
#
# Measured between the 20th and the last time, with caches dropped. The limit of kernel memory is 3.2 KiB
# per round; of free memory, which the whole system uses, 200 KiB: a quarter of the module. The pages that
# processors keep in lists of their own are free, too; MemFree does not have them, and they are many MiB.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/leaks.sh
. "$TESTS_DIR/leaks.sh"

# Unreclaimable slab, vmalloc, per-CPU memory: KiB. Then free memory, and how much of that is in lists.
measure() {
	sync
	for _ in 1 2 3; do
		echo 3 >/proc/sys/vm/drop_caches
		sleep 0.2
	done
	awk '/^(SUnreclaim|VmallocUsed|Percpu):/ { kernel += $2 } /^MemFree:/ { free = $2 }
		/^ +count:/ { lists += 4 * $2 } END { print kernel, free + lists, lists }' /proc/meminfo /proc/zoneinfo
}

mkfs.ordofs -f "$TEST_DEV" >/dev/null
for i in $(seq 100); do
	mount -t ordofs "$TEST_DEV" "$TEST_MNT"
	# Without a process of its own each: those are slow here.
	for f in a b c; do
		printf '%100000s' "$f" >"$TEST_MNT/$f$i"
	done
	[ "$((i % 10))" -ne 0 ] || rm "$TEST_MNT"/a*
	umount "$TEST_MNT"
	# The kernel knows the names of the module that is there: what leaked is found before it goes.
	case $i in 1 | 100) find_leaks ;; esac
	rmmod ordofs
	[ "$i" -ne 20 ] || read -r kernel free lists < <(measure)
	if [ "$i" -eq 100 ]; then
		read -r kernel_then free_then lists_then < <(measure)
	fi
	insmod /run/ordofs/ordofs.ko
done
echo "trace: 80 times: kernel memory $kernel to $kernel_then KiB, free memory $free to $free_then KiB," \
	"of it in lists $lists to $lists_then"
[ $((kernel_then - kernel)) -lt 256 ]
[ $((free - free_then)) -lt 16384 ]
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
[ "$(find "$TEST_MNT" -type f -size 100000c | wc -l)" = 200 ]
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
