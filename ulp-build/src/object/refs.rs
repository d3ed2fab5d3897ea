// SPDX-License-Identifier: GPL-2.0-or-later
//! Turns relocations into references from atom to atom. The addend of a PC-relative field counts from the field, the processor
//! from the end of the instruction, and an offset in a jump table from the table: all of that is taken out, so that
//! [`Ref::target_offset`] is the byte that is meant.

use super::elf::{Elf, Place, Reloc, Symbol};
use super::split::Cut;
use super::{Atom, AtomId, AtomKind, Import, Object, Ref, Target};
use object::elf;
use std::collections::{BTreeSet, HashMap};
use ulp_arch::{Arch, Flow, Formula, Insn};

/// Roughly which places relocations refer to, by section: enough to tell padding from data.
pub(super) fn rough_points(elf: &Elf<'_>) -> Vec<BTreeSet<u64>> {
    let mut points = vec![BTreeSet::new(); elf.sections.len()];
    for section in elf.sections.iter().filter(|s| s.has(elf::SHF_ALLOC)) {
        for reloc in &section.relocs {
            let symbol = &elf.symbols[reloc.symbol];
            if let Place::Section(target) = symbol.place {
                let point = (symbol.value as i64).wrapping_add(reloc.addend);
                // A biased reference to a symbol's start means the symbol, not what stands around it.
                if symbol.kind != elf::STT_SECTION
                    && section.has(elf::SHF_EXECINSTR)
                    && (-8..=0).contains(&reloc.addend)
                {
                    points[target].insert(symbol.value);
                    continue;
                }
                // A field of an instruction may be biased by 4 (PC-relative) up to 8 (and an immediate operand behind it).
                let bias: &[i64] = if section.has(elf::SHF_EXECINSTR) { &[0, 4, 5, 6, 8] } else { &[0] };
                points[target].extend(bias.iter().filter_map(|b| u64::try_from(point.wrapping_add(*b)).ok()));
            }
        }
    }
    points
}

fn counts_from_place(formula: Formula) -> bool {
    use Formula::*;
    matches!(formula, PcRelative | PltPcRelative | GotPcRelative | TpSlotPcRelative | ThreadSlotPcRelative(_))
}

/// The instructions of the function that was looked at last. Functions are decoded from their start, because only there is an
/// instruction's boundary known.
#[derive(Default)]
struct Instructions {
    of: Option<AtomId>,
    insns: Vec<Insn>,
}

impl Instructions {
    /// The instruction that holds the whole field.
    fn at(&mut self, arch: &dyn Arch, id: AtomId, code: &[u8], field: std::ops::Range<u64>) -> Option<&Insn> {
        if self.of != Some(id) {
            self.of = Some(id);
            self.insns = arch.decode(code);
        }
        let insn = Insn::containing(&self.insns, usize::try_from(field.start).ok()?)?;
        (field.end <= insn.end as u64).then_some(insn)
    }
}

/// Fills in the references of every atom.
pub(super) fn attach(elf: &Elf<'_>, cut: &Cut, arch: &'static dyn Arch, object: &mut Object) -> Result<(), String> {
    let mut imports = HashMap::new();
    let mut code = Instructions::default();
    // Bases of tables, as exact as instructions tell: the starts that jump tables count from.
    let mut bases: Vec<BTreeSet<i64>> = vec![BTreeSet::new(); elf.sections.len()];
    let code_first = |s: &usize| !elf.sections[*s].has(elf::SHF_EXECINSTR);
    let mut order: Vec<usize> = (0..elf.sections.len()).collect();
    order.sort_by_key(code_first);
    for index in order {
        let section = &elf.sections[index];
        let mut spans = cut.spans[index].iter().peekable();
        for reloc in &section.relocs {
            while spans.next_if(|(_, end, _)| *end <= reloc.offset).is_some() {}
            let Some(&&(start, end, id)) = spans.peek() else { continue };
            if reloc.offset < start {
                continue; // in a section or stretch of no interest: the cut made an atom of every stretch with a relocation
            }
            let atom = &object.atoms[id.0];
            let base = bases[index].range(..=reloc.offset as i64).next_back().copied();
            let (found, problem) =
                one(elf, cut, arch, &mut code, id, atom, reloc, end - start, base, &mut object.imports, &mut imports);
            if let Some(found) = found {
                if let (AtomKind::Function, Target::Atom(target)) = (atom.kind, found.target) {
                    let target = &object.atoms[target.0];
                    if let Some(points) = bases.get_mut(target.section_index) {
                        points.insert((target.offset as i64).saturating_add(found.target_offset));
                    }
                }
                object.atoms[id.0].refs.push(found);
            }
            if let Some(problem) = problem {
                object.atoms[id.0].problem.get_or_insert(problem);
            }
        }
    }
    Ok(())
}

/// Finds what the assembler resolved by itself: where several functions share a section, one reaches another by a plain
/// distance, which means nothing in a copy of the function that stands elsewhere.
pub(super) fn attach_resolved(elf: &Elf<'_>, cut: &Cut, arch: &'static dyn Arch, object: &mut Object) {
    for (index, section) in elf.sections.iter().enumerate() {
        if !section.has(elf::SHF_EXECINSTR) || cut.spans[index].len() < 2 {
            continue;
        }
        for &(start, end, id) in &cut.spans[index] {
            let (mut found, mut problem) = (Vec::new(), None);
            let atom = &object.atoms[id.0];
            for (field, insn, distance, branch) in fields(arch, &atom.bytes) {
                let known = |r: &Ref| r.offset == field as u64;
                if (0..(end - start) as i64).contains(&distance) || atom.refs.iter().any(known) {
                    continue;
                }
                let target = cut.at(index, (start as i64).saturating_add(distance)).filter(|(.., inside)| *inside);
                match (target, arch.assembled_in(&atom.bytes, &insn, field)) {
                    (Some((target, target_offset, _)), Some(r_type)) => found.push(Ref {
                        offset: field as u64,
                        r_type,
                        target: Target::Atom(target),
                        target_offset,
                        adjust: field as i64 - arch.counts_from(&insn) as i64,
                        branch,
                        resolved: true,
                    }),
                    _ => {
                        let why = format!("a short jump at {field:#x} of {} leads out of it", atom.name);
                        problem.get_or_insert(why);
                    }
                }
            }
            let atom = &mut object.atoms[id.0];
            if !found.is_empty() {
                atom.refs.append(&mut found);
                atom.refs.sort_by_key(|r| r.offset);
            }
            if let Some(problem) = problem {
                atom.problem.get_or_insert(problem);
            }
        }
    }
}

/// Fields of instructions that hold a distance: where they are, of which instruction, where they lead from the start of
/// the code, and whether that is a branch.
fn fields(arch: &dyn Arch, code: &[u8]) -> Vec<(usize, Insn, i64, bool)> {
    let mut all = Vec::new();
    for insn in arch.decode(code) {
        match insn.flow {
            Flow::Call { field: Some(field), target: Some(target) }
            | Flow::Jump { field: Some(field), target: Some(target) } => all.push((field, insn, target, true)),
            _ => {
                if let Some(operand) = arch.detail(code, insn.start).and_then(|d| d.pc_relative) {
                    all.push((insn.start + operand.at, insn, operand.target, false));
                }
            }
        }
    }
    all
}

/// The import that an undefined symbol is; `None` for what is no such symbol.
pub(super) fn import(symbol: &Symbol, list: &mut Vec<Import>) -> Option<usize> {
    if symbol.place != Place::Undefined || symbol.name.is_empty() {
        return None;
    }
    let known = list.iter().position(|i| i.name == symbol.name);
    Some(known.unwrap_or_else(|| {
        list.push(Import {
            name: symbol.name.clone(),
            weak: symbol.bind == elf::STB_WEAK,
            hidden: symbol.hidden,
            tls: symbol.kind == elf::STT_TLS,
        });
        list.len() - 1
    }))
}

#[allow(clippy::too_many_arguments)] // one relocation and what it is read against
fn one(
    elf: &Elf<'_>,
    cut: &Cut,
    arch: &'static dyn Arch,
    code: &mut Instructions,
    id: AtomId,
    atom: &Atom,
    reloc: &Reloc,
    size: u64,
    base: Option<i64>,
    list: &mut Vec<Import>,
    imports: &mut HashMap<usize, usize>,
) -> (Option<Ref>, Option<String>) {
    let offset = reloc.offset - atom.offset;
    let row = match arch.relocation(reloc.r_type) {
        Some(row) => Some(row),
        // No patch is made for such a processor yet: its objects are compared, for which type, symbol and addend will do.
        None if !arch.supported() => None,
        None => return (None, Some(format!("relocation type {} is not known", reloc.r_type))),
    };
    let formula = row.map_or(Formula::Absolute, |row| row.formula);
    if formula == Formula::Nothing {
        return (None, None);
    }
    // Pairs that mean something have been settled.
    let mut problem =
        (formula == Formula::Difference).then(|| format!("{} holds a distance of an unknown kind", atom.name));
    let field_end = offset + row.map_or(0, |row| row.field.size()) as u64;
    if let Some(row) = row.filter(|_| field_end > size) {
        problem = Some(format!("{} at {offset:#x} reaches beyond {}", row.name, atom.name));
    }
    let mut branch = false;
    let adjust = if !counts_from_place(formula) {
        0
    } else if atom.kind == AtomKind::Function {
        match code.at(arch, id, &atom.bytes, offset..field_end) {
            Some(insn) => {
                let calls = matches!(formula, Formula::PcRelative | Formula::PltPcRelative);
                branch = calls && insn.branch_field().is_some_and(|field| field as u64 == offset);
                offset as i64 - arch.counts_from(insn) as i64
            }
            None => {
                problem = Some(format!("the instruction at {offset:#x} of {} is not understood", atom.name));
                0
            }
        }
    } else if formula == Formula::PcRelative && atom.kind == AtomKind::ReadOnly {
        base.filter(|b| *b >= atom.offset as i64).map_or(0, |b| reloc.offset as i64 - b)
    } else {
        0
    };
    let symbol = &elf.symbols[reloc.symbol];
    let meant = reloc.addend.wrapping_sub(adjust);
    let (target, target_offset) = match symbol.place {
        Place::Undefined | Place::Absolute => {
            if row.is_some() && (symbol.name.is_empty() || symbol.place == Place::Absolute) {
                problem = Some(format!("{} refers to an absolute address", atom.name));
            }
            let next = list.len();
            let index = *imports.entry(reloc.symbol).or_insert(next);
            if index == next {
                list.push(Import {
                    name: symbol.name.clone(),
                    weak: symbol.bind == elf::STB_WEAK,
                    hidden: symbol.hidden,
                    tls: symbol.kind == elf::STT_TLS,
                });
            }
            (Target::Import(index), meant)
        }
        Place::Common | Place::Section(_) => match cut.of_symbol[reloc.symbol] {
            Some((id, inner)) => (Target::Atom(id), meant.wrapping_add(inner as i64)),
            None => {
                let Place::Section(section) = symbol.place else {
                    return (None, Some("a common symbol is lost".into()));
                };
                let Some((id, at, inside)) = cut.at(section, meant.wrapping_add(symbol.value as i64)) else {
                    let name = &elf.sections[section].name;
                    return (
                        None,
                        Some(format!("{} refers to {name}, which holds nothing that can be named", atom.name)),
                    );
                };
                if !inside {
                    let name = &elf.sections[section].name;
                    problem = Some(format!("{} refers to a point of {name} outside any symbol", atom.name));
                }
                (Target::Atom(id), at)
            }
        },
    };
    (Some(Ref { offset, r_type: reloc.r_type, target, target_offset, adjust, branch, resolved: false }), problem)
}
