#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Extended attributes and access control lists: system calls, inheritance, chmod;
# the same is there after a remount and after a power cut, and fsck finds nothing.
# timeout: 300
set -euo pipefail
# shellcheck source=tests/vm/lib.sh
. "$TESTS_DIR/lib.sh"
trap 'echo "line $LINENO"' ERR

x=/run/ordofs/tests/xattr/attrs.py
same() { python3 $x show "$TEST_MNT" | diff "$1" -; }
# acl FILE TEXT: getfacl says so.
acl() {
	local have
	have=$(cd "$TEST_MNT" && getfacl -cpnE "$1" | tr '\n' ' ' | sed 's/ *$//')
	[ "$have" = "$2" ] || { echo "$1: '$have', want '$2'"; exit 1; }
}

mkfs.ordofs "$TEST_DEV" <<<y >/dev/null
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
trap 'umount "$TEST_MNT" 2>/dev/null || :' EXIT
mkdir "$TEST_MNT/check" "$TEST_MNT/fill"
python3 $x check "$TEST_MNT/check"
python3 $x fill "$TEST_MNT/fill"

cd "$TEST_MNT"
umask 027
touch plain
[ "$(stat -c %a plain)" = 640 ]
# A list grants and denies access.
mkdir -m 755 acl
echo secret >acl/file
chmod 600 acl/file
if setpriv --reuid 1000 --clear-groups cat acl/file 2>/dev/null; then exit 1; fi
setfacl -m u:1000:r acl/file
[ "$(setpriv --reuid 1000 --clear-groups cat acl/file)" = secret ]
acl acl/file "user::rw- user:1000:r-- group::--- mask::r-- other::---"
[ "$(stat -c %a acl/file)" = 640 ]
# chmod changes the mask, and the mask what is granted.
chmod 600 acl/file
acl acl/file "user::rw- user:1000:r-- group::--- mask::--- other::---"
if setpriv --reuid 1000 --clear-groups cat acl/file 2>/dev/null; then exit 1; fi
chmod 664 acl/file
acl acl/file "user::rw- user:1000:r-- group::--- mask::rw- other::r--"
# A truncation that takes the setuid bit away is one change of size, mode and list.
setfacl -m u:1000:rw acl/file
chmod 4770 acl/file
setpriv --reuid 1000 --clear-groups truncate -s 3 acl/file
[ "$(stat -c '%a %s' acl/file)" = "770 3" ]
acl acl/file "user::rwx user:1000:rw- group::--- mask::rwx other::---"
chmod 664 acl/file
# A list that is equivalent to the mode is not kept.
setfacl -b acl/file
if getfattr -d -m- acl/file | grep posix_acl; then exit 1; fi
[ "$(stat -c %a acl/file)" = 604 ]
# Only the owner sets it.
if setpriv --reuid 1000 --clear-groups setfacl -m u:1000:rwx acl/file 2>/dev/null; then exit 1; fi

# Inheritance: a directory's default list instead of the umask.
mkdir inherit
setfacl -d -m u:1000:rwx,g::r-x,o::- inherit
acl inherit "user::rwx group::r-x other::--- default:user::rwx default:user:1000:rwx default:group::r-x default:mask::rwx default:other::---"
touch inherit/file
mkdir inherit/dir
mkfifo inherit/pipe
ln -s file inherit/link
python3 -c 'import os
fd = os.open("inherit", os.O_TMPFILE | os.O_RDWR, 0o666)
here = os.open(".", os.O_RDONLY)
os.link(f"/proc/self/fd/{fd}", "inherit/tmp", src_dir_fd=here, follow_symlinks=True)'
want="user::rw- user:1000:rwx group::r-x mask::rw- other::---"
acl inherit/file "$want"
acl inherit/pipe "$want"
acl inherit/tmp "$want"
acl inherit/dir "user::rwx user:1000:rwx group::r-x mask::rwx other::--- default:user::rwx default:user:1000:rwx default:group::r-x default:mask::rwx default:other::---"
mkdir -p inherit/dir/a/b/c
touch inherit/dir/a/b/c/file
acl inherit/dir/a/b/c/file "$want"
[ -z "$(getfattr -hd -m- inherit/link)" ]
setpriv --reuid 1000 --clear-groups sh -c 'echo text >inherit/dir/a/b/c/file'
setfacl -k inherit/dir
touch inherit/dir/late
acl inherit/dir/late "user::rw- group::r-- other::---"
cd /

python3 $x show "$TEST_MNT" >/tmp/before
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
same /tmp/before

# What was fsynced survives a shutdown, by the log: there is no commit in between.
mount -o remount,commit=300 "$TEST_MNT"
cd "$TEST_MNT"
for i in $(seq 20); do
	setfattr -n user.logged -v "$i" fill/many
	setfacl -m "u:$((2000 + i)):rw" acl/file
	touch "inherit/logged-$i"
done
python3 -c 'import os
os.setxattr("plain", "user.long", b"l" * 65536)
fd = os.open("plain", os.O_RDONLY)
os.fsync(fd)'
python3 $x show "$TEST_MNT" >/tmp/before
cd /
crash
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
dmesg --clear
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
dmesg | grep "replayed .* records"
same /tmp/before

# With noacl, lists are kept, but neither shown nor obeyed.
mount -o remount,noacl "$TEST_MNT"
[ "$(mount_options)" = rw,relatime,noacl ]
if getfattr -d -m- "$TEST_MNT/inherit/file" | grep posix_acl; then exit 1; fi
if setfacl -m u:1000:r "$TEST_MNT/plain" 2>/dev/null; then exit 1; fi
(umask 027 && touch "$TEST_MNT/inherit/none")
[ "$(stat -c %a "$TEST_MNT/inherit/none")" = 640 ]
mount -o remount,acl "$TEST_MNT"
acl inherit/file "$want"
acl inherit/none "user::rw- group::r-- other::---"

umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
# The tools show them.
ordofs stat "$TEST_DEV" /plain | grep -q "user.long"
ordofs stat "$TEST_DEV" /inherit/file | grep -q "system.posix_acl_access"
mount -t ordofs "$TEST_DEV" "$TEST_MNT"
rm -rf "${TEST_MNT:?}"/*
umount "$TEST_MNT"
fsck.ordofs -n "$TEST_DEV"
