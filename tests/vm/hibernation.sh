#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make the image of a hibernation with a filesystem mounted that has much to commit, in the guest:
#
#     qemu/run --mem 1G --timeout 200 --console FILE -- bash /run/ordofs/tests/hibernation.sh
#
# Between the freezing and the thawing of the kernel's threads nothing may be committed: the disk would be
# newer than the image, which has the filesystem as it is in memory. The verdict is in the kernel's log (in
# FILE), since virtio-console loses its ports on the way (7.3); the VM ends by its time limit.
set -uo pipefail

mkfs.ordofs /dev/vdb <<<y >/dev/null
mount -t ordofs -o commit=1 /dev/vdb /mnt/test
verdict=$(python3 /run/ordofs/tests/mount/hibernation.py /mnt/test /sys/fs/ordofs/vdb 2>&1)
echo "hibernation: $? $verdict" >/dev/kmsg
umount /mnt/test
echo "hibernation: fsck $(fsck.ordofs -n /dev/vdb 2>&1)" >/dev/kmsg
