#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Blocks that the device cannot read: dm-error for a block of a file and a node of the inode tree,
# dm-dust (debug kernels) until the block is written. Only calls that need such a block get an error,
# and of a node with two copies one may be missing: then no call gets one. The error is not remembered:
# when the device has the blocks again, the calls succeed. A superblock that cannot be read may be the
# newest, so the filesystem is not written then. In the end the whole device goes away under load, and
# comes back.
# timeout: 240
set -euo pipefail

sectors=$(blockdev --getsz "$TEST_DEV")
name=ordofs-dead
dev=/dev/mapper/$name

# The device without some of its blocks.
without() { # BLOCK...
	local at=0 block
	for block in $(printf '%s\n' "$@" | sort -n); do
		block=$((block * 8))
		[ "$block" -eq "$at" ] || echo "$at $((block - at)) linear $TEST_DEV $at"
		echo "$block 8 error"
		at=$((block + 8))
	done
	echo "$at $((sectors - at)) linear $TEST_DEV $at"
}
# Under the feet of a mounted filesystem, with a table from standard input.
swap_table() {
	dmsetup load $name
	dmsetup suspend --noflush --nolockfs $name
	dmsetup resume $name
	echo 3 >/proc/sys/vm/drop_caches
}
make_many() {
	mkdir "$TEST_MNT/many"
	python3 - "$TEST_MNT/many" <<'END'
import sys
for n in range(600):
    with open("%s/%04d" % (sys.argv[1], n), "w", encoding="ascii") as f:
        f.write("content of %d\n" % n)
END
}
intact() { cmp /tmp/file "$TEST_MNT/file" && [ "$(cat "$TEST_MNT"/many/* | md5sum)" = "$many" ]; }

without | dmsetup create $name
trap 'umount "$TEST_MNT" 2>/dev/null || :; dmsetup remove $name' EXIT
mkfs.ordofs -f --copies 1 $dev >/dev/null
mount -t ordofs $dev "$TEST_MNT"
dd if=/dev/urandom of=/tmp/file bs=4k count=64 status=none
cp /tmp/file "$TEST_MNT/file"
make_many
sync
many=$(cat "$TEST_MNT"/many/* | md5sum)
first=$(filefrag -v "$TEST_MNT/file" | awk '/^ +0:/ { print $4 + 0; exit }')
umount "$TEST_MNT"
leaf=$(ordofs dump tree $dev inode | awk '/^records/ { exit } /level 0,/ { print $2 + 0 }' | sed -n 6p)
[ -n "$leaf" ]
mount -t ordofs $dev "$TEST_MNT"

echo "a block of a file"
without $((first + 5)) | swap_table
for flag in nocache direct; do
	for block in 4 5 6; do
		status=0
		dd if="$TEST_MNT/file" of=/tmp/block bs=4k skip=$block count=1 iflag=$flag status=none || status=$?
		[ $((block == 5)) -eq $((status != 0)) ]
	done
done
# Copy on write: what replaces the block goes elsewhere.
dd if=/tmp/file of="$TEST_MNT/file" bs=4k skip=5 seek=5 count=1 conv=notrunc,fsync status=none
intact

echo "a node of the inode tree"
without "$leaf" | swap_table
python3 - "$TEST_MNT/many" <<'END'
import errno
import sys

good = bad = 0
for n in range(600):
    try:
        with open("%s/%04d" % (sys.argv[1], n), encoding="ascii") as f:
            text = f.read()
    except OSError as error:
        assert error.errno == errno.EIO, error
        bad += 1
        continue
    assert text == "content of %d\n" % n, "file %d has %r" % (n, text)
    good += 1
print("trace: without one node %d files can be read, %d cannot" % (good, bad))
assert bad > 0 and good > 400
END
without | swap_table
intact
umount "$TEST_MNT"
fsck.ordofs -n $dev

echo "a superblock"
for slot in 16 128; do
	echo "its first copy: the second one will do"
	without $slot | swap_table
	mount -t ordofs -o ro $dev "$TEST_MNT"
	intact
	umount "$TEST_MNT"
	without $slot $((slot + 16384)) | swap_table
	if mount -t ordofs $dev "$TEST_MNT"; then
		exit 1
	fi
	mount -t ordofs -o ro $dev "$TEST_MNT"
	if mount -o remount,rw "$TEST_MNT"; then
		exit 1
	fi
	umount "$TEST_MNT"
done
without | swap_table
mount -t ordofs $dev "$TEST_MNT"
intact
umount "$TEST_MNT"
fsck.ordofs -n $dev

echo "a node of the inode tree that has two copies"
count() { cat "/sys/fs/ordofs/$(basename "$(readlink -f $dev)")/$1"; }
# until FILE NUMBER
until_is() {
	for _ in $(seq 100); do
		[ "$(count "$1")" != "$2" ] || return 0
		sleep 0.2
	done
	echo "$1 is $(count "$1"), not $2"
	return 1
}
# Without access times, or a read would make the node change.
mkfs.ordofs -f --copies 2 $dev >/dev/null
mount -t ordofs -o noatime $dev "$TEST_MNT"
cp /tmp/file "$TEST_MNT/file"
make_many
sync
umount "$TEST_MNT"
read -r leaf copy < <(ordofs --json dump tree $dev inode | python3 -c '
import json
import sys
node = [n for n in json.load(sys.stdin)["nodes"] if n["level"] == 0][5]
print(node["block"], node["copy"])')
[ "$copy" -gt 0 ]
mount -t ordofs -o noatime $dev "$TEST_MNT"
# The device neither reads nor writes the first copy: the second one is used, and commits go on.
without "$leaf" | swap_table
intact
[ "$(count bad_copy_reads)" -gt 0 ]
until_is unhealed_copies 1
touch "$TEST_MNT/new"
sync -f "$TEST_MNT"
rm "$TEST_MNT/new"
umount "$TEST_MNT"
without | swap_table
fsck.ordofs -n $dev
# The first copy has another content: it is written again.
dd if=/dev/zero of=$dev bs=4k seek="$leaf" count=1 oflag=direct status=none
status=0
fsck.ordofs -n $dev >/tmp/said || status=$?
cat /tmp/said
[ $status = 4 ]
grep -q "first copy of a node at block $leaf" /tmp/said
mount -t ordofs -o noatime $dev "$TEST_MNT"
intact
until_is healed_copies 1
umount "$TEST_MNT"
fsck.ordofs -n $dev

if dmsetup targets | grep -q ^dust; then
	echo "blocks that come back when they are written"
	echo "0 $sectors dust $TEST_DEV 0 4096" | swap_table
	mount -t ordofs $dev "$TEST_MNT"
	first=$(filefrag -v "$TEST_MNT/file" | awk '/^ +0:/ { print $4 + 0; exit }')
	dmsetup message $name 0 addbadblock "$first"
	dmsetup message $name 0 enable
	echo 3 >/proc/sys/vm/drop_caches
	if cat "$TEST_MNT/file" >/dev/null; then
		exit 1
	fi
	dd if=/tmp/file of="$TEST_MNT/file" bs=4k conv=notrunc,fsync status=none
	intact
	umount "$TEST_MNT"
	fsck.ordofs -n $dev
	without | swap_table
fi

echo "the whole device, under load"
mount -t ordofs $dev "$TEST_MNT"
python3 - "$TEST_MNT" <<'END' &
import os
import sys

# Writes and syncs until the first error; says what was acknowledged.
count = 0
try:
    while True:
        fd = os.open("%s/load%d" % (sys.argv[1], count), os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"%08d" % count * 1000)
        os.fsync(fd)
        os.close(fd)
        count += 1
except OSError as error:
    print("trace: %d files acknowledged, then: %s" % (count, error.strerror))
with open("/tmp/acknowledged", "w", encoding="ascii") as f:
    f.write(str(count))
END
sleep 4
echo "0 $sectors error" | swap_table
wait $!
if touch "$TEST_MNT/new" && sync "$TEST_MNT/new"; then
	echo "a dead device takes writes"
	exit 1
fi
umount "$TEST_MNT"
without | swap_table
mount -t ordofs $dev "$TEST_MNT"
intact
python3 - "$TEST_MNT" <<'END'
import sys
with open("/tmp/acknowledged", encoding="ascii") as f:
    count = int(f.read())
assert count > 0, "nothing was written before the device went away"
for n in range(count):
    with open("%s/load%d" % (sys.argv[1], n), "rb") as f:
        assert f.read() == b"%08d" % n * 1000, "load%d: acknowledged, and lost" % n
END
umount "$TEST_MNT"
fsck.ordofs -n $dev
