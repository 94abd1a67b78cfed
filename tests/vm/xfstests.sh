#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest half of scripts/xfstests: xfstests.sh [check's arguments]
#
# The user's own built tree comes as a disk image and is mounted writable (the
# VM's changes to it are thrown away, so this is the scratch copy that
# xfstests-config/teach may change when TAUGHT is set). TEST_DEV is formatted
# here; the rest is upstream's ./check, which also reports in xunit's format.
# With TEST_LIMIT=seconds, a test that takes longer is ended and has failed.
set -euo pipefail

config=/run/ordofs/add/xfstests-config
mnt=/var/lib/xfstests
mkdir -p "$mnt" /mnt/test /mnt/scratch
mount -o noatime /dev/disk/by-id/virtio-image0 "$mnt"
cd "$mnt"
[ -x ./check ] || cd "$(dirname "$(find . -maxdepth 5 -name check -type f -perm -u+x | head -n 1)")"
[ -x ./check ] || { echo "no ./check in the given tree"; exit 2; }
[ -z "${TAUGHT-}" ] || "$config/teach" "$PWD" || exit 2

export HOST_OPTIONS=$config/local.config
# shellcheck source=/dev/null
. "$HOST_OPTIONS"
export RESULT_BASE=/results

command -v "fsck.$FSTYP" "mkfs.$FSTYP" ||
	{ echo "no mkfs.$FSTYP or fsck.$FSTYP: upstream would pass without checking"; exit 2; }
modprobe "$FSTYP" 2>/dev/null || true
# /dev/loop-control does not exist before the module is loaded.
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
# The children of a process and theirs, the process last.
family() {
	local child
	for child in $(pgrep -P "$1"); do
		family "$child"
	done
	echo "$1"
}
# Ends a test that has run for too long. The test's own cleanup still runs.
limit_tests() {
	local pid age
	while sleep 10; do
		pid=$(pgrep -o -f '^/bin/bash [^ ]*/tests/[a-z]+/[0-9]+$') || continue
		age=$(ps -o etimes= -p "$pid") || continue
		[ "$age" -gt "$TEST_LIMIT" ] || continue
		echo "ended after $((age)) seconds: $(ps -o args= -p "$pid")"
		# shellcheck disable=SC2046 # words
		kill $(family "$pid") 2>/dev/null || true
		sleep 60
	done
}
limiter=
if [ -n "${TEST_LIMIT-}" ]; then
	limit_tests &
	limiter=$!
fi
rc=0
./check -R xunit-quiet "${args[@]}" "$@" || rc=$?
[ -z "$limiter" ] || kill "$limiter"
umount "$SCRATCH_MNT" "$TEST_DIR" 2>/dev/null || true
# That it looked, and how often.
[ ! -e /sys/kernel/debug/kcsan ] || sed -n 's/^\(enabled\|setup_watchpoints\|data_races\):/kcsan: &/p' /sys/kernel/debug/kcsan
exit "$rc"
