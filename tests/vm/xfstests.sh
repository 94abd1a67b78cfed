#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest half of scripts/xfstests: xfstests.sh [check's arguments]
#
# The user's own built tree comes as a disk image and is mounted writable (the
# VM's changes to it are thrown away). TEST_DEV is formatted here; the rest is
# upstream's ./check.
set -euo pipefail

config=/run/ordofs/add/xfstests-config
mnt=/var/lib/xfstests
mkdir -p "$mnt" /mnt/test /mnt/scratch
mount -o noatime /dev/disk/by-id/virtio-image0 "$mnt"
cd "$mnt"
[ -x ./check ] || cd "$(dirname "$(find . -maxdepth 5 -name check -type f -perm -u+x | head -n 1)")"
[ -x ./check ] || { echo "no ./check in the given tree"; exit 2; }

export HOST_OPTIONS=$config/local.config
# shellcheck source=/dev/null
. "$HOST_OPTIONS"
export RESULT_BASE=/results

command -v "fsck.$FSTYP" "mkfs.$FSTYP" ||
	{ echo "no mkfs.$FSTYP or fsck.$FSTYP: upstream would pass without checking"; exit 2; }
modprobe "$FSTYP" 2>/dev/null || true
# Nobody makes /dev/loop-control for a module that is not loaded yet.
modprobe loop 2>/dev/null || true
wipefs -qa "$TEST_DEV" "$SCRATCH_DEV"
force=()
case $FSTYP in
xfs | btrfs) force=(-f) ;;
esac
# shellcheck disable=SC2086 # options are words
mkfs -t "$FSTYP" "${force[@]}" ${MKFS_OPTIONS-} "$TEST_DEV" >/dev/null

# The races of the boot are not ours.
[ ! -e /sys/kernel/debug/kcsan ] || echo on >/sys/kernel/debug/kcsan
args=()
if [ "$FSTYP" = ordofs ]; then
	# Only names; upstream's parser takes comments, but names are simplest.
	sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$config/exclude" >/tmp/exclude
	args+=(-E /tmp/exclude)
fi
# SHARD=i/n: only every n-th of the tests that were asked for, from the i-th on.
if [ "${SHARD#*/}" -gt 1 ] 2>/dev/null; then
	mapfile -t tests < <(./check -n "${args[@]}" "$@" | awk -v i="${SHARD%/*}" -v n="${SHARD#*/}" \
		'$1 ~ "^[a-z0-9]+/[0-9]+$" && !seen[$1]++ && (count++ % n == i) { print $1 }')
	[ "${#tests[@]}" -gt 0 ] || exit 0
	set -- "${tests[@]}"
fi
rc=0
./check "${args[@]}" "$@" || rc=$?
umount "$SCRATCH_MNT" "$TEST_DIR" 2>/dev/null || true
# That it looked, and how often.
[ ! -e /sys/kernel/debug/kcsan ] || sed -n 's/^\(enabled\|setup_watchpoints\|data_races\):/kcsan: &/p' /sys/kernel/debug/kcsan
exit "$rc"
