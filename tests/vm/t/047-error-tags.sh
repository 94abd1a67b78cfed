#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Error tags that are turned on and off under load leave nothing behind: not in the files, not in
# the filesystem, not in sysfs, and the module can be unloaded.
# timeout: 240
# variant: debug ordofs_debug
set -euo pipefail
# shellcheck source=tests/vm/leaks.sh
. "$TESTS_DIR/leaks.sh"

LOOPS=1 python3 /run/ordofs/tests/race/tags.py
[ -z "$(ls /sys/fs/ordofs)" ]
find_leaks
rmmod ordofs
[ ! -e /sys/fs/ordofs ]
insmod /run/ordofs/ordofs.ko
