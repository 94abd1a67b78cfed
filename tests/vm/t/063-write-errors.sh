#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R8: a device that fails all writes. Every fsync gets the error, nothing hangs, and
# what was durable before is there afterwards.
# timeout: 120
set -euo pipefail

sectors=$(blockdev --getsz "$TEST_DEV")
modprobe dm_flakey 2>/dev/null || dmsetup targets | grep -q ^flakey ||
	{ echo "no dm-flakey in this kernel"; exit 77; }
dmsetup create ordofs-test --table "0 $sectors linear $TEST_DEV 0" || exit 77
dev=/dev/mapper/ordofs-test
trap 'umount "$TEST_MNT"; dmsetup remove ordofs-test' EXIT
mkfs.ordofs $dev <<<y >/dev/null
mount -t ordofs $dev "$TEST_MNT"
for f in a b; do
	dd if=/dev/urandom of="$TEST_MNT/$f" bs=64k count=16 status=none
	cp "$TEST_MNT/$f" /tmp/$f
done
sync

table() {
	dmsetup suspend --noflush --nolockfs ordofs-test
	dmsetup load ordofs-test --table "$1"
	dmsetup resume ordofs-test
}
table "0 $sectors flakey $TEST_DEV 0 0 1000 1 error_writes"
python3 - "$TEST_MNT" <<'END'
import mmap
import os
import sys

top = sys.argv[1]
one = os.open(top + "/a", os.O_RDWR)
two = os.open(top + "/a", os.O_RDWR)
direct = os.open(top + "/b", os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 65536)
size = os.fstat(direct).st_size


def fails(what, *args):
    try:
        what(*args)
    except OSError:
        return
    sys.exit("%s%r did not fail" % (what.__name__, args))


os.pwrite(one, b"x" * 100000, 5000)
fails(os.fsync, one)
fails(os.fsync, two)
fails(os.pwritev, direct, [page], 0)
fails(os.pwritev, direct, [page], size)
if os.fstat(direct).st_size != size:
    sys.exit("the failed write changed the size")
END
table "0 $sectors linear $TEST_DEV 0"
umount "$TEST_MNT"
fsck.ordofs -n $dev
mount -t ordofs $dev "$TEST_MNT"
cmp /tmp/a "$TEST_MNT/a"
cmp /tmp/b "$TEST_MNT/b"

# fsync reports an error of writeback. A truncation whose own I/O succeeds must not fail for it.
mount -o remount,commit=300 "$TEST_MNT"
sync
dd if=/tmp/a of="$TEST_MNT/a" bs=64K count=1 oflag=append conv=notrunc status=none
table "0 $sectors flakey $TEST_DEV 0 0 1000 1 error_writes"
python3 - "$TEST_MNT/a" <<'END'
import ctypes, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
assert ctypes.CDLL(None).sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 2) == 0
time.sleep(1)
END
table "0 $sectors linear $TEST_DEV 0"
truncate -s +4K "$TEST_MNT/a"
if sync "$TEST_MNT/a"; then
	echo "fsync did not report the failed write"
	exit 1
fi
sync "$TEST_MNT/a"
