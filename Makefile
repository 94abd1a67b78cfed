# SPDX-License-Identifier: GPL-2.0
#
# OrdoFS's front door. Two ways in:
#   make help                      the project's own environment, from nothing
#   make KDIR=/path/to/build       a conventional out-of-tree module build
#                                  (what is compiled stands in Kbuild)
#
# Every target is a thin call of one script in scripts/, which can be run
# without make just as well.

TOP := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
SH  := $(TOP)scripts

KERNEL  ?= stock
VARIANT ?=
RUSTCFG ?=
# make DEBUG=1: with the delay points of docs/TESTING.md.
ifneq ($(filter 1 y,$(DEBUG)),)
override RUSTCFG += ordofs_debug
ifeq ($(VARIANT),)
override VARIANT := debug
endif
endif
export KERNEL VARIANT RUSTCFG TESTS LANE MINUTES JOBS FULL MEMCG OPERATIONS XFSTESTS TAUGHT MEM CPUS ACCEL CACHE TIMEOUT LOOPS RACE_SECONDS \
	ITER RULE CASE SCHEDULE

ifneq ($(KDIR),)
.DEFAULT_GOAL := kbuild
else
.DEFAULT_GOAL := help
endif

.PHONY: help
help:
	@echo 'OrdoFS: a checksummed copy-on-write filesystem in Rust'
	@echo
	@echo 'First (times: two idle cores, a full cache unless it says otherwise)'
	@echo '  make run             4 min  builds all; in a VM: mkfs, mount, race, fsck'
	@echo '                              (8 min the first time: it makes the build root)'
	@echo '  make root            4 min  only the build environment, from nothing'
	@echo '  make rust-project    10 s   rust-project.json, for rust-analyzer in rust/'
	@echo
	@echo 'Between two edits'
	@echo '  make module          30 s   ordofs.ko for the stock kernel'
	@echo '      DEBUG=1                 with error tags: points that hold a race open'
	@echo '      VARIANT=x RUSTCFG="..." a build variant in a directory of its own'
	@echo '  make tools           60 s   mkfs.ordofs, fsck.ordofs, ordofs, ordofs-race'
	@echo '  make quick       2 to 8 min  fast checks, the engine'\''s tests, three VM tests'
	@echo '  make test TESTS="021* rustfmt"  tests whose names match'
	@echo '  make shell           15 s   a shell in the VM, an OrdoFS at /mnt/test'
	@echo '  make fmt             10 s   rewrites the Rust sources as rustfmt has them'
	@echo
	@echo 'Before a commit'
	@echo '  make check           4 min  all static checks'
	@echo '  make test           26 min  static checks, tools, VM tests, power cuts'
	@echo '  make clippy          1 min  what clippy says of the module and the tools'
	@echo '  make rustdoc         1 min  documentation of both, private items included'
	@echo '  make pictures        5 s    the pictures of docs/ from their sources'
	@echo
	@echo 'Long runs'
	@echo '  make model           2 min  the rules of order, schedule by schedule'
	@echo '      ITER=1000000 RULE=r1 CASE=hole SCHEDULE=...'
	@echo '  make crash           3 min  power cuts in user space, state by state'
	@echo '  make fuzz            5 min  images with right checksums and wrong contents, N=recipes'
	@echo '      N=500000 SEED=7         more of them, others'
	@echo '  make powercut        2 min  power cuts of the VM under load: ROUNDS=20'
	@echo '  make mutants         9 min  each rule without its protection must fail'
	@echo '  make test LOOPS=100 TESTS="vm/04*"  30 min  the races, many times over'
	@echo
	@echo 'Debug kernels (lockdep, KASAN, KMEMLEAK, fault injection; kcsan: data races)'
	@echo '  make debug-kernel    9 min  once; KERNEL=kcsan for the other one'
	@echo '  make test KERNEL=debug  1 h VM tests on it, and bugs planted on purpose'
	@echo '  make test LANE=1    29 min  make test, and the core of that'
	@echo
	@echo 'Benchmarks and xfstests'
	@echo '  make bench          40 min  requests, CPU time and time beside ext4, xfs and btrfs'
	@echo '      ONLY="append-* mount" ROUNDS=3 SCALE=1 INSTRUCTIONS=0'
	@echo '      COMPARE=old.json        what is worse than in an older run'
	@echo '  make test TESTS="070*"  2 min  an fsync against ext4, xfs and btrfs'
	@echo '  make xfstests XFSTESTS=/path TESTS="generic/344 -g quick"'
	@echo '                       hours  upstream'\''s tests, from a tree that you built'
	@echo '      TAUGHT=1                with helpers that know what ordofs can do'
	@echo
	@echo 'Cleaning, and the rest'
	@echo '  make clean                  what was built of OrdoFS'
	@echo '  make clean-cache            everything: root, kernels, crates'
	@echo '  make chroot-shell           a shell in the build root'
	@echo '  make KDIR=/path/to/prepared/build [DEBUG=1] [modules_install]'
	@echo '                              conventional build for a kernel with Rust'
	@echo
	@echo 'Settings: MEM=2G CPUS=2 ACCEL=kvm|tcg TIMEOUT=seconds KERNEL=stock|debug|kcsan'
	@echo '          JOBS=1 DEBIAN_MIRROR=url XDG_CACHE_HOME=dir   (docs/TESTING.md)'

# --- conventional out-of-tree build ----------------------------------------

.PHONY: kbuild modules modules_install need-kdir
need-kdir:
	@[ -n '$(KDIR)' ] || { echo 'give KDIR=/path/to/prepared/kernel/build, or see make help' >&2; exit 1; }
	@$(SH)/check-kdir '$(KDIR)'
kbuild modules: need-kdir
	$(MAKE) -C '$(KDIR)' M='$(TOP:/=)' ORDOFS_RUSTCFG='$(RUSTCFG)' modules
modules_install: need-kdir
	$(MAKE) -C '$(KDIR)' M='$(TOP:/=)' modules_install

# --- the project's own environment -----------------------------------------

.PHONY: crash
crash:
	@$(SH)/crash $(if $(N),--sampled $(N)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: fuzz
fuzz:
	@$(SH)/fuzz run $(if $(N),-n $(N)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: powercut debug-kernel
debug-kernel:
	@$(SH)/kernel-debug
.PHONY: bench
bench: module tools
	@$(SH)/bench
powercut: module tools
	@$(SH)/powercut $(or $(ROUNDS),20)

.PHONY: root module tools run test quick check model mutants fmt clippy rustdoc rust-project pictures shell chroot-shell xfstests
root:
	@$(SH)/kernel-prep
	@$(SH)/guest-image >/dev/null
module:
	@$(SH)/module
tools:
	@$(SH)/tools
run:
	@$(SH)/run-main
test:
	@$(SH)/test
quick:
	@$(SH)/test quick
check:
	@$(SH)/test check
model:
	@$(SH)/model
mutants:
	@$(SH)/mutants $(ARGS)
clippy:
	@$(SH)/clippy tools
rustdoc:
	@$(SH)/rustdoc
rust-project: module
	@$(SH)/rust-project
pictures:
	@$(SH)/pictures
# Rewrite all Rust sources in the kernel's style.
fmt:
	@FIX=1 $(SH)/static-checks rustfmt
shell: module tools
	@$(TOP)qemu/run --shell -- bash /run/ordofs/tests/shell.sh
chroot-shell:
	@$(SH)/bootstrap
	@$(SH)/in-chroot bash -l
xfstests:
	@$(SH)/xfstests $(ARGS) $(TESTS)

.PHONY: clean clean-cache
clean:
	@$(SH)/clean
clean-cache:
	@$(SH)/clean --all
