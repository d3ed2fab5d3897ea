// SPDX-License-Identifier: GPL-2.0-or-later
//! Reverting, tidying and purging. A revert puts the exact old bytes back when no thread is inside the patch's code;
//! its memory is unmapped, or kept when addresses of it may live on in the program's data. Tidying finishes or takes back
//! what an ulp-apply that died left half done, judged by the live bytes alone.

use crate::apply::{Freed, unmap};
use crate::attempt::{Limits, borrow, when_quiet};
use crate::claim;
use crate::coroutines::Scan;
use crate::error::{Error, Result};
use crate::memory;
use crate::process::{Process, Quiet, Suspect, Timings};
use crate::registry::{self, Access, Entry, Image, Live, Record, State};
use crate::search::{self, Where};
use crate::snapshot::{Snapshot, own_code};
use crate::stack;
use crate::switch::{self, Bytes, Done, Stopped};
use crate::unwinding;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What became of a patch's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Unmapped,
    Retired,
}

/// Takes a patch back.
pub fn revert(snapshot: &Snapshot<'_>, entry: &Entry, limits: &Limits) -> Result<(Timings, Memory)> {
    let (process, record) = (snapshot.process, &entry.record);
    let needs_us = |e: &&Entry| e.state.is_active() && e.record.requires.contains(&record.name);
    if let Some(later) = snapshot.entries.iter().find(needs_us) {
        return Err(Error::refused(
            format!("{} requires {}", later.record.name, record.name),
            format!("revert that one first: ulp-apply revert {} --pid {}", later.record.name, process.pid()),
        ));
    }
    claim::check(snapshot, entry)?;
    let loaded = to_put_back(snapshot, record)?;
    if let Live::Foreign { function, at } = loaded.live(process)? {
        return Err(crate::plan::foreign(&function, at));
    }
    let mut check = snapshot.check(own_code(entry))?;
    let image = Image::of(entry.clone())?;
    let scan = Scan::prepare(snapshot, &mut check, own_memory(snapshot, entry), limits)?;
    let (stacks, timings) = when_quiet(process, &check, &scan, limits, |quiet| {
        if !image.is_still(process)? {
            return Err(Error::busy("the patches of this process changed meanwhile", "run the command again"));
        }
        put_back(process, quiet, entry, &loaded, record.escape.then_some(State::Retired))?;
        Ok(quiet.stack_tops().to_vec())
    })?;
    Ok((timings, if record.escape { Memory::Retired } else { free(snapshot, entry, scan.stacks(&stacks), limits) }))
}

/// The part of a record whose entries are to be put back. A library that was unloaded, and one that was loaded anew where
/// it was, have no jump of ours. That must be seen in their code: a file that could not be read for a moment looks as if
/// it were not there, and to free the memory its entries lead to would be the program's end.
pub fn to_put_back(snapshot: &Snapshot<'_>, record: &Record) -> Result<Record> {
    let mut old = Vec::new();
    for target in &record.targets {
        let mut all_old = true;
        for f in &target.functions {
            if snapshot.maps.at(f.entry.0).is_none() {
                continue;
            }
            let now = memory::bytes(snapshot.process, f.entry, f.old.len() as u64)?;
            all_old &= now == f.old;
            let ours = now == f.jump || f.gate.as_ref().is_some_and(|gate| gate.jump == now);
            if ours && !claim::is_loaded(&snapshot.modules, target) {
                return Err(Error::failed(
                    format!(
                        "the entry of {} at {} is patched, and the file around it cannot be recognised",
                        f.name, f.entry
                    ),
                    "nothing was changed; run the command again",
                ));
            }
        }
        old.push(all_old);
    }
    let mut old = old.into_iter();
    Ok(record.only(|target| !old.next().unwrap_or(false) && claim::is_loaded(&snapshot.modules, target)))
}

/// Under the stop, after the registry was compared: the record says what is going on, the old bytes go back, the record says
/// it is done. `loaded` is the part of the record whose files are still there. Without a state to end in it stays one that is being reverted: whether
/// anything but an entry leads to the patch's memory is asked before that is given back, and if we die the next ulp-apply asks.
pub fn put_back(
    process: &Process,
    quiet: &Quiet<'_>,
    entry: &Entry,
    loaded: &Record,
    end: Option<State>,
) -> Result<()> {
    let state = |state, step: u64| -> Result<()> {
        let (at, words) = registry::state_change(entry.at, state, entry.generation.wrapping_add(step));
        Ok(quiet.write(at, &words)?)
    };
    state(State::Reverting, 1)?;
    let switch = || switch::all(&Stopped { process, quiet }, loaded, Bytes::Old);
    let switched = match switch() {
        // Once more: from here on the way back is the same.
        Ok(Done::ThroughGates(_)) => switch(),
        first => first,
    };
    match switched {
        Ok(Done::Whole) => {}
        // The old functions run, and entries still lead through the gates: it stays half done.
        Ok(Done::ThroughGates(e)) => return Err(e.while_trying("reverted, but some entries go through gates")),
        Err(e) => {
            if !matches!(loaded.live(process), Ok(Live::Gated { .. }) | Err(_)) {
                state(entry.state, 2)?;
            }
            return Err(e);
        }
    }
    end.map_or(Ok(()), |end| state(end, 2))
}

/// Under the same stop as [`put_back`], which it undoes.
pub fn put_again(process: &Process, quiet: &Quiet<'_>, entry: &Entry, loaded: &Record) -> Result<()> {
    if let Done::ThroughGates(e) = switch::all(&Stopped { process, quiet }, loaded, Bytes::Jump)? {
        return Err(e);
    }
    let (at, words) = registry::state_change(entry.at, State::Applied, entry.generation.wrapping_add(3));
    Ok(quiet.write(at, &words)?)
}

/// Gives back the memory of a patch that another one has replaced.
pub fn free_replaced(process: &Process, replaced: &Entry, stacks: Option<&[u64]>, limits: &Limits) -> Result<()> {
    // Taken anew, because another one's memory may be gone by now.
    let snapshot = Snapshot::take(process)?;
    if let Some(entry) = snapshot.entries.iter().find(|e| e.at == replaced.at && e.record == replaced.record) {
        free(&snapshot, entry, stacks, limits);
    }
    Ok(())
}

/// Gives back the memory of a patch that was never switched, because the one that it replaces was still there.
fn discard(snapshot: &Snapshot<'_>, entry: &Entry, limits: &Limits) -> Result<()> {
    let end = if entry.record.escape { State::Retired } else { State::Reverting };
    let (at, words) = registry::state_change(entry.at, end, entry.generation.wrapping_add(1));
    borrow(snapshot.process, limits, |remote| remote.write(at, &words))?;
    if !entry.record.escape {
        free(snapshot, entry, Some(&[]), limits);
    }
    Ok(())
}

/// Unmaps what nothing leads to any more. When something may, or when it fails, the memory stays and does no harm.
fn free(snapshot: &Snapshot<'_>, entry: &Entry, stacks: Option<&[u64]>, limits: &Limits) -> Memory {
    let process = snapshot.process;
    let freed = match let_go_of(snapshot, entry, stacks, limits) {
        Ok(()) => unmap(process, &entry.record, limits, Freed::Now).map_err(Error::from),
        Err(e) => {
            // It stays for good, or until somebody asks for it to be purged.
            let (at, words) = registry::state_change(entry.at, State::Retired, entry.generation.wrapping_add(2));
            if let Err(e) = borrow(process, limits, |remote| remote.write(at, &words)) {
                log::warn!("pid {}: {} stays marked as being reverted: {e}", process.pid(), entry.record.name);
            }
            Err(e)
        }
    };
    match freed {
        Ok(()) => Memory::Unmapped,
        Err(e) => {
            log::warn!("pid {}: the memory of {} stays: {e}", process.pid(), entry.record.name);
            Memory::Retired
        }
    }
}

/// Memory whose pointers to the patch are none of the program's.
fn own_memory(snapshot: &Snapshot<'_>, entry: &Entry) -> Vec<Range<u64>> {
    entry.record.areas().map(registry::Area::range).chain(unwinding::own_memory(&snapshot.entries)).collect()
}

/// Given the thread pointers, or nothing where coroutines may have their stacks in those of threads.
///
/// Proves that no context the program has put aside will go on in the patch's code (a coroutine's stack is ordinary
/// memory, and no thread stands on it), and marks the patch's memory as free. The memory is searched while the program
/// runs, because that may take long; no entry leads to the code any more, so nothing new can come to point there.
fn let_go_of(snapshot: &Snapshot<'_>, entry: &Entry, stacks: Option<&[u64]>, limits: &Limits) -> Result<()> {
    const LONGEST: Duration = Duration::from_secs(5);
    let process = snapshot.process;
    let codes = entry.record.areas().filter(|a| a.access == Access::Code).map(|a| a.range());
    let (codes, deadline) = (codes.collect::<Vec<_>>(), Instant::now() + LONGEST);
    if let Some(at) = search::pointer(process, &own_memory(snapshot, entry), &codes, Where::Writable(stacks), deadline)?
    {
        return Err(Error::busy(
            format!("memory at {at} points into its code, as that of a coroutine waiting inside would"),
            "it does no harm; give it back another time with ulp-apply revert --purge",
        ));
    }
    // A context that was in motion during the search is on a thread's stack, or was.
    let mut check = snapshot.check(own_code(entry))?;
    if stacks.is_none() {
        check.expect_stacks_in_frames();
    }
    // Threads that are slow to stop are no reason to keep the memory for ever.
    let limits = &Limits { wait: limits.wait.min(LONGEST), ..*limits };
    let ((), _) = when_quiet(process, &check, &Scan::none(), limits, |quiet| {
        let now = registry::decode(process, entry.at)?;
        let left = |n: &Entry| matches!(n.state, State::Reverting | State::Retired) && n.record == entry.record;
        let Some(now) = now.filter(left) else {
            return Err(Error::busy("the patches of this process changed meanwhile", "run the command again"));
        };
        let (at, words) = registry::state_change(entry.at, State::Freeing, now.generation.wrapping_add(1));
        Ok(quiet.write(at, &words)?)
    })?;
    Ok(())
}

/// Finishes or takes back what a dead ulp-apply left. Returns what was done, in words, for each patch it was done to.
pub fn tidy(snapshot: &Snapshot<'_>, limits: &Limits) -> Result<Vec<String>> {
    let process = snapshot.process;
    let mut done = Vec::new();
    for entry in &snapshot.entries {
        let name = &entry.record.name;
        match entry.state {
            State::Applied | State::Retired => continue,
            State::Applying | State::Reverting => {}
            State::Freeing => {
                claim::nothing_leads_in(process, entry)?;
                unmap(process, &entry.record, limits, Freed::Before)?;
                done.push(format!("{name}: an ulp-apply died while it gave its memory back; that is done now"));
                continue;
            }
        }
        claim::check(snapshot, entry)?;
        if let Some(other) = stack::in_front(&snapshot.entries, entry) {
            discard(snapshot, entry, limits)?;
            let other = &other.record.name;
            done.push(format!("{name}: an ulp-apply died before {other} was replaced by it; {other} stays applied"));
            continue;
        }
        match entry.record.live(process)? {
            Live::Foreign { function, at } => return Err(crate::plan::foreign(&function, at)),
            Live::New if entry.record.changed_area(process)?.is_none() => {
                // Every jump is there and the code is whole: the switch had happened.
                let (at, words) = registry::state_change(entry.at, State::Applied, entry.generation.wrapping_add(1));
                borrow(process, limits, |remote| remote.write(at, &words))?;
                done.push(format!("{name}: an ulp-apply died after switching it; it is applied"));
            }
            Live::Gated { new: true } if entry.record.changed_area(process)?.is_none() => {
                complete(snapshot, entry, limits)?;
                done.push(format!("{name}: an ulp-apply died while it worked on it; it is applied"));
            }
            Live::New | Live::Mixed | Live::Old | Live::Gated { .. } => {
                revert(snapshot, entry, limits)?;
                done.push(format!("{name}: an ulp-apply died while it worked on it; it is reverted"));
            }
        }
    }
    Ok(done)
}

/// Leads entries that go through gates straight to the new code, which they reach already.
fn complete(snapshot: &Snapshot<'_>, entry: &Entry, limits: &Limits) -> Result<()> {
    let process = snapshot.process;
    // Behind a jump's first byte nobody can stand, because a jump stands there now; asked all the same.
    let suspects = entry.record.functions().map(|f| Suspect {
        name: format!("the entry of {}", f.name),
        start: f.entry.plus(process.arch().landing_pad_len(&f.old) as u64),
        end: f.entry.plus(f.old.len() as u64),
        at_start: false,
        at_end: false,
        for_ever: false,
    });
    let check = snapshot.check(suspects.collect())?;
    let image = Image::of(entry.clone())?;
    when_quiet(process, &check, &Scan::none(), limits, |quiet| {
        if !image.is_still(process)? || entry.record.live(process)? != (Live::Gated { new: true }) {
            return Err(Error::busy("the patches of this process changed meanwhile", "run the command again"));
        }
        if let Done::ThroughGates(e) = switch::all(&Stopped { process, quiet }, &entry.record, Bytes::Jump)? {
            return Err(e);
        }
        let (at, words) = registry::state_change(entry.at, State::Applied, entry.generation.wrapping_add(1));
        Ok(quiet.write(at, &words)?)
    })?;
    Ok(())
}

/// Unmaps kept memory after proving, under a stop, that no register, no stack and no writable memory points into it.
pub fn purge(snapshot: &Snapshot<'_>, entry: &Entry, limits: &Limits) -> Result<Timings> {
    let process = snapshot.process;
    let mut suspects = own_code(entry);
    suspects.extend(entry.record.areas().map(|a| Suspect {
        name: format!("the memory of {}", entry.record.name),
        start: a.start,
        end: a.start.plus(a.len),
        at_start: true,
        at_end: true,
        for_ever: false,
    }));
    let areas: Vec<_> = entry.record.areas().map(|a| a.range()).collect();
    let own = own_memory(snapshot, entry);
    search::kernel(process, &areas, limits)?;
    let check = snapshot.check(suspects)?;
    let image = Image::of(entry.clone())?;
    let ((), timings) = when_quiet(process, &check, &Scan::none(), limits, |quiet| {
        if !image.is_still(process)? {
            return Err(Error::busy("the patches of this process changed meanwhile", "run the command again"));
        }
        claim::nothing_leads_in(process, entry)?;
        match search::pointer(process, &own, &areas, Where::Everything, quiet.deadline())? {
            None => {
                let generation = entry.generation.wrapping_add(1);
                let (at, words) = registry::state_change(entry.at, State::Freeing, generation);
                Ok(quiet.write(at, &words)?)
            }
            Some(at) => Err(Error::busy(
                format!("memory at {at} still points into the kept memory of {}", entry.record.name),
                "nothing was changed; the memory does no harm, purge it another time",
            )),
        }
    })?;
    match unmap(process, &entry.record, limits, Freed::Now) {
        Ok(()) => Ok(timings),
        Err(e) => Err(e.into()),
    }
}
