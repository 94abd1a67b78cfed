#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run tests in the guest, one after another: run-tests.sh NAME...
#
# Model: a test is a script t/NAME.sh that exits 0 (passed), 77 (not run: says
# why) or anything else. It gets TEST_DEV, SCRATCH_DEV, LOG_DEV and the mount
# points TEST_MNT and SCRATCH_MNT, on disks left in any state, and a directory
# of its own below /results. Lines that begin with "::" are for scripts/test on
# the host. LOOPS is how often the reproducers of races run, SLOW the factor for time limits, MEMCG the
# memory limit of a test and its processes; a test fails if one of them is killed for want of memory.
# The same marker goes to the kernel's log, so that a splat counts against the right test.
# KCSAN is turned on here, after the boot.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/vm/leaks.sh
. "$here/leaks.sh"
export TEST_DEV=/dev/vdb SCRATCH_DEV=/dev/vdc LOG_DEV=/dev/vdd
export TEST_MNT=/mnt/test SCRATCH_MNT=/mnt/scratch
export TESTS_DIR=$here
mkdir -p "$TEST_MNT" "$SCRATCH_MNT"

tidy() {
	local m
	cd /
	# Deepest first.
	while read -r m; do
		umount "$m" 2>/dev/null || { fuser -km "$m"; sleep 1; umount "$m"; }
	done < <(awk '$2 ~ "^/mnt/" { print $2 }' /proc/self/mounts | sort -r)
	dmsetup remove_all --force >/dev/null 2>&1
	losetup -D
}

group=/sys/fs/cgroup/ordofs-test
if [ -n "${MEMCG-}" ]; then
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir -p "$group"
	echo "$MEMCG" >"$group/memory.max"
fi
# Run a command in the control group, if there is one.
confined() {
	[ -z "${MEMCG-}" ] || echo "$BASHPID" >"$group/cgroup.procs"
	exec "$@"
}
kills() { awk '$1 == "oom_kill" { print $2 }' "$group/memory.events" 2>/dev/null || echo 0; }

[ ! -e /sys/kernel/debug/kcsan ] || echo on >/sys/kernel/debug/kcsan
for name in "$@"; do
	file=$here/t/$name.sh
	limit=$(sed -n 's/^# timeout: *\([0-9]*\).*/\1/p' "$file" | head -n 1)
	limit=$((${limit:-300} * ${LOOPS:-1} * ${SLOW:-1}))
	export RESULT_DIR=/results/$name
	mkdir -p "$RESULT_DIR"
	echo "::start $name"
	echo "ordofs-test: $name" >/dev/kmsg
	start=$SECONDS
	killed=$(kills)
	(confined timeout -k 10 "$limit" bash "$file" "${PHASE:-1}") </dev/null >"$RESULT_DIR/output" 2>&1
	rc=$?
	if [ "$(kills)" != "$killed" ]; then
		echo "killed for want of memory: $(($(kills) - killed))" >>"$RESULT_DIR/output"
		rc=1
	fi
	tidy >>"$RESULT_DIR/output" 2>&1
	case $rc in
	0) verdict=pass ;;
	77) verdict=skip ;;
	*) verdict=fail ;;
	esac
	# A test also has status 137 if one of its programs was killed by SIGKILL.
	case $rc in
	124 | 137) [ $((SECONDS - start)) -lt "$limit" ] || echo "time limit of ${limit}s" >>"$RESULT_DIR/output" ;;
	esac
	if [ "$verdict" != pass ] || [ -n "${VERBOSE-}" ]; then
		sed 's/^/    /' "$RESULT_DIR/output"
	else
		# The evidence that a reproducer has entered its window.
		sed -n 's/^trace: /    &/p' "$RESULT_DIR/output"
	fi
	echo "::$verdict $name $((SECONDS - start))"
done
find_leaks
echo "ordofs-test: end" >/dev/kmsg
exit 0
