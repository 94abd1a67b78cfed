#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R5, cached mappings expire: the window held open, a power cut, replay.
# timeout: 180
# variant: debug ordofs_debug
exec python3 /run/ordofs/tests/race/r5.py
