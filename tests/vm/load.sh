# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Sourced: fsx and the race program, beside which something else happens.

# beside_load LOOP: runs the function LOOP in the background until both have ended. LOOP goes on as long
# as the file /tmp/load exists, and must not fail.
beside_load() {
	local loop seed steps
	touch /tmp/load
	"$1" &
	loop=$!
	cat >/tmp/load.toml <<-END
		flen = 8388608
		[opsize]
		max = 524288
		[weights]
		close_open = 2
		read = 10
		write = 10
		mapread = 10
		mapwrite = 10
		invalidate = 5
		truncate = 4
		fsync = 2
		fdatasync = 2
		punch_hole = 8
	END
	seed=$((RANDOM << 15 | RANDOM))
	steps=$((${FSX_STEPS:-3000} * ${LOOPS:-1}))
	echo "trace: fsx: $steps steps, seed $seed"
	fsx -q -f /tmp/load.toml -N "$steps" -S "$seed" -P "$RESULT_DIR" "$TEST_MNT/fsx" || fail "fsx"
	mkdir "$TEST_MNT/race"
	ordofs-race --seconds 1 --flavour process "$TEST_MNT/race"
	rm /tmp/load
	wait "$loop" || fail "$1 failed"
}

# check_load DEVICE: unmounts, checks the device, mounts it, and compares what the race program has left.
check_load() {
	umount "$TEST_MNT"
	fsck.ordofs -n "$1"
	mount -t ordofs "$1" "$TEST_MNT"
	ordofs-race verify "$TEST_MNT/race" | tail -n 1 | sed 's/^/trace: /'
}
