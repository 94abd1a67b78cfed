#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Idmapped mounts behave as on ext4: owners are mapped, a caller whose id has no mapping creates
# nothing (EOVERFLOW, for O_TMPFILE, too, since Linux 7.3), and a mapped one owns what it creates.
# timeout: 120
set -euo pipefail

mkfs.ordofs -q "$TEST_DEV" <<<y >/dev/null
mkfs.ext4 -q -F "$SCRATCH_DEV"
other=$(mktemp -d)
mapped=$(mktemp -d)
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
mount -t ext4 "$SCRATCH_DEV" "$other"
end() {
	mountpoint -q "$mapped" && umount "$mapped"
	umount "$other" "$TEST_MNT"
}
trap end EXIT

probe='
import errno, os, sys
os.chdir(sys.argv[1])
def attempt(what, f):
    try:
        r = f()
        print(what, "ok" if r is None else r)
    except OSError as e:
        print(what, errno.errorcode[e.errno])
owner = lambda path: (os.stat(path).st_uid, os.stat(path).st_gid)
attempt("owner", lambda: owner("old"))
attempt("create", lambda: os.close(os.open("new", os.O_CREAT | os.O_WRONLY)))
attempt("mkdir", lambda: os.mkdir("dir"))
attempt("tmpfile", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR)))
os.setegid(10000)
os.seteuid(10000)
attempt("create", lambda: os.close(os.open("theirs", os.O_CREAT | os.O_WRONLY)))
attempt("tmpfile", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR)))
attempt("owner", lambda: owner("theirs"))
'
for mnt in "$TEST_MNT" "$other"; do
	echo old >"$mnt/old"
	chmod 777 "$mnt"
	# Ids from 0 on are shown as those from 10000 on.
	mount -o bind,X-mount.idmap=b:0:10000:1000 "$mnt" "$mapped"
	python3 -c "$probe" "$mapped" >"/tmp/idmapped.$(basename "$mnt")"
	umount "$mapped"
	stat -c '%n %u %g' "$mnt/theirs" | sed 's|.*/||' >>"/tmp/idmapped.$(basename "$mnt")"
done
cat "/tmp/idmapped.$(basename "$TEST_MNT")"
diff "/tmp/idmapped.$(basename "$other")" "/tmp/idmapped.$(basename "$TEST_MNT")"
grep -qx 'tmpfile ok' "/tmp/idmapped.$(basename "$other")"
