#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Failed writeback is told to whom it concerns, once.
# timeout: 120
# variant: debug ordofs_debug
exec python3 /run/ordofs/tests/race/lost.py
