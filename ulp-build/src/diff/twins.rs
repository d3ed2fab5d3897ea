// SPDX-License-Identifier: GPL-2.0-or-later
//! Finds for each fixed atom the original atom that it stands for. Names decide where they are unique. Compilers number
//! static locals and clones (`count.0`, `f.isra.0`), and the numbers shift: there the debug information says which variable of
//! which function it is, then the narrowest filter that pairs one to one. What stays open and matters is refused.

use super::equal::{is_local_constant, same_bytes};
use crate::model::{Code, Refusal};
use crate::object::{Atom, AtomId, AtomKind, Object, Scope};
use crate::types::Variables;
use std::collections::{BTreeMap, BTreeSet};
use ulp_arch::Arch;

/// What may stand for what: a function never for data, constant data never for a variable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Group {
    Function,
    Constant,
    Variable,
    ThreadLocal,
    Constructors,
}

pub(super) fn group(atom: &Atom) -> Group {
    match atom.kind {
        AtomKind::Function => Group::Function,
        AtomKind::ReadOnly => Group::Constant,
        AtomKind::Data if atom.anonymous && atom.problem.is_none() => Group::Constant,
        AtomKind::Data | AtomKind::ZeroData => Group::Variable,
        AtomKind::TlsData | AtomKind::TlsZero => Group::ThreadLocal,
        AtomKind::Constructors => Group::Constructors,
    }
}

#[derive(Clone, Default)]
pub(super) struct Twins {
    /// Fixed atom to original atom.
    pub of: BTreeMap<AtomId, AtomId>,
    taken: BTreeSet<AtomId>,
    /// Fixed variables whose twin cannot be told, with the refusal for when it matters.
    pub ambiguous: BTreeMap<AtomId, Refusal>,
    /// Pairs that are only sound while no function that uses them changed: same-named statics of one function.
    pub fragile: BTreeMap<AtomId, Refusal>,
}

impl Twins {
    fn pair(&mut self, o: AtomId, f: AtomId) {
        if !self.of.contains_key(&f) && self.taken.insert(o) {
            self.of.insert(f, o);
        }
    }
    pub fn has_original(&self, o: AtomId) -> bool {
        self.taken.contains(&o)
    }
}

/// The name without the compiler's numbers: `count` of `count.0`, `f.isra` of `f.isra.0`; `None` where there is no number.
fn stem(name: &str) -> Option<&str> {
    let (stem, number) = name.rsplit_once('.')?;
    (!stem.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(stem)
}

/// Whether a number is anywhere in it: `f.isra.0.cold` moves with `f.isra.0`.
pub(super) fn unnumbered(name: &str) -> String {
    name.split('.')
        .filter(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(".")
}

fn ambiguous(name: &str, why: &str) -> Refusal {
    Refusal {
        code: Code::Ambiguous,
        symbol: Some(name.to_owned()),
        message: format!("it cannot be told which of the program's variables {name} is: {why}"),
        advice: "give the variables different names in both trees, or keep them apart in the fix".into(),
    }
}

fn collect<K: Ord>(
    object: &Object,
    skip: impl Fn(AtomId) -> bool,
    key: impl Fn(AtomId, &Atom) -> Option<K>,
) -> BTreeMap<K, Vec<AtomId>> {
    let mut map: BTreeMap<K, Vec<AtomId>> = BTreeMap::new();
    for (i, atom) in object.atoms.iter().enumerate() {
        let id = AtomId(i);
        if !atom.anonymous
            && !skip(id)
            && let Some(key) = key(id, atom)
        {
            map.entry(key).or_default().push(id);
        }
    }
    map
}

/// Pairs the atoms of two objects.
pub(super) fn find(
    orig: &Object,
    fix: &Object,
    arch: &'static dyn Arch,
    old_variables: &Variables,
    new_variables: &Variables,
) -> Twins {
    let mut twins = Twins::default();
    by_name(orig, fix, &mut twins);
    by_debug_information(orig, fix, old_variables, new_variables, &mut twins);
    by_stem(orig, fix, arch, old_variables, new_variables, &mut twins);
    by_place(orig, fix, &mut twins);
    twins
}

/// Code and variables without a name stand for whatever stands at the same place; if they differ, that is refused.
fn by_place(orig: &Object, fix: &Object, twins: &mut Twins) {
    let nameless = |object: &Object| {
        let wanted = |a: &Atom| a.anonymous && !matches!(a.kind, AtomKind::ReadOnly | AtomKind::Constructors);
        let places = || object.atoms.iter().enumerate().filter(|(_, a)| wanted(a));
        // Sections of one name (gcc 13 lists the no-operations of each function in one of its own) stand in an order.
        let mut namesakes: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (_, atom) in places() {
            namesakes.entry(&atom.section).or_default().insert(atom.section_index);
        }
        let nth = |a: &Atom| namesakes.get(a.section.as_str()).map_or(0, |all| all.range(..a.section_index).count());
        places().map(|(i, a)| ((group(a), a.section.clone(), nth(a), a.offset), AtomId(i))).collect::<BTreeMap<_, _>>()
    };
    let old = nameless(orig);
    for (place, f) in nameless(fix) {
        if let Some(o) = old.get(&place) {
            twins.pair(*o, f);
        }
    }
}

/// Names that no compiler numbered, aliases included. Scope does not matter: a static function may become global or back.
fn by_name(orig: &Object, fix: &Object, twins: &mut Twins) {
    let names = |object: &Object| {
        let mut map: BTreeMap<(Group, String), BTreeSet<AtomId>> = BTreeMap::new();
        let own =
            object.atoms.iter().enumerate().filter(|(_, a)| !a.anonymous).map(|(i, a)| (a.name.clone(), AtomId(i)));
        for (name, id) in own.chain(object.aliases.iter().cloned()) {
            let atom = &object.atoms[id.0];
            if stem(&name).is_none() && unnumbered(&name) == name || atom.scope != Scope::Local {
                map.entry((group(atom), name)).or_default().insert(id);
            }
        }
        map
    };
    let old = names(orig);
    for (key, new) in names(fix) {
        let (Some(old), Some(f)) = (old.get(&key), new.first()) else { continue };
        if let (Some(o), 1, 1) = (old.first(), old.len(), new.len()) {
            twins.pair(*o, *f);
        } else if key.0 != Group::Function {
            for f in new {
                twins.ambiguous.insert(f, ambiguous(&key.1, "several symbols have this name"));
            }
        } else {
            // Same-named functions of one object: in the order they stand in, which callers confirm or contradict.
            for (o, f) in old.iter().zip(&new) {
                twins.pair(*o, *f);
            }
        }
    }
}

/// Static locals: the function, the variable's name, and the order of declaration.
fn by_debug_information(orig: &Object, fix: &Object, old: &Variables, new: &Variables, twins: &mut Twins) {
    let keyed = |object: &Object, variables: &Variables, twins: &Twins, original: bool| {
        let done = |id| if original { twins.has_original(id) } else { twins.of.contains_key(&id) };
        let mut map = collect(object, done, |id, atom| {
            let variable = variables.of(id)?;
            let function = variable.function.clone()?;
            (group(atom) != Group::Function).then(|| (group(atom), function, variable.name.clone()))
        });
        for ids in map.values_mut() {
            ids.sort_by_key(|id| variables.of(*id).map(|v| v.order));
        }
        map
    };
    let old_map = keyed(orig, old, twins, true);
    let new_map = keyed(fix, new, twins, false);
    for (key, fs) in new_map {
        let Some(os) = old_map.get(&key) else { continue };
        if let ([o], [f]) = (os.as_slice(), fs.as_slice()) {
            twins.pair(*o, *f);
            continue;
        }
        // Several in one function: the type tells them apart, else the order, as long as the function did not change.
        let sig = |variables: &Variables, id: AtomId| variables.of(id).map(|v| v.signature.clone());
        let unique = |variables: &Variables, ids: &[AtomId]| {
            ids.iter().map(|id| sig(variables, *id)).collect::<BTreeSet<_>>().len() == ids.len()
        };
        let refusal = ambiguous(&key.2, &format!("{} has several static variables of this name", key.1));
        if unique(old, os) && unique(new, &fs) {
            for f in &fs {
                match os.iter().find(|o| sig(old, **o) == sig(new, *f)) {
                    Some(o) => twins.pair(*o, *f),
                    None => drop(twins.ambiguous.insert(*f, refusal.clone())),
                }
            }
        } else if os.len() == fs.len() {
            // Different initial values in the same order: had they changed places, the values would have too.
            let values = |object: &Object, ids: &[AtomId]| {
                ids.iter().map(|i| object.atoms[i.0].bytes.clone()).collect::<Vec<_>>()
            };
            let (old_values, new_values) = (values(orig, os), values(fix, &fs));
            let distinct = new_values.iter().collect::<BTreeSet<_>>().len() == fs.len();
            for (o, f) in os.iter().zip(&fs) {
                twins.pair(*o, *f);
                if !distinct || old_values != new_values {
                    twins.fragile.insert(*f, refusal.clone());
                }
            }
        } else {
            twins.ambiguous.extend(fs.iter().map(|f| (*f, refusal.clone())));
        }
    }
}

/// Clones, compiler-made constants, and variables that debug information does not know.
fn by_stem(
    orig: &Object,
    fix: &Object,
    arch: &'static dyn Arch,
    old_variables: &Variables,
    new_variables: &Variables,
    twins: &mut Twins,
) {
    let key = |_: AtomId, atom: &Atom| {
        let local = atom.scope == Scope::Local;
        (local && unnumbered(&atom.name) != atom.name).then(|| (group(atom), unnumbered(&atom.name)))
    };
    let known = |id: AtomId, original: bool, twins: &Twins| {
        if original { twins.has_original(id) } else { twins.of.contains_key(&id) || twins.ambiguous.contains_key(&id) }
    };
    let old = collect(orig, |id| known(id, true, twins), key);
    let new = collect(fix, |id| known(id, false, twins), key);
    for (key, fs) in new {
        let Some(os) = old.get(&key) else { continue };
        let alike = |o: AtomId, f: AtomId| {
            let (old, new) = (&orig.atoms[o.0], &fix.atoms[f.0]);
            old.kind == new.kind && old.size == new.size && same_bytes(arch, old, new)
        };
        match key.0 {
            Group::Function => {
                // Same name first when it is the same code, then the same code, then what is left one to one, then the name.
                for f in &fs {
                    let same = |o: &&AtomId| alike(**o, *f) && !twins.has_original(**o);
                    let named = os.iter().filter(same).find(|o| orig.atoms[o.0].name == fix.atoms[f.0].name);
                    if let Some(o) = named.or_else(|| os.iter().find(same)).copied() {
                        twins.pair(o, *f);
                    }
                }
                let left_o: Vec<_> = os.iter().filter(|o| !twins.has_original(**o)).copied().collect();
                let left_f: Vec<_> = fs.iter().filter(|f| !twins.of.contains_key(f)).copied().collect();
                if let ([o], [f]) = (left_o.as_slice(), left_f.as_slice()) {
                    twins.pair(*o, *f);
                }
                for f in left_f {
                    let o = left_o.iter().find(|o| orig.atoms[o.0].name == fix.atoms[f.0].name);
                    if let Some(o) = o {
                        twins.pair(*o, f);
                    }
                }
            }
            // Constants without a declaration (`CSWTCH.1`, `__func__.0`) are their content: see `equal`.
            Group::Constant if fs.iter().all(|f| is_local_constant(&fix.atoms[f.0])) => {}
            _ => {
                // A variable that debug information knows has been looked for by its function already: it is a new one.
                let unknown = |ids: &[AtomId], variables: &Variables| {
                    ids.iter().copied().filter(|id| variables.of(*id).is_none()).collect::<Vec<_>>()
                };
                match (unknown(os, old_variables).as_slice(), unknown(&fs, new_variables).as_slice()) {
                    (_, []) => {}
                    ([o], [f]) if os.len() == 1 && fs.len() == 1 => twins.pair(*o, *f),
                    (_, unknown) => {
                        for f in unknown {
                            let name = &fix.atoms[f.0].name;
                            let refusal =
                                ambiguous(name, "debug information does not say which function it belongs to");
                            twins.ambiguous.insert(*f, refusal);
                        }
                    }
                }
            }
        }
    }
}
