#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The commit thread stands still while the system sleeps or makes the image of a hibernation: the freezer freezes
# it as it freezes a process. (tests/vm/hibernation.sh makes an image, on which the VM loses its virtio ports.)
# timeout: 60
set -euo pipefail

PF_NOFREEZE=0x8000
mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
freezable() {
	local pid
	pid=$(pgrep -x "ordofs/${TEST_DEV##*/}")
	[ $(($(awk '{ print $9 }' "/proc/$pid/stat") & PF_NOFREEZE)) -eq 0 ] || { echo "not freezable"; exit 1; }
}
touch "$TEST_MNT/file"
freezable
mount -o remount,ro "$TEST_MNT"
mount -o remount,rw "$TEST_MNT"
sleep 1
freezable
umount "$TEST_MNT"
