#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A log as full as it gets is replayed within five seconds. That is one full of
# batches of one block, which thousands of fsyncs of a few files wrote: many
# changed inodes bring a commit, which empties the log, long before.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

list() { find "$TEST_MNT" -printf '%p %s\n' | sort; }

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs -o commit=300 "$TEST_DEV" "$TEST_MNT"
python3 /run/ordofs/tests/cost/fill-log.py "$TEST_MNT" "${TEST_DEV#/dev/}"
list >"$RESULT_DIR/before"
crash
umount "$TEST_MNT"
# Nothing of the disk in memory.
echo 3 >/proc/sys/vm/drop_caches

begin=$(date +%s%N)
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
ms=$((($(date +%s%N) - begin) / 1000000))
records=$(dmesg | sed -n 's/.*: replayed \(.* batches\).*/\1/p' | tail -n 1)
echo "trace: replayed ${records:?nothing was replayed} in $ms ms"
list | cmp - "$RESULT_DIR/before"
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
[ "$ms" -lt $((5000 * ${SLOW:-1})) ]
