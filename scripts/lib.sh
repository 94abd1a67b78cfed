# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What every host-side script shares: where things are, how long steps report
# progress, and the cache's keys. Sourced, never run.
#
# Model: everything slow is made once and kept under $ORDOFS_CACHE, in a
# directory whose name carries a hash of what went into it. A stage works in a
# temporary place (or in one that make can resume) and is finished by writing
# its stamp, so an interrupted run goes on where it stopped.

ORDOFS_TOP=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
ORDOFS_CACHE=${ORDOFS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ordofs}
export ORDOFS_TOP ORDOFS_CACHE

say()  { printf '%s\n' "ordofs: $*" >&2; }
die()  { say "error: $*"; exit 1; }

# Lines of a table without comments and blanks.
table() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

# The first (preferred) kernel series of the table, its suite and flavour.
read -r KERNEL_SERIES KERNEL_SUITE KERNEL_FLAVOUR \
	< <(table "$ORDOFS_TOP/scripts/kernels")
export KERNEL_SERIES KERNEL_SUITE KERNEL_FLAVOUR

# Root directory: keyed by what is installed in it. Raise the number when
# scripts/bootstrap comes to set the root up differently.
root_key() {
	{
		echo 1
		table "$ORDOFS_TOP/scripts/packages"
		table "$ORDOFS_TOP/scripts/kernels"
	} | sha256sum | cut -c1-12
}

# The name of what is built from this source tree; other trees share the cache.
tree_id() { printf '%s' "$ORDOFS_TOP" | sha256sum | cut -c1-8; }

ORDOFS_ROOT=${ORDOFS_ROOT:-$ORDOFS_CACHE/root-$(root_key)}
export ORDOFS_ROOT

# Which kernel: the archive's own, or the same source with the kernel's checks
# (debug), or with those for data races (kcsan).
KERNEL=${KERNEL:-stock}
export KERNEL
# The factor for time limits on that kernel.
kernel_slowness() { if [ "$KERNEL" = stock ]; then echo 1; else echo 6; fi; }

# The release of the stock kernel that the root carries (written by bootstrap).
stock_release() {
	cat "$ORDOFS_ROOT/etc/ordofs-kernel" 2>/dev/null ||
		die "no build root yet: run 'make root'"
}

# The release of the chosen kernel.
kernel_release() {
	local release
	release=$(stock_release)
	case $KERNEL in
	stock) echo "$release" ;;
	debug | kcsan) echo "${release%%[-+]*}-ordofs-$KERNEL" ;;
	*) die "KERNEL is stock, debug or kcsan, not $KERNEL" ;;
	esac
}

# Paths inside the root.
kernel_source() { printf '/usr/src/linux-source-%s' "$KERNEL_SERIES"; }
kernel_build()  { printf '/usr/src/linux-build-%s' "$(kernel_release)"; }
kernel_image() {
	case $KERNEL in
	stock) printf '/usr/lib/modules/%s/vmlinuz' "$(kernel_release)" ;;
	*) printf '%s/arch/x86/boot/bzImage' "$(kernel_build)" ;;
	esac
}

# Makes what must exist before a module can be built for the chosen kernel.
kernel_ready() {
	if [ "$KERNEL" = stock ]; then
		"$ORDOFS_TOP/scripts/kernel-prep"
	else
		"$ORDOFS_TOP/scripts/kernel-debug"
	fi
}

# Become root: really, or in a user namespace in which this user is root and has
# its subordinate ids for the others (what Debian gives every new user).
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	# shellcheck disable=SC2034 # for those who source this
	as_root=(unshare --user --map-root-user --map-auto --mount)
fi

# stage NAME TEXT COMMAND...: run a long command with its output in a log,
# and say every few seconds how long it has taken, next to what it took the
# last time. The log's tail is shown when the command fails.
stage() {
	local name=$1 text=$2 log times last=0 start pid rc=0 line
	shift 2
	mkdir -p "$ORDOFS_CACHE/log"
	log=$ORDOFS_CACHE/log/$name.log
	times=$ORDOFS_CACHE/log/$name.seconds
	[ ! -r "$times" ] || last=$(cat "$times")
	if [ "$last" -gt 0 ]; then
		say "$text (took ${last}s the last time; log: $log)"
	else
		say "$text (log: $log)"
	fi
	start=$SECONDS
	# A process group of its own, so that an interruption takes all of it along.
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	# shellcheck disable=SC2064 # expand now: these are this stage's values
	trap "kill -KILL -- -$pid 2>/dev/null; wait $pid 2>/dev/null; exit 130" INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		if [ $(((SECONDS - start) % 10)) -eq 9 ]; then
			line=$(tail -c 300 "$log" | tr -d '\r' | tail -n 1 | cut -c1-60)
			if [ "$last" -gt 0 ]; then
				say "  $((SECONDS - start))s of about ${last}s: $line"
			else
				say "  $((SECONDS - start))s: $line"
			fi
		fi
	done
	wait "$pid" || rc=$?
	trap - INT TERM
	if [ "$rc" -ne 0 ]; then
		tail -n 30 "$log" >&2
		die "$text: failed with status $rc (whole log: $log)"
	fi
	echo $((SECONDS - start)) >"$times"
	say "  done in $((SECONDS - start))s"
}
