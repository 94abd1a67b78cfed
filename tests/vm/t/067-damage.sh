#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Damage to what was acknowledged last: the copies of the newest superblock, and a batch of the log that others follow.
# One good copy is enough. Without one, mounts that may write are refused with the reason, those for reading work, and
# fsck reports the damage; rescue=older and rescue=log give up what is lost.
# timeout: 120
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

# fsck_says TEXT: fsck.ordofs -n finds errors, and says TEXT.
fsck_says() {
	local out status=0
	out=$(fsck.ordofs -n "$TEST_DEV" 2>&1) || status=$?
	if [ "$status" -ne 4 ] || [[ $out != *"$1"* ]]; then
		echo "fsck: $status: $out"
		exit 1
	fi
}
# flip OFFSET: flips a bit of the device.
flip() {
	python3 -c '
import os, sys
dev = os.open(sys.argv[1], os.O_RDWR | os.O_SYNC)
at = int(sys.argv[2])
byte = os.pread(dev, 1, at)
os.pwrite(dev, bytes([byte[0] ^ 8]), at)
' "$TEST_DEV" "$1"
}
# number OFFSET: the u64 there.
number() { od -An -t u8 -j "$1" -N 8 "$TEST_DEV" | tr -d ' '; }

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
for name in a b; do
	echo "$name" >"$TEST_MNT/$name"
	sync -f "$TEST_MNT"
done
umount "$TEST_MNT"

# newest_first: sets slot to the newest superblock, and other to the one before.
newest_first() {
	slot=$((16 * 4096))
	other=$((128 * 4096))
	if [ "$(number $((slot + 192)))" -lt "$(number $((other + 192)))" ]; then
		read -r slot other <<<"$other $slot"
	fi
}
# The second copies are so far behind the first ones.
twin=$((16384 * 4096))
newest_first
[ "$(number $((slot + 192)))" = "$(number $((slot + twin + 192)))" ]
# One bad copy of either costs nothing, and is mended.
for bad in $slot $((slot + twin)) $other $((other + twin)); do
	flip $((bad + 592))
	fsck_says "the next mount mends it"
	mount -t ordofs "$TEST_DEV" "$TEST_MNT"
	[ "$(cat "$TEST_MNT/b")" = b ]
	echo again >"$TEST_MNT/again"
	umount "$TEST_MNT"
	fsck.ordofs -n "$TEST_DEV"
done
dmesg | grep "superblock slot .* is damaged: the checksum of a sector is wrong"
# Both copies of the newest, in one sector.
newest_first
flip $((slot + 592))
flip $((slot + twin + 600))
refused "both copies of a superblock" -t ordofs "$TEST_DEV" "$TEST_MNT"
fsck_says "it may have been the newest"
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/a")" = a ]
refused "both copies of a superblock" -o remount,rw "$TEST_MNT"
umount "$TEST_MNT"
# The user may go on from the one before.
dd if="$TEST_DEV" of=/tmp/damaged bs=1M count=80 status=none
mount -t ordofs -o rescue=older "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/a")" = a ]
grep -q "ordofs .*rescue=older" /proc/mounts
echo new >"$TEST_MNT/new"
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
refused "needs what to give up" -t ordofs -o rescue=newer "$TEST_DEV" "$TEST_MNT"
# A damaged backup is reported.
backup=$(($(blockdev --getsize64 "$TEST_DEV") / 4096 * 4096 - (256 - 16) * 4096))
[ "$(dd if="$TEST_DEV" bs=1 skip="$backup" count=6 status=none)" = OrdoFS ]
flip $((backup + 80))
fsck_says "backup of the superblock"
flip $((backup + 80))
fsck.ordofs -n "$TEST_DEV"

# A mount that changes nothing writes nothing.
before=$(dd if="$TEST_DEV" bs=1M count=80 status=none | sha256sum)
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
cat "$TEST_MNT/a" >/dev/null
sync -f "$TEST_MNT"
umount "$TEST_MNT"
[ "$(dd if="$TEST_DEV" bs=1M count=80 status=none | sha256sum)" = "$before" ]

# Three fsyncs, and the power goes.
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
touch "$TEST_MNT/a"
sync -f "$TEST_MNT"
for name in c d e; do
	echo "$name" >"$TEST_MNT/$name"
	sync "$TEST_MNT/$name"
done
crash
umount "$TEST_MNT"
newest_first
start=$(number $((slot + 528)))
len=$(number $((slot + 536)))
pos=$(number $((slot + 544)))
# The block of the second batch; each batch has one block.
second=$(((start + (pos + 1) % len) * 4096))
[ "$(dd if="$TEST_DEV" bs=1 skip="$second" count=4 status=none)" = ORDL ]
flip $((second + 70))
refused "the log is damaged before its end" -t ordofs "$TEST_DEV" "$TEST_MNT"
dmesg | grep "is damaged, and was flushed.*(2 batches) is in doubt"
fsck_says "recovery fails"
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/c")" = c ]
[ ! -e "$TEST_MNT/d" ]
refused "the log is damaged before its end" -o remount,rw "$TEST_MNT"
umount "$TEST_MNT"
mount -t ordofs -o ro,norecovery "$TEST_DEV" "$TEST_MNT"
[ ! -e "$TEST_MNT/c" ]
umount "$TEST_MNT"
flip $((second + 70))
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/e")" = e ]
umount "$TEST_MNT"
# With rescue=log the damaged batch and all behind it are given up.
flip $((second + 70))
mount -t ordofs -o rescue=log "$TEST_DEV" "$TEST_MNT"
grep " $TEST_MNT " /proc/mounts | grep -q "rescue=log"
[ "$(cat "$TEST_MNT/c")" = c ]
[ ! -e "$TEST_MNT/d" ]
[ ! -e "$TEST_MNT/e" ]
echo f >"$TEST_MNT/f"
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/f")" = f ]
umount "$TEST_MNT"
