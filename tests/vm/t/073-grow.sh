#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A mounted filesystem grows with its device, beside fsx and the race program; what cannot be done is
# refused with a sentence, and a crash right after a resize loses nothing.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"
# shellcheck source=tests/vm/load.sh
. "$TESTS_DIR/load.sh"

modprobe dm_mod 2>/dev/null || :
dev=/dev/mapper/ordofs-grow
MIB=2048
all=$(($(blockdev --getsz "$TEST_DEV") / MIB))
dmsetup create ordofs-grow --table "0 $((200 * MIB)) linear $TEST_DEV 0" || exit 77
cleanup() {
	rm -f /tmp/load
	fsfreeze -u "$TEST_MNT" 2>/dev/null || :
	umount "$TEST_MNT" 2>/dev/null || :
	dmsetup remove --retry ordofs-grow
}
trap cleanup EXIT

# Gives the device another size, in MiB. As lvextend does, that freezes the filesystem for a moment.
device() {
	dmsetup suspend ordofs-grow
	dmsetup load ordofs-grow --table "0 $(($1 * MIB)) linear $TEST_DEV 0"
	dmsetup resume ordofs-grow
}
# The size of the filesystem, in MiB, by statfs.
size() { echo $(($(stat -f -c '%b * %S' "$TEST_MNT") / 1048576)); }
# wont TEXT ARGS...: a resize that must fail with this text.
wont() {
	local text=$1 out
	shift
	if out=$(ordofs resize "$@" 2>&1); then fail "went through: resize $*"; fi
	[[ $out = *"$text"* ]] || fail "resize $*: $out"
}

mkfs.ordofs -f "$dev" >/dev/null
mount -t ordofs "$dev" "$TEST_MNT"
[ "$(size)" = 200 ]

# What is refused.
wont "shrink makes it smaller" "$TEST_MNT" 100M
wont "the device is smaller" "$TEST_MNT" 201M
if setpriv --reuid 65534 --clear-groups ordofs resize "$TEST_MNT" 2>/tmp/out; then fail "without CAP_SYS_ADMIN"; fi
grep -q CAP_SYS_ADMIN /tmp/out
wont "not a mounted OrdoFS" /tmp
ordofs resize "$TEST_MNT" | grep -q "nothing to be done"
device 300
mount -o remount,ro "$TEST_MNT"
wont "read-only" "$TEST_MNT"
mount -o remount,rw "$TEST_MNT"
fsfreeze -f "$TEST_MNT"
wont "frozen" "$TEST_MNT"
fsfreeze -u "$TEST_MNT"
[ "$(size)" = 200 ]

# A full disk has room again, and what was there stays.
head -c 5M /dev/urandom >"$TEST_MNT/stays"
cp "$TEST_MNT/stays" /tmp/stays
fails fallocate -l 250M "$TEST_MNT/big"
rm -f "$TEST_MNT/big"
ordofs resize "$TEST_MNT" 250M | grep -q grown
[ "$(size)" = 250 ]
ordofs resize --json "$TEST_MNT" max | grep -q "$((300 << 20))"
[ "$(size)" = 300 ]
fallocate -l 250M "$TEST_MNT/big"
rm "$TEST_MNT/big"
free=$(stat -f -c %a "$TEST_MNT")
umount "$TEST_MNT"
fsck.ordofs -n "$dev"
mount -t ordofs "$dev" "$TEST_MNT"
[ "$(size)" = 300 ]
cmp /tmp/stays "$TEST_MNT/stays"
now=$(stat -f -c %a "$TEST_MNT")
[ $((now > free ? now - free : free - now)) -lt 2000 ] || fail "$free blocks are available, then $now"

# A device that is too small now.
umount "$TEST_MNT"
device 299
refused "smaller than the filesystem" -t ordofs "$dev" "$TEST_MNT"
device 300
mount -t ordofs "$dev" "$TEST_MNT"

# A crash right after a resize: what was fsynced into the new part is there.
device 320
ordofs resize "$TEST_MNT" >/dev/null
cp /tmp/stays "$TEST_MNT/new"
python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$TEST_MNT/new"
crash
umount "$TEST_MNT"
mount -t ordofs "$dev" "$TEST_MNT"
[ "$(size)" = 320 ]
cmp /tmp/stays "$TEST_MNT/new"

# Beside fsx and the race program, in steps that end anywhere.
grow() {
	local mib=320
	while [ -e /tmp/load ] && [ $mib -lt $((all - 40)) ]; do
		mib=$((mib + 1 + RANDOM % 40))
		device $mib
		ordofs resize "$TEST_MNT" >/dev/null || return 1
		sleep 0.2
	done
}
beside_load grow
echo "trace: $(size) MiB"
[ "$(size)" -gt 320 ]
check_load "$dev"
cmp /tmp/stays "$TEST_MNT/stays"
umount "$TEST_MNT"
