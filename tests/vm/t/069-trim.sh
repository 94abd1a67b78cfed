#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# FITRIM: what is free is discarded, and nothing else, also beside fsx; a frozen filesystem is left alone, and
# what cannot be trimmed is refused.
# timeout: 600
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"

[ "$(cat "/sys/block/$(basename "$TEST_DEV")/queue/discard_max_bytes")" -gt 0 ] || fail "the device cannot discard"
cleanup() {
	fsfreeze -u "$TEST_MNT" 2>/dev/null || :
	umount "$TEST_MNT" 2>/dev/null || :
}
trap cleanup EXIT

# Bytes that the device has been told to discard.
discarded() { awk '{ print $14 * 512 }' "/sys/block/$(basename "$TEST_DEV")/stat"; }
# Bytes that an fstrim says it has discarded.
trimmed() { fstrim -v "$@" "$TEST_MNT" | sed -n 's/.*(\([0-9]*\) bytes).*/\1/p'; }

mkfs.ordofs -f "$TEST_DEV" >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"

# A file stays, one goes; the blocks of both are known.
head -c 8M /dev/urandom >"$TEST_MNT/stays"
head -c 8M /dev/urandom >"$TEST_MNT/goes"
cp "$TEST_MNT/stays" /tmp/stays
sync
first_block() { filefrag -v "$1" | tr -d '.:' | awk '$1 == "0" { print $4 }'; }
at=$(first_block "$TEST_MNT/goes")
rm "$TEST_MNT/goes"
# Not durable yet, so it is left alone.
trimmed >/dev/null
dd if="$TEST_DEV" of=/tmp/block iflag=direct bs=4k skip="$at" count=1 status=none
if cmp -s -n 4096 /tmp/block /dev/zero; then fail "discarded what a crash would bring back"; fi
sync
before=$(discarded)
bytes=$(trimmed)
after=$(discarded)
[ "$bytes" -gt 0 ]
[ "$bytes" = $((after - before)) ] || fail "$bytes bytes, and the device got $((after - before))"
dd if="$TEST_DEV" of=/tmp/block iflag=direct bs=4k skip="$at" count=1 status=none
cmp -n 4096 /tmp/block /dev/zero || fail "not discarded"
free=$(($(stat -f -c '%f * %S' "$TEST_MNT")))
# Between what users can have, and that with the pool.
[ "$bytes" -le $((free + (64 << 20))) ]
echo 3 >/proc/sys/vm/drop_caches
cmp /tmp/stays "$TEST_MNT/stays"

# Ranges and wrong uses.
size=$(blockdev --getsize64 "$TEST_DEV")
[ "$(trimmed -o 0 -l 64M)" -le $((64 << 20)) ]
fails fstrim -o "$size" "$TEST_MNT"
fails fstrim -l 1 "$TEST_MNT"
fails fstrim -m 64M "$TEST_MNT"
fails setpriv --reuid 65534 --clear-groups fstrim "$TEST_MNT"
mount -o remount,ro "$TEST_MNT"
before=$(discarded)
fails fstrim "$TEST_MNT"
[ "$(discarded)" = "$before" ]
mount -o remount,rw "$TEST_MNT"

# A trim waits while the filesystem is frozen, and goes on after that.
fsfreeze -f "$TEST_MNT"
before=$(discarded)
fstrim "$TEST_MNT" &
pid=$!
sleep 1
kill -0 "$pid" || fail "a trim did not wait for the thaw"
[ "$(discarded)" = "$before" ] || fail "a trim of a frozen filesystem"
fsfreeze -u "$TEST_MNT"
wait "$pid"
[ "$(discarded)" -gt "$before" ]
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"

# Two rounds beside fsx, on a small filesystem, so that blocks are used again at once.
fsx_config /tmp/trim.toml 8388608 524288 invalidate=5 punch_hole=8
steps=$((${FSX_STEPS:-3000} * ${LOOPS:-1}))
for blocks in 64M 512M; do
	mkfs.ordofs -f -K "$TEST_DEV" "$blocks" >/dev/null
	mount -t ordofs -o commit=1 "$TEST_DEV" "$TEST_MNT"
	seed=$((RANDOM << 15 | RANDOM))
	echo "trace: fsx on $blocks: $steps steps, seed $seed"
	touch /tmp/trimming
	( while [ -e /tmp/trimming ]; do fstrim "$TEST_MNT"; done ) &
	loop=$!
	fsx -q -f /tmp/trim.toml -N "$steps" -S "$seed" -P "$RESULT_DIR" "$TEST_MNT/fsx" || {
		rm /tmp/trimming
		fail "fsx"
	}
	rm /tmp/trimming
	wait "$loop"
	umount "$TEST_MNT"
	fsck.ordofs -n "$TEST_DEV"
done
