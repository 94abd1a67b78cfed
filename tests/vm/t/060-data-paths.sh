#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Buffered, direct, asynchronous and memory-mapped I/O: what was written is what is
# read, also when it has to come from the disk.
# timeout: 600
set -euo pipefail

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'cd /; umount "$TEST_MNT"' EXIT
cd "$TEST_MNT"

job() { # NAME OPTIONS...
	local name=$1
	shift
	echo "fio: $name"
	fio --name="$name" --filename="$name" --size=6m --verify=crc32c \
		--verify_fatal=1 --minimal "$@" >/dev/null
	echo 1 >/proc/sys/vm/drop_caches
	fio --name="$name" --filename="$name" --size=6m --verify=crc32c \
		--verify_only --minimal "$@" >/dev/null
}
job buffered --rw=randwrite --bsrange=512-64k --ioengine=psync
job fsync --rw=randwrite --bs=16k --ioengine=psync --fsync=8
job mmap --rw=randwrite --bs=4k --ioengine=mmap
job direct --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16
job sizes --rw=randwrite --bsrange=4k-256k --blockalign=4k --direct=1 \
	--ioengine=libaio --iodepth=8
job prealloc --rw=randwrite --bs=8k --direct=1 --ioengine=libaio --iodepth=32 \
	--fallocate=posix
job dsync --rw=randwrite --bs=16k --direct=1 --ioengine=libaio --iodepth=4 \
	--sync=dsync

echo "unaligned direct I/O"
dd if=/dev/urandom of=/tmp/data bs=1000 count=700 status=none
dd if=/tmp/data of=unaligned bs=1000 oflag=direct status=none
cmp /tmp/data unaligned

echo "truncate, punch, zero"
cp /tmp/data holes
truncate -s 5000 holes
truncate -s 100000 holes
cmp -n 5000 /tmp/data holes
cmp -i 5000:0 -n 95000 holes /dev/zero
cp /tmp/data holes
sync
fallocate -p -o 10001 -l 200000 holes
fallocate -z -o 300001 -l 77777 holes
for _ in 1 2; do
	cmp -n 10001 /tmp/data holes
	cmp -i 10001:0 -n 200000 holes /dev/zero
	cmp -i 210001 -n 90000 /tmp/data holes
	cmp -i 300001:0 -n 77777 holes /dev/zero
	cmp -i 377778 /tmp/data holes
	sync
	echo 1 >/proc/sys/vm/drop_caches
done

cd /
umount "$TEST_MNT"
trap - EXIT
fsck.ordofs -n "$TEST_DEV"
