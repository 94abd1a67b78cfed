#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest half of scripts/powercut. Disks /dev/vdb, ... that went through a
# power cut are mounted (which replays the log), compared with the journal of
# what had been acknowledged, unmounted and checked. Then the next load runs on
# all of them, until the host pulls the plug.
#
#   DISKS     how many
#   SEED      of the load to come; LAST_SEED of the one that was cut off
set -euo pipefail
journal=/run/ordofs/add/journal
status=0

device() { printf '/dev/vd%b' "\\x$(printf '%x' $((98 + $1)))"; }

for ((i = 0; i < DISKS; i++)); do
	dev=$(device "$i")
	mnt=/mnt/$i
	mkdir -p "$mnt"
	if [ -n "${LAST_SEED-}" ]; then
		mount -t ordofs "$dev" "$mnt"
		dmesg | sed -n "s/.*ordofs: \(${dev#/dev/}: .*\)/\1/p" | tail -n 2
		ordofs-powercut verify --seed "$LAST_SEED" --journal "$journal" --tag "$i" "$mnt" || status=1
		umount "$mnt"
		fsck.ordofs -n "$dev" || status=1
	else
		mkfs.ordofs "$dev" >/dev/null
	fi
	[ -z "${SEED-}" ] || mount -t ordofs "$dev" "$mnt"
done
if [ "$status" -ne 0 ] || [ -z "${SEED-}" ]; then
	exit "$status"
fi

for p in /sys/class/virtio-ports/*; do
	[ "$(cat "$p/name")" != journal ] || port=/dev/${p##*/}
done
exec 9>"$port"
for ((i = 0; i < DISKS; i++)); do
	ordofs-powercut load --seed "$SEED" --journal - --tag "$i" "/mnt/$i" >&9 &
done
wait -n
echo "a load ended before the power cut"
exit 1
