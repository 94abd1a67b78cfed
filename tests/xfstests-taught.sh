#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# xfstests-config/teach on a small tree of functions that decline as upstream's do: for ordofs they return what the overlay says,
# for every other type what upstream's do; a tree that looks different is refused, and nothing in it is changed.
set -euo pipefail

top=$(dirname -- "$(dirname -- "$(realpath "${BASH_SOURCE[0]}")")")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
tree=$dir/tree
mkdir -p "$tree/common" "$tree/tests/generic"
cd "$tree"

# Each file as upstream has it, as far as teach looks at it.
cat >common/rc <<'RC'
_notrun() { echo "not run: $*"; exit 0; }
_check_minimal_fs_size() {
	[ "${MIN_FSSIZE:-0}" -le "$1" ] || _notrun "too small"
}
_try_scratch_mkfs_sized()
{
	_notrun "Filesystem $FSTYP not supported in _scratch_mkfs_sized"
}
_filesystem_timestamp_range()
{
	echo "-1 -1"
}
_label_get_max()
{
	_notrun "$FSTYP does not define maximum label length"
}
_require_names_are_bytes() {
	_notrun "$FSTYP does not allow unrestricted byte streams for names"
}
_require_duplicate_fsid()
{
	_notrun "$FSTYP does not support duplicate fsid"
}
RC
cat >common/attr <<'ATTR'
_acl_get_max()
{
	echo 0
}
ATTR
# shellcheck disable=SC2016 # expanded by the tests
printf 'case "$FSTYP" in\nubifs)\n;;\npvfs2)\n;;\nesac\n' >tests/generic/020
# shellcheck disable=SC2016 # expanded by the tests
printf 'case "$FSTYP" in\nbtrfs|xfs)\n;;\nesac\n' >tests/generic/745

# Anything missing, or twice, or there already: refused and unchanged.
refused() {
	local what=$1
	shift
	cp -r "$tree" "$dir/other"
	(cd "$dir/other" && "$@")
	cp -r "$dir/other" "$dir/before"
	if "$top/xfstests-config/teach" "$dir/other" 2>"$dir/message"; then
		echo "$what: not refused"
		exit 1
	fi
	grep -q . "$dir/message" || { echo "$what: refused without a word"; exit 1; }
	diff -r "$dir/before" "$dir/other" || { echo "$what: refused, but changed"; exit 1; }
	rm -r "$dir/other" "$dir/before"
}
refused "another answer" sed -i 's/not supported in/unknown to/' common/rc
refused "another name" sed -i 's/_acl_get_max/_max_acl/' common/attr
refused "a missing file" rm common/attr
refused "a case twice" sed -i 's/^ubifs)/&\nubifs)/' tests/generic/020
refused "a type that upstream knows" sed -i 's/^ubifs)/ordofs)\n&/' tests/generic/020

"$top/xfstests-config/teach" "$tree"

mkdir "$dir/bin"
cat >"$dir/bin/mkfs.ordofs" <<'MKFS'
#!/bin/sh
echo "mkfs $*"
MKFS
chmod +x "$dir/bin/mkfs.ordofs"
export PATH=$dir/bin:$PATH SCRATCH_DEV=/nowhere MKFS_OPTIONS="-L x"

# says TYPE WANTED COMMAND...: what the helper says of a filesystem type, in a shell of its own.
says() {
	local type=$1 wanted=$2 got
	shift 2
	# shellcheck disable=SC2016 # expanded there
	got=$(FSTYP=$type bash -c '. ./common/rc; . ./common/attr; "$@"' sh "$@")
	[ "$got" = "$wanted" ] || { echo "$type: $*: \"$got\", not \"$wanted\""; exit 1; }
}
says ordofs "mkfs -q -f -L x -K /nowhere 268435456" _try_scratch_mkfs_sized 268435456 "" -K
says ordofs "mkfs -q -f -L x /nowhere 268435456" _try_scratch_mkfs_sized 268435457 4096
says ordofs "not run: ordofs has blocks of 4096 bytes, not 1024" _try_scratch_mkfs_sized 268435456 1024
says ordofs 'not run: error: a filesystem of "big" bytes' _try_scratch_mkfs_sized big
MIN_FSSIZE=9 says ordofs "not run: too small" _try_scratch_mkfs_sized 8
says ordofs "-9223372036854775808 9223372036854775807" _filesystem_timestamp_range
says ordofs "-1 -1" _filesystem_timestamp_range /dev/x hpfs
says ordofs 64 _label_get_max
says ordofs "" _require_names_are_bytes
says ordofs "" _require_duplicate_fsid
says ordofs 8191 _acl_get_max
says hpfs "not run: Filesystem hpfs not supported in _scratch_mkfs_sized" _try_scratch_mkfs_sized 268435456
says hpfs "-1 -1" _filesystem_timestamp_range
says hpfs "not run: hpfs does not define maximum label length" _label_get_max
says hpfs "not run: hpfs does not allow unrestricted byte streams for names" _require_names_are_bytes
says hpfs "not run: hpfs does not support duplicate fsid" _require_duplicate_fsid
says hpfs 0 _acl_get_max
[ "$(grep -c '^[[:space:]]*ordofs)' tests/generic/020)" = 2 ] || { echo "020: not taught"; exit 1; }
[ "$(FSTYP=ordofs bash -n tests/generic/020 && grep -c '^ordofs)' tests/generic/745)" = 1 ] ||
	{ echo "745: not taught"; exit 1; }
