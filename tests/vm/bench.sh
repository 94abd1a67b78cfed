#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The benchmarks in the guest: bench.sh DEVICE... -- ARGUMENTS
#
# Model: each filesystem that this kernel has gets one of the devices, and
# ordofs-bench runs its workloads on all of them in turns. udev is stopped
# meanwhile, because it reads a disk whenever a program has written to it.
# FILESYSTEMS names them, in order; the results are appended to SAMPLES
# (/results/samples).
set -euo pipefail

volumes=()
for fs in ${FILESYSTEMS:-ordofs ext4 xfs btrfs}; do
	if ! modprobe -q "$fs" && ! grep -qw "$fs" /proc/filesystems; then
		echo "bench: $fs: not in this kernel"
		continue
	fi
	[ "$1" != -- ] || { echo "bench: no device for $fs"; exit 2; }
	volumes+=(--volume "$fs:$1")
	shift
done
while [ "$1" != -- ]; do shift; done
shift
modprobe -q dm-flakey || true
udevadm settle --timeout=30
udevadm control --exit
trap '/usr/lib/systemd/systemd-udevd --daemon 2>/dev/null' EXIT
ordofs-bench run "${volumes[@]}" --output "${SAMPLES:-/results/samples}" "$@"
