#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every allocation and every bio of every operation fails once: the operation
# returns, nothing acknowledged is lost, and fsck finds nothing; then those of the
# kernel's workers behind the operation. Only where the kernel can inject faults (KERNEL=debug).
# With CORE set, a sample, always the same; OPERATIONS, a regular expression, takes some:
# it is searched in "memory: create" or "io/workers: fsync of data".
# timeout: 1800
set -euo pipefail

[ -e /proc/self/fail-nth ] || { echo "this kernel injects no faults"; exit 77; }
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
for what in memory io memory/workers io/workers; do
	# An operation has fewer bios than allocations.
	case $what in io*) sample=3 ;; *) sample=24 ;; esac
	mkfs.ordofs -f "$TEST_DEV" >/dev/null
	mount -t ordofs "$TEST_DEV" "$TEST_MNT"
	python3 /run/ordofs/tests/fault/nth.py "$TEST_DEV" "$TEST_MNT" "$what" ${CORE:+$sample 1}
	echo 0 >"/sys/block/${TEST_DEV#/dev/}/make-it-fail"
	umount "$TEST_MNT"
	fsck.ordofs -n "$TEST_DEV"
done
