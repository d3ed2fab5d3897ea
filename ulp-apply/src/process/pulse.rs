// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether a thread has moved, learned without stopping it: a stop makes a timed wait start over, so a thread that is looked
//! at more often than its wait is long would never come out of it.

use super::{Process, task};

/// How often a thread has gone to sleep so far, and where it sleeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulse {
    switches: Vec<String>,
    call: String,
}

impl Process {
    /// The pulse of a thread that is asleep; `None` when it runs, has ended, or cannot be asked. Two equal pulses mean that it
    /// has not left its wait in between.
    pub fn pulse(&self, tid: i32) -> Option<Pulse> {
        let status = task::read_file(self.pid, tid, "status").ok()?;
        let switches: Vec<String> =
            status.lines().filter(|line| line.contains("_ctxt_switches:")).map(str::to_owned).collect();
        let call = task::read_file(self.pid, tid, "syscall").ok()?;
        (switches.len() == 2 && call.split(' ').count() > 2).then_some(Pulse { switches, call })
    }
}
