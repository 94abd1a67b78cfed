#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R3, faults exclude layout changes: the window held open, a power cut, replay.
# timeout: 180
# variant: debug ordofs_debug
exec python3 /run/ordofs/tests/race/r3.py
