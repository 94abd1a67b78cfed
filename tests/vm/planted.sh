#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest half of scripts/lane: planted.sh NAME...
# Makes bugs happen (rust/vfs/testing/planted.rs); the host looks at the kernel's log.
set -euo pipefail
# shellcheck source=tests/vm/leaks.sh
. "$(dirname "$0")/leaks.sh"

mkdir -p /mnt/test
mkfs.ordofs -f /dev/vdb >/dev/null
[ ! -e /sys/kernel/debug/kcsan ] || echo on >/sys/kernel/debug/kcsan
mount -t ordofs /dev/vdb /mnt/test
echo "healthy" >/mnt/test/file
sync
find_leaks
for name in "$@"; do
	echo "ordofs-planted: $name" >/dev/kmsg
	echo "$name" >/sys/fs/ordofs/vdb/planted
done
umount /mnt/test
find_leaks
