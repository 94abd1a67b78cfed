#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest has what tests rely on: the module is loaded, the disks are there.
# timeout: 30
set -euo pipefail

grep -q '^ordofs ' /proc/modules
for dev in "$TEST_DEV" "$SCRATCH_DEV" "$LOG_DEV"; do
	[ -b "$dev" ]
done
getent passwd fsgqa fsgqa2 123456-fsgqa
mountpoint /sys/fs/cgroup
mountpoint /sys/kernel/debug
[ -e /dev/fd/0 ]
pgrep -f systemd-udevd
