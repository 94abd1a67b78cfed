#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tools on a mounted device: they see what is on the disk, not what the device's page cache still holds
# from an earlier read; fsck without -n and mkfs refuse it.
# timeout: 120
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

# status COMMAND...: its exit status, and what it says in /tmp/said.
status() {
	local s=0
	"$@" >/tmp/said 2>&1 || s=$?
	echo $s
}

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
# Fills the page cache, which lasts as long as the device is open.
exec 9<"$TEST_DEV"
head -c 64M <&9 >/dev/null
[ "$(status fsck.ordofs -n "$TEST_DEV")" = 0 ]
grep -q "mounted or in use" /tmp/said || fail "no warning: $(cat /tmp/said)"

mkdir "$TEST_MNT/dir"
for i in $(seq 2700); do echo >"$TEST_MNT/dir/$i"; done
sync
for args in "-n" "-n --data"; do
	# shellcheck disable=SC2086 # two words
	[ "$(status fsck.ordofs $args "$TEST_DEV")" = 0 ] || fail "fsck $args: $(cat /tmp/said)"
	grep -q "clean, 2702 inodes" /tmp/said || fail "fsck $args is blind: $(cat /tmp/said)"
done
[ "$(status ordofs ls "$TEST_DEV" /dir)" = 0 ] || fail "ordofs: $(cat /tmp/said)"
grep -q "mounted or in use" /tmp/said || fail "no warning of ordofs"
seen=$(ordofs ls "$TEST_DEV" /dir 2>/dev/null | wc -l)
[ "$seen" = 2700 ] || fail "ordofs sees $seen files"

for args in "" -p -y -a -f; do
	# shellcheck disable=SC2086 # none or one
	[ "$(status fsck.ordofs $args "$TEST_DEV")" = 8 ] || fail "fsck $args: $(cat /tmp/said)"
	grep -q "mounted or in use" /tmp/said || fail "fsck $args: $(cat /tmp/said)"
done
[ "$(status mkfs.ordofs -f "$TEST_DEV")" = 1 ] || fail "mkfs: $(cat /tmp/said)"
[ "$(find "$TEST_MNT/dir" -type f | wc -l)" = 2700 ]
umount "$TEST_MNT"

# Not mounted, but still open somewhere: the same, without a warning.
[ "$(status fsck.ordofs "$TEST_DEV")" = 0 ] || fail "fsck: $(cat /tmp/said)"
if grep "in use" /tmp/said; then exit 1; fi
grep -q "clean, 2702 inodes" /tmp/said || fail "fsck is blind: $(cat /tmp/said)"
exec 9<&-

# A device that can only be read is checked as well.
blockdev --setro "$TEST_DEV"
trap 'blockdev --setrw "$TEST_DEV"' EXIT
[ "$(status fsck.ordofs -p "$TEST_DEV")" = 0 ] || fail "read-only: $(cat /tmp/said)"
