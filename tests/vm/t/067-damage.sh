#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Damage to what was acknowledged last: the newest superblock, and a batch of the log that others follow. Mounts that may
# write are refused with the reason, those for reading work, fsck reports the damage, and rescue=log gives the rest up.
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

slot=$((16 * 4096))
other=$((128 * 4096))
if [ "$(number $((slot + 144)))" -lt "$(number $((other + 144)))" ]; then
	read -r slot other <<<"$other $slot"
fi
flip $((slot + 232))
refused "superblock slot" -t ordofs "$TEST_DEV" "$TEST_MNT"
fsck_says "may be the newest"
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/a")" = a ]
refused "superblock slot" -o remount,rw "$TEST_MNT"
umount "$TEST_MNT"
flip $((slot + 232))
# Damage to the older one costs nothing, and is mended.
flip $((other + 232))
fsck_says "the next mount mends it"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$TEST_MNT/b")" = b ]
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
dmesg | grep -q "which is not the newest, is damaged"

# Three fsyncs, and the power goes.
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
sync -f "$TEST_MNT"
for name in c d e; do
	echo "$name" >"$TEST_MNT/$name"
	sync "$TEST_MNT/$name"
done
crash
umount "$TEST_MNT"
if [ "$(number $((slot + 144)))" -lt "$(number $((other + 144)))" ]; then
	read -r slot other <<<"$other $slot"
fi
start=$(number $((slot + 176)))
len=$(number $((slot + 184)))
pos=$(number $((slot + 192)))
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
