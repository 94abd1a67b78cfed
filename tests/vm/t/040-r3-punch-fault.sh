#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R3: a store while a hole is punched, with the window held open.
# timeout: 120
# variant: debug ordofs_debug
set -euo pipefail

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT"' EXIT
python3 /run/ordofs/tests/race/punch-fault.py "$TEST_MNT/file"
