#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A machine of 256 MiB, and loads that may have 64 MiB of it: everything ends well, what
# was written is there, and no process is killed for want of memory. KASAN alone needs as much again.
# timeout: 600
# vm: --mem 256M --disks 3:4G
# slow-vm: --mem 512M --disks 3:4G
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

group=/sys/fs/cgroup/small
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p "$group"
echo 64M >"$group/memory.max"
killed() { awk '$1 == "oom_kill" { print $2 }' "$group/memory.events"; }
inside() { bash -c 'echo $$ >/sys/fs/cgroup/small/cgroup.procs; exec "$@"' inside "$@"; }
of_vm() { awk -v k="$1" '$1 == k { print $2 }' /proc/vmstat; }

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
cd "$TEST_MNT"

echo "a file twice as large as what its writer may have"
inside fio --name=large --filename=large --size=128m --rw=write --bs=128k --ioengine=psync \
	--verify=crc32c --verify_fatal=1 --minimal >/dev/null
echo "pieces"
inside fio --name=pieces --filename=pieces --size=128m --rw=randwrite --bs=4k --ioengine=psync \
	--number_ios=6000 --fsync=500 --verify=crc32c --verify_fatal=1 --minimal >/dev/null
echo "mappings"
inside fio --name=mapped --filename=mapped --size=96m --rw=randwrite --bs=4k --ioengine=mmap \
	--number_ios=4000 --verify=crc32c --verify_fatal=1 --minimal >/dev/null
echo "names"
inside python3 - <<'END'
import os
for i in range(10000):
    if i % 500 == 0:
        top = "many/%d" % (i // 500)
        os.makedirs(top)
    with open("%s/%d" % (top, i), "w") as f:
        f.write("%d" % i)
END
inside find many -type f -size 0
[ "$(inside find many -type f | wc -l)" = 10000 ]
[ "$(cat many/19/9999)" = 9999 ]
cd /

echo "trace: memory events: $(tr '\n' ' ' <"$group/memory.events")"
echo "trace: slabs scanned $(of_vm slabs_scanned), OOM kills $(oom_kills)"
[ "$(killed)" = 0 ]
[ "$(oom_kills)" = 0 ]
# The limit was felt.
[ "$(awk '$1 == "max" { print $2 }' "$group/memory.events")" -gt 0 ]
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
