#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Large files are deleted in the background: their space counts as available at once and can be had,
# and freezing, remounting read-only, unmounting and a shutdown in the middle lose nothing.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'cd /; umount "$TEST_MNT"' EXIT
available() { stat -f -c %a "$TEST_MNT"; }
used() { echo $(($(stat -f -c %b "$TEST_MNT") - $(stat -f -c %f "$TEST_MNT"))); }
pgrep -x 'ordofs-reap/.*' >/dev/null || fail "there is no thread"
before=$(available)

# A file in as many pieces as it has blocks, so that its deletion takes many steps.
scattered() {
	python3 - "$1" <<-'EOF'
		import os, sys
		fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o644)
		for i in range(20000):
		    os.pwrite(fd, b"x" * 4096, 8192 * i)
		os.fsync(fd)
	EOF
}

# What is being deleted can be had at once, again and again.
size=$(((before - 2000) * 4096))
for _ in {1..10}; do
	fallocate -l "$size" "$TEST_MNT/all"
	rm "$TEST_MNT/all"
	now=$(available)
	[ $((before - now)) -lt 3000 ] || fail "$now blocks available, $before before"
done

# The last user is a process that closes it.
scattered "$TEST_MNT/open"
exec 3<"$TEST_MNT/open"
rm "$TEST_MNT/open"
[ "$(head -c 1 <&3)" = x ] || fail "a removed file that is open cannot be read"
exec 3<&-

# Frozen: nothing is written, so nothing is freed.
scattered "$TEST_MNT/frozen"
rm "$TEST_MNT/frozen"
fsfreeze -f "$TEST_MNT"
a=$(used)
sleep 2
b=$(used)
fsfreeze -u "$TEST_MNT"
[ "$a" = "$b" ] || fail "$a blocks in use when it was frozen, and $b later"

# Read-only, and writable again.
scattered "$TEST_MNT/remount"
rm "$TEST_MNT/remount"
mount -o remount,ro "$TEST_MNT"
pgrep -x 'ordofs-reap/.*' >/dev/null && fail "the thread still runs"
fsck.ordofs -n "$TEST_DEV"
now=$(available)
[ $((before - now)) -lt 3000 ] || fail "$now blocks available on a read-only mount, $before before"
mount -o remount,rw "$TEST_MNT"

# Unmounted at once: all of it is done then.
scattered "$TEST_MNT/unmount"
rm "$TEST_MNT/unmount"
trap - EXIT
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'cd /; umount "$TEST_MNT"' EXIT
now=$(available)
[ $((before - now)) -lt 3000 ] || fail "$now blocks available after a mount, $before before"

# A shutdown in the middle: the next mount goes on.
scattered "$TEST_MNT/shutdown"
sync
rm "$TEST_MNT/shutdown"
sync
crash
trap - EXIT
umount "$TEST_MNT"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'cd /; umount "$TEST_MNT"' EXIT
[ ! -e "$TEST_MNT/shutdown" ] || fail "it came back"
now=$(available)
[ $((before - now)) -lt 3000 ] || fail "$now blocks available after a shutdown, $before before"
trap - EXIT
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
