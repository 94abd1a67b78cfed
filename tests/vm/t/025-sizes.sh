#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Operations that raise the size on disk of a file that was written but not fsynced: after a crash its
# size may be an old one, but below the size there is data, not a hole.
# timeout: 60
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
cd "$TEST_MNT"
tr '\0' x </dev/zero | head -c 64K >/tmp/x || :

for name in same longer shorter odd reserved punched zeroed appended modes last synced; do cat /tmp/x >$name; done
truncate -s 64K same
truncate -s 100K longer
truncate -s 20K shorter
truncate -s 20001 odd
fallocate -o 64K -l 16K reserved
fallocate -p -o 16K -l 16K punched
fallocate -z -o 16K -l 16K zeroed
dd if=/tmp/x of=appended bs=64K count=1 seek=1 conv=notrunc oflag=direct status=none
dd if=/tmp/x of=last bs=4K count=1 seek=15 conv=notrunc oflag=direct status=none
truncate -s 64K last
dd if=/tmp/x of=synced bs=4K count=1 seek=16 conv=notrunc oflag=dsync status=none
# The data is on disk, the size of it is in no log: the mode must not take it along.
python3 - modes <<'END'
import ctypes, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
assert ctypes.CDLL(None).sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7) == 0
os.fchmod(fd, 0o600)
END
# The fsync of another file has to come after these, and takes their records along.
echo other >other
sync other
crash
cd /
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
cd "$TEST_MNT"
[ "$(cat other)" = other ]
# has NAME FROM TO: so many bytes of the file are data, as far as the file goes.
bad=0
has() {
	local size
	size=$(stat -c %s "$1")
	local to=$((size < $3 ? size : $3))
	[ "$2" -ge "$to" ] || cmp -n $((to - $2)) -i "$2" "$1" /tmp/x || { echo "$1: $size bytes"; bad=1; }
}
has same 0 65536
has longer 0 65536
has shorter 0 20480
has odd 0 20001
has reserved 0 65536
has punched 0 16384
has punched 32768 65536
has zeroed 0 16384
has zeroed 32768 65536
has appended 0 65536
has modes 0 65536
has last 0 65536
has synced 0 65536
[ "$(stat -c %s synced)" = 69632 ]
echo "trace: sizes $(stat -c '%n %s' same longer shorter odd reserved punched zeroed appended modes last synced | tr '\n' ' ')"

# Growing keeps what is preallocated behind the end, and the same size again frees it.
touch ahead
fallocate -n -l 10M ahead
truncate -s 5M ahead
[ "$(stat -c %b ahead)" -eq 20480 ] || { echo "preallocated: $(stat -c %b ahead) sectors"; bad=1; }
truncate -s 5M ahead
[ "$(stat -c %b ahead)" -eq 10240 ] || { echo "not trimmed: $(stat -c %b ahead) sectors"; bad=1; }
cd /
exit $bad
