#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Write-back of pages is charged to the control group that made them dirty, and not to the task that
# writes them back.
# timeout: 120
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mib=8
cgroups=$(mktemp -d)
mkfs.ordofs -q "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
mount -t cgroup2 none "$cgroups"
end() {
	echo $$ >"$cgroups/cgroup.procs"
	rmdir "$cgroups/writer" 2>/dev/null || :
	umount "$cgroups" "$TEST_MNT"
}
trap end EXIT

grep -qw io "$cgroups/cgroup.controllers" || { echo "no io controller in this kernel"; exit 77; }
echo +io >"$cgroups/cgroup.subtree_control"
mkdir "$cgroups/writer"
echo $$ >"$cgroups/writer/cgroup.procs"
dd if=/dev/zero of="$TEST_MNT/file" bs=1M count=$mib status=none
echo $$ >"$cgroups/cgroup.procs"
sync

device=$(lsblk -dnro MAJ:MIN "$TEST_DEV" | tr -d ' ')
written=$(sed -n "s/^$device .*wbytes=\([0-9]*\).*/\1/p" "$cgroups/writer/io.stat")
echo "written by the group: ${written:-nothing}"
[ "${written:-0}" -ge $((mib << 20)) ] || fail "less than $mib MiB"
[ "$written" -le $(((mib + 1) << 20)) ] || fail "much more than $mib MiB"
