// SPDX-License-Identifier: GPL-2.0-or-later
//! The old side of each replaced function, proved against the production bytes: which ranges are its code, whether an
//! entry jump fits, and what it will overwrite.

use crate::diff::leaves;
use crate::model::{Code, Refusal};
use crate::object::{Atom, AtomId};
use crate::reproduce;
use crate::resolve::place::{Linked, Pristine, Where, is_cold_child};
use crate::resolve::{Context, Key, refusal};
use sha2::{Digest as _, Sha256};
use ulp_arch::{Arch, LinkAddr};
use ulp_format::{Accepted, Function, OldRange};

/// Describes the function that `key` replaces at `entry`; `new_symbol` is the replacement's name in the package.
pub fn old_side(context: &Context<'_>, key: Key, entry: LinkAddr, new_symbol: String) -> Result<Function, Refusal> {
    let (arch, linked) = (context.arch, context.linked);
    let unit = &context.units[key.0];
    let name = unit.fixed(key.1).map_or("?", |a| a.name.as_str());
    let lost = || refusal(Code::Ambiguous, name, format!("{name} is lost in the linked object"), "report it");
    let (Some(pristine), Some(id), Some(object)) = (&unit.pristine, unit.pristine_of(key.1), &unit.object) else {
        return Err(lost());
    };
    let old = pristine.atom(id).ok_or_else(lost)?;
    let mut ranges = vec![range(arch, linked, old, entry)?];
    ranges.extend(moved(linked, old, entry)?);
    for (child_id, child) in children(pristine, id) {
        match linked.place(pristine, object, child_id) {
            Where::At(addr) => {
                ranges.push(range(arch, linked, child, addr)?);
                ranges.extend(moved(linked, child, addr)?);
            }
            // Its parent is another object's copy, and so is its child.
            _ if old.comdat.is_some() => {
                return Err(refusal(
                    Code::Ambiguous,
                    name,
                    format!("{name} runs from another object's copy, whose part {} is not known", child.name),
                    "leave this function out of the fix",
                ));
            }
            Where::Dropped => {}
            Where::Unknown(why) => {
                return Err(refusal(Code::Ambiguous, name, why, "leave this function out of the fix"));
            }
            Where::Unproved(why) => {
                let message = format!("{} of {name} is not proved to be production's: {why}", child.name);
                let advice = "build with production's own compiler, flags and path";
                return Err(refusal(Code::NotReproduced, name, message, advice));
            }
        }
    }
    let body = linked.production.bytes(entry, old.size).ok_or_else(lost)?;
    let landing = arch.landing_pad_len(body);
    let jump = landing + arch.entry_jump_len();
    let room = room(arch, linked, entry, old.size, jump as u64);
    let bytes = linked.production.bytes(entry, jump as u64).filter(|_| room >= jump as u64);
    let bytes = bytes.ok_or_else(|| {
        let message = format!("{name} has {} bytes and {} of room, a jump needs {jump}", old.size, room);
        refusal(Code::TooSmall, name, message, "patch a caller of it instead")
    })?;
    let loops = arch.loops_to_entry(body) || ranges_jump_to_entry(arch, linked, &ranges, entry);
    Ok(Function {
        name: name.to_owned(),
        source: Some(unit.unit.source.to_string_lossy().into_owned()),
        entry,
        landing: u8::try_from(landing).unwrap_or(0),
        room,
        old_bytes: ulp_format::hex::encode(bytes),
        loops_to_entry: loops,
        probe_safe: landing > 0,
        never_returns: !leaves(arch, &pristine.object, old),
        ranges,
        new_symbol,
        gate: None,
    })
}

/// The parts that were split from a function and are entered by its jumps only.
fn children(pristine: &Pristine, id: AtomId) -> impl Iterator<Item = (AtomId, &Atom)> {
    let all = pristine.object.atoms.iter().enumerate();
    all.filter(move |(_, a)| a.parent == Some(id) && is_cold_child(a)).map(|(i, a)| (AtomId(i), a))
}

fn range(arch: &dyn Arch, linked: &Linked, old: &Atom, addr: LinkAddr) -> Result<OldRange, Refusal> {
    let bytes = linked.production.bytes(addr, old.size).ok_or_else(|| {
        let message = format!("{} is not in the production file at {addr}", old.name);
        refusal(Code::Identity, &old.name, message, "give the production file this build stands for with --target")
    })?;
    // A linker that works around an erratum moves instructions away.
    let whole =
        || linked.production.code(addr, old.size).and_then(|code| reproduce::linked_difference(arch, old, &code));
    if let Some(at) = reproduce::linked_difference(arch, old, bytes).and_then(|_| whole()) {
        let message =
            format!("the production code of {} at {addr} differs from the rebuilt object at +{at:#x}", old.name);
        return Err(refusal(Code::NotReproduced, &old.name, message, "build with production's own compiler and flags"));
    }
    Ok(OldRange {
        name: old.name.clone(),
        start: addr,
        size: old.size,
        sha256: ulp_format::hex::encode(&Sha256::digest(bytes)),
    })
}

/// The instructions that a linker has moved out of old code: who stands there is in that code.
fn moved(linked: &Linked, old: &Atom, addr: LinkAddr) -> Result<Vec<OldRange>, Refusal> {
    let elf = &linked.production;
    let len = ulp_arch::by_machine(elf.machine).map_or(0, |arch| arch.moved_len());
    let one = |(place, to): (LinkAddr, LinkAddr)| {
        let size = u64::try_from(len).ok()?;
        let sha256 = ulp_format::hex::encode(&Sha256::digest(elf.bytes(to, size)?));
        Some(OldRange { name: format!("{}.moved.{:x}", old.name, place.0 - addr.0), start: to, size, sha256 })
    };
    let all: Option<Vec<_>> = elf.moved(addr, old.size).into_iter().map(one).collect();
    let lost = || refusal(Code::Identity, &old.name, "an instruction of it is lost", "report it");
    all.ok_or_else(lost)
}

/// Whether a child (`.cold`) jumps to the entry. Calls do not count, they come with a return address.
fn ranges_jump_to_entry(arch: &dyn Arch, linked: &Linked, ranges: &[OldRange], entry: LinkAddr) -> bool {
    ranges.iter().skip(1).any(|range| {
        let Some(code) = linked.production.bytes(range.start, range.size) else { return true };
        let back = entry.0.wrapping_sub(range.start.0) as i64;
        arch.decode(code).iter().any(|insn| match insn.flow {
            ulp_arch::Flow::Jump { target, .. } => target.is_none_or(|t| t == back),
            _ => false,
        })
    })
}

/// How many bytes from the entry may be overwritten: the body, and behind a short one what is padding beyond doubt, which
/// means no-operations up to the next symbol that nothing is said to begin in.
fn room(arch: &dyn Arch, linked: &Linked, entry: LinkAddr, size: u64, wanted: u64) -> u64 {
    if size >= wanted {
        return size;
    }
    let end = entry.plus(size);
    let Some(section) = linked.rebuilt.section_of(entry) else { return size };
    let section_end = section.addr.plus(section.size);
    // No symbol may begin in the gap, nor stand at its start: that would be code.
    let next = match linked.rebuilt.at(end).next() {
        Some(_) => return size,
        None => linked.rebuilt.next_symbol(end).unwrap_or(section_end).min(section_end),
    };
    // An unnamed input section may follow: only the assembler's own alignment or the linker's fill is padding.
    let filled = linked.map.fill_at(end);
    // Where only some symbols are proved, what follows may be code that nobody knows of.
    if linked.proof.is_some() && filled == 0 {
        return size;
    }
    let limit = if filled > 0 { next.min(end.plus(filled)) } else { next };
    let Some(gap) = limit.0.checked_sub(end.0).and_then(|len| linked.production.bytes(end, len)) else { return size };
    let mut at = 0;
    while at < gap.len() && size + (at as u64) < wanted {
        match arch.padding(gap, at) {
            Some(len) => at += len,
            None => break,
        }
    }
    size + at as u64
}

/// An `--accept` that cannot be: the code is a truth, or no code at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    #[error(
        "{0} cannot be accepted: it says what is so, not what is wise; only E-CTOR, E-DATA-INIT, E-ESCAPED and E-LAYOUT can be overruled"
    )]
    Truth(String),
}

/// Refusals after the packager had a say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// What still stands.
    pub left: Vec<Refusal>,
    pub accepted: Vec<Accepted>,
    /// One for each accepted refusal: what it means for the running program.
    pub warnings: Vec<String>,
}

/// Takes out what the packager accepts.
pub fn accept(refusals: Vec<Refusal>, wanted: &[Accepted]) -> Result<Judged, AcceptError> {
    let judgement = [Code::Ctor, Code::DataInit, Code::Escaped, Code::Layout];
    if let Some(truth) = wanted.iter().find(|a| judgement.iter().all(|c| c.as_str() != a.code)) {
        return Err(AcceptError::Truth(truth.code.clone()));
    }
    let mut judged = Judged::default();
    for refusal in refusals {
        let matches =
            |a: &&Accepted| a.code == refusal.code.as_str() && (a.symbol.is_none() || a.symbol == refusal.symbol);
        if refusal.code.is_judgement() && wanted.iter().any(|a| matches(&a)) {
            let entry = Accepted { code: refusal.code.as_str().to_owned(), symbol: refusal.symbol.clone() };
            if !judged.accepted.contains(&entry) {
                judged.accepted.push(entry);
            }
            let meaning = match refusal.code {
                Code::DataInit => "the running program keeps the value it has",
                Code::Escaped => "what keeps its address goes on with the old content",
                Code::Ctor => "it does not run in the running program",
                _ => "existing objects keep their layout",
            };
            judged.warnings.push(format!("accepted {}: {}; {meaning}", refusal.code, refusal.message));
        } else {
            judged.left.push(refusal);
        }
    }
    Ok(judged)
}
