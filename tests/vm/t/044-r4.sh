#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R4, look again under the lock: the window held open, a power cut, replay.
# timeout: 180
# variant: debug ordofs_debug
exec python3 /run/ordofs/tests/race/r4.py
