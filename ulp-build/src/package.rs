// SPDX-License-Identifier: GPL-2.0-or-later
//! From what was built and compared to a package, or to the reasons why there is none: prove the rebuild, select, resolve,
//! check, write down.

use crate::check::{self, AcceptError};
use crate::diff::{Reason, UnitDiff, Verdict, may_throw};
use crate::emit::Builder;
use crate::entries;
use crate::model::{Built, Code, LinkedElf, Refusal, Request};
use crate::object::{Atom, AtomId, AtomKind, Scope};
use crate::producer;
use crate::reproduce;
use crate::resolve::place::{Linked, LinkedError, Pristine, Where, is_cold_child};
use crate::resolve::{UnitIn, refusal};
use crate::select::{Selection, select};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use ulp_format::{FORMAT, Manifest, Package, Target};

/// What came out.
#[derive(Debug)]
pub enum Outcome {
    Package(Box<Package>, Summary),
    /// Nothing in the linked files changes; the sentence says why.
    NoChange(String),
    Refused(Vec<Refusal>),
}

/// What people want to know of a package that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    pub targets: Vec<TargetSummary>,
    pub warnings: Vec<String>,
}

/// One target's share.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TargetSummary {
    pub file: String,
    pub build_id: String,
    /// Replaced functions.
    pub functions: Vec<Replaced>,
    /// Functions and data that are new in the process.
    pub carried: Vec<String>,
    /// References to the running program and its libraries.
    pub references: usize,
}

/// A replaced function.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Replaced {
    pub name: String,
    pub source: PathBuf,
    pub reason: Option<Reason>,
}

/// Why the work could not be done at all.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error(transparent)]
    Linked(#[from] LinkedError),
    #[error(transparent)]
    Accept(#[from] AcceptError),
    #[error("{0}: cannot read it: {1}")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("a diff is missing: {units} units and {diffs} diffs")]
    Unpaired { units: usize, diffs: usize },
}

/// Makes the package. `diffs` are those of `built.units`, in their order.
pub fn package(request: &Request, built: &Built, diffs: &[UnitDiff]) -> Result<Outcome, PackageError> {
    if built.units.len() != diffs.len() {
        return Err(PackageError::Unpaired { units: built.units.len(), diffs: diffs.len() });
    }
    let mut refusals: Vec<Refusal> = diffs.iter().flat_map(|d| d.refusals.iter().cloned()).collect();
    let mut warnings: Vec<String> = built.warnings.clone();
    warnings.extend(diffs.iter().flat_map(|d| d.warnings.iter().cloned()));

    let touched: Vec<bool> = diffs.iter().map(|d| changes_something(d) || !d.refusals.is_empty()).collect();
    let pristine = pristine(built, diffs, &touched)?;
    let links = (built.links.par_iter().map(Linked::read)).collect::<Result<Vec<_>, _>>()?;

    let mut linked_units = BTreeSet::new();
    let mut selections = Vec::new();
    for (link, linked) in built.links.iter().zip(&links) {
        let units = units(built, diffs, &pristine, linked, &mut refusals, &touched);
        linked_units.extend(units.iter().enumerate().filter(|(_, u)| u.object.is_some()).map(|(i, _)| i));
        if !units.iter().zip(&touched).any(|(u, touched)| *touched && u.object.is_some()) {
            continue;
        }
        let Some(arch) = ulp_arch::by_machine(linked.rebuilt.machine).filter(|a| a.supported()) else {
            let message = format!("{} is for a processor that is not supported yet", link.production.display());
            refusals.push(refusal(Code::Arch, &file_name(link), message, &made_for()));
            continue;
        };
        refusals.extend(not_reproduced(arch, &units, &touched));
        match not_proved(link, linked, &units, &touched) {
            // Nothing more can be said of a program that is another one, or may be.
            Err(other) => {
                refusals.push(other);
                continue;
            }
            Ok(more) if more.is_empty() => {}
            Ok(more) => {
                refusals.extend(more);
                continue;
            }
        }
        refusals.extend(binding(link, linked));
        let selection = select(arch, linked, units);
        selections.push((link, linked, selection));
    }
    // What a unit refuses matters only where the unit is part of something.
    let unlinked: Vec<&Refusal> = (diffs.iter().enumerate())
        .filter(|(i, _)| !linked_units.contains(i) && built.units[*i].pristine.is_some())
        .flat_map(|(_, d)| &d.refusals)
        .collect();
    refusals.retain(|r| !unlinked.contains(&r));
    for (.., selection) in &mut selections {
        refusals.append(&mut selection.refusals);
        warnings.append(&mut selection.warnings);
    }
    let judged = check::accept(refusals, &request.accept)?;
    let (mut refusals, accepted) = (judged.left, judged.accepted);
    warnings.extend(judged.warnings);

    let several = selections.iter().map(|(.., s)| s.context.replaced.len()).sum::<usize>() > 1;
    let mut builder = Builder::default();
    let mut targets = Vec::new();
    let mut summary = Summary::default();
    let mut ungated = Vec::new();
    for (link, linked, selection) in &selections {
        if selection.context.replaced.is_empty() || !selection.refusals.is_empty() {
            continue;
        }
        if refusals.is_empty() {
            match target(link, linked, selection, &mut builder) {
                Ok((mut target, share)) => {
                    if several {
                        ungated.append(&mut gates(selection, &mut target));
                    }
                    targets.push(target);
                    summary.targets.push(share);
                }
                Err(mut more) => refusals.append(&mut more),
            }
        }
    }
    let mut exceptions = false;
    for (link, linked, selection) in &selections {
        let Some(thrower) = thrower(selection) else { continue };
        exceptions = true;
        if linked.rebuilt.is_static() {
            let message = format!(
                "an exception may pass through {}, and the unwinder inside the static program {} cannot be shown the patch",
                thrower.name,
                file_name(link)
            );
            refusals.push(refusal(Code::Eh, &thrower.name, message, "link the C++ runtime dynamically"));
        }
    }
    refusals.sort();
    refusals.dedup();
    if !refusals.is_empty() {
        return Ok(Outcome::Refused(refusals));
    }
    if targets.is_empty() {
        return Ok(Outcome::NoChange(no_change(built, &touched, &linked_units, &warnings)));
    }
    // The entry of one function without a gate can be the store that switches all.
    let atomic = ungated.len() <= 1;
    if !atomic {
        let why = ungated.join("; ");
        warnings
            .push(format!("not atomic if ulp-apply is killed in the middle of the switch, for want of gates: {why}"));
    }
    warnings.sort();
    warnings.dedup();
    summary.warnings.clone_from(&warnings);
    let arch = links.first().and_then(|l| ulp_arch::by_machine(l.rebuilt.machine)).map_or("", |a| a.name());
    let manifest = Manifest {
        format: FORMAT,
        name: request.name.clone(),
        description: request.description.clone(),
        cves: request.cves.clone(),
        tool: concat!("ulp-build ", env!("CARGO_PKG_VERSION")).to_owned(),
        compiler: built.compiler.clone(),
        arch: arch.to_owned(),
        accepted,
        warnings,
        escape: builder.escape,
        exceptions,
        atomic,
        replaces: request.replaces.clone(),
        requires: request.requires.clone(),
        targets,
    };
    let package = Package { manifest, sections: builder.sections, symbols: builder.symbols };
    Ok(Outcome::Package(Box::new(package), summary))
}

/// For which processors patches are made.
pub fn made_for() -> String {
    let names: Vec<&str> = ulp_arch::ALL.iter().filter(|a| a.supported()).map(|a| a.name()).collect();
    format!("patches are made for {}", names.join(" and "))
}

/// A function of the patch in which an exception may begin or end, or through which one may pass.
fn thrower<'s>(selection: &'s Selection<'_>) -> Option<&'s Atom> {
    selection.carried.keys().find_map(|key| {
        let unit = &selection.context.units[key.0];
        let atom = unit.fixed(key.1).filter(|a| a.kind == AtomKind::Function)?;
        may_throw(selection.context.arch, atom, unit.unit.exceptions).then_some(atom)
    })
}

/// Whether the fix changes anything that runs.
fn changes_something(diff: &UnitDiff) -> bool {
    let changed = diff.verdicts.values().any(|v| matches!(v, Verdict::Changed(_)));
    changed || makes_global(diff) || diff.orig.is_none() && !diff.verdicts.is_empty()
}

/// Whether a static of the running program is global in the fix: other units may refer to it from now on.
fn makes_global(diff: &UnitDiff) -> bool {
    let (Some(orig), Some(fix)) = (&diff.orig, &diff.fix) else { return false };
    diff.twins.iter().any(|(f, o)| {
        let scopes = (orig.atoms.get(o.0).map(|a| a.scope), fix.atoms.get(f.0).map(|a| a.scope));
        scopes.0 == Some(Scope::Local) && scopes.1 != Some(Scope::Local)
    })
}

/// A unit's pristine object, or why it cannot be taken apart; `None`: nobody needs it.
type Read = Option<Result<Arc<Pristine>, Refusal>>;

/// The pristine objects of the units that changed, taken apart.
fn pristine(built: &Built, diffs: &[UnitDiff], touched: &[bool]) -> Result<Vec<Read>, PackageError> {
    let one = |((unit, diff), touched): ((&crate::model::Unit, &UnitDiff), &bool)| {
        let Some(path) = unit.pristine.as_ref().filter(|_| *touched) else { return Ok(None) };
        let bytes = std::fs::read(path).map_err(|e| PackageError::Io(path.clone(), e))?;
        Ok(Some(Pristine::read(path, &bytes, diff.orig.as_deref()).map(Arc::new)))
    };
    built.units.par_iter().zip(diffs).zip(touched).map(one).collect()
}

/// The units as one linked file has them.
fn units<'a>(
    built: &'a Built,
    diffs: &'a [UnitDiff],
    pristine: &[Read],
    linked: &Linked,
    refusals: &mut Vec<Refusal>,
    touched: &[bool],
) -> Vec<UnitIn<'a>> {
    let mut units = Vec::new();
    for (index, (unit, diff)) in built.units.iter().zip(diffs).enumerate() {
        let objects = unit.pristine_digest.as_deref().map_or(&[][..], |digest| linked.objects(digest));
        let mut object = objects.first().cloned();
        let source = unit.source.display().to_string();
        if objects.len() > 1 {
            let message = format!("{source} was linked more than once: {}", objects.join(", "));
            refusals.push(refusal(Code::Ambiguous, &source, message, "link it once"));
            object = None;
        }
        let pristine = match pristine.get(index).and_then(Option::as_ref) {
            Some(Ok(pristine)) => Some(match &object {
                Some(name) => linked.shortened(pristine, name, diff.orig.as_deref()),
                None => pristine.clone(),
            }),
            Some(Err(why)) => {
                if object.is_some() {
                    refusals.push(why.clone());
                }
                None
            }
            None => None,
        };
        if let (None, Some(pristine), true) = (&object, &pristine, touched[index] && objects.is_empty())
            && let Some(name) = hidden_in(linked, pristine)
        {
            let message = format!("{name} of {source} is in the program, but its object is not one of those linked");
            let advice = "objects that were linked twice (ld -r) or changed after compiling are not supported yet";
            refusals.push(refusal(Code::Linker, &source, message, advice));
        }
        units.push(UnitIn { unit, diff, pristine, object });
    }
    units
}

/// A function of an object that is not among the linked ones and is in the program all the same: the object went in through
/// another one.
fn hidden_in<'p>(linked: &Linked, pristine: &'p Pristine) -> Option<&'p str> {
    let arch = ulp_arch::by_machine(linked.rebuilt.machine)?;
    let relaxes = arch.relocations().iter().any(|row| arch.allows_relaxation(row.r_type));
    let alike = |linked: u64, size: u64| linked == size || relaxes && linked > 0 && linked < size;
    let there = |name: &str, size: u64| linked.rebuilt.named(name).any(|s| alike(s.size, size) && size > 0);
    let functions: Vec<_> = (pristine.object.atoms.iter())
        .filter(|a| a.kind == AtomKind::Function && !a.anonymous && a.comdat.is_none() && !is_cold_child(a))
        .collect();
    let all = !functions.is_empty() && functions.iter().all(|a| there(&a.name, a.size));
    functions.first().filter(|_| all).map(|a| a.name.as_str())
}

/// Functions whose recompiled original is not what was linked.
fn not_reproduced(arch: &dyn ulp_arch::Arch, units: &[UnitIn<'_>], touched: &[bool]) -> Vec<Refusal> {
    let one = |(unit, touched): (&UnitIn<'_>, &bool)| -> Vec<Refusal> {
        let (Some(pristine), Some(orig), true, true) =
            (&unit.pristine, unit.diff.orig.as_deref(), *touched, unit.object.is_some())
        else {
            return Vec::new();
        };
        let compiled = pristine.compiled();
        let differences = reproduce::compare(arch, orig, &compiled.object, &compiled.pairing);
        let source = unit.unit.source.display();
        let say = |d: reproduce::Difference| {
            let message = format!("{} of {source} compiles to other code than was linked: {}", d.function, d.message);
            refusal(Code::NotReproduced, &d.function, message, "build with production's own compiler and flags")
        };
        differences.into_iter().map(say).collect()
    };
    units.par_iter().zip(touched).flat_map_iter(one).collect()
}

/// Functions to show of a unit of which more are not proved.
const SHOWN: usize = 3;

/// Functions of touched units that production has as other code, or nobody knows where. One that the fix does not touch counts
/// as well: it may hold a copy of one that it does.
fn not_proved(
    link: &LinkedElf,
    linked: &Linked,
    units: &[UnitIn<'_>],
    touched: &[bool],
) -> Result<Vec<Refusal>, Refusal> {
    let Some(proof) = &linked.proof else { return Ok(Vec::new()) };
    let share = proof.share();
    if share.proved * 2 < share.functions || share.functions == 0 {
        let message = format!(
            "{} is not what these sources give: {} of {} functions of the rebuilt file were found in it",
            link.production.display(),
            share.proved,
            share.functions
        );
        let causes = units.iter().zip(touched).filter(|(_, touched)| **touched).find_map(|(unit, _)| {
            let mut said = producer::read(&link.production);
            said.units.extend(link.debuginfo.as_deref().map(producer::read).unwrap_or_default().units);
            producer::difference(&said, &unit.unit.orig.as_deref().map(producer::read)?, &unit.unit.source)
        });
        let advice = "build from the very sources of production, with its own compiler, flags and path";
        let (code, message) = match causes {
            Some(cause) => (Code::NotReproduced, format!("{message}: {cause}")),
            None => (Code::Identity, message),
        };
        return Err(refusal(code, &file_name(link), message, advice));
    }
    let (mut refusals, mut producer) = (Vec::new(), None);
    for (unit, _) in units.iter().zip(touched).filter(|(u, touched)| **touched && u.object.is_some()) {
        let (Some(pristine), Some(object)) = (&unit.pristine, &unit.object) else { continue };
        let mut doubts = Vec::new();
        for (index, atom) in pristine.object.atoms.iter().enumerate() {
            if atom.kind == AtomKind::Function
                && !atom.anonymous
                && let Where::Unproved(why) = linked.place(pristine, object, AtomId(index))
            {
                doubts.push((atom.name.as_str(), why));
            }
        }
        if doubts.is_empty() {
            continue;
        }
        let source = unit.unit.source.display();
        let said = producer.get_or_insert_with(|| {
            let mut said = producer::read(&link.production);
            if let Some(debug) = &link.debuginfo {
                said.units.append(&mut producer::read(debug).units);
            }
            said
        });
        let ours = unit.unit.orig.as_deref().map(producer::read).unwrap_or_default();
        let cause = producer::difference(said, &ours, &unit.unit.source);
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        for (name, why) in doubts.iter().take(SHOWN) {
            let message = format!("{name} of {source} is not proved to be production's: {why}{cause}");
            let advice = "build with production's own compiler, flags and path; --explain shows both";
            refusals.push(refusal(Code::NotReproduced, name, message, advice));
        }
        if let Some(more) = doubts.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            let message = format!("{more} more functions of {source} are not proved to be production's");
            refusals.push(refusal(Code::NotReproduced, &source.to_string(), message, "build as production was built"));
        }
    }
    Ok(refusals)
}

/// The rebuilt file must be bound to its libraries as the production file is: slots are taken from it.
fn binding(link: &LinkedElf, linked: &Linked) -> Option<Refusal> {
    let file = file_name(link);
    if linked.production.build_id.is_none() {
        let message = format!("{file} has no build-id, so a running copy of it cannot be recognised");
        return Some(refusal(Code::NoBuildId, &file, message, "link it with -Wl,--build-id"));
    }
    let section = linked.rebuilt.dynamic_difference(&linked.production)?;
    let message = format!("{section} of {file} is not that of the file that was rebuilt for it");
    Some(refusal(Code::Identity, &file, message, "build from the very sources and with the very tools of production"))
}

fn target(
    link: &LinkedElf,
    linked: &Linked,
    selection: &Selection<'_>,
    builder: &mut Builder,
) -> Result<(Target, TargetSummary), Vec<Refusal>> {
    let mut part = builder.add(selection).map_err(|r| vec![r])?;
    if let Some(proof) = &linked.proof {
        for reference in &mut part.references {
            reference.found = Some(match reference.source {
                ulp_format::Source::Local { addr, .. } => {
                    proof.evidence_at(addr).map_or_else(|| "production's dynamic symbols".into(), |e| e.to_string())
                }
                ulp_format::Source::TlsLocalExec { .. } => "read back from production's code".into(),
                _ => "production's own slots and dynamic symbols".into(),
            });
        }
    }
    let (mut functions, mut replaced, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for (key, entry) in &selection.context.replaced {
        let symbol = part.symbols.get(key).and_then(|i| builder.symbols.get(*i)).map_or("", |s| s.name.as_str());
        match check::old_side(&selection.context, *key, *entry, symbol.to_owned()) {
            Ok(function) => {
                let unit = &selection.context.units[key.0];
                let reason = match unit.verdict(key.1) {
                    Verdict::Changed(reason) => Some(*reason),
                    _ => None,
                };
                replaced.push(Replaced { name: function.name.clone(), source: unit.unit.source.clone(), reason });
                functions.push(function);
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    refusals.extend(entries::check(selection.context.arch, linked, &functions));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    functions.sort_by_key(|f| f.entry);
    let build_id = linked.production.build_id.clone().unwrap_or_default();
    let carried = selection.carried.keys().filter(|k| !selection.context.replaced.contains_key(k));
    let names = carried.filter_map(|k| selection.context.units[k.0].fixed(k.1)).filter(|a| !a.anonymous);
    let mut carried: Vec<String> = names.map(|a| a.name.clone()).collect();
    carried.sort();
    let share = TargetSummary {
        file: file_name(link),
        build_id: build_id.clone(),
        functions: replaced,
        carried,
        references: part.references.len(),
    };
    let target = Target {
        file: file_name(link),
        build_id,
        kind: linked.rebuilt.kind,
        identity: link.identity,
        functions,
        sections: part.sections,
        references: part.references,
    };
    Ok((target, share))
}

/// Gives the target's functions their gates, and says of each one without why.
fn gates(selection: &Selection<'_>, target: &mut Target) -> Vec<String> {
    let mut without = Vec::new();
    for (key, entry) in &selection.context.replaced {
        let Some(function) = target.functions.iter_mut().find(|f| f.entry == *entry) else { continue };
        match entries::gate(&selection.context, *key, function) {
            Ok(gate) => function.gate = Some(gate),
            Err(why) => without.push(format!("{} ({why})", function.name)),
        }
    }
    without
}

fn file_name(link: &LinkedElf) -> String {
    let path = &link.production;
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn no_change(built: &Built, touched: &[bool], linked: &BTreeSet<usize>, warnings: &[String]) -> String {
    let outside: Vec<String> = (built.units.iter().enumerate())
        .filter(|(i, _)| touched.get(*i).copied().unwrap_or(false) && !linked.contains(i))
        .map(|(_, u)| u.source.display().to_string())
        .collect();
    if !outside.is_empty() {
        return format!("what changed is part of no target: {}", outside.join(", "));
    }
    match warnings.iter().find(|w| w.contains("left it out")) {
        Some(why) => why.clone(),
        None => "the fix changes no code and no data of the program".to_owned(),
    }
}
