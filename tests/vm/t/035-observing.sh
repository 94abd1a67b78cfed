#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A normal build has tracepoints with their formats and a directory in sysfs for each
# mount, and no error tags.
# timeout: 120
set -euo pipefail

events=/sys/kernel/tracing/events/ordofs
for e in map_read map_write delalloc map_stale ordered_insert ordered_mapped ordered_finish \
	release_maps fsync_start fsync_wait fsync_collect log_batch commit_start commit_durable \
	node_read node_shrink fault fault_done drop_pages layout_done; do
	grep -q '^print fmt: "dev %d:%d' "$events/ordofs_$e/format"
done
[ ! -e "$events/ordofs_window" ]

# No symbol and no text of the tags (scripts/module asks nm, too).
if grep -aE 'errortag|ordofs_window|ordered_inserted|pages_dropped' /run/ordofs/ordofs.ko; then exit 1; fi
if grep -q errortag /proc/kallsyms; then exit 1; fi

uuid=01234567-89ab-cdef-0123-456789abcdef
mkfs.ordofs -L label -U $uuid "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT"' EXIT
dir=/sys/fs/ordofs/$(basename "$TEST_DEV")
[ ! -e "$dir/errortag" ]
[ "$(cat "$dir/uuid")" = $uuid ]
[ "$(cat "$dir/label")" = label ]
[ "$(cat "$dir/shutdown")" = 0 ]
generation=$(cat "$dir/generation")

echo 1 >"$events/enable"
echo >/sys/kernel/tracing/trace
dd if=/dev/zero of="$TEST_MNT/file" bs=64k count=4 conv=fsync status=none
[ "$(cat "$dir/log_batches")" -gt 0 ]
[ "$(cat "$dir/extent_maps")" -gt 0 ]
sync
echo 0 >"$events/enable"
[ "$(cat "$dir/generation")" -gt "$generation" ]
[ "$(cat "$dir/commits")" -gt 0 ]
for e in map_write delalloc ordered_insert ordered_mapped ordered_finish fsync_start fsync_collect \
	log_batch commit_start commit_durable; do
	grep -m1 "ordofs_$e: dev " /sys/kernel/tracing/trace
done

# A process reads the files during unmounts.
(while cat "$dir"/* >/dev/null 2>&1; do :; done) &
reader=$!
for _ in 1 2 3 4 5; do
	umount "$TEST_MNT"
	[ ! -e "$dir" ]
	mount -t ordofs "$TEST_DEV" "$TEST_MNT"
done
kill "$reader" 2>/dev/null || true
