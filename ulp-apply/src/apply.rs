// SPDX-License-Identifier: GPL-2.0-or-later
//! Applying: reserve, load, stop, recheck, switch. A [`Plan`] becomes [`Loaded`] memory that nothing leads to yet, and a
//! `Loaded` becomes an applied patch in one stop. Each step that fails takes back what was done; the record, written
//! before anything leads to it, lets the next ulp-apply finish or take back what this one could not (see `tidy`).

use crate::attempt::{Limits, borrow, when_quiet};
use crate::coroutines::Scan;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::process::{Check, ErrorKind, Mapping, Process, Protection, Remote, Timings};
use crate::registry::{self, Access, Entry, Image, Live, MAGIC, Record, State, TargetRecord};
use crate::revert;
use crate::snapshot::Snapshot;
use crate::switch::{self, Bytes, Done, Stopped};
use crate::unwinding;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use ulp_arch::RemoteAddr;

/// A patch whose memory is complete, and whose functions are not switched yet.
pub struct Loaded<'p> {
    process: &'p Process,
    plan: Plan,
}

/// The registry as it has to be under the stop.
struct Images {
    own: Image,
    others: Vec<Image>,
}

/// Between two attempts to find a thread that can map memory.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// What the kernel needs on top of a patch's own pages: page tables, and what the process itself may ask for meanwhile.
const SPARE: u64 = 256 << 10;

/// Refuses when the patch would bring the process' memory group to its limit, where the kernel ends a process.
pub fn refuse_without_room(process: &Process, plan: &Plan) -> Result<()> {
    let Some(room) = process.memory_room() else { return Ok(()) };
    let own: u64 = plan.loads.iter().map(|l| l.bytes.len() as u64).sum();
    // A page of code that is written becomes the process's own.
    let page = process.page();
    let entries: BTreeSet<u64> = plan.record.functions().map(|f| f.entry.0 / page).collect();
    let needed = own.saturating_add(entries.len() as u64 * page).saturating_add(SPARE);
    if needed <= room.bytes {
        return Ok(());
    }
    let (needed, left) = (needed >> 10, room.bytes >> 10);
    let group = room.group.display();
    Err(Error::refused(
        format!(
            "the patch needs {needed} KiB, and the memory group {group} of process {} has {left} KiB left",
            process.pid()
        ),
        "raise the group's limit: at the limit the kernel would end a process of the group",
    ))
}

/// Maps and fills the patch's memory. On an error nothing of it is left.
pub fn load<'p>(
    process: &'p Process,
    plan: Plan,
    limits: &Limits,
) -> std::result::Result<Loaded<'p>, crate::process::Error> {
    if plan.loads.is_empty() {
        // Kept memory is used again; from now on it is being applied, whatever happens to us.
        let (at, words) = registry::state_change(plan.at, State::Applying, plan.generation);
        borrow(process, limits, |remote| remote.write(at, &words))?;
        return Ok(Loaded { process, plan });
    }
    let give_up = Instant::now() + limits.wait;
    loop {
        let begun = AtomicUsize::new(0);
        let filled = process.remote(limits.max_stop, |remote| fill(remote, &plan, &begun)).and_then(|filled| filled);
        let Err(e) = filled else { return Ok(Loaded { process, plan }) };
        take_back(process, &plan, begun.into_inner(), limits);
        if !e.may_pass() || Instant::now() >= give_up {
            return Err(e);
        }
        log::debug!("pid {}: {e}; trying again", process.pid());
        std::thread::sleep(BETWEEN_ATTEMPTS.min(give_up.saturating_duration_since(Instant::now())));
    }
}

/// Maps and fills. `begun` is how many of the loads are mapped, or may be: who is interrupted in the middle of a call does
/// not know what came of it.
fn fill(remote: &mut Remote<'_>, plan: &Plan, begun: &AtomicUsize) -> std::result::Result<(), crate::process::Error> {
    for (i, load) in plan.loads.iter().enumerate() {
        begun.store(i + 1, Ordering::Relaxed);
        let mapped = remote.map(load.start, load.bytes.len() as u64, load.access.protection());
        if matches!(mapped, Err(crate::process::Error::Call { .. })) {
            begun.store(i, Ordering::Relaxed);
        }
        mapped?;
    }
    // The record comes first: from here on another ulp-apply can find and free this memory.
    for (i, load) in plan.loads.iter().enumerate() {
        // A record counts from its first bytes on, so they are written when the rest is there: a record cut short by our
        // death would be taken for damage, and the process never be patched again.
        let (head, rest) = load.bytes.split_at(if i == 0 { MAGIC.len().min(load.bytes.len()) } else { 0 });
        remote.write(load.start.plus(head.len() as u64), rest)?;
        if !head.is_empty() {
            remote.write(load.start, head)?;
        }
    }
    Ok(())
}

/// Unmaps what an attempt to load has mapped. The record goes first: if we die here, what is left is lost but harmless, and
/// nobody takes it for a patch; and as long as there is a record, all that it speaks of is there.
fn take_back(process: &Process, plan: &Plan, begun: usize, limits: &Limits) {
    if begun == 0 {
        return;
    }
    let attempt = || {
        // A thread that was lost on its way through a call may yet make it.
        process.clear_stubs(limits.max_stop)?;
        borrow(process, limits, |remote| {
            let maps = process.maps()?;
            for load in plan.loads.iter().take(begun) {
                let end = load.start.plus(load.bytes.len() as u64);
                if maps.covers(load.start.0, end.0, |m| is_ours(m, load.access)) {
                    remote.unmap(load.start, load.bytes.len() as u64)?;
                }
            }
            Ok(())
        })
    };
    if let Err(e) = attempt().or_else(|_| attempt()) {
        // A process that is gone has taken it along.
        if process.lost().is_none() {
            log::warn!("pid {}: memory of a patch that is not used stays mapped: {e}", process.pid());
        }
    }
}

/// Whether a mapping is such as we make them.
fn is_ours(mapping: &Mapping, access: Access) -> bool {
    let protection = access.protection();
    let (w, x) = (protection == Protection::ReadWrite, protection == Protection::ReadExec);
    mapping.inode == 0 && !mapping.shared && mapping.read && (mapping.write, mapping.exec) == (w, x)
}

impl Loaded<'_> {
    /// Switches all functions in one stop. On an error the patch's memory is given back, and every entry is as it was.
    pub fn switch(self, snapshot: &Snapshot<'_>, check: &Check, scan: &Scan, limits: &Limits) -> Result<Timings> {
        let switched = AtomicBool::new(false);
        let replaced = &self.plan.replaced;
        let loaded = replaced.iter().map(|entry| revert::to_put_back(snapshot, &entry.record));
        let prepared = loaded.collect::<Result<Vec<Record>>>().and_then(|loaded| Ok((loaded, self.images()?)));
        let (loaded, images) = match prepared {
            Ok(prepared) => prepared,
            Err(e) => {
                self.give_back(limits);
                return Err(e);
            }
        };
        let result = when_quiet(self.process, check, scan, limits, |quiet| {
            self.recheck(&images)?;
            let record = &self.plan.record;
            let code = Stopped { process: self.process, quiet };
            // First all is the original again, then the new: dead in between we leave the original, and never a mixture.
            let again = |e: Error, from: usize| {
                let gone = replaced.iter().zip(&loaded).skip(from);
                let put = gone.map(|(entry, loaded)| {
                    let put = revert::put_again(self.process, quiet, entry, loaded);
                    put.map_err(|_| format!("{} could not be applied again", entry.record.name))
                });
                match put.collect::<std::result::Result<(), String>>() {
                    Ok(()) => e,
                    Err(what) => e.while_trying(what),
                }
            };
            for (i, (entry, loaded)) in replaced.iter().zip(&loaded).enumerate().rev() {
                let put_back = revert::put_back(self.process, quiet, entry, loaded, Some(State::Retired));
                put_back.map_err(|e| again(e, i + 1))?;
            }
            unwinding::show(self.process, quiet, &self.plan.rows).map_err(|e| again(e, 0))?;
            let left = match switch::all(&code, record, Bytes::Jump).map_err(|e| again(e, 0))? {
                Done::Whole => None,
                Done::ThroughGates(e) => Some(e),
            };
            if record.commit.is_some() {
                // There is no way back from the one store, and none is needed: what is missing the next one adds.
                switched.store(true, Ordering::Relaxed);
            }
            let (at, words) =
                registry::state_change(self.plan.at, State::Applied, self.plan.generation.wrapping_add(1));
            match (left.map_or_else(|| quiet.write(at, &words).map_err(Error::from), Err), &record.commit) {
                (Ok(()), _) => {
                    switched.store(true, Ordering::Relaxed);
                    Ok((None, quiet.stack_tops().to_vec()))
                }
                // Said later: nothing is written to anybody while the process is held, because whoever reads may be slow.
                (Err(e), Some(_)) => Ok((Some(e), Vec::new())),
                (Err(e), None) => {
                    switch::all(&code, record, Bytes::Old)?;
                    Err(again(e, 0))
                }
            }
        });
        match result {
            Ok(((missing, stacks), timings)) => {
                if let Some(e) = missing {
                    let pid = self.process.pid();
                    log::warn!("pid {pid}: the new functions run, but {e}; the next ulp-apply completes it");
                }
                for entry in replaced.iter().filter(|e| !e.record.escape) {
                    if let Err(e) = revert::free_replaced(self.process, entry, scan.stacks(&stacks), limits) {
                        log::warn!("pid {}: the memory of {} stays: {e}", self.process.pid(), entry.record.name);
                    }
                }
                Ok(timings)
            }
            Err(e) => {
                if !switched.load(Ordering::Relaxed) {
                    self.give_back(limits);
                }
                Err(e)
            }
        }
    }

    /// Everything that was true when the plan was made, once more under the stop.
    fn recheck(&self, images: &Images) -> Result<()> {
        let moved = |what: String| Error::busy(what, "nothing was changed; run the command again");
        for module in &self.plan.modules {
            if !module.is_unchanged(self.process)? {
                return Err(moved(format!("{} was unloaded or replaced meanwhile", module.name)));
            }
        }
        if self.plan.record.committed(self.process)? == Some(true) {
            return Err(moved("the commit word in the patch's memory changed meanwhile".into()));
        }
        // The very record, too: an applier that sees another /proc, and so not our lock, may have put its own in its place.
        if !images.own.is_still(self.process)? {
            return Err(moved("the patch's memory changed meanwhile".into()));
        }
        for other in &images.others {
            if !other.is_still(self.process)? {
                return Err(moved("the patches of this process changed meanwhile".into()));
            }
        }
        Ok(())
    }

    /// What the registry has to look like under the stop.
    fn images(&self) -> Result<Images> {
        let plan = &self.plan;
        let (state, generation, record) = (State::Applying, plan.generation, plan.record.clone());
        let own = Image::of(Entry { at: plan.at, state, generation, record })?;
        let others = plan.others.iter().cloned().map(Image::of).collect::<Result<_>>()?;
        Ok(Images { own, others })
    }

    /// Whether a patch that was to go is still there, whole: then nothing of ours was written to an entry.
    fn owns_entries(&self, replaced: &Entry) -> bool {
        let now = registry::decode(self.process, replaced.at);
        matches!(now, Ok(Some(e)) if e.state == State::Applied)
            && matches!(replaced.record.live(self.process), Ok(Live::New))
    }

    fn give_back(&self, limits: &Limits) {
        if self.process.lost().is_some() {
            return;
        }
        // An undo that failed may have left a jump: then the memory must stay, and the record tells the next ulp-apply.
        let untouched = self.plan.replaced.iter().any(|e| self.owns_entries(e));
        if !untouched && !matches!(self.plan.record.live(self.process), Ok(Live::Old)) {
            log::warn!("pid {}: an entry is not as it was; the patch's memory stays", self.process.pid());
            return;
        }
        let left = if self.plan.loads.is_empty() {
            let (at, words) =
                registry::state_change(self.plan.at, State::Retired, self.plan.generation.wrapping_add(1));
            borrow(self.process, limits, |remote| remote.write(at, &words))
        } else {
            // Nothing ever led here, so nobody can be inside.
            let (at, words) =
                registry::state_change(self.plan.at, State::Freeing, self.plan.generation.wrapping_add(1));
            borrow(self.process, limits, |remote| remote.write(at, &words))
                .and_then(|()| unmap(self.process, &self.plan.record, limits, Freed::Now))
        };
        if let Err(e) = left {
            log::warn!("pid {}: the patch's unused memory stays: {e}", self.process.pid());
        }
    }
}

/// Who marked a patch's memory as free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freed {
    /// We did, and until then all of it was there.
    Now,
    /// Somebody who died, perhaps with some of it unmapped already.
    Before,
}

/// Unmaps a patch's memory that was marked as free: one call for each target, so that none is ever half there, and the
/// record's own last, so that the rest can be found as long as it exists.
pub fn unmap(
    process: &Process,
    record: &Record,
    limits: &Limits,
    freed: Freed,
) -> std::result::Result<(), crate::process::Error> {
    // Between two attempts the program may map something else where a target was.
    let begun = AtomicBool::new(freed == Freed::Before);
    let attempt = || {
        borrow(process, limits, |remote| {
            let ours = ours(process, record, begun.load(Ordering::Relaxed))?;
            let gone: Vec<_> = ours.iter().map(|(start, len)| start.0..start.0.saturating_add(*len)).collect();
            unwinding::hide(process, remote, &gone)?;
            for (start, len) in ours.iter().rev() {
                begun.store(true, Ordering::Relaxed);
                remote.unmap(*start, *len)?;
            }
            Ok(())
        })
    };
    attempt().or_else(|e| if e.kind() == ErrorKind::Failed { attempt() } else { Err(e) })
}

/// Start and length of what is still there of a patch's memory, target by target.
fn ours(
    process: &Process,
    record: &Record,
    begun: bool,
) -> std::result::Result<Vec<(RemoteAddr, u64)>, crate::process::Error> {
    let maps = process.maps()?;
    // Once unmapping has begun a target may be gone, and the program may have mapped something else in its place since:
    // then only what is there exactly as we left it is ours. Before, memory that was never filled is ours as well.
    let ours = |target: &&TargetRecord| {
        let areas = &target.areas;
        let mapped = areas.iter().all(|a| maps.covers(a.range().start, a.range().end, |m| is_ours(m, a.access)));
        let whole = target.areas.windows(2).all(|w| matches!(w, [a, b] if a.range().end == b.start.0));
        mapped && whole
    };
    Ok(record
        .targets
        .iter()
        .enumerate()
        .filter(|(i, t)| {
            ours(t) && (!begun || *i == 0 || t.changed_area(process).is_ok_and(|changed| changed.is_none()))
        })
        .filter_map(|(_, t)| Some((t.areas.first()?.start, t.areas.iter().map(|a| a.len).sum())))
        .collect())
}

/// The check for a plan: nobody inside the functions it replaces, and no coroutine that waits there.
pub fn check_for(snapshot: &Snapshot<'_>, plan: &Plan, limits: &Limits) -> Result<(Check, Scan)> {
    let mut check = snapshot.check(plan.suspects.clone())?;
    let own = plan.record.areas().map(registry::Area::range).chain(unwinding::own_memory(&snapshot.entries));
    let scan = Scan::prepare(snapshot, &mut check, own.collect(), limits)?;
    Ok((check, scan))
}
