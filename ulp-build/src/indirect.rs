// SPDX-License-Identifier: GPL-2.0-or-later
//! Library data that the program never used before. A compiler that trusts the linker to copy such data into the program
//! refers to it directly, and the running program has no copy. So the fixed unit is compiled once more with all foreign
//! data reached through slots, which a patch can bring along. That compile is another one than the running program's: its
//! code is used only where it is proved to fit to what runs.

use crate::diff::{self, UnitDiff, Verdict};
use crate::model::{Code, Refusal, Unit};
use crate::object::{AtomId, AtomKind, Object, Target};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The same diffs, with the bodies of such a compile where library data was not found; `None`: it does not help, or is not
/// proved to be right. `flags` are those of each unit, none where there is no other way; `apart`: they also take data apart.
/// `recompile` compiles the fixed side of the unit of this index with more flags.
pub fn through_slots(
    units: &[Unit],
    diffs: &[UnitDiff],
    refusals: &[Refusal],
    flags: &[Vec<&str>],
    apart: bool,
    recompile: impl Fn(usize, &[&str]) -> Result<PathBuf>,
) -> Option<Vec<UnitDiff>> {
    let helps = |r: &Refusal| r.code == Code::Unresolved || apart && may_be_apart(r);
    if !refusals.iter().all(helps) {
        return None;
    }
    let missing: BTreeSet<&str> = refusals.iter().filter_map(|r| r.symbol.as_deref()).collect();
    let mut all = diffs.to_vec();
    let mut helped = false;
    for (index, ((unit, diff), flags)) in units.iter().zip(&mut all).zip(flags).enumerate() {
        let changed = || diff.fix.is_some() && diff.verdicts.values().any(|v| *v != Verdict::Same);
        let wanted = newly_refers(diff, &missing) || apart && changed();
        if !wanted || flags.is_empty() {
            continue;
        }
        let fix = match recompile(index, flags) {
            Ok(fix) => fix,
            Err(why) => {
                log::debug!("{}: no compile with {flags:?}: {why:#}", unit.source.display());
                return None;
            }
        };
        // What the flags change is the difference between two compiles of the same fixed sources.
        let both = Unit { orig: unit.fix.clone(), fix: Some(fix), ..unit.clone() };
        let by_flags = diff::compare_units(std::slice::from_ref(&both)).pop()?;
        match joined(diff, &by_flags) {
            Ok(joined) => *diff = UnitDiff { apart, ..joined },
            Err(why) => {
                log::debug!("{}: compiled with {flags:?}, {why}", unit.source.display());
                return None;
            }
        }
        helped = true;
    }
    helped.then_some(all)
}

/// Whether a function that the patch may carry refers to one of these names of other objects.
fn newly_refers(diff: &UnitDiff, names: &BTreeSet<&str>) -> bool {
    let Some(fix) = diff.fix.as_deref() else { return false };
    let altered = |id: usize| diff.verdicts.get(&AtomId(id)).is_some_and(|v| *v != Verdict::Same);
    let refers = |target: &Target| match target {
        Target::Import(i) => fix.imports.get(*i).is_some_and(|import| names.contains(import.name.as_str())),
        Target::Atom(_) => false,
    };
    let functions = fix.atoms.iter().enumerate().filter(|(i, a)| a.kind == AtomKind::Function && altered(*i));
    functions.flat_map(|(_, a)| &a.refs).any(|r| refers(&r.target))
}

/// Whether what was refused may be possible where every datum has a section of its own: what is reached through others, and
/// what has no name and stands between others.
pub fn may_be_apart(refusal: &Refusal) -> bool {
    matches!(refusal.code, Code::Anchor | Code::Unsupported | Code::Ambiguous)
}

/// Leads from the running program over the fixed object (`diff`) to the one compiled with other flags (`by_flags`, whose
/// original is that fixed object).
///
/// Compilers let functions of one unit rely on each other beyond the calling convention (a caller may know which registers
/// a callee leaves alone, or that its stack need not be aligned). So the program must not come to have bodies of both
/// compiles that lead to each other: the functions that the flags changed are either carried, or they neither reach nor are
/// reached from those that are. All others are the same in both compiles, and right in both.
fn joined(diff: &UnitDiff, by_flags: &UnitDiff) -> Result<UnitDiff, String> {
    let (Some(plain), Some(flagged)) = (diff.fix.as_deref(), by_flags.fix.as_deref()) else {
        return Err("nothing changes".into());
    };
    if let Some(refusal) = by_flags.refusals.first() {
        return Err(refusal.message.clone());
    }
    if let Some(gone) = by_flags.gone.first().and_then(|id| plain.atoms.get(id.0)) {
        return Err(format!("{} is gone", gone.name));
    }
    let mut altered = BTreeSet::new();
    let (mut twins, mut verdicts) = (BTreeMap::new(), BTreeMap::new());
    for (index, atom) in flagged.atoms.iter().enumerate() {
        let id = AtomId(index);
        let Some(twin) = by_flags.twins.get(&id) else {
            // Strings and tables without a name come along with the code that uses them.
            if !atom.anonymous && atom.kind != AtomKind::Constructors {
                return Err(format!("{} is new", atom.name));
            }
            verdicts.insert(id, Verdict::New);
            continue;
        };
        let same = by_flags.verdicts.get(&id) == Some(&Verdict::Same);
        let old = plain.atoms.get(twin.0).ok_or("an atom is lost")?;
        if !same && atom.kind != AtomKind::Function || (old.kind, old.scope) != (atom.kind, atom.scope) {
            return Err(format!("{} differs", atom.name));
        }
        if !same {
            altered.insert(*twin);
        }
        verdicts.insert(id, diff.verdicts.get(twin).cloned().unwrap_or(Verdict::New));
        if let Some(orig) = diff.twins.get(twin) {
            twins.insert(id, *orig);
        }
    }
    let (stays, carried): (BTreeSet<AtomId>, BTreeSet<AtomId>) =
        altered.into_iter().partition(|id| diff.verdicts.get(id) == Some(&Verdict::Same));
    let edges = edges(plain, flagged, by_flags);
    for (from, to) in [(&stays, &carried), (&carried, &stays)] {
        if let Some(name) = reached(&edges, from).intersection(to).find_map(|id| plain.atoms.get(id.0)) {
            return Err(format!("{} is code of one compile next to code of the other", name.name));
        }
    }
    Ok(UnitDiff { fix: by_flags.fix.clone(), twins, verdicts, ..diff.clone() })
}

/// Which functions refer to which, in either compile; a function and its parts refer to each other.
fn edges(plain: &Object, flagged: &Object, by_flags: &UnitDiff) -> BTreeMap<AtomId, BTreeSet<AtomId>> {
    let mut edges: BTreeMap<AtomId, BTreeSet<AtomId>> = BTreeMap::new();
    let mut add = |object: &Object, known: &dyn Fn(AtomId) -> Option<AtomId>| {
        let functions = object.atoms.iter().enumerate().filter(|(_, a)| a.kind == AtomKind::Function);
        for (index, atom) in functions {
            let Some(from) = known(AtomId(index)) else { continue };
            for r in &atom.refs {
                if let Target::Atom(to) = r.target
                    && let Some(to) = known(to)
                {
                    edges.entry(from).or_default().insert(to);
                }
            }
            if let Some(parent) = atom.parent.and_then(known) {
                edges.entry(from).or_default().insert(parent);
                edges.entry(parent).or_default().insert(from);
            }
        }
    };
    add(plain, &Some);
    add(flagged, &|id| by_flags.twins.get(&id).copied());
    edges
}

fn reached(edges: &BTreeMap<AtomId, BTreeSet<AtomId>>, from: &BTreeSet<AtomId>) -> BTreeSet<AtomId> {
    let mut seen = from.clone();
    let mut todo: Vec<AtomId> = from.iter().copied().collect();
    while let Some(id) = todo.pop() {
        for next in edges.get(&id).into_iter().flatten() {
            if seen.insert(*next) {
                todo.push(*next);
            }
        }
    }
    seen
}
