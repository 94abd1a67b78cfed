#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Each open file whose data failed to be written gets the error from fsync, once.
# timeout: 120
# variant: debug ordofs_debug
exec python3 /run/ordofs/tests/race/lost.py
