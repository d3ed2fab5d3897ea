// SPDX-License-Identifier: GPL-2.0-or-later
//! Trying again when a process is busy, without hurting it: a full stop makes every timed wait start over, so full stops
//! keep a growing distance, and in between only the threads that were busy are looked at.

use crate::error::{Class, Error, Result};
use crate::process::{BusyThread, Check, Error as ProcessError, ErrorKind, Process, Quiet, Remote, Timings};
use std::time::{Duration, Instant};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long to try again while the process is busy.
    pub wait: Duration,
    /// How long threads may be held at once.
    pub max_stop: Duration,
}

/// Never more than three full stops in a second.
const FIRST_DISTANCE: Duration = Duration::from_millis(350);
const LONGEST_DISTANCE: Duration = Duration::from_secs(5);
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// Stops the process when no thread is inside what `check` asks about, and does `act` then. Gives up when `limits.wait` is over.
pub fn when_quiet<R: Send>(
    process: &Process,
    check: &Check,
    limits: &Limits,
    act: impl Fn(&Quiet<'_>) -> Result<R> + Sync,
) -> Result<(R, Timings)> {
    let give_up = Instant::now() + limits.wait;
    let mut distance = FIRST_DISTANCE;
    loop {
        let next_stop = Instant::now() + distance;
        let threads = match process.stop(limits.max_stop, check, |quiet| act(quiet)) {
            Ok((done, timings)) => return done.map(|r| (r, timings)),
            Err(e) if e.kind() != ErrorKind::Busy || Instant::now() >= give_up => return Err(busy(e, limits)),
            Err(ProcessError::Busy { threads, .. }) => threads,
            Err(other) => {
                log::debug!("pid {}: {other}; trying again", process.pid());
                Vec::new()
            }
        };
        until_out(process, check, limits, threads, next_stop, give_up)?;
        distance = (distance * 2).min(LONGEST_DISTANCE);
    }
}

/// Borrows a thread of the process for `act`, again and again while none can be had. `act` begins anew each time.
pub fn borrow<R: Send>(
    process: &Process,
    limits: &Limits,
    act: impl Fn(&mut Remote<'_>) -> std::result::Result<R, ProcessError> + Sync,
) -> std::result::Result<R, ProcessError> {
    let give_up = Instant::now() + limits.wait;
    let mut pause = FIRST_LOOK;
    loop {
        match process.remote(limits.max_stop, |remote| act(remote)).and_then(|done| done) {
            Err(e) if e.kind() == ErrorKind::Busy && Instant::now() < give_up => {
                log::debug!("pid {}: {e}; trying again", process.pid());
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_LOOK);
            }
            done => return done,
        }
    }
}

/// Waits for the next stop's time and for all `threads` to be out.
fn until_out(
    process: &Process,
    check: &Check,
    limits: &Limits,
    mut threads: Vec<BusyThread>,
    next_stop: Instant,
    give_up: Instant,
) -> Result<()> {
    let mut pause = FIRST_LOOK;
    loop {
        let now = Instant::now();
        if now >= give_up && !threads.is_empty() {
            return Err(busy(ProcessError::Busy { pid: process.pid(), threads }, limits));
        }
        if threads.is_empty() {
            // The last attempt of all happens when time is up, not before.
            std::thread::sleep(next_stop.min(give_up).saturating_duration_since(now));
            return Ok(());
        }
        std::thread::sleep(pause.min(give_up.saturating_duration_since(now)));
        pause = (pause * 2).min(LONGEST_LOOK);
        threads = process.look_again(limits.max_stop, check, &threads).map_err(|e| busy(e, limits))?;
    }
}

/// A busy process, in words: who, where, and how long was waited.
fn busy(error: ProcessError, limits: &Limits) -> Error {
    let longer = format!("nothing was changed; try later or with a longer --wait than {}s", limits.wait.as_secs_f32());
    match &error {
        ProcessError::Busy { pid, threads } => {
            let shown: Vec<String> = threads.iter().take(3).map(ToString::to_string).collect();
            let more = threads.len().saturating_sub(shown.len());
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            Error::busy(format!("process {pid} is busy: {}{more}", shown.join("; ")), longer)
        }
        _ => {
            let mut error = Error::from(error);
            if error.class == Class::Busy && error.advice.is_empty() {
                error.advice = longer;
            }
            error
        }
    }
}
