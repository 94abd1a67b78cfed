#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R5: a write whose mapping is no longer true, with the window held open.
# timeout: 120
# variant: debug ordofs_debug
set -euo pipefail

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT"' EXIT
python3 /run/ordofs/tests/race/stale-map.py "$TEST_MNT/file"
