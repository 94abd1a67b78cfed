#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Scrub of a mounted filesystem under load, fsx among it: it finds 100 damaged blocks of data by file and
# offset, heals 100 damaged copies of nodes, and finds nothing else; it can be paced, cancelled and resumed; a
# read-only mount can be scrubbed; a frozen filesystem pauses it, and an unmount ends it.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs -f --copies 2 "$TEST_DEV" >/dev/null
# Without access times, or a read would make a node change.
mount -t ordofs -o noatime "$TEST_DEV" "$TEST_MNT"
loads=()
trap '[ -z "${loads[*]}" ] || kill "${loads[@]}" 2>/dev/null || :; umount "$TEST_MNT" 2>/dev/null || :' EXIT
dir=/sys/fs/ordofs/$(basename "$TEST_DEV")
[ "$(cat "$dir/scrub_state")" = never ]
fails ordofs scrub cancel "$TEST_MNT"
fails ordofs scrub start /tmp
mkdir "$TEST_MNT/dir" "$TEST_MNT/other"
for i in $(seq 20); do head -c 1M /dev/urandom >"$TEST_MNT/dir/$i"; done
# Inodes that nothing comes to but the scrub.
mkdir "$TEST_MNT/quiet"
python3 - "$TEST_MNT/quiet" <<'EOF'
import sys
for n in range(3000):
    with open("%s/%04d" % (sys.argv[1], n), "w", encoding="ascii") as f:
        f.write("content of %d\n" % n)
EOF
quiet=$(cat "$TEST_MNT"/quiet/* | md5sum)
for i in $(seq 500); do echo >"$TEST_MNT/other/a name that is not short, number $i"; done
sync
ordofs scrub start -B "$TEST_MNT"
[ "$(cat "$dir/scrub_state")" = finished ]
[ "$(cat "$dir/scrub_data")" -ge $((20 * 256)) ]
[ "$(cat "$dir/scrub_nodes")" -gt 20 ]

# An ordinary user gets nothing.
fails setpriv --reuid 65534 --clear-groups ordofs scrub status "$TEST_MNT" 2>/dev/null

# One block in each fifth of each file, behind the back of the filesystem.
: >/tmp/planted
: >/tmp/blocks
for i in $(seq 20); do
	filefrag -v "$TEST_MNT/dir/$i" | tr -d '.:' >/tmp/extents
	for n in 0 51 102 153 204; do
		awk -v n=$n '$1 ~ /^[0-9]+$/ && n >= $2 && n <= $3 { print $4 + n - $2; exit }' \
			/tmp/extents >>/tmp/blocks
		echo "$TEST_MNT/dir/$i $((n * 4096))" >>/tmp/planted
	done
done
[ "$(sort -u /tmp/blocks | wc -l)" = 100 ]
umount "$TEST_MNT"

# One copy of each of 100 leaves with only quiet inodes: of every other leaf the second one.
ordofs --json dump tree "$TEST_DEV" inode | python3 -c '
import json
import sys
leaves = [n for n in json.load(sys.stdin)["nodes"] if n["level"] == 0]
leaves = leaves[20:120]
assert len(leaves) == 100 and all(n["copy"] > 0 for n in leaves), len(leaves)
for i, n in enumerate(leaves):
    print(n["copy"] if i % 2 else n["block"])' >/tmp/copies
while read -r at; do
	dd if="$TEST_DEV" bs=4k skip="$at" count=1 status=none | md5sum
done </tmp/copies >/tmp/good
cat /tmp/copies >>/tmp/blocks
[ "$(sort -u /tmp/blocks | wc -l)" = 200 ]
while read -r at; do
	dd if=/dev/zero of="$TEST_DEV" bs=4k seek="$at" count=1 conv=notrunc status=none
done </tmp/blocks
mount -t ordofs -o noatime "$TEST_DEV" "$TEST_MNT"

# Load: files come and go, and are synced, beside fsx.
fsx_config /tmp/fsx.toml 1048576 65536
fsx -q -f /tmp/fsx.toml -N 1000000 -S 17 -P /tmp "$TEST_MNT/other/fsx" &
fsx=$!
loads+=("$fsx")
load() {
	while :; do
		for i in 1 2 3 4 5 6; do
			head -c 700K /dev/urandom >"$TEST_MNT/other/load$1-$i"
			sync -f "$TEST_MNT/other/load$1-$i"
		done
		rm "$TEST_MNT/other/load$1-"*
	done
}
for i in 1 2 3; do
	load "$i" &
	loads+=($!)
done
status=0
ordofs --json scrub start -B "$TEST_MNT" >/tmp/report || status=$?
[ "$status" = 3 ] || fail "status $status: $(cat /tmp/report)"
python3 - <<'EOF'
import json
report = json.load(open("/tmp/report"))
found, nodes = set(), set()
for d in report["damage"]:
    if d["damaged"] == "one copy of a node of the inode tree":
        nodes.add(d["block"])
        continue
    assert d["damaged"] == "data", d
    for at in range(d["offset"], d["offset"] + d["bytes"], 4096):
        found.add("%s %d" % (d["path"], at))
planted = set(open("/tmp/planted").read().split("\n")) - {""}
assert len(planted) == 100, len(planted)
assert found == planted, (found - planted, planted - found)
assert report["bad_data_blocks"] == 100 and report["damaged_inodes"] == 20, report
assert len(nodes) == 100, len(nodes)
assert report["bad_copies_of_nodes"] == 100 and report["healed_copies_of_nodes"] == 100, report
EOF
kill -0 "$fsx" || fail "fsx has ended"
[ "$(cat "$dir/scrub_bad_data")" = 100 ]
[ "$(cat "$dir/scrub_bad_inodes")" = 20 ]
[ "$(cat "$dir/scrub_healed")" = 100 ]
[ "$(cat "$TEST_MNT"/quiet/* | md5sum)" = "$quiet" ]
dmesg | grep "scrub: inode [0-9]*, block [0-9]*: bad data in disk block" || fail "no message"

# Paced, cancelled, resumed.
ordofs scrub start --rate 256K "$TEST_MNT"
fails ordofs scrub start "$TEST_MNT"
sleep 2
[ "$(cat "$dir/scrub_state")" = running ]
read=$(($(cat "$dir/scrub_data") + $(cat "$dir/scrub_nodes")))
[ "$read" -lt $((4 * 64 + 256)) ] || fail "$read blocks in two seconds at 64 a second"
ordofs scrub status --no-paths "$TEST_MNT" | grep -q '^state .*running'
ordofs scrub cancel "$TEST_MNT"
[ "$(cat "$dir/scrub_state")" = cancelled ]
status=0
ordofs scrub start -B --resume "$TEST_MNT" >/tmp/report || status=$?
[ "$status" = 3 ]
[ "$(cat "$dir/scrub_bad_data")" = 100 ]
kill "${loads[@]}"
wait 2>/dev/null || :

# A frozen filesystem pauses it.
ordofs scrub start --rate 1M "$TEST_MNT"
fsfreeze -f "$TEST_MNT"
sleep 2
before=$(cat "$dir/scrub_data")
sleep 3
[ "$(cat "$dir/scrub_data")" = "$before" ] || { fsfreeze -u "$TEST_MNT"; fail "not paused"; }
fsfreeze -u "$TEST_MNT"
sleep 3
[ "$(cat "$dir/scrub_data")" -gt "$before" ]

# A remount to read-only lets it go on, an unmount ends it.
mount -o remount,ro "$TEST_MNT"
before=$(cat "$dir/scrub_data")
sleep 3
[ "$(cat "$dir/scrub_data")" -gt "$before" ]
umount "$TEST_MNT"
while read -r at; do
	dd if="$TEST_DEV" bs=4k skip="$at" count=1 status=none | md5sum
done </tmp/copies | cmp - /tmp/good
mount -t ordofs -o ro "$TEST_DEV" "$TEST_MNT"
[ "$(cat "$dir/scrub_state")" = never ]
status=0
ordofs scrub start -B "$TEST_MNT" >/tmp/report || status=$?
[ "$status" = 3 ]
[ "$(cat "$dir/scrub_bad_data")" = 100 ]

# The files' other blocks can be saved.
umount "$TEST_MNT"
status=0
ordofs cat --keep-going "$TEST_DEV" /dir/7 >/tmp/saved 2>/tmp/said || status=$?
[ "$status" = 1 ]
[ "$(stat -c %s /tmp/saved)" = 1048576 ]
[ "$(grep -c "zeros in the output" /tmp/said)" = 5 ]

# rescue=data hands out damaged blocks as they are.
refused "rescue=data is for read-only mounts: add ro" -t ordofs -o rescue=data "$TEST_DEV" "$TEST_MNT"
mount -t ordofs -o ro,rescue=data "$TEST_DEV" "$TEST_MNT"
[[ $(mount_options) = *rescue=data* ]]
cmp "$TEST_MNT/dir/7" /tmp/saved
dd if="$TEST_MNT/dir/7" iflag=direct bs=1M status=none | cmp - /tmp/saved
fails mount -o remount,rw "$TEST_MNT" 2>/dev/null
umount "$TEST_MNT"
