// SPDX-License-Identifier: GPL-2.0-or-later
//! The thread of ours that traces, and what it waits for.

use super::error::Error;
use super::sys::{self, Wait};
use super::{Process, task};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a tracer's end may take.
const TRACERS_END: Duration = Duration::from_secs(1);

/// Runs `f` on a thread of its own, so that the kernel undoes all tracing when it ends.
///
/// Meanwhile the caller sees to it that nobody waits for ever. A thread that starts another program waits, inside the
/// kernel, until somebody has taken note of the end of each of its fellows that is traced; and a request to trace waits,
/// inside the kernel too, until the other program is there. So the tracer cannot take note of an end while it makes such
/// a request, and only another thread of ours can.
pub(super) fn on_tracer<R: Send>(process: &Process, f: impl FnOnce() -> Result<R, Error> + Send) -> Result<R, Error> {
    let pid = process.pid;
    const WATCH: Duration = Duration::from_millis(20);
    let waiting = std::thread::current();
    let done = AtomicBool::new(false);
    let seizing = Arc::new(AtomicU64::new(0));
    let tid = AtomicI32::new(0);
    let result = std::thread::scope(|scope| {
        let tracer = std::thread::Builder::new().name(task::TRACER.into()).spawn_scoped(scope, || {
            tid.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
            sys::short_sleeps();
            sys::count_seizing(&seizing);
            let result = f();
            done.store(true, Ordering::SeqCst);
            waiting.unpark();
            result
        });
        match tracer {
            Ok(handle) => {
                let mut idle = 0u32;
                while !done.load(Ordering::SeqCst) && !handle.is_finished() {
                    let before = seizing.load(Ordering::SeqCst);
                    std::thread::park_timeout(WATCH);
                    let same = seizing.load(Ordering::SeqCst) == before;
                    idle = if same { idle + 1 } else { 0 };
                    // Not unless it is needed: of a thousand threads this takes longer than a stop may. Before Linux 5.7 other
                    // requests wait like that one; a stop during which nothing else happens is over before the third look.
                    let waits = same && before % 2 == 1 || idle > 2;
                    if waits && !done.load(Ordering::SeqCst) {
                        task::take_note_of_ends(pid);
                    }
                }
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
            Err(source) => Err(Error::System { what: "start a thread", source }),
        }
    });
    if process.arch.needs_asleep() {
        // It lets go of what it still traces a moment after it can be joined.
        let deadline = Instant::now() + TRACERS_END;
        while sys::is_own_thread(tid.load(Ordering::SeqCst)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    result
}

/// Waits for a thread's next report; `None` when the deadline passes first.
pub(super) fn next_report(pid: i32, tid: i32, deadline: Instant) -> io::Result<Option<Wait>> {
    next_report_beside(pid, tid, deadline, || {})
}

/// The same, with something to do meanwhile, again and again.
pub(super) fn next_report_beside(
    pid: i32,
    tid: i32,
    deadline: Instant,
    mut beside: impl FnMut(),
) -> io::Result<Option<Wait>> {
    /// Looks before the first sleep: most threads stop within microseconds. One that does not may wait for our processor.
    const SPINS: u32 = 50;
    let mut looks = 0u32;
    loop {
        match sys::wait(tid) {
            Ok(Some(report)) => return Ok(Some(report)),
            Ok(None) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
            // It has ended, or so we take it to be only if nothing else says that it lives.
            Err(e)
                if e.raw_os_error() == Some(libc::ECHILD) && task::Stat::read(pid, tid).is_none_or(|s| s.ended()) =>
            {
                return Ok(Some(Wait::Ended));
            }
            Err(e) => return Err(e),
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        looks += 1;
        beside();
        if looks < SPINS {
            sys::yield_now();
            continue;
        }
        // A first thread that has ended while others live reports nothing until they have ended too.
        if looks.is_multiple_of(32) && task::Stat::read(pid, tid).is_none_or(|s| s.ended()) {
            return Ok(Some(Wait::Ended));
        }
        sys::await_child(Duration::from_micros(u64::from((10 * (looks - SPINS + 1)).min(1000))));
    }
}
