#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The race program of `make run`: mmap writers against write, direct I/O, layout
# changes and fsync; every byte is right at once and after a mount. On slow kernels
# with processes only.
# timeout: 300
set -euo pipefail

few=()
[ "${SLOW:-1}" -eq 1 ] || few=(--flavour process)
mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
ordofs-race --seconds "${LOOPS:-1}" "${few[@]}" "$TEST_MNT"
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
ordofs-race verify "$TEST_MNT" | tail -n 1 | sed 's/^/trace: /'
umount "$TEST_MNT"
