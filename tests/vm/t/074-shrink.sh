#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A mounted filesystem becomes smaller, beside fsx and the race program, and then its device; what
# cannot be done is refused with a sentence, and a crash right after a shrink loses nothing.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"
# shellcheck source=tests/vm/load.sh
. "$TESTS_DIR/load.sh"

modprobe dm_mod 2>/dev/null || :
dev=/dev/mapper/ordofs-shrink
MIB=2048
dmsetup create ordofs-shrink --table "0 $((1024 * MIB)) linear $TEST_DEV 0" || exit 77
cleanup() {
	rm -f /tmp/load
	fsfreeze -u "$TEST_MNT" 2>/dev/null || :
	umount "$TEST_MNT" 2>/dev/null || :
	dmsetup remove --retry ordofs-shrink
}
trap cleanup EXIT

# Gives the device another size, in MiB.
device() {
	dmsetup suspend ordofs-shrink
	dmsetup load ordofs-shrink --table "0 $(($1 * MIB)) linear $TEST_DEV 0"
	dmsetup resume ordofs-shrink
}
# The size of the filesystem, in MiB, by statfs.
size() { echo $(($(stat -f -c '%b * %S' "$TEST_MNT") / 1048576)); }
# wont TEXT ARGS...: a shrink that must fail with this text.
wont() {
	local text=$1 out
	shift
	if out=$(ordofs resize --shrink "$@" 2>&1); then fail "went through: resize --shrink $*"; fi
	[[ $out = *"$text"* ]] || fail "resize --shrink $*: $out"
}

mkfs.ordofs -f "$dev" >/dev/null
mount -t ordofs "$dev" "$TEST_MNT"
[ "$(size)" = 1024 ]

# What is refused.
wont "needs a size" "$TEST_MNT"
wont "not larger than that" "$TEST_MNT" 2G
wont "have no place" "$TEST_MNT" 100M
mount -o remount,ro "$TEST_MNT"
wont "read-only" "$TEST_MNT" 512M
mount -o remount,rw "$TEST_MNT"
fsfreeze -f "$TEST_MNT"
wont "frozen" "$TEST_MNT" 512M
fsfreeze -u "$TEST_MNT"

# What is in the tail is moved: data, preallocated blocks, names.
fallocate -l 850M "$TEST_MNT/ballast"
head -c 20M /dev/urandom >"$TEST_MNT/stays"
cp "$TEST_MNT/stays" /tmp/stays
fallocate -l 5M "$TEST_MNT/unwritten"
mkdir "$TEST_MNT/names"
for i in $(seq 500); do echo "$i" >"$TEST_MNT/names/$i"; done
sync
wont "no room" "$TEST_MNT" 512M
rm "$TEST_MNT/ballast"
ordofs resize --shrink "$TEST_MNT" 600M | grep -q shrunk
[ "$(size)" = 512 ]
device 512
echo 3 >/proc/sys/vm/drop_caches
cmp /tmp/stays "$TEST_MNT/stays"
for i in $(seq 500); do [ "$(cat "$TEST_MNT/names/$i")" = "$i" ]; done
umount "$TEST_MNT"
fsck.ordofs -n "$dev"
mount -t ordofs "$dev" "$TEST_MNT"
[ "$(size)" = 512 ]

# A crash right after a shrink.
device 1024
ordofs resize "$TEST_MNT" >/dev/null
ordofs resize --shrink --json "$TEST_MNT" 640M | grep -q "$((640 << 20))"
cp /tmp/stays "$TEST_MNT/new"
python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$TEST_MNT/new"
crash
umount "$TEST_MNT"
device 640
mount -t ordofs "$dev" "$TEST_MNT"
[ "$(size)" = 640 ]
cmp /tmp/stays "$TEST_MNT/new"

# Beside fsx and the race program, up and down.
device 1024
up_and_down() {
	while [ -e /tmp/load ]; do
		ordofs resize "$TEST_MNT" 1G >/dev/null || return 1
		sleep 0.1
		ordofs resize --shrink "$TEST_MNT" $((384 + RANDOM % 600))M >/dev/null || return 1
		sleep 0.1
	done
}
beside_load up_and_down
check_load "$dev"
cmp /tmp/stays "$TEST_MNT/stays"
umount "$TEST_MNT"
