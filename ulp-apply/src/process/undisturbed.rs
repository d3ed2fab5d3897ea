// SPDX-License-Identifier: GPL-2.0-or-later
//! What keeps a process from staying stopped because of what happens to *us* while we hold it. To be killed is no harm: the
//! kernel lets go then. To be stopped is: a Ctrl-Z, or output to a terminal from the background, would hold the process
//! until somebody thinks of us. So signals that end or stop us wait until nothing is held; and against those that cannot
//! wait (SIGSTOP, a debugger, a page of ours that never comes because the process is the one that serves it), a timer ends us.

use super::sys::{self, DeadMan};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::time::Duration;

/// On top of what was asked for. A machine that is merely slow must not be the death of us.
const GRACE: Duration = Duration::from_secs(5);

/// Holds signals back until it is dropped. To be made before the tracer, which inherits them, and kept until the tracer has
/// ended.
pub(super) struct Undisturbed {
    before: Option<SigSet>,
}

impl Undisturbed {
    pub fn new() -> Self {
        use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU};
        // SIGCHLD comes with each stop of a thread. The tracer waits for it; everybody else would be woken for nothing, a
        // thousand times for a thousand threads.
        let waiting = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGCHLD];
        let waiting: SigSet = waiting.into_iter().collect();
        // For the worst case only, so its failure is no reason to refuse the work.
        Self { before: waiting.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok() }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}

/// Ends us when what may be held for `limit` at most is not let go long after that. To be made by the tracer before it seizes the
/// first thread: the time until then, and until the end of the tracer is noticed, is nobody's, and on a busy machine it is long.
pub(super) fn end_us_after(limit: Duration) -> Option<DeadMan> {
    sys::end_us_in(limit.saturating_mul(10).saturating_add(GRACE))
}
