#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images that make no sense, with right checksums (tools/fuzz), in the kernel: each is mounted, read,
# written to and unmounted, or refused. Nothing oopses, hangs or warns, whatever is in them, and no invariant
# breaks. LOOPS=50 tries 2,000 images; FUZZ_SEED is the first one.
# timeout: 300
set -euo pipefail

seed=${FUZZ_SEED:-1}
dir=/tmp/forged
mnt=$TEST_MNT
mkdir -p $dir
dmesg --clear
mounted=0 refused=0

# Any of these may fail; none may take longer than that.
try() { timeout -s KILL 120 "$@" >/dev/null 2>&1 || [ $? != 137 ] || { echo "killed: $*"; exit 1; }; }
use() {
	try find "$mnt" -xdev -ls
	try find "$mnt" -xdev -type f -size -4M -exec cat {} +
	try getfattr -R -hd -m- "$mnt"
	try stat -f "$mnt"
	try mkdir "$mnt/new"
	# shellcheck disable=SC2016 # for the inner shell
	try sh -c 'echo text >"$0/new/file"; truncate -s 1M "$0/new/file"; sync -f "$0/new/file"' "$mnt"
	try fallocate -l 1M "$mnt/new/space"
	# shellcheck disable=SC2016
	try sh -c 'for f in "$0"/*; do [ ! -f "$f" ] || { mv "$f" "$f.moved"; rm -f "$f.moved"; break; }; done' "$mnt"
	try rm -r "$mnt/new"
	try sync -f "$mnt"
}
for ((i = 0; i < 4 * ${LOOPS:-1}; i++)); do
	ordofs-fuzz images --seed $((seed + 10 * i)) -n 10 $dir
	for image in "$dir"/*; do
		# Those of the large filesystem do not fit.
		[ "$(stat -c %s "$image")" -le $((1 << 30)) ] || continue
		echo "image ${image##*/}" >/dev/kmsg
		dd if="$image" of="$TEST_DEV" bs=1M oflag=direct status=none
		if timeout -s KILL 120 mount -t ordofs "$TEST_DEV" "$mnt" 2>/tmp/said; then
			mounted=$((mounted + 1))
			use
			umount "$mnt"
		else
			refused=$((refused + 1))
		fi
		# The checker comes to an end as well.
		status=0
		timeout -s KILL 120 fsck.ordofs -n "$TEST_DEV" >/dev/null 2>&1 || status=$?
		[ "$status" -lt 16 ] || { echo "fsck: $status, image ${image##*/}"; exit 1; }
	done
	rm -f "$dir"/*
	dmesg >/tmp/dmesg
	if grep "broken invariant" /tmp/dmesg; then exit 1; fi
	dmesg --clear
done
echo "trace: $mounted images were mounted, $refused refused"
[ "$mounted" -gt 0 ] && [ "$refused" -gt 0 ]
