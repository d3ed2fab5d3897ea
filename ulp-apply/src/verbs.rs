// SPDX-License-Identifier: GPL-2.0-or-later
//! The verbs, each on one process: what is done in which order, from opening the process to the outcome. Choosing the
//! processes and talking to people is `cli`'s.

use crate::apply;
use crate::attempt::{Limits, blocker, stop_once, waiting};
use crate::corefile::CoreFile;
use crate::coroutines::{Scan, ScanMemory};
use crate::error::{Error, Result};
use crate::places::Places;
use crate::plan::{Verdict, matches_any, verify};
use crate::process::{Check, Error as ProcessError, ErrorKind, Process};
use crate::registry::{self, State};
use crate::report::{Blocker, Listed, Outcome, Patched, Status};
use crate::revert::{self, Memory};
use crate::snapshot::{PackageFile, Snapshot, damage, lock, registry_of};
use crate::symfile::Patches;
use crate::{stack, unwinding};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often another place is looked for when the program maps something there first.
const MAX_PLACES: u32 = 8;

/// A failure in a process that has ended meanwhile, or started another program, is that and nothing else.
fn told_apart<T>(process: &Process, result: Result<T>) -> Result<T> {
    result.map_err(|e| process.lost().map_or(e, Error::from))
}

/// Applies one package, or with `dry_run` only says what would be done.
pub fn apply(process: &Process, file: &PackageFile, limits: &Limits, dry_run: bool) -> Result<Applied> {
    told_apart(process, apply_to(process, file, limits, dry_run))
}

fn apply_to(process: &Process, file: &PackageFile, limits: &Limits, dry_run: bool) -> Result<Applied> {
    let _lock = process.lock(limits.wait)?;
    process.refuse_too_large(limits.max_stop)?;
    let result = apply_locked(process, file, limits, dry_run);
    if result.is_err() && !dry_run && process.lost().is_none() {
        remove_idle_helper(process, limits);
    }
    result
}

/// How often a dry run looks.
const SAMPLES: u32 = 5;

/// Stops the process a few times, as an apply would, and says how often somebody was in the way.
fn sample(process: &Process, check: &Check, scan: &Scan, limits: &Limits) -> Result<Vec<Blocker>> {
    /// As far apart as the attempts of an apply: each stop makes some timed waits begin anew.
    const DISTANCE: Duration = Duration::from_millis(350);
    let mut places = Places::new(process);
    let mut seen: BTreeMap<_, Blocker> = BTreeMap::new();
    for n in 0..SAMPLES {
        if n > 0 {
            std::thread::sleep(DISTANCE);
        }
        let found: Vec<Blocker> = match stop_once(process, check, scan, limits, |_| ()) {
            Ok((Ok(()), _)) => continue,
            Ok((Err(aside), _)) => vec![waiting(&aside, &mut places)],
            Err(ProcessError::Busy { threads, .. }) => {
                check.learn(process, &threads);
                threads.iter().map(|t| blocker(t, &mut places)).collect()
            }
            Err(e) if e.kind() == ErrorKind::Busy => vec![Blocker::of_process(e.to_string())],
            Err(e) => return Err(e.into()),
        };
        for one in found {
            let new = Blocker { seen: 0, of: SAMPLES, ..one };
            seen.entry((new.tid, new.function.clone())).or_insert(new).seen += 1;
        }
    }
    Ok(seen.into_values().collect())
}

/// Takes the helper of the program's unwinder away when no patch needs it. It does no harm where it cannot be done.
fn remove_idle_helper(process: &Process, limits: &Limits) {
    let removed = Snapshot::take(process).and_then(|snapshot| match unwinding::idle(&snapshot.entries) {
        Some(helper) => revert::revert(&snapshot, helper, limits).map(|_| ()),
        None => Ok(()),
    });
    if let Err(e) = removed {
        log::debug!("pid {}: {} stays: {e}", process.pid(), unwinding::NAME);
    }
}

fn apply_locked(process: &Process, file: &PackageFile, limits: &Limits, dry_run: bool) -> Result<Applied> {
    let mut notes = Vec::new();
    let mut snapshot = Snapshot::take(process)?;
    if !dry_run {
        notes = revert::tidy(&snapshot, limits)?;
        if !notes.is_empty() {
            snapshot = Snapshot::take(process)?;
        }
    }
    let mut tries = 0;
    loop {
        let verified = match verify(&snapshot, file)? {
            Verdict::Already => {
                let entry = snapshot.active(file.name());
                let outcome = entry
                    .map_or(Outcome::new(Status::AlreadyApplied), |e| Outcome::of(Status::AlreadyApplied, &e.record));
                return Ok(Applied { outcome, plan: None });
            }
            Verdict::Verified(verified) => verified,
        };
        if unwinding::wanted(&snapshot, &file.package)? && !dry_run {
            let helper = unwinding::plan(&snapshot)?;
            let (check, scan) = apply::check_for(&snapshot, &helper, limits)?;
            apply::refuse_without_room(process, &helper)?;
            apply::load(process, helper, limits)?.switch(&snapshot, &check, &scan, limits)?;
            snapshot = Snapshot::take(process)?;
            continue;
        }
        let plan = verified.plan()?;
        let (check, scan) = apply::check_for(&snapshot, &plan, limits)?;
        let warnings = notes.iter().chain(&plan.warnings).cloned().collect();
        let replaced: Vec<String> = plan.replaced.iter().map(|e| e.record.name.clone()).collect();
        if dry_run {
            let blockers = sample(process, &check, &scan, limits)?;
            let outcome = Outcome { blockers, warnings, replaced, ..Outcome::of(Status::Planned, &plan.record) };
            return Ok(Applied { outcome, plan: Some(crate::report::plan_text(&plan)) });
        }
        let done = Outcome { warnings, replaced, ..Outcome::of(Status::Applied, &plan.record) };
        apply::refuse_without_room(process, &plan)?;
        match apply::load(process, plan, limits) {
            Ok(loaded) => {
                let timings = loaded.switch(&snapshot, &check, &scan, limits)?;
                return Ok(Applied { outcome: Outcome { stop: Some(timings.into()), ..done }, plan: None });
            }
            // The program itself maps memory, and it was faster: another place, then.
            Err(e) if e.place_taken() && tries < MAX_PLACES => tries += 1,
            Err(e) => return Err(e.into()),
        }
        snapshot = Snapshot::take(process)?;
    }
}

/// What `apply` did, and the plan in words where only that was asked for.
pub struct Applied {
    pub outcome: Outcome,
    pub plan: Option<String>,
}

/// Whether the process has a target of the package loaded. Stops nothing.
pub fn is_target(process: &Process, file: &PackageFile) -> Result<bool> {
    let maps = process.maps()?;
    Ok(matches_any(&process.modules(&maps)?, file))
}

/// Which patch is to be reverted: by name, or this very package.
#[derive(Debug)]
pub struct Wanted {
    pub name: String,
    pub digest: Option<String>,
}

/// Reverts one patch; with `purge` its kept memory goes too, if nothing points into it.
pub fn revert(process: &Process, wanted: &Wanted, purge: bool, limits: &Limits) -> Result<Outcome> {
    told_apart(process, revert_in(process, wanted, purge, limits))
}

fn revert_in(process: &Process, wanted: &Wanted, purge: bool, limits: &Limits) -> Result<Outcome> {
    let _lock = process.lock(limits.wait)?;
    process.refuse_too_large(limits.max_stop)?;
    let mut snapshot = Snapshot::take(process)?;
    let mut warnings = revert::tidy(&snapshot, limits)?;
    if !warnings.is_empty() {
        snapshot = Snapshot::take(process)?;
    }
    let mut outcome = match snapshot.active(&wanted.name) {
        Some(entry) => {
            if let Some(digest) = wanted.digest.as_ref().filter(|d| **d != entry.record.digest) {
                return Err(Error::refused(
                    format!(
                        "the patch {} applied there is another one (digest {:.12}, not {digest:.12})",
                        wanted.name, entry.record.digest
                    ),
                    format!(
                        "revert it by its name if it is meant: ulp-apply revert {} --pid {}",
                        wanted.name,
                        process.pid()
                    ),
                ));
            }
            let (timings, memory) = revert::revert(&snapshot, entry, limits)?;
            let status = if memory == Memory::Retired { Status::Retired } else { Status::Reverted };
            Outcome { stop: Some(timings.into()), ..Outcome::of(status, &entry.record) }
        }
        None => Outcome { patch: Some(wanted.name.clone()), ..Outcome::new(Status::NotApplied) },
    };
    if purge {
        let snapshot = Snapshot::take(process)?;
        let kept = |e: &&crate::registry::Entry| e.state == State::Retired && e.record.name == wanted.name;
        for entry in snapshot.entries.iter().filter(kept) {
            let timings = revert::purge(&snapshot, entry, limits).map_err(|e| {
                if outcome.status == Status::Retired { e.while_trying("reverted, but not purged") } else { e }
            })?;
            outcome = Outcome { stop: Some(timings.into()), ..Outcome::of(Status::Purged, &entry.record) };
        }
    }
    outcome.warnings.append(&mut warnings);
    remove_idle_helper(process, limits);
    Ok(outcome)
}

/// Whether the process has the patch that is wanted: of that name, and by that digest where a file was given. Stops nothing.
pub fn has_patch(process: &Process, wanted: &Wanted) -> Result<bool> {
    let is_it = |record: &crate::registry::Record| {
        record.name == wanted.name && wanted.digest.as_ref().is_none_or(|digest| *digest == record.digest)
    };
    Ok(registry_of(process, &process.maps()?)?.iter().any(|e| is_it(&e.record)))
}

/// The names of a process's patches, each before those it stands on; those whose memory alone is left count when that is to go, too.
pub fn patches_of(process: &Process, kept: bool) -> Result<Vec<String>> {
    let read = || registry_of(process, &process.maps()?);
    let entries = told_apart(process, read())?;
    let counts = |e: &&crate::registry::Entry| e.state.is_active() || kept && e.state == State::Retired;
    let mut names: Vec<String> = Vec::new();
    let all = stack::top_down(&entries.iter().filter(counts).collect::<Vec<_>>());
    // The helper goes with the last patch that needs it.
    let alone = all.iter().all(|e| e.record.name == unwinding::NAME);
    for entry in all.into_iter().filter(|e| alone || e.record.name != unwinding::NAME) {
        if !names.contains(&entry.record.name) {
            names.push(entry.record.name.clone());
        }
    }
    Ok(names)
}

/// What is applied, compared with the live bytes. `None` where there is nothing. Stops and changes nothing, unless an
/// ulp-apply died half way: that is tidied up first, where it can be done at once.
pub fn list(process: &Process) -> Result<Option<Patched>> {
    told_apart(process, list_in(process))
}

fn list_in(process: &Process) -> Result<Option<Patched>> {
    let mut entries = registry_of(process, &process.maps()?)?;
    if entries.is_empty() {
        return Ok(None);
    }
    let mut tidied = Vec::new();
    if entries.iter().any(|e| !matches!(e.state, State::Applied | State::Retired)) {
        // An ulp-apply at work has such states too, and the lock; then they are shown as they are.
        let (wait, max_stop) = (Duration::from_secs(1), Duration::from_millis(50));
        let limits = Limits { wait, max_stop, scan: ScanMemory::Auto };
        let done = lock(process, Duration::ZERO).and_then(|_lock| revert::tidy(&Snapshot::take(process)?, &limits));
        match done {
            Ok(done) => tidied = done,
            Err(e) => log::warn!("pid {}: a half done patch stays as it is: {e}", process.pid()),
        }
        entries = registry_of(process, &process.maps()?)?;
    }
    let maps = process.maps()?;
    let snapshot = Snapshot { process, modules: process.modules(&maps)?, maps, entries };
    let listed = |e| Ok(Listed::new(e, damage(&snapshot, e)?));
    let patches = snapshot.entries.iter().map(listed).collect::<Result<Vec<_>>>()?;
    Ok(Some(Patched { pid: process.pid(), command: process.comm(), patches, tidied }))
}

/// What a debugger needs to know of the process's patches. Stops and changes nothing, and tidies nothing up.
pub fn symbols(process: &Process, packages: &[PackageFile]) -> Result<Patches> {
    let read = || Patches::read(process, process.arch(), &registry_of(process, &process.maps()?)?, packages);
    told_apart(process, read())
}

/// The same of a core dump.
pub fn symbols_of_core(core: &CoreFile, packages: &[PackageFile]) -> Result<Patches> {
    Patches::read(core, core.arch()?, &registry::scan(core, core.candidates())?, packages)
}
