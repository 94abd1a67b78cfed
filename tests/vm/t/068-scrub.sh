#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Scrub of a mounted filesystem under load: it finds 100 damaged blocks of data by file and offset, and
# nothing else; it can be paced, cancelled and resumed; a read-only mount can be scrubbed; a frozen filesystem
# pauses it, and an unmount ends it.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
loads=()
trap '[ -z "${loads[*]}" ] || kill "${loads[@]}" 2>/dev/null || :; umount "$TEST_MNT" 2>/dev/null || :' EXIT
dir=/sys/fs/ordofs/$(basename "$TEST_DEV")
[ "$(cat "$dir/scrub_state")" = never ]
fails ordofs scrub cancel "$TEST_MNT"
fails ordofs scrub start /tmp
mkdir "$TEST_MNT/dir" "$TEST_MNT/other"
for i in $(seq 20); do head -c 1M /dev/urandom >"$TEST_MNT/dir/$i"; done
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
while read -r at; do
	dd if=/dev/zero of="$TEST_DEV" bs=4k seek="$at" count=1 conv=notrunc status=none
done </tmp/blocks
mount -t ordofs "$TEST_DEV" "$TEST_MNT"

# Load: files come and go, and are synced.
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
found = set()
for d in report["damage"]:
    assert d["damaged"] == "data", d
    for at in range(d["offset"], d["offset"] + d["bytes"], 4096):
        found.add("%s %d" % (d["path"], at))
planted = set(open("/tmp/planted").read().split("\n")) - {""}
assert len(planted) == 100, len(planted)
assert found == planted, (found - planted, planted - found)
assert report["bad_data_blocks"] == 100 and report["damaged_inodes"] == 20, report
assert report["bad_copies_of_nodes"] == 0, report
EOF
[ "$(cat "$dir/scrub_bad_data")" = 100 ]
[ "$(cat "$dir/scrub_bad_inodes")" = 20 ]
dmesg | grep -q "scrub: inode [0-9]*, block [0-9]*: bad data in disk block" || fail "no message"

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
