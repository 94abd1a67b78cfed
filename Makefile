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
	@echo '  make run            build all, then in a VM: mkfs, mount, race, fsck'
	@echo '  make test           everything: static checks, tools, VM tests'
	@echo '      TESTS="a b*"        only tests whose names match'
	@echo '  make check          static checks only'
	@echo '  make model          the rules of order, schedule by schedule'
	@echo '      ITER=1000000 RULE=r1 CASE=hole SCHEDULE=...   (scripts/model)'
	@echo '  make clippy         what clippy says of the module and, for reading, of the tools'
	@echo '  make rustdoc        documentation of the module and the tools, private items included'
	@echo '  make pictures       the pictures of docs/ from their sources (Graphviz)'
	@echo '  make fmt            rewrite the Rust sources as rustfmt wants them'
	@echo '  make module         build ordofs.ko for the stock kernel'
	@echo '      VARIANT=x RUSTCFG="..."  a build variant in a directory of its own'
	@echo '      DEBUG=1             with error tags (delay points at race windows)'
	@echo '  make mutants        each rule without its protection must fail its tests'
	@echo '      LOOPS=100 make test TESTS="vm/04*"   the reproducers, many times over'
	@echo '  make tools          build mkfs.ordofs, fsck.ordofs, ordofs, ordofs-race'
	@echo '  make crash N=100000 power cuts of the engine in user space, state by state (SEED=1)'
	@echo '  make powercut       power cuts of the VM under load (ROUNDS=200)'
	@echo '  make shell          a shell in the VM, with an OrdoFS at /mnt/test'
	@echo '  make chroot-shell   a shell in the build root'
	@echo '  make xfstests XFSTESTS=/path TESTS="generic/344 -g quick"'
	@echo '                      a tree of upstream xfstests that you have built'
	@echo '      TAUGHT=1            whose helpers are taught what ordofs can do'
	@echo '  make debug-kernel   lockdep, KASAN, KMEMLEAK and fault injection, for KERNEL=debug;'
	@echo '                      with KERNEL=kcsan, KCSAN for that'
	@echo '      make test KERNEL=debug     the VM tests on it, and bugs on purpose'
	@echo '      make test LANE=1           all the tests, and the core of that'
	@echo '  make root           only make the environment'
	@echo '  make clean          remove build products (make clean-cache: everything)'
	@echo
	@echo '  make KDIR=/path/to/prepared/build [DEBUG=1] [modules_install]'
	@echo '                      conventional build; the tree must carry Rust metadata'
	@echo
	@echo 'Settings: MEM=2G CPUS=2 ACCEL=kvm|tcg TIMEOUT=seconds KERNEL=stock|debug|kcsan'
	@echo '          DEBIAN_MIRROR=url  XDG_CACHE_HOME=dir   (docs/TESTING.md)'

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

.PHONY: powercut debug-kernel
debug-kernel:
	@$(SH)/kernel-debug
powercut: module tools
	@$(SH)/powercut $(or $(ROUNDS),20)

.PHONY: root module tools run test check model mutants fmt clippy rustdoc pictures shell chroot-shell xfstests
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
