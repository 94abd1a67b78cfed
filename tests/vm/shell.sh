#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make shell: an OrdoFS on /dev/vdb at /mnt/test, and a shell there.
set -u
if mkfs.ordofs /dev/vdb && mount -t ordofs /dev/vdb /mnt/test; then
	cd /mnt/test || exit
fi
echo "OrdoFS at /mnt/test; disks /dev/vdb /dev/vdc /dev/vdd; 'exit' ends the VM"
PS1='ordofs:\w\$ ' bash --norc -i
cd /
umount /mnt/test 2>/dev/null
exit 0
