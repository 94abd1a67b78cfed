// SPDX-License-Identifier: GPL-2.0

//! The result of a measurement.
//!
//! Tests: tests/vm/t/075-bench.sh, 070-fsync-cost.sh.

use crate::counters::Cost;
use serde::Serialize;
use std::fmt;

/// One workload on one filesystem in one round; exactly one of `cost` and `error` is there.
#[derive(Serialize)]
pub struct Sample {
    pub workload: &'static str,
    pub filesystem: &'static str,
    pub round: u32,
    /// Operations that the workload consists of.
    pub ops: u64,
    #[serde(flatten)]
    pub cost: Option<Cost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Sample {
    /// A sample without a result.
    pub fn new(workload: &'static str, filesystem: &'static str, round: u32, ops: u64) -> Self {
        Self {
            workload,
            filesystem,
            round,
            ops,
            cost: None,
            error: None,
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<26} {:<6} round={} ops={}",
            self.workload, self.filesystem, self.round, self.ops
        )?;
        if let Some(c) = &self.cost {
            write!(
                f,
                " reads={} writes={} flushes={} read_kib={} written_kib={} cpu_us={} wall_us={}",
                c.disk.reads,
                c.disk.writes,
                c.disk.flushes,
                c.disk.read_bytes / 1024,
                c.disk.written_bytes / 1024,
                c.cpu_ns / 1000,
                c.wall_ns / 1000
            )?;
        }
        if let Some(e) = &self.error {
            write!(f, " FAILED: {e}")?;
        }
        Ok(())
    }
}
