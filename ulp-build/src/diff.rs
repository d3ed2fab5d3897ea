// SPDX-License-Identifier: GPL-2.0-or-later
//! Compares the two recompiled objects of a unit, atom by atom, and refuses what a running program cannot take on.
//! It sees one unit only: which production symbol is meant is settled later.

mod checks;
mod equal;
mod escapes;
mod report;
mod tables;
mod twins;

pub use checks::{leaves, may_throw};
pub use report::{DiffReport, Outcome, diff_inputs, diff_objects};

use crate::model::{Code, Language, Refusal, Unit};
use crate::object::{Atom, AtomId, AtomKind, Elf, Object};
use crate::types;
use equal::Comparison;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use twins::Twins;

/// What the fix changed in one unit. Where both files are identical neither is read, and everything here is empty.
#[derive(Clone, Debug, Default)]
pub struct UnitDiff {
    /// `None`: the unit is new.
    pub orig: Option<Arc<Object>>,
    /// `None`: the unit is gone.
    pub fix: Option<Arc<Object>>,
    /// Fixed atom to original atom.
    pub twins: BTreeMap<AtomId, AtomId>,
    /// A verdict for every atom of the fixed object.
    pub verdicts: BTreeMap<AtomId, Verdict>,
    /// Original atoms that have no twin.
    pub gone: Vec<AtomId>,
    pub refusals: Vec<Refusal>,
    pub warnings: Vec<String>,
    /// The fixed object reaches every datum by an address of its own: [`Object::blocks`] mean nothing there.
    pub apart: bool,
}

/// What became of an atom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// Functions, and read-only data that only changed functions use.
    Changed(Reason),
    New,
}

/// Why an atom counts as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Size,
    Bytes,
    /// Refers to something else than before.
    Reference,
    /// Refers to read-only data whose content changed.
    Data,
    /// Its `.cold` or `.part` child changed, appeared or went.
    Child,
}

/// One object file in memory.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub path: &'a Path,
    pub bytes: &'a [u8],
}

/// How a unit was compiled, as far as it matters to what can be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub language: Language,
    /// With `-fexceptions`, the default for C++.
    pub exceptions: bool,
}

/// Compares all units. The result does not depend on the number of threads: each unit's stands by itself, in order.
pub fn compare_units(units: &[Unit]) -> Vec<UnitDiff> {
    units.par_iter().map(compare_unit).collect()
}

fn compare_unit(unit: &Unit) -> UnitDiff {
    let read = |path: &Option<PathBuf>| match path {
        None => Ok(None),
        Some(path) => match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) => Err(crate::object::damaged(path, format!("it cannot be read ({e})"))),
        },
    };
    let (orig, fix) = match (read(&unit.orig), read(&unit.fix)) {
        (Ok(orig), Ok(fix)) => (orig, fix),
        (Err(refusal), _) | (_, Err(refusal)) => return UnitDiff { refusals: vec![refusal], ..UnitDiff::default() },
    };
    compare(
        input(unit.orig.as_deref(), orig.as_deref()),
        input(unit.fix.as_deref(), fix.as_deref()),
        Compiled { language: unit.language, exceptions: unit.exceptions },
    )
}

fn input<'a>(path: Option<&'a Path>, bytes: Option<&'a [u8]>) -> Option<Input<'a>> {
    Some(Input { path: path?, bytes: bytes? })
}

/// Compares two objects of one unit; `None`: the unit is new, or gone.
pub fn compare(orig: Option<Input<'_>>, fix: Option<Input<'_>>, compiled: Compiled) -> UnitDiff {
    compare_with(orig, fix, compiled, true)
}

fn compare_with(orig: Option<Input<'_>>, fix: Option<Input<'_>>, compiled: Compiled, types: bool) -> UnitDiff {
    if let (Some(orig), Some(fix)) = (orig, fix)
        && orig.bytes == fix.bytes
    {
        return UnitDiff::default();
    }
    let side = |input: Option<Input<'_>>| input.map(|input| Side::read(input, compiled.language, types)).transpose();
    match rayon::join(|| side(orig), || side(fix)) {
        (Ok(orig), Ok(fix)) => compare_sides(orig, fix, compiled),
        (Err(refusal), _) | (_, Err(refusal)) => UnitDiff { refusals: vec![refusal], ..UnitDiff::default() },
    }
}

/// One of the two objects, with what its debug information says.
struct Side {
    object: Object,
    debug: types::Debug,
}

impl Side {
    /// Without `types` an object need not have debug information.
    fn read(input: Input<'_>, language: Language, types: bool) -> Result<Self, Refusal> {
        let elf = Elf::read(input.path, input.bytes)?;
        let object = Object::from_elf(input.path, &elf)?;
        let debug = match language {
            Language::Assembly => types::Debug::default(),
            // Debug information of processors without relocation rows cannot be read yet.
            Language::C | Language::Cxx if types && supported(elf.machine) => types::read(&elf, &object)?,
            Language::C | Language::Cxx => types::Debug::default(),
        };
        Ok(Self { object, debug })
    }

    /// Stands for the missing side of a new or removed unit.
    fn empty(like: &Self) -> Self {
        let object = Object {
            path: like.object.path.clone(),
            machine: like.object.machine,
            atoms: Vec::new(),
            imports: Vec::new(),
            aliases: Vec::new(),
            blocks: BTreeMap::new(),
            source: None,
        };
        Self { object, debug: types::Debug::default() }
    }
}

fn compare_sides(orig: Option<Side>, fix: Option<Side>, compiled: Compiled) -> UnitDiff {
    let (is_new, is_gone) = (orig.is_none(), fix.is_none());
    let (orig, fix) = match (orig, fix) {
        (Some(orig), Some(fix)) => (orig, fix),
        (Some(orig), None) => {
            let fix = Side::empty(&orig);
            (orig, fix)
        }
        (None, Some(fix)) => (Side::empty(&fix), fix),
        (None, None) => return UnitDiff::default(),
    };
    let arch = match ulp_arch::by_machine(fix.object.machine) {
        Some(arch) if orig.object.machine == fix.object.machine => arch,
        _ => return UnitDiff { refusals: vec![other_machine(&orig.object, &fix.object)], ..UnitDiff::default() },
    };
    let twins = twins::find(&orig.object, &fix.object, arch, &orig.debug.variables, &fix.debug.variables);
    let mut comparison = Comparison::new(&orig.object, &fix.object, arch, &twins);
    let reasons = settle(&mut comparison, &twins);
    let mut pairs = twins.of.clone();
    let mut paired: BTreeSet<AtomId> = pairs.values().copied().collect();
    let mut by_content: HashMap<&[u8], Vec<AtomId>> = HashMap::new();
    for (i, atom) in orig.object.atoms.iter().enumerate() {
        if is_nameless_constant(atom) && !paired.contains(&AtomId(i)) {
            by_content.entry(&atom.bytes).or_default().push(AtomId(i));
        }
    }
    let mut verdicts = BTreeMap::new();
    for i in 0..fix.object.atoms.len() {
        let f = AtomId(i);
        let verdict = match (twins.of.get(&f), reasons.get(&f)) {
            (_, Some(reason)) => Verdict::Changed(*reason),
            (Some(_), None) => Verdict::Same,
            (None, None) => match same_constant(&mut comparison, &by_content, &paired, f) {
                Some(o) => {
                    if !fix.object.atoms[i].anonymous {
                        pairs.insert(f, o);
                        paired.insert(o);
                    }
                    Verdict::Same
                }
                None => Verdict::New,
            },
        };
        verdicts.insert(f, verdict);
    }
    let mut diff = UnitDiff { twins: pairs, verdicts, ..UnitDiff::default() };
    let named = |atom: &Atom| !atom.anonymous && atom.kind != AtomKind::Constructors;
    diff.gone = (0..orig.object.atoms.len())
        .map(AtomId)
        .filter(|o| !paired.contains(o) && named(&orig.object.atoms[o.0]))
        .collect();
    checks::run(&mut diff, &mut comparison, &twins, compiled);
    if !is_new && !is_gone && compiled.language != Language::Assembly {
        let copied = |id: AtomId| {
            let constant = fix.object.atoms.get(id.0).is_some_and(equal::is_local_constant);
            constant && matches!(diff.verdicts.get(&id), Some(Verdict::Changed(_)))
        };
        types::compare(&orig.debug, &fix.debug, copied, &diff.twins, &mut diff.refusals, &mut diff.warnings);
    }
    diff.refusals.sort();
    diff.refusals.dedup();
    diff.warnings.sort();
    diff.warnings.dedup();
    diff.orig = (!is_new).then(|| Arc::new(orig.object));
    diff.fix = (!is_gone).then(|| Arc::new(fix.object));
    diff
}

fn supported(machine: u16) -> bool {
    ulp_arch::by_machine(machine).is_some_and(|arch| arch.supported())
}

fn other_machine(orig: &Object, fix: &Object) -> Refusal {
    Refusal {
        code: Code::Arch,
        symbol: Some(fix.path.display().to_string()),
        message: format!("the original is for machine {}, the fixed object for {}", orig.machine, fix.machine),
        advice: "compile both trees with the same compiler".into(),
    }
}

/// Finds everything that changed. A change spreads: to the readers of changed constants, to whoever points into the middle of a
/// changed function, between a function and its children. So this is repeated until nothing new is found.
fn settle(comparison: &mut Comparison<'_>, twins: &Twins) -> BTreeMap<AtomId, Reason> {
    let (orig, fix) = (comparison.orig, comparison.fix);
    let mut reasons = BTreeMap::new();
    let mut lost_children: Vec<AtomId> = Vec::new();
    for (i, atom) in orig.atoms.iter().enumerate() {
        if let Some(parent) = atom.parent
            && !twins.has_original(AtomId(i))
        {
            lost_children.extend(twins.of.iter().filter(|(_, o)| **o == parent).map(|(f, _)| *f));
        }
    }
    for f in tables::touched(orig, fix, twins) {
        reasons.insert(f, Reason::Data);
        comparison.changed.insert(f);
    }
    loop {
        comparison.forget();
        let before = reasons.len();
        for (&f, &o) in &twins.of {
            let kind = fix.atoms[f.0].kind;
            if matches!(kind, AtomKind::Function | AtomKind::ReadOnly)
                && !reasons.contains_key(&f)
                && let Some(reason) = comparison.difference(o, f)
            {
                reasons.insert(f, reason);
                comparison.changed.insert(f);
            }
        }
        for (i, atom) in fix.atoms.iter().enumerate() {
            let Some(parent) = atom.parent else { continue };
            let child = AtomId(i);
            let new = |id: &AtomId| !twins.of.contains_key(id);
            if new(&child) || comparison.changed.contains(&child) {
                touch(comparison, twins, &mut reasons, parent);
            }
            // Cold code shares its function's frame and has no entry of its own: it is replaced along with it.
            if atom.name.contains(".cold") && (new(&parent) || comparison.changed.contains(&parent)) {
                touch(comparison, twins, &mut reasons, child);
            }
        }
        for parent in lost_children.drain(..) {
            touch(comparison, twins, &mut reasons, parent);
        }
        if reasons.len() == before {
            return reasons;
        }
    }
}

/// Counts a function as changed because of its parent or child.
fn touch(comparison: &mut Comparison<'_>, twins: &Twins, reasons: &mut BTreeMap<AtomId, Reason>, id: AtomId) {
    if twins.of.contains_key(&id) && !reasons.contains_key(&id) {
        reasons.insert(id, Reason::Child);
        comparison.changed.insert(id);
    }
}

/// The original constant of the same content, for a constant that has no name of its own or only the compiler's.
fn same_constant(
    comparison: &mut Comparison<'_>,
    by_content: &HashMap<&[u8], Vec<AtomId>>,
    taken: &BTreeSet<AtomId>,
    f: AtomId,
) -> Option<AtomId> {
    let (orig, fix) = (comparison.orig, comparison.fix);
    let new = &fix.atoms[f.0];
    if !is_nameless_constant(new) {
        return None;
    }
    let stem = twins::unnumbered(&new.name);
    let alike = |o: &AtomId| {
        let old = &orig.atoms[o.0];
        let named = new.anonymous || twins::unnumbered(&old.name) == stem && !taken.contains(o);
        old.kind == new.kind && old.anonymous == new.anonymous && named
    };
    let candidates = by_content.get(new.bytes.as_slice())?;
    candidates.iter().copied().filter(alike).find(|o| comparison.same_content(*o, f))
}

/// Whether its content is all that matters of it: no name, or one that may be the compiler's.
fn is_nameless_constant(atom: &Atom) -> bool {
    atom.anonymous && equal::is_constant(atom) || equal::is_local_constant(atom)
}
