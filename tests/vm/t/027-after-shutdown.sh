#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# After a shutdown, by ioctl or because the device is gone, no cache hides that: every call that
# reads returns EIO, and an access to a page that is not mapped yet is a bus error.
# timeout: 120
set -euo pipefail

t=/run/ordofs/tests
trap 'umount "$TEST_MNT" 2>/dev/null || :; rmmod scsi_debug 2>/dev/null || :' EXIT
mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
python3 $t/mount/after-shutdown.py "$TEST_MNT" ""
umount "$TEST_MNT"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"

# The device goes away below a mounted filesystem.
modprobe scsi_debug dev_size_mb=64 delay=0 2>/dev/null || exit 0
for _ in $(seq 50); do
	disk=$(ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block 2>/dev/null) || :
	[ -b "/dev/${disk:-none}" ] && break
	sleep 0.2
done
mkfs.ordofs "/dev/$disk" <<<y >/dev/null
mount -t ordofs "/dev/$disk" "$TEST_MNT"
python3 $t/mount/after-shutdown.py "$TEST_MNT" "/sys/block/$disk/device/delete"
umount "$TEST_MNT"
echo "trace: the device was taken away, too"
