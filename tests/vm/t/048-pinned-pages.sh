#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Data that fsync acknowledged has the right checksum, even of pages that a device was writing to
# by a direct read into a shared mapping. The window is held open; then the power goes.
# timeout: 180
# variant: debug ordofs_debug
modprobe dm_mod 2>/dev/null || true
dmsetup targets | grep -q ^linear || { echo "no device mapper in this kernel"; exit 77; }
exec python3 /run/ordofs/tests/race/pinned.py
