#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What fsync acknowledged has the right checksum, also of pages that a device was
# writing to: a direct read into a shared mapping, held open; a power cut.
# timeout: 180
# variant: debug ordofs_debug
modprobe dm_mod 2>/dev/null || true
dmsetup targets | grep -q ^linear || { echo "no device mapper in this kernel"; exit 77; }
exec python3 /run/ordofs/tests/race/pinned.py
