#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The main job, in the guest: load, make, mount, race, unmount, check,
# mount again and verify, unload.
# Every step has to succeed; what it did is printed as it goes.
# RACE_SECONDS is the time of each of the races' phases: short, since this is
# the first run of every user; make run RACE_SECONDS=60 races for eleven minutes.
set -euo pipefail

dev=${DEV:-/dev/vdb}
mnt=/mnt/test
ko=/run/ordofs/add/ordofs.ko

step() { printf '\n== %s\n' "$*"; }

step "kernel"
uname -srvm

step "module"
for dep in $(modinfo -F depends "$ko" | tr , ' '); do
	modprobe "$dep"
done
insmod "$ko"
modinfo -F description "$ko"
grep '^ordofs ' /proc/modules
grep ordofs /proc/filesystems

step "mkfs.ordofs $dev"
mkfs.ordofs "$dev"

step "mount"
mkdir -p "$mnt"
mount -t ordofs "$dev" "$mnt"
grep " $mnt " /proc/self/mounts
df -h "$mnt"

step "ordofs-race: mmap writers against write, direct I/O, hole punching and fsync"
ordofs-race --seconds "${RACE_SECONDS:-2}" "$mnt"

step "unmount"
df "$mnt" | tail -n 1
umount "$mnt"

step "fsck.ordofs -n"
fsck.ordofs -n "$dev"

step "mount again: what the race left is what it wrote"
mount -t ordofs "$dev" "$mnt"
ordofs-race verify "$mnt"
umount "$mnt"

step "unload"
rmmod ordofs
dmesg | grep -i 'ordofs' | tail -n 20

step "main job: passed"
