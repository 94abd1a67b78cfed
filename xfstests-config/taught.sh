# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What upstream's helpers say of an OrdoFS: . taught.sh rc|attr
#
# Upstream decides by the name of the filesystem type what a filesystem can do, and declines a test when it
# does not know the name. local.config cannot help: common/rc is read after it and defines the same
# functions. So xfstests-config/teach puts this file into a scratch copy of the user's own tree, where
# common/rc and common/attr read it last. Every function here replaces one of upstream's, which
# stays reachable with `_upstream` before its name and is called for every other filesystem type.
#
# What OrdoFS does not have stays declined: alignment to stripes (_scratch_mkfs_geom), blocks of another size
# than 4096 bytes (_scratch_mkfs_blocksized), options of the log (_get_log_configs). So does the state of the
# log (_require_logstate): a shutdown that flushes the log commits, and leaves nothing to replay.

# _ordofs_keep FUNCTION...: upstream's functions get the name _upstreamFUNCTION.
_ordofs_keep() {
	local name
	for name; do
		eval "_upstream$(declare -f "$name")"
	done
}

case $1 in
rc)
	_ordofs_keep _try_scratch_mkfs_sized _filesystem_timestamp_range _label_get_max \
		_require_names_are_bytes _require_duplicate_fsid

	# SIZE [BLOCK SIZE] [mkfs options]
	_try_scratch_mkfs_sized() {
		[ "$FSTYP" = ordofs ] || { _upstream_try_scratch_mkfs_sized "$@"; return; }
		local size=$1 block=${2:-4096} device=0
		shift
		[ $# -eq 0 ] || shift
		[ "$block" = 4096 ] || _notrun "ordofs has blocks of 4096 bytes, not $block"
		[[ $size =~ ^[0-9]+$ ]] || _notrun "error: a filesystem of \"$size\" bytes"
		_check_minimal_fs_size "$size"
		[ ! -b "$SCRATCH_DEV" ] || device=$(blockdev --getsize64 "$SCRATCH_DEV")
		[ "$device" -eq 0 ] || [ "$size" -le "$device" ] || _notrun "Scratch device too small"
		# shellcheck disable=SC2086 # options are words
		mkfs.ordofs -q -f $MKFS_OPTIONS "$@" "$SCRATCH_DEV" $((size / 4096 * 4096))
	}

	# Seconds are i64 on disk. [DEVICE] [TYPE]
	_filesystem_timestamp_range() {
		[ "${2:-$FSTYP}" = ordofs ] || { _upstream_filesystem_timestamp_range "$@"; return; }
		echo "$((1 << 63)) $(((1 << 63) - 1))"
	}

	_label_get_max() {
		[ "$FSTYP" = ordofs ] || { _upstream_label_get_max "$@"; return; }
		echo 64
	}

	# Names of files and of attributes are compared byte by byte and never interpreted.
	_require_names_are_bytes() {
		[ "$FSTYP" = ordofs ] || _upstream_require_names_are_bytes "$@"
	}

	# Two filesystems with the same UUID can be mounted at the same time.
	_require_duplicate_fsid() {
		[ "$FSTYP" = ordofs ] || _upstream_require_duplicate_fsid "$@"
	}
	;;
attr)
	_ordofs_keep _acl_get_max

	# An attribute has at most 64 KiB; an ACL has 4 bytes there, and 8 for each entry.
	_acl_get_max() {
		[ "$FSTYP" = ordofs ] || { _upstream_acl_get_max "$@"; return; }
		echo $(((65536 - 4) / 8))
	}
	;;
esac
