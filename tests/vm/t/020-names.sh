#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Operations on names: one by one, then many at once; the same is there after a
# remount, and fsck finds nothing.
# timeout: 400
set -euo pipefail

t=/run/ordofs/tests/names
list() { find "$TEST_MNT" -printf '%i %M %n %s %p %l %T@ %C@\n' | sort; }

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
python3 $t/names.py "$TEST_MNT"
rm -rf "${TEST_MNT:?}"/*

pids=()
for seed in 1 2 3 4; do
	python3 $t/stress.py $seed 25 "$TEST_MNT" &
	pids+=($!)
done
for _ in $(seq 8); do
	sleep 3
	echo 2 >/proc/sys/vm/drop_caches
	sync
	ls -lR "$TEST_MNT" >/dev/null 2>&1 || :
done
wait "${pids[@]}"

python3 $t/links.py "$TEST_MNT"
list >/tmp/before
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
list | diff /tmp/before -
rm -rf "${TEST_MNT:?}"/*
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
