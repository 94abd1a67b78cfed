#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R5: without the protection, the same test has to fail.
# timeout: 120
# variant: mutant-r5 ordofs_debug ordofs_mutant_r5
set -euo pipefail

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT"' EXIT
status=0
python3 /run/ordofs/tests/race/stale-map.py "$TEST_MNT/file" || status=$?
[ "$status" -eq 1 ]
