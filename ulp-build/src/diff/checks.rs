// SPDX-License-Identifier: GPL-2.0-or-later
//! What a running program cannot take on: changed initial values, sizes, constructors, exception tables. Each rule looks at
//! finished verdicts and adds refusals; none changes a verdict.

use super::equal::{Comparison, is_constant};
use super::twins::{Group, Twins, group};
use super::{Compiled, UnitDiff, Verdict};
use crate::model::{Code, Language, Refusal};
use crate::object::{Atom, AtomId, AtomKind, Object, Scope, Target};
use std::collections::{BTreeMap, BTreeSet};
use ulp_arch::{Arch, Flow, Insn};

pub(super) fn refuse(code: Code, symbol: &str, message: String, advice: &str) -> Refusal {
    Refusal { code, symbol: Some(symbol.to_owned()), message, advice: advice.to_owned() }
}

pub(super) fn run(diff: &mut UnitDiff, comparison: &mut Comparison<'_>, twins: &Twins, compiled: Compiled) {
    let (orig, fix) = (comparison.orig, comparison.fix);
    let altered = |id: &AtomId| diff.verdicts.get(id).is_some_and(|v| *v != Verdict::Same);
    let mut refusals = Vec::new();
    let mut warnings = Vec::new();
    for (i, atom) in fix.atoms.iter().enumerate() {
        let f = AtomId(i);
        let o = twins.of.get(&f).copied();
        match group(atom) {
            Group::Variable | Group::ThreadLocal => variable(comparison, f, o, &mut refusals),
            Group::Constant if !atom.anonymous && altered(&f) => constant(comparison, f, &mut refusals),
            Group::Function if altered(&f) => {
                let old = o.map(|o| &orig.atoms[o.0]);
                function(atom, old, &mut refusals);
                if let Some(old) = old.filter(|old| old.parent.is_none() && !leaves(comparison.arch, orig, old)) {
                    let name = &old.name;
                    warnings.push(format!(
                        "{name} never returns: while a thread is in it, ulp-apply can only call it busy"
                    ));
                }
                let mut seen = BTreeSet::new();
                needed(fix, &diff.verdicts, twins, f, &mut seen, &mut refusals);
            }
            _ => {}
        }
    }
    shared_constants(comparison, &mut refusals);
    super::escapes::check(comparison, &mut refusals, &mut warnings);
    constructors(orig, fix, twins, &diff.verdicts, &mut refusals, &mut warnings);
    moved_names(orig, fix, &mut refusals);
    for o in &diff.gone {
        let atom = &orig.atoms[o.0];
        if matches!(group(atom), Group::Variable | Group::ThreadLocal) {
            warnings.push(format!("the variable {} is gone; its memory stays, unused", atom.name));
        }
        if in_linker_set(atom) {
            refusals.push(linker_set(atom, "leaves"));
        }
    }
    if compiled.language == Language::Assembly {
        for id in diff.verdicts.keys().filter(|id| altered(id)) {
            let old = twins.of.get(id).copied();
            refusals.extend(fix.atoms.get(id.0).and_then(|atom| no_whole_function(comparison.arch, atom)));
            refusals.extend(old.and_then(|old| entered_inside(orig, old)));
        }
    }
    diff.refusals = refusals;
    diff.warnings = warnings;
}

/// Whether a function has a way out. Jumps that the linker fills in lead elsewhere.
pub fn leaves(arch: &dyn Arch, object: &Object, atom: &Atom) -> bool {
    if arch.returns(&atom.bytes) {
        return true;
    }
    let insns = arch.decode(&atom.bytes);
    let out = |r: &crate::object::Ref| {
        let call = Insn::containing(&insns, usize::try_from(r.offset).unwrap_or(usize::MAX))
            .is_some_and(|insn| matches!(insn.flow, Flow::Call { .. }));
        let home = matches!(r.target, Target::Atom(id) if std::ptr::eq(&object.atoms[id.0], atom));
        r.branch && !call && !home
    };
    atom.refs.iter().any(out)
}

/// Why hand-written code cannot be replaced; `None`: it says where it ends, and it is left by its own instructions only.
fn no_whole_function(arch: &dyn Arch, atom: &Atom) -> Option<Refusal> {
    if atom.kind != AtomKind::Function {
        return None;
    }
    let why = match atom {
        _ if atom.anonymous || atom.size == 0 => "has code of which no symbol says where it begins and ends".to_owned(),
        Atom { problem: Some(problem), .. } => format!("is not understood: {problem}"),
        _ if arch.runs_over_end(&atom.bytes) => "runs on into what stands behind it".to_owned(),
        _ => return None,
    };
    let message = format!("the assembly function {} {why}", atom.name);
    let advice = "give the function .type and .size directives and an end of its own, or leave it as it is";
    Some(refuse(Code::Asm, &atom.name, message, advice))
}

/// Hand-written code may have more entries than its first byte, and who takes those would go on with the old code.
fn entered_inside(orig: &Object, id: AtomId) -> Option<Refusal> {
    let inside = |r: &crate::object::Ref| r.target == Target::Atom(id) && r.target_offset != 0;
    let others = orig.atoms.iter().enumerate().filter(|(i, a)| *i != id.0 && a.kind == AtomKind::Function);
    let (_, user) = others.clone().find(|(_, a)| a.refs.iter().any(inside))?;
    let name = &orig.atoms.get(id.0).filter(|a| a.kind == AtomKind::Function)?.name;
    let message = format!("{} leads into the middle of the assembly function {name}", user.name);
    Some(refuse(Code::Asm, name, message, "leave the function as it is, or replace both"))
}

/// A variable: the program's copy is alive, so nothing of its original state may differ.
fn variable(comparison: &mut Comparison<'_>, f: AtomId, o: Option<AtomId>, refusals: &mut Vec<Refusal>) {
    let fix = comparison.fix;
    let new = &fix.atoms[f.0];
    let name = &new.name;
    let Some(o) = o else {
        if group(new) == Group::ThreadLocal {
            let message = format!("{name} is a new thread-local variable, for which running threads have no room");
            refusals.push(refuse(Code::TlsNew, name, message, "keep the value in an ordinary variable"));
        } else if in_linker_set(new) {
            refusals.push(linker_set(new, "joins"));
        } else if new.anonymous {
            refusals.push(unsupported(name, format!("the section {} is new", new.section)));
        }
        return;
    };
    let old = &comparison.orig.atoms[o.0];
    let reads_changed = new.refs.iter().find_map(|r| match r.target {
        Target::Atom(t) if comparison.changed.contains(&t) => {
            let target = &fix.atoms[t.0];
            let matters = is_constant(target) || target.kind == AtomKind::Function && r.target_offset != 0;
            matters.then_some(target)
        }
        _ => None,
    });
    if new.anonymous && (old.size != new.size || comparison.difference(o, f).is_some()) {
        refusals.push(unsupported(name, format!("what it does is not understood: {} differs", new.section)));
    } else if old.size != new.size {
        let message = format!("{name} is {} bytes in the program and {} in the fix", old.size, new.size);
        refusals.push(refuse(Code::DataSize, name, message, "a variable cannot grow or shrink while the program runs"));
    } else if let Some(target) = reads_changed {
        let (code, advice) = match target.kind {
            AtomKind::Function => (Code::Unsupported, "a table of labels must be constant"),
            _ => (Code::DataShared, "the running program keeps a pointer to the old content"),
        };
        refusals.push(refuse(code, name, format!("{name} points into {}, which changed", target.name), advice));
    } else if comparison.difference(o, f).is_some() {
        let message = format!("the initial value of {name} changed, but the program has long been using it");
        refusals.push(refuse(Code::DataInit, name, message, "set the value in code, or accept that it stays"));
    } else if new.align > old.align && old.offset == 0 {
        let message = format!("{name} is aligned to {} in the program and to {} in the fix", old.align, new.align);
        refusals.push(refuse(Code::Layout, name, message, "leave the alignment of live variables as it is"));
    }
}

/// A constant that changed or is new and has a name.
fn constant(comparison: &Comparison<'_>, f: AtomId, refusals: &mut Vec<Refusal>) {
    let atom = &comparison.fix.atoms[f.0];
    let name = &atom.name;
    let special = ["_ZTV", "_ZTI", "_ZTS", "_ZTT"].iter().any(|prefix| name.starts_with(prefix));
    let changed = comparison.changed.contains(&f);
    if changed && special {
        let message =
            format!("{name} (a virtual function table or type description) changed; live objects point to it");
        refusals.push(refuse(Code::Vtable, name, message, "change neither virtual functions nor base classes"));
    } else if changed && atom.scope != Scope::Local {
        let message = format!("{name} is constant data that code outside this unit may read too");
        refusals.push(refuse(Code::DataShared, name, message, "make a new constant for the fixed code to use"));
    } else if changed && atom.offset == 0 && in_linker_set(atom) {
        refusals.push(linker_set(atom, "changes in"));
    } else if !changed && in_linker_set(atom) {
        refusals.push(linker_set(atom, "joins"));
    }
}

/// Sections whose name is a C identifier can be walked by any code, from `__start_` to `__stop_`.
fn in_linker_set(atom: &Atom) -> bool {
    let identifier = atom.section.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    identifier && atom.section != "COMMON" && atom.kind != AtomKind::Function
}

fn linker_set(atom: &Atom, verb: &str) -> Refusal {
    let message = format!("{} {verb} the section {}, which the program may walk as a whole", atom.name, atom.section);
    unsupported(&atom.name, message)
}

fn unsupported(symbol: &str, message: String) -> Refusal {
    refuse(Code::Unsupported, symbol, message, "leave this part of the program out of the fix")
}

/// Unchanged variables of the original that point at a constant whose content changed.
fn shared_constants(comparison: &Comparison<'_>, refusals: &mut Vec<Refusal>) {
    let changed: BTreeSet<AtomId> =
        comparison.changed.iter().filter_map(|f| comparison.twins.of.get(f)).copied().collect();
    for atom in &comparison.orig.atoms {
        if !matches!(group(atom), Group::Variable | Group::ThreadLocal) {
            continue;
        }
        for r in &atom.refs {
            if let Target::Atom(t) = r.target
                && changed.contains(&t)
                && is_constant(&comparison.orig.atoms[t.0])
            {
                let name = &comparison.orig.atoms[t.0].name;
                let message = format!("{name} changed, and the live variable {} points to the old content", atom.name);
                refusals.push(refuse(Code::DataShared, name, message, "make a new constant for the fixed code to use"));
            }
        }
    }
}

/// A function that will be replaced or added.
fn function(new: &Atom, old: Option<&Atom>, refusals: &mut Vec<Refusal>) {
    let name = &new.name;
    let sides = || old.into_iter().chain([new]);
    if sides().any(|atom| atom.ifunc) {
        let message = format!("{name} chooses an implementation when the program starts; it has run already");
        refusals.push(refuse(Code::Ifunc, name, message, "fix the implementations, not the resolver"));
    }
    if let Some(problem) = sides().find_map(|atom| atom.problem.clone()) {
        refusals.push(unsupported(name, problem));
    }
    if name.contains(".cold") && new.parent.is_none() {
        refusals.push(unsupported(name, format!("the function that {name} belongs to is not known")));
    }
    let initialiser = name.starts_with("_GLOBAL__") || name.contains("__static_initialization_and_destruction_");
    if initialiser {
        let message = format!("{name} initialises global objects, which exist already");
        refusals.push(refuse(Code::Init, name, message, "leave the initialisers of global objects as they are"));
    }
}

/// Whether a C++ exception may pass through a function, or end or begin in it. `compiled` with `-fexceptions`.
pub fn may_throw(arch: &dyn Arch, function: &Atom, exceptions: bool) -> bool {
    let handles = function.frame.as_ref().is_some_and(|frame| frame.lsda.is_some());
    let insns = arch.decode(&function.bytes);
    let calls = || insns.iter().any(|insn| matches!(insn.flow, Flow::Call { .. }));
    let undecoded = || insns.last().map_or(0, |insn| insn.end) != function.bytes.len();
    handles || exceptions && (calls() || undecoded())
}

/// What a replaced function brings along must be understood: nameless data that it reads, and variables it uses.
fn needed(
    fix: &Object,
    verdicts: &BTreeMap<AtomId, Verdict>,
    twins: &Twins,
    from: AtomId,
    seen: &mut BTreeSet<AtomId>,
    refusals: &mut Vec<Refusal>,
) {
    let mut work = vec![from];
    while let Some(id) = work.pop() {
        for r in fix.atoms[id.0].all_refs() {
            let Target::Atom(t) = r.target else { continue };
            let atom = &fix.atoms[t.0];
            let known = [&twins.ambiguous, &twins.fragile].into_iter().find_map(|map| map.get(&t));
            refusals.extend(known.cloned());
            let copied = is_constant(atom) && (atom.anonymous || verdicts.get(&t) != Some(&Verdict::Same));
            if let Some(problem) = &atom.problem
                && (atom.anonymous || copied)
            {
                refusals.push(unsupported(&fix.atoms[from.0].name, problem.clone()));
            }
            if copied && seen.insert(t) {
                work.push(t);
            }
        }
    }
}

/// Constructors and destructors: the lists must be the same.
fn constructors(
    orig: &Object,
    fix: &Object,
    twins: &Twins,
    verdicts: &BTreeMap<AtomId, Verdict>,
    refusals: &mut Vec<Refusal>,
    warnings: &mut Vec<String>,
) {
    let list = |object: &Object| {
        let mut entries = Vec::new();
        for atom in object.atoms.iter().filter(|a| a.kind == AtomKind::Constructors) {
            for r in &atom.refs {
                let target = match r.target {
                    Target::Atom(t) => object.atoms[t.0].name.clone(),
                    Target::Import(i) => object.imports[i].name.clone(),
                };
                entries.push((atom.section.clone(), super::twins::unnumbered(&target)));
            }
            if atom.refs.len() as u64 * 8 != atom.size {
                entries.push((atom.section.clone(), atom.name.clone()));
            }
        }
        entries.sort();
        entries
    };
    let (old, new) = (list(orig), list(fix));
    let differing = old
        .iter()
        .filter(|e| !new.contains(e))
        .map(|e| (e, "gone"))
        .chain(new.iter().filter(|e| !old.contains(e)).map(|e| (e, "new")));
    for ((section, name), what) in differing {
        let (code, advice) = if name.starts_with("_GLOBAL__") {
            (Code::Init, "leave the initialisers of global objects as they are")
        } else {
            (Code::Ctor, "constructors have run already; do the work in code that runs again")
        };
        refusals.push(refuse(code, name, format!("{name} is {what} in {section}, which is called once"), advice));
    }
    if old.len() != new.len() && old.iter().all(|e| new.contains(e)) && new.iter().all(|e| old.contains(e)) {
        let message = "a constructor or destructor is listed more or less often".to_owned();
        refusals.push(refuse(Code::Ctor, ".init_array", message, "leave the lists of constructors as they are"));
    }
    for atom in fix.atoms.iter().filter(|a| a.kind == AtomKind::Constructors) {
        for r in &atom.refs {
            if let Target::Atom(t) = r.target
                && twins.of.contains_key(&t)
                && matches!(verdicts.get(&t), Some(Verdict::Changed(_)))
            {
                let name = &fix.atoms[t.0].name;
                warnings.push(format!(
                    "{name} changed, but it is called from {} only and may have run already",
                    atom.section
                ));
            }
        }
    }
}

/// Names seen by other units that change what they are: a function becomes data, a variable a constant or thread-local.
fn moved_names(orig: &Object, fix: &Object, refusals: &mut Vec<Refusal>) {
    let groups = |object: &Object| {
        let named = object.atoms.iter().filter(|a| !a.anonymous && a.scope != Scope::Local);
        named.map(|a| (a.name.clone(), group(a))).collect::<BTreeMap<_, _>>()
    };
    let old = groups(orig);
    for (name, new) in groups(fix) {
        if old.get(&name).is_some_and(|old| *old != new) {
            let message =
                format!("{name} is another kind of thing than before (code, constant, variable, thread-local)");
            refusals.push(unsupported(&name, message));
        }
    }
}
