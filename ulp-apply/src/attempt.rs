// SPDX-License-Identifier: GPL-2.0-or-later
//! Trying again when a process is busy, without hurting it: a full stop makes every timed wait start over, so full stops
//! keep a growing distance, and in between only the threads that were busy are looked at, and these too only when they have
//! moved: one that still sleeps where it slept is left alone.

use crate::coroutines::{Aside, Scan, ScanMemory};
use crate::error::{Class, Error, Result};
use crate::places::Places;
use crate::process::{BusyThread, Check, Error as ProcessError, Process, Pulse, Quiet, Remote, SHOWN, Timings, Why};
use crate::report::Blocker;
use std::time::{Duration, Instant};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long to try again while the process is busy.
    pub wait: Duration,
    /// How long threads may be held at once.
    pub max_stop: Duration,
    /// Whether memory is searched for coroutines.
    pub scan: ScanMemory,
}

/// Never more than three full stops in a second.
const FIRST_DISTANCE: Duration = Duration::from_millis(350);
const LONGEST_DISTANCE: Duration = Duration::from_secs(5);
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// Short, because a thread that has moved is looked at, and what was waited since its last sleep began is waited again.
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// Stops the process once. When no thread is inside what `check` asks about, and no coroutine as far as `scan` is to find any,
/// `act` is done.
pub fn stop_once<R: Send>(
    process: &Process,
    check: &Check,
    scan: &Scan,
    limits: &Limits,
    act: impl Fn(&Quiet<'_>) -> R + Sync,
) -> std::result::Result<(std::result::Result<R, Aside>, Timings), ProcessError> {
    let stopped = process.stop(limits.max_stop, check, |quiet| match scan.under(process, check, quiet)? {
        Some(aside) => Ok(Err(aside)),
        None => Ok(Ok(act(quiet))),
    });
    stopped.and_then(|(done, timings)| Ok((done?, timings)))
}

/// Stops the process when nobody is inside what `check` asks about, and does `act` then. Gives up when `limits.wait` is over.
pub fn when_quiet<R: Send>(
    process: &Process,
    check: &Check,
    scan: &Scan,
    limits: &Limits,
    act: impl Fn(&Quiet<'_>) -> Result<R> + Sync,
) -> Result<(R, Timings)> {
    let give_up = Instant::now() + limits.wait;
    let mut distance = FIRST_DISTANCE;
    let mut attempts = 0u32;
    loop {
        attempts = attempts.saturating_add(1);
        let next_stop = Instant::now() + distance;
        let threads = match stop_once(process, check, scan, limits, &act) {
            Ok((Ok(done), timings)) => return done.map(|r| (r, Timings { attempts, ..timings })),
            Ok((Err(aside), _)) if Instant::now() >= give_up => return Err(suspended(process, &aside, limits)),
            Ok((Err(aside), _)) => {
                until_moved(process, &aside, next_stop, give_up);
                distance = (distance * 2).min(LONGEST_DISTANCE);
                continue;
            }
            Err(e) if !e.may_pass() || Instant::now() >= give_up => return Err(busy(process, e, limits)),
            // Whoever is in a function that never returns is not waited for.
            Err(e @ ProcessError::Busy { .. }) if for_ever(&e) => return Err(busy(process, e, limits)),
            Err(ProcessError::Busy { threads, .. }) => {
                check.learn(process, &threads);
                threads
            }
            Err(other) => {
                log::debug!("pid {}: {other}; trying again", process.pid());
                Vec::new()
            }
        };
        until_out(process, check, limits, threads, next_stop, give_up)?;
        distance = (distance * 2).min(LONGEST_DISTANCE);
    }
}

fn for_ever(error: &ProcessError) -> bool {
    matches!(error, ProcessError::Busy { threads, .. } if threads.iter().any(|t| t.for_ever))
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
            Err(e) if e.may_pass() && Instant::now() < give_up => {
                log::debug!("pid {}: {e}; trying again", process.pid());
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_LOOK);
            }
            done => return done,
        }
    }
}

/// A busy thread, and its pulse since it was last looked at. The pulse is taken a moment later, when it sleeps again.
struct Watched {
    thread: BusyThread,
    pulse: Option<Pulse>,
}

/// Waits for the next stop's time and for all `threads` to be out.
fn until_out(
    process: &Process,
    check: &Check,
    limits: &Limits,
    threads: Vec<BusyThread>,
    next_stop: Instant,
    give_up: Instant,
) -> Result<()> {
    let watch = |threads: Vec<BusyThread>| threads.into_iter().map(|thread| Watched { thread, pulse: None });
    // Who is hot in the function is not out for long: the next stop lets such threads out one by one.
    let mut watched: Vec<Watched> = watch(threads).filter(|w| !w.thread.hot).collect();
    let mut pause = FIRST_LOOK;
    // A move may be missed between a look and the taking of the pulse, so now and then all are looked at.
    let mut distance = FIRST_DISTANCE;
    let mut look_at_all = Instant::now() + distance;
    while !watched.is_empty() {
        let late = Instant::now() >= give_up;
        if !late {
            std::thread::sleep(pause.min(give_up.saturating_duration_since(Instant::now())));
            pause = (pause * 2).min(LONGEST_LOOK);
        }
        let all = late || Instant::now() >= look_at_all;
        let moved: Vec<BusyThread> = watched
            .iter_mut()
            .filter_map(|w| {
                let now = process.pulse(w.thread.tid);
                let known = now.is_some() && (w.pulse.is_none() || w.pulse == now);
                w.pulse = now;
                (all || !known).then(|| w.thread.clone())
            })
            .collect();
        if moved.is_empty() {
            continue;
        }
        if all {
            distance = (distance * 2).min(LONGEST_DISTANCE);
            look_at_all = Instant::now() + distance;
        }
        let still = match process.look_again(limits.max_stop, check, &moved) {
            // Some could not be stopped in time; they are looked at again later.
            Err(e) if e.may_pass() && !late => {
                log::debug!("pid {}: {e}; looking again", process.pid());
                moved.clone()
            }
            looked => looked.map_err(|e| busy(process, e, limits))?,
        };
        watched.retain(|w| moved.iter().all(|m| m.tid != w.thread.tid));
        watched.extend(watch(still));
        if late && !watched.is_empty() {
            let threads = watched.into_iter().map(|w| w.thread).collect();
            return Err(busy(process, ProcessError::Busy { pid: process.pid(), threads }, limits));
        }
    }
    // The last attempt of all happens when time is up, not before.
    std::thread::sleep(next_stop.min(give_up).saturating_duration_since(Instant::now()));
    Ok(())
}

/// Waits for the next stop's time, and for a coroutine to move.
fn until_moved(process: &Process, aside: &Aside, next_stop: Instant, give_up: Instant) {
    std::thread::sleep(next_stop.min(give_up).saturating_duration_since(Instant::now()));
    while Instant::now() < give_up && aside.stays(process) {
        std::thread::sleep(LONGEST_LOOK.min(give_up.saturating_duration_since(Instant::now())));
    }
}

/// The coroutine in the way, seen once, and where in the source it waits where that is known.
pub fn waiting(aside: &Aside, places: &mut Places<'_>) -> Blocker {
    let place = places.name(aside.address, true).map_or(String::new(), |place| format!(" ({place})"));
    Blocker {
        function: Some(aside.function.clone()),
        address: Some(aside.address.to_string()),
        ..Blocker::of_process(format!("{aside}{place}"))
    }
}

fn suspended(process: &Process, aside: &Aside, limits: &Limits) -> Error {
    let blocker = waiting(aside, &mut Places::new(process));
    let message = format!("process {} is busy: {}", process.pid(), blocker.what);
    let longer = format!(
        "nothing was changed; try later or with a longer --wait than {}s, or with --scan-memory off if it cannot be one",
        limits.wait.as_secs_f32()
    );
    Error { blockers: vec![blocker], ..Error::busy(message, longer) }
}

/// One thread in the way, seen once: where it is, in the source where that is known, and who called the function.
pub fn blocker(thread: &BusyThread, places: &mut Places<'_>) -> Blocker {
    Blocker {
        what: in_words(thread, places),
        tid: Some(thread.tid),
        comm: Some(thread.comm.clone()),
        function: Some(thread.function.clone()),
        address: Some(thread.address.to_string()),
        seen: 1,
        of: 1,
    }
}

fn in_words(thread: &BusyThread, places: &mut Places<'_>) -> String {
    let mut text = thread.to_string();
    let inside = !matches!(thread.why, Why::UnknownStack | Why::Uprobe(_));
    if let Some(place) = places.name(thread.address, !matches!(thread.why, Why::Running)).filter(|_| inside) {
        text.push_str(&format!(" ({place})"));
    }
    if let Some(caller) = thread.caller {
        let place = places.name(caller, true).unwrap_or_else(|| caller.to_string());
        text.push_str(&format!(", called from {place}"));
    }
    text
}

/// A busy process, in words: who, where, and how long was waited.
fn busy(process: &Process, error: ProcessError, limits: &Limits) -> Error {
    let longer = format!("nothing was changed; try later or with a longer --wait than {}s", limits.wait.as_secs_f32());
    match &error {
        ProcessError::Busy { pid, threads } => {
            let mut places = Places::new(process);
            let blockers: Vec<Blocker> = threads.iter().map(|t| blocker(t, &mut places)).collect();
            let shown: Vec<&str> = blockers.iter().take(SHOWN).map(|b| b.what.as_str()).collect();
            let ever = threads.iter().find(|t| t.for_ever).map(|t| {
                format!("{} never returns, so waiting is of no use: restart the program with the fix", t.function)
            });
            let longer = ever.unwrap_or(longer);
            let more = threads.len().saturating_sub(shown.len());
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let message = format!("process {pid} is busy: {}{more}", shown.join("; "));
            Error { blockers, ..Error::busy(message, longer) }
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
