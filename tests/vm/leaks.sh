# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Sourced: what the kernel finds to be leaked, on kernels with KMEMLEAK.

# Call with nothing of ours mounted, and the module loaded: it knows the names then. A complaint goes
# to the kernel's log, where qemu/run sees it.
find_leaks() {
	local file=/sys/kernel/debug/kmemleak
	[ -e "$file" ] || return 0
	# What is younger than five seconds does not count, and a second look forgives what was on its way.
	sleep 6
	if ! { echo scan >"$file" && echo scan >"$file"; } 2>/dev/null; then
		# It turns itself off when it has no memory: nobody is looking any more.
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
