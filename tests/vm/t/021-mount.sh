#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Mounting: options, remounting, freezing, shutting down.
# timeout: 300
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
refused "Unknown parameter 'foo'" -t ordofs -o foo "$TEST_DEV" "$TEST_MNT"
refused "commit: needs a number of seconds" -t ordofs -o commit=0 "$TEST_DEV" "$TEST_MNT"
refused "norecovery is for read-only mounts" -t ordofs -o norecovery "$TEST_DEV" "$TEST_MNT"
mount -t ordofs -o norecovery,ro "$TEST_DEV" "$TEST_MNT"
[ "$(mount_options)" = ro,relatime,norecovery ]
umount "$TEST_MNT"

mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
if touch "$TEST_MNT/x" 2>/dev/null; then exit 1; fi
mount -o remount,rw,commit=7 "$TEST_MNT"
[ "$(mount_options)" = rw,relatime,commit=7 ]
touch "$TEST_MNT/x"
refused "Unknown parameter 'bar'" -o remount,bar "$TEST_MNT"

# A deleted file that is open keeps the mount writable.
exec 5<>"$TEST_MNT/open"
rm "$TEST_MNT/open"
refused "" -o remount,ro "$TEST_MNT"
exec 5>&-
mount -o remount,ro "$TEST_MNT"
mount -o remount,rw "$TEST_MNT"

# Sectors written to the device, and the generation. A frozen filesystem is not written to, also by syncs,
# which get to it. The commit before that changes the records of many groups.
written() {
	awk '{ print $7 }' "/sys/block/$(basename "$TEST_DEV")/stat"
	cat "/sys/fs/ordofs/$(basename "$TEST_DEV")/generation"
}
python3 - "$TEST_MNT/large" <<'END'
import ctypes
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fs = os.fstatvfs(fd)
size = min(fs.f_bavail * fs.f_frsize // 10 * 9, 4 << 30)


def fallocate(mode, at, length):
    if libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length)):
        sys.exit(os.strerror(ctypes.get_errno()))


fallocate(0, 0, size)
for group in range(0, size - (1 << 20), 32 << 20):
    for n in range(70):
        fallocate(3, group + n * 8192, 4096)
END
sync -f "$TEST_MNT"
rm "$TEST_MNT/large"
fsfreeze -f "$TEST_MNT"
before=$(written)
touch "$TEST_MNT/frozen" &
sleep 1
kill -0 $!
sync
sync -f "$TEST_MNT"
[ "$(written)" = "$before" ]
fsfreeze -u "$TEST_MNT"
wait $!
[ -e "$TEST_MNT/frozen" ]

# Shut down without a sync: what was synced before stays, the rest need not.
touch "$TEST_MNT/synced"
sync -f "$TEST_MNT"
crash
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
[ -e "$TEST_MNT/synced" ]
# With a sync: everything stays.
echo text >"$TEST_MNT/late"
python3 /run/ordofs/tests/names/shutdown.py "$TEST_MNT" 0
umount "$TEST_MNT"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/late")" = text ]
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"

# The label of a mounted filesystem.
cat >/tmp/label.py <<'END'
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
if len(sys.argv) > 2:
    fcntl.ioctl(fd, 0x41009432, sys.argv[2].encode().ljust(256, b"\0"))
print(fcntl.ioctl(fd, 0x81009431, bytes(256)).rstrip(b"\0").decode())
END
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
[ "$(python3 /tmp/label.py "$TEST_MNT" "Größe")" = Größe ]
[ "$(cat "/sys/fs/ordofs/$(basename "$TEST_DEV")/label")" = Größe ]
# Too long.
if python3 /tmp/label.py "$TEST_MNT" "$(printf '%065d' 0)" 2>/dev/null; then exit 1; fi
mount -o remount,ro "$TEST_MNT"
if python3 /tmp/label.py "$TEST_MNT" other 2>/dev/null; then exit 1; fi
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
[ "$(python3 /tmp/label.py "$TEST_MNT")" = Größe ]
umount "$TEST_MNT"
