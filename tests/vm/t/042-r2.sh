#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# R2, modified maps stay: the window held open, a power cut, replay.
# timeout: 180
# variant: debug ordofs_debug
exec python3 /run/ordofs/tests/race/r2.py
