#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make bench in small: every workload runs on OrdoFS, some of them twice beside the peers; the counts are
# plausible and the same in both rounds, and they make a table, a file and pictures.
# timeout: 300
set -euo pipefail

bench() { # NAME ARGUMENTS...
	SAMPLES=$RESULT_DIR/$1
	export SAMPLES
	shift
	bash "$TESTS_DIR/bench.sh" "$TEST_DEV" "$SCRATCH_DEV" "$LOG_DEV" "$LOG_DEV" -- "$@"
}

FILESYSTEMS=ordofs bench all --rounds 1 --scale 0.05
fsck.ordofs -n "$TEST_DEV"
bench some --rounds 2 --scale 0.1 --only append-fsync-1 create-4k-1dir seq-read-cold
fsck.ordofs -n "$TEST_DEV"
python3 "$TESTS_DIR/bench/check.py" "$RESULT_DIR/all" "$RESULT_DIR/some"
