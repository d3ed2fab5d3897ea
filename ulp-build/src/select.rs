// SPDX-License-Identifier: GPL-2.0-or-later
//! Chooses what a patch of one linked file carries: the changed functions that are in it, and the closure of what only
//! they need. Everything else stays where it is and is referred to.

use crate::diff::Verdict;
use crate::model::{Code, Refusal};
use crate::object::{Atom, AtomKind, Object, Scope, Target};
use crate::production::SymbolKind;
use crate::reproduce;
use crate::resolve::place::{Global, Linked, Where, is_cold_child};
use crate::resolve::{Context, Key, Meaning, UnitIn, refusal};
use std::collections::{BTreeMap, BTreeSet};
use ulp_arch::{Arch, LinkAddr};

/// What one target's part of the package is made of.
#[derive(Debug)]
pub struct Selection<'a> {
    pub context: Context<'a>,
    /// Carried atoms that had to be rewritten: what stands for them in the package.
    pub rewritten: BTreeMap<Key, Atom>,
    /// Every atom the package carries, and what its references mean, in the atom's order.
    pub carried: BTreeMap<Key, Vec<Meaning>>,
    pub refusals: Vec<Refusal>,
    pub warnings: Vec<String>,
}

/// Chooses for one linked file.
pub fn select<'a>(arch: &'static dyn Arch, linked: &'a Linked, units: Vec<UnitIn<'a>>) -> Selection<'a> {
    let context = Context {
        arch,
        linked,
        units,
        replaced: BTreeMap::new(),
        stands_for: BTreeMap::new(),
        exported: BTreeMap::new(),
    };
    let mut selection = Selection {
        context,
        rewritten: BTreeMap::new(),
        carried: BTreeMap::new(),
        refusals: Vec::new(),
        warnings: Vec::new(),
    };
    selection.replaced();
    selection.new_names();
    if !selection.context.replaced.is_empty() {
        selection.close();
    }
    selection.refusals.sort();
    selection.refusals.dedup();
    selection
}

impl Selection<'_> {
    /// A carried atom as it stands in the package.
    pub fn atom(&self, key: Key) -> Option<&Atom> {
        self.rewritten.get(&key).or_else(|| self.context.units.get(key.0)?.fixed(key.1))
    }

    /// Finds the entry of every changed function; copies of one function in several units become one.
    fn replaced(&mut self) {
        let mut at: BTreeMap<LinkAddr, Key> = BTreeMap::new();
        let mut found = Vec::new();
        for (index, unit) in self.context.units.iter().enumerate() {
            let Some(fix) = unit.diff.fix.as_deref() else { continue };
            for (id, verdict) in &unit.diff.verdicts {
                let Some(atom) = fix.atoms.get(id.0) else { continue };
                let function = atom.kind == AtomKind::Function && !is_cold_child(atom);
                if function && matches!(verdict, Verdict::Changed(_)) && unit.object.is_some() {
                    found.push(((index, *id), entry(&self.context, unit, (index, *id), atom)));
                }
            }
        }
        for (key, entry) in found {
            let Some(atom) = self.context.units[key.0].fixed(key.1) else { continue };
            match entry {
                Ok(Some(entry)) => match at.get(&entry).copied() {
                    Some(first) => match self.same_body(first, key, &mut BTreeSet::new()) {
                        true => {
                            self.context.stands_for.insert(key, first);
                        }
                        false => {
                            let message = format!("{} has two different new bodies and one old one", atom.name);
                            let advice = "make its copies in all source files alike, or give them names of their own";
                            self.refusals.push(refusal(Code::ComdatConflict, &atom.name, message, advice));
                        }
                    },
                    None => {
                        at.insert(entry, key);
                        self.context.replaced.insert(key, entry);
                        self.export(key);
                    }
                },
                Ok(None) => self.warnings.push(format!(
                    "{} changed, but the linker left it out of the program: nothing to replace",
                    atom.name
                )),
                Err(refusal) => self.refusals.push(refusal),
            }
        }
    }

    fn export(&mut self, key: Key) {
        let unit = &self.context.units[key.0];
        let (Some(atom), Some(fix)) = (unit.fixed(key.1), unit.diff.fix.as_deref()) else { return };
        if atom.scope == Scope::Local {
            return;
        }
        let aliases = fix.aliases.iter().filter(|(_, id)| *id == key.1).map(|(name, _)| name.clone());
        for name in std::iter::once(atom.name.clone()).chain(aliases) {
            self.context.exported.entry(name).or_insert(key);
        }
    }

    /// New global names, which other units of the patch may refer to.
    fn new_names(&mut self) {
        let mut new: Vec<(bool, Key)> = Vec::new();
        for (index, unit) in self.context.units.iter().enumerate() {
            let linked = unit.object.is_some() || unit.unit.pristine.is_none();
            for (id, verdict) in unit.diff.verdicts.iter().filter(|_| linked) {
                if let (Verdict::New, Some(atom)) = (verdict, unit.fixed(*id))
                    && atom.scope != Scope::Local
                    && !atom.anonymous
                {
                    new.push((atom.scope == Scope::Weak, (index, *id)));
                }
            }
        }
        new.sort();
        for (_, key) in new {
            let Some(atom) = self.context.units[key.0].fixed(key.1) else { continue };
            let there = !matches!(self.context.linked.global(&atom.name), Global::None);
            match self.context.exported.get(&atom.name).copied() {
                Some(first) if first != key && self.same_body(first, key, &mut BTreeSet::new()) => {
                    self.context.stands_for.insert(key, first);
                }
                Some(first) if first != key && atom.comdat.is_some() => {
                    let message = format!("{} has two different bodies", atom.name);
                    let advice = "make its copies in all source files alike, or give them names of their own";
                    self.refusals.push(refusal(Code::ComdatConflict, &atom.name, message, advice));
                }
                Some(_) => {}
                None if there && atom.comdat.is_some() => {
                    // Another object has it already, so the linker would have kept that copy: it is referred to.
                }
                None if there => {
                    let message = format!("{} is defined in another source file than before", atom.name);
                    let advice =
                        "leave it where it was for this patch: which callers get which definition is not certain";
                    self.refusals.push(refusal(Code::Ambiguous, &atom.name, message, advice));
                }
                None => self.export(key),
            }
        }
    }

    /// Follows references from the replaced functions until nothing new is needed.
    fn close(&mut self) {
        let mut todo: Vec<Key> = self.context.replaced.keys().copied().collect();
        while let Some(key) = todo.pop() {
            if self.carried.contains_key(&key) {
                continue;
            }
            let Some(atom) = self.context.units[key.0].fixed(key.1) else { continue };
            self.carried.insert(key, Vec::new());
            let mut meanings = Vec::new();
            if let Some(problem) = self.unfit(key, atom) {
                self.refusals.push(problem);
                continue;
            }
            let rewritten = match self.context.shortened(key, atom) {
                Ok(rewritten) => rewritten,
                Err(refusal) => {
                    self.refusals.push(refusal);
                    continue;
                }
            };
            for r in rewritten.as_ref().unwrap_or(atom).all_refs() {
                match self.context.decide(key, r) {
                    Ok(mut meaning) => {
                        if let Meaning::Own(own) = &mut meaning {
                            *own = self.context.stands_for.get(own).copied().unwrap_or(*own);
                            todo.push(*own);
                        }
                        meanings.push(meaning);
                    }
                    Err(refusal) => self.refusals.push(refusal),
                }
            }
            self.rewritten.extend(rewritten.map(|atom| (key, atom)));
            self.carried.insert(key, meanings);
        }
    }

    /// Why an atom cannot be carried.
    fn unfit(&self, key: Key, atom: &Atom) -> Option<Refusal> {
        let say = |code, message: String, advice: &str| Some(refusal(code, &atom.name, message, advice));
        if let Some(problem) = &atom.problem {
            return say(Code::Unsupported, format!("{}: {problem}", atom.name), "leave it out of the fix");
        }
        if atom.ifunc {
            let message = format!("{} is a resolver, which has run already", atom.name);
            return say(Code::Ifunc, message, "patch the function it chose instead");
        }
        match atom.kind {
            AtomKind::TlsData | AtomKind::TlsZero => {
                let message = format!("{} is a new thread-local variable", atom.name);
                return say(Code::TlsNew, message, "keep per-thread state in a table keyed by thread");
            }
            AtomKind::Constructors => {
                let message = format!("{} registers functions to run at start", atom.name);
                return say(Code::Ctor, message, "start-up is over: initialise at first use");
            }
            AtomKind::Data | AtomKind::ZeroData if atom.anonymous && atom.problem.is_some() => {
                let message = format!("{} is writable data without a name", atom.name);
                return say(Code::Ambiguous, message, "give it a name");
            }
            _ => {}
        }
        // A table that the program walks from its first to its last entry does not see the patch's.
        let section = atom.section.as_str();
        let table = !section.starts_with('.') && atom.kind != AtomKind::Function;
        if table && self.context.linked.rebuilt.named(&format!("__start_{section}")).next().is_some() {
            let message = format!("{} is a new entry of the table in section {section}", atom.name);
            return say(Code::DataSize, message, "the running program's table cannot grow");
        }
        if atom.kind == AtomKind::Function && atom.size == 0 {
            let message = format!("{} has no size", atom.name);
            return say(Code::Asm, message, "add .size to the assembly source");
        }
        // Named data that is gone from another unit and new here may be the same, moved, with a state to keep.
        if matches!(atom.kind, AtomKind::Data | AtomKind::ZeroData) {
            let moved = self.context.units.iter().enumerate().find(|(index, unit)| {
                let gone = |id: &crate::object::AtomId| {
                    let old = unit.diff.orig.as_deref().and_then(|o| o.atoms.get(id.0));
                    old.is_some_and(|o| o.name == atom.name && o.size == atom.size && !o.anonymous)
                };
                *index != key.0 && unit.diff.gone.iter().any(gone)
            });
            if let Some((_, unit)) = moved {
                let from = unit.unit.source.display();
                let message = format!("{} is new here and gone from {from}: it would lose its value", atom.name);
                return say(Code::Ambiguous, message, "leave the variable where it was");
            }
        }
        None
    }

    /// Whether two fixed atoms are the same: the same bytes, and references that have the same names or the same content.
    fn same_body(&self, a: Key, b: Key, seen: &mut BTreeSet<(Key, Key)>) -> bool {
        if a == b || !seen.insert((a, b)) {
            return true;
        }
        let units = &self.context.units;
        let (Some(left), Some(right)) = (units[a.0].fixed(a.1), units[b.0].fixed(b.1)) else { return false };
        let name_of = |unit: &UnitIn<'_>, target: Target| -> Option<(String, Option<Key>)> {
            let object: &Object = unit.diff.fix.as_deref()?;
            match target {
                Target::Import(i) => Some((object.imports.get(i)?.name.clone(), None)),
                Target::Atom(id) => {
                    let atom = object.atoms.get(id.0)?;
                    let inner = atom.scope == Scope::Local;
                    Some((if inner { String::new() } else { atom.name.clone() }, inner.then_some((0, id))))
                }
            }
        };
        if left.kind != right.kind || left.bytes != right.bytes || left.size != right.size {
            return false;
        }
        left.all_refs().count() == right.all_refs().count()
            && left.all_refs().zip(right.all_refs()).all(|(l, r)| {
                if (l.offset, l.r_type, l.target_offset, l.adjust) != (r.offset, r.r_type, r.target_offset, r.adjust) {
                    return false;
                }
                match (name_of(&units[a.0], l.target), name_of(&units[b.0], r.target)) {
                    (Some((_, Some((_, x)))), Some((_, Some((_, y))))) => {
                        // Local things: read-only content and code may be compared, variables are two.
                        let kind = units[a.0].fixed(x).map(|atom| atom.kind);
                        matches!(kind, Some(AtomKind::ReadOnly | AtomKind::Function))
                            && self.same_body((a.0, x), (b.0, y), seen)
                    }
                    (Some((x, None)), Some((y, None))) => x == y,
                    _ => false,
                }
            })
    }
}

/// The refusal of a function that production does not have as it was built here.
fn not_proved(name: &str, why: &str) -> Refusal {
    let message = format!("{name} is not proved to be production's: {why}");
    refusal(Code::NotReproduced, name, message, "build with production's own compiler, flags and path")
}

/// The running program's entry of a changed function; `None`: it was left out of the program.
fn entry(context: &Context<'_>, unit: &UnitIn<'_>, key: Key, atom: &Atom) -> Result<Option<LinkAddr>, Refusal> {
    let linked = context.linked;
    let ambiguous = |why: String| refusal(Code::Ambiguous, &atom.name, why, "leave this function out of the fix");
    let (Some(pristine), Some(id), Some(object)) = (&unit.pristine, unit.pristine_of(key.1), &unit.object) else {
        return Err(ambiguous(format!("{} has no counterpart in the linked object", atom.name)));
    };
    let old = pristine.atom(id).ok_or_else(|| ambiguous(format!("{} is lost", atom.name)))?;
    let addr = match linked.winner(pristine, object, id) {
        (Where::At(addr), true) => addr,
        (Where::At(addr), false) => {
            // Another object's copy is the one that runs. It may be replaced when it is the same code.
            let linked_bytes = linked.production.bytes(addr, old.size);
            let same = old.comdat.is_some()
                && linked_bytes.is_some_and(|b| reproduce::linked_difference(context.arch, old, b).is_none());
            if !same {
                let message = format!("another object's {} is the one in the program", atom.name);
                let advice = "patch the definition that won the link";
                return Err(refusal(Code::NotLinked, &atom.name, message, advice));
            }
            addr
        }
        (Where::Dropped, _) => return Ok(None),
        (Where::Unknown(why), _) => return Err(ambiguous(why)),
        (Where::Unproved(why), _) => return Err(not_proved(&atom.name, &why)),
    };
    if old.ifunc || linked.rebuilt.at(addr).any(|s| s.kind == SymbolKind::Ifunc) {
        let message = format!("{} is a resolver, which has run already", atom.name);
        return Err(refusal(Code::Ifunc, &atom.name, message, "patch the function it chose instead"));
    }
    // Names that share the old code must share the new one.
    let fix = unit.diff.fix.as_deref();
    let still =
        |name: &str| name == atom.name || fix.is_some_and(|o| o.aliases.iter().any(|(n, a)| n == name && *a == key.1));
    let gone = |name: &str| {
        fix.is_none_or(|o| o.atoms.iter().all(|a| a.name != name) && o.aliases.iter().all(|(n, _)| n != name))
    };
    if let Some(split) = pristine.names(id).find(|name| !still(name) && !gone(name)) {
        return Err(ambiguous(format!("{} and {split} share their code in the running program", atom.name)));
    }
    Ok(Some(addr))
}
