# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Sourced: reports leaks, on kernels with KMEMLEAK.

# Call with no OrdoFS mounted and the module loaded, so that the kernel knows the names of its functions.
# The report goes to the kernel's log, where qemu/run sees it.
find_leaks() {
	local file=/sys/kernel/debug/kmemleak
	[ -e "$file" ] || return 0
	# KMEMLEAK ignores objects younger than five seconds, and the second scan drops those that moved during the first.
	sleep 6
	if ! { echo scan >"$file" && echo scan >"$file"; } 2>/dev/null; then
		# KMEMLEAK turns itself off when it has no memory, and finds no leak from then on.
		echo "BUG: KMEMLEAK: looks for leaks no longer" >/dev/kmsg
		return 0
	fi
	awk -v RS='unreferenced object' '/\[ordofs\]/ { print "unreferenced object" $0 }' "$file" >/tmp/leaks
	if [ -s /tmp/leaks ]; then
		cp /tmp/leaks /results/leaks
		head -n 40 /tmp/leaks | while read -r line; do echo "ordofs-leak: $line" >/dev/kmsg; done
		echo "BUG: KMEMLEAK: $(grep -c unreferenced /tmp/leaks) objects of ordofs" >/dev/kmsg
	fi
	echo clear >"$file"
}
