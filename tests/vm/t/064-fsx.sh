#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fsx: a random sequence of reads, writes, mappings, truncations, holes, syncs and
# cache advice on one file, compared with memory at every step. Byte and block
# sizes at the same time; small and large files.
# timeout: 300
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
steps=$((${FSX_STEPS:-4000} * ${LOOPS:-1}))

more=(sendfile=3 posix_fadvise=3 copy_file_range=4)
fsx_config /tmp/bytes.toml 262144 65536 posix_fallocate=3 "${more[@]}"
# fsx 0.3.2 asks for 0 bytes now and then where it has to align posix_fallocate.
fsx_config /tmp/blocks.toml 8388608 524288 align=4096 posix_fallocate=0 "${more[@]}"

pids=()
for shape in bytes blocks; do
	seed=$((RANDOM << 15 | RANDOM))
	echo "trace: fsx $shape: $steps steps, seed $seed"
	fsx -q -f "/tmp/$shape.toml" -N "$steps" -S "$seed" -P "$RESULT_DIR" "$TEST_MNT/$shape" &
	pids+=($!)
done
for pid in "${pids[@]}"; do
	wait "$pid"
done
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
