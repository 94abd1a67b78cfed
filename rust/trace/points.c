// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints themselves, with entry points for Rust.
 */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "ordofs.h"
