// SPDX-License-Identifier: GPL-2.0-or-later
//! Reads an object file: sections are cut into atoms, relocations become references, functions get their frames.

use super::elf::damaged;
use super::{AtomId, AtomKind, Elf, Object, Place, Target, frames, refs, split};
use crate::model::Refusal;
use object::elf;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

impl Object {
    /// Takes a relocatable object apart. A file that is no whole ELF object, or one of another machine, is refused; what is
    /// whole but not understood is noted in [`super::Atom::problem`].
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Self, Refusal> {
        let elf = Elf::read(path, bytes)?;
        Self::from_elf(path, &elf)
    }

    pub(crate) fn from_elf(path: &Path, elf: &Elf<'_>) -> Result<Self, Refusal> {
        let arch = ulp_arch::by_machine(elf.machine).ok_or_else(|| damaged(path, "the machine is not known"))?;
        let mut object = Self {
            path: path.to_owned(),
            machine: elf.machine,
            atoms: Vec::new(),
            imports: Vec::new(),
            aliases: Vec::new(),
            blocks: BTreeMap::new(),
            source: elf.symbols.iter().find(|s| s.kind == elf::STT_FILE).map(|s| s.name.clone()),
        };
        let cut = split::cut(elf, &refs::rough_points(elf), &mut object);
        refs::attach(elf, &cut, arch, &mut object).map_err(|e| damaged(path, e))?;
        refs::attach_resolved(elf, &cut, arch, &mut object);
        let (atoms, imports) = (&mut object.atoms, &mut object.imports);
        let resolve = |reloc: &super::Reloc| {
            let symbol = elf.symbols.get(reloc.symbol)?;
            let Place::Section(section) = symbol.place else {
                return Some((Target::Import(refs::import(symbol, imports)?), reloc.addend));
            };
            let point = reloc.addend.checked_add(i64::try_from(symbol.value).ok()?)?;
            cut.at(section, point).map(|(id, offset, _)| (Target::Atom(id), offset))
        };
        frames::attach(elf, resolve, |id, frame| {
            let atom = &mut atoms[id.0];
            if atom.kind != AtomKind::Function || atom.frame.is_some() {
                return Err(format!("{} has a frame entry too many", atom.name));
            }
            if frame.start > 0 && frame.start >= atom.size {
                return Err(format!("a frame entry begins behind {}", atom.name));
            }
            atom.frame = Some(frame);
            Ok(())
        })
        .map_err(|e| damaged(path, e))?;
        find_parents(&mut object);
        if !arch.apart_flags().is_empty() {
            object.blocks = blocks(elf, &object);
        }
        Ok(object)
    }
}

/// Several data in one section. The linker moves mergeable ones one by one, so no compiler reaches one through another.
fn blocks(elf: &Elf<'_>, object: &Object) -> BTreeMap<usize, Vec<AtomId>> {
    let mut blocks: BTreeMap<usize, Vec<AtomId>> = BTreeMap::new();
    for (index, atom) in object.atoms.iter().enumerate() {
        let data = matches!(atom.kind, AtomKind::ReadOnly | AtomKind::Data | AtomKind::ZeroData)
            || matches!(atom.kind, AtomKind::TlsData | AtomKind::TlsZero);
        if data && elf.sections.get(atom.section_index).is_some_and(|s| !s.has(elf::SHF_MERGE)) {
            blocks.entry(atom.section_index).or_default().push(AtomId(index));
        }
    }
    blocks.retain(|_, atoms| atoms.len() > 1);
    blocks.values_mut().for_each(|atoms| atoms.sort_by_key(|id| object.atoms.get(id.0).map(|a| a.offset)));
    blocks
}

/// The function that `name` was split from: `f` for `f.cold` and `f.part.0`, `f.isra.0` for `f.isra.0.cold`.
fn parent_name(name: &str) -> Option<&str> {
    let numbered = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if let Some((base, rest)) = name.rsplit_once(".cold")
        && rest.strip_prefix('.').map_or(rest.is_empty(), numbered)
    {
        return Some(base);
    }
    name.rsplit_once(".part.").filter(|(_, rest)| numbered(rest)).map(|(base, _)| base)
}

fn find_parents(object: &mut Object) {
    let functions: HashMap<String, AtomId> = (object.atoms.iter().enumerate())
        .filter(|(_, atom)| atom.kind == AtomKind::Function && !atom.anonymous)
        .map(|(i, atom)| (atom.name.clone(), AtomId(i)))
        .chain(object.aliases.iter().cloned())
        .collect();
    for i in 0..object.atoms.len() {
        let atom = &object.atoms[i];
        if atom.kind == AtomKind::Function {
            object.atoms[i].parent =
                parent_name(&atom.name).and_then(|p| functions.get(p)).copied().filter(|p| p.0 != i);
        }
    }
}
