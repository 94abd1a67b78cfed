#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# On a read-only mount, calls that need no write succeed: fsync and its kin have nothing to do, whether it was
# mounted like that (after a crash, with a log that is replayed in memory only), or remounted.
# timeout: 120
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

t=/run/ordofs/tests
asked() { python3 $t/mount/read-only.py "$TEST_MNT" "$1"; }

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs -o commit=300 "$TEST_DEV" "$TEST_MNT"
trap 'blockdev --setrw "$TEST_DEV"; umount "$TEST_MNT" 2>/dev/null || :' EXIT
dd if=/dev/urandom of="$TEST_MNT/old" bs=64k count=3 status=none
sync -f "$TEST_MNT"
dd if=/dev/urandom of="$TEST_MNT/new" bs=64k count=3 conv=fsync status=none
mkdir "$TEST_MNT/dir"
sync "$TEST_MNT/dir"
crash
umount "$TEST_MNT"

# The log of the crash has `new`.
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
asked new
asked old
umount "$TEST_MNT"
mount -t ordofs -o ro,norecovery "$TEST_DEV" "$TEST_MNT"
[ ! -e "$TEST_MNT/new" ]
asked old
umount "$TEST_MNT"
blockdev --setro "$TEST_DEV"
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
asked new
umount "$TEST_MNT"
blockdev --setrw "$TEST_DEV"

# Writable at last: it is replayed. And read-only again, with writes just before.
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
mount -o remount,rw "$TEST_MNT"
echo text >"$TEST_MNT/new"
mount -o remount,ro "$TEST_MNT"
[ -z "$(pgrep -x "ordofs/${TEST_DEV##*/}")" ]
asked new
# A remount that is refused changes nothing, and the mount that stays writable goes on committing.
mount -o remount,rw,commit=1 "$TEST_MNT"
if mount -o remount,ro,commit=0 "$TEST_MNT" 2>/dev/null; then exit 1; fi
exec 5>"$TEST_MNT/open"
if mount -o remount,ro,commit=9 "$TEST_MNT" 2>/dev/null; then exit 1; fi
exec 5>&-
grep -q "^$TEST_DEV .*commit=1[ ,]" /proc/mounts
pgrep -x "ordofs/${TEST_DEV##*/}" >/dev/null
commits=$(cat "/sys/fs/ordofs/${TEST_DEV##*/}/commits")
touch "$TEST_MNT/another"
for _ in $(seq 30); do
	[ "$(cat "/sys/fs/ordofs/${TEST_DEV##*/}/commits")" -eq "$commits" ] || break
	sleep 1
done
[ "$(cat "/sys/fs/ordofs/${TEST_DEV##*/}/commits")" -gt "$commits" ]
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
