#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fsx: a random sequence of reads, writes, mappings, truncations, holes, syncs and
# cache advice on one file, compared with memory at every step. Byte and block
# sizes at the same time; small and large files.
# timeout: 300
set -euo pipefail

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
steps=$((${FSX_STEPS:-4000} * ${LOOPS:-1}))

# fsx 0.3.2 asks for 0 bytes now and then where it has to align posix_fallocate.
config() { # FILE LENGTH MAX ALIGN POSIX_FALLOCATE
	cat >"$1" <<-END
		flen = $2
		[opsize]
		max = $3
		align = $4
		[weights]
		close_open = 2
		read = 10
		write = 10
		mapread = 10
		mapwrite = 10
		invalidate = 2
		truncate = 4
		fsync = 2
		fdatasync = 2
		posix_fallocate = $5
		punch_hole = 5
		sendfile = 3
		posix_fadvise = 3
		copy_file_range = 4
	END
}
config /tmp/bytes.toml 262144 65536 1 3
config /tmp/blocks.toml 8388608 524288 4096 0

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
