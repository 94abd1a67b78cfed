#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What docs/MOUNT.md says of options, remounting, sysfs, ioctls and system calls.
# timeout: 120
set -euo pipefail

# refused TEXT COMMAND...
refused() {
	local text=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "went through: $*"
		exit 1
	fi
	[[ $out = *"$text"* ]] || { echo "$*: $out"; exit 1; }
}
options() { sed -n "s|^$TEST_DEV $TEST_MNT ordofs \([^ ]*\) .*|\1|p" /proc/mounts; }

mkfs.ordofs -L name "$TEST_DEV" <<<y >/dev/null
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT

# Only what differs from the defaults is shown; a remount keeps what it does not name.
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
[ "$(options)" = rw,relatime ]
mount -o remount,commit=300,discard,noacl "$TEST_MNT"
[ "$(options)" = rw,relatime,commit=300,discard,noacl ]
mount -o remount,nodiscard "$TEST_MNT"
[ "$(options)" = rw,relatime,commit=300,noacl ]
mount -o remount,acl,commit=5 "$TEST_MNT"
[ "$(options)" = rw,relatime ]
for wrong in commit commit=x commit=301 commit=-1; do
	refused "needs a number of seconds from 1 to 300" mount -o "remount,$wrong" "$TEST_MNT"
done
for wrong in rescue rescue=1 rescue=logs; do
	refused "needs what to give up: log, older or data" mount -o "remount,$wrong" "$TEST_MNT"
done
for wrong in discard=1 nodiscard=1 acl=1 noacl=0 norecovery=1; do
	refused "takes no value" mount -o "remount,$wrong" "$TEST_MNT"
done
[ "$(options)" = rw,relatime ]

# The files of sysfs: readable, not writable, one line.
dir=/sys/fs/ordofs/$(basename "$TEST_DEV")
names="bad_copy_reads cached_nodes commits extent_maps generation healed_copies label"
names+=" log_batches log_blocks log_used scrub_bad_copies scrub_bad_data scrub_bad_inodes scrub_bad_records scrub_data scrub_healed"
names+=" scrub_inodes scrub_left_out scrub_lost_nodes scrub_nodes scrub_state scrub_total shutdown"
names+=" unhealed_copies uuid"
[ "$(cd "$dir" && echo *)" = "$names" ]
for f in "$dir"/*; do
	[ "$(stat -c %a "$f")" = 444 ]
	[ "$(wc -l <"$f")" = 1 ]
done
[ "$(cat "$dir/label")" = name ]
mkdir "$TEST_MNT/other"
before=$(cat "$dir/log_batches")
used=$(cat "$dir/log_used")
echo x >"$TEST_MNT/file"
python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$TEST_MNT/file"
[ "$(cat "$dir/log_batches")" -eq $((before + 1)) ]
[ "$(cat "$dir/log_used")" -eq $((used + 1)) ]
sync -f "$TEST_MNT"
[ "$(cat "$dir/log_used")" = 0 ]
[ -e /sys/module/ordofs ]
[ ! -e /sys/module/ordofs/parameters ]

python3 /run/ordofs/tests/mount/interface.py "$TEST_MNT" "$TEST_MNT/other"
umount "$TEST_MNT"
[ ! -e "$dir" ]

# Mounted with norecovery, it cannot be made writable.
mount -t ordofs -o ro,norecovery "$TEST_DEV" "$TEST_MNT"
refused "norecovery is for read-only mounts" mount -o remount,rw "$TEST_MNT"
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
