#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Many extent maps and many nodes in the caches of a mount: when memory is short, reclaim frees them,
# no process is killed, and all of it can be read again. A tenth of a million maps and half as many nodes;
# FULL=1 (in a guest with MEM=9G): ten times that.
# timeout: 600
# vm: --disks 1:24G
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

# The nodes alone are 200 MiB, and the program that takes all of the memory must be allowed to.
if [ -n "${MEMCG:-}" ] || [ "$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)" -lt 1000000 ]; then
	echo "fills caches with more than there is"
	exit 77
fi
scale=1
[ -z "${FULL:-}" ] || scale=10
extents=$((100000 * scale))
files=$((2600 * scale))
counters=/sys/fs/ordofs/${TEST_DEV#/dev/}
maps() { cat "$counters/extent_maps"; }
nodes() { cat "$counters/cached_nodes"; }
left() { echo "trace: $1: $(maps) extent maps, $(nodes) nodes, $((SECONDS - begin)) s"; }
caches() { python3 /run/ordofs/tests/scale/caches.py "$1" "$TEST_MNT" "$extents" "$files"; }

begin=$SECONDS before=$(oom_kills)
mkfs.ordofs -f "$TEST_DEV" >/dev/null
ordofs-populate --attributes "$files" "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT"' EXIT
left "mounted"
caches attributes
left "attributes read"
caches write
left "extents written"
many_maps=$(maps) many_nodes=$(nodes)
[ "$many_maps" -ge "$extents" ]
[ "$many_nodes" -ge $((50000 * scale)) ]

# All that is free, and as much again as the nodes take.
want=$(($(awk '$1 == "MemFree:" { print $2 }' /proc/meminfo) / 1024 + many_nodes / 256))
python3 /run/ordofs/tests/scale/caches.py hog $want
left "$want MiB were wanted"
[ "$(nodes)" -lt $((many_nodes * 3 / 4)) ]
[ "$(maps)" -lt $((many_maps * 3 / 4)) ]
[ "$(oom_kills)" = "$before" ]

echo 2 >/proc/sys/vm/drop_caches
left "all dropped"
[ "$(nodes)" -lt $((many_nodes / 10)) ]
[ "$(maps)" -lt $((many_maps / 10)) ]
echo 3 >/proc/sys/vm/drop_caches
caches check
