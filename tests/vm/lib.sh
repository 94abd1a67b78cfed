# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What several VM tests share; sourced by them as "$TESTS_DIR/lib.sh".

# fail TEXT: ends the test with this message.
fail() { echo "$1"; exit 1; }

# fails COMMAND...: the command must return an error.
fails() { if "$@"; then fail "did not fail: $*"; fi; }

# refused TEXT MOUNT-ARGS...: the mount must fail, and mount(8) must print TEXT.
refused() {
	local text=$1 out
	shift
	if out=$(mount "$@" 2>&1); then fail "went through: mount $*"; fi
	[[ $out = *"$text"* ]] || fail "mount $*: $out"
}

# The options of the mount of TEST_DEV, as /proc/mounts shows them.
mount_options() { sed -n "s|^$TEST_DEV $TEST_MNT ordofs \([^ ]*\) .*|\1|p" /proc/mounts; }

# Switches the filesystem off by FS_IOC_SHUTDOWN without writing the log: a crash.
crash() { python3 "$TESTS_DIR/names/shutdown.py" "$TEST_MNT" 2; }

# How many processes the kernel has killed because the VM had no memory left.
oom_kills() { awk '$1 == "oom_kill" { print $2 }' /proc/vmstat; }

# fsx_config FILE LENGTH MAX NAME=N...: a configuration of fsx with files of LENGTH bytes and operations
# of up to MAX bytes. The other arguments are weights, or `align`, the alignment of the sizes.
fsx_config() {
	local file=$1 length=$2 max=$3 align=1 line
	shift 3
	local -A weights=([close_open]=2 [read]=10 [write]=10 [mapread]=10 [mapwrite]=10 [invalidate]=2
		[truncate]=4 [fsync]=2 [fdatasync]=2 [punch_hole]=5)
	for line; do
		case $line in
		align=*) align=${line#*=} ;;
		*) weights[${line%%=*}]=${line#*=} ;;
		esac
	done
	# fsx stops if the kernel refuses a posix_fallocate of 0 bytes.
	printf 'flen = %s\n[opsize]\nmin = %s\nmax = %s\nalign = %s\n[weights]\n' \
		"$length" "$align" "$max" "$align" >"$file"
	for line in "${!weights[@]}"; do
		echo "$line = ${weights[$line]}" >>"$file"
	done
}
