// SPDX-License-Identifier: GPL-2.0-or-later
//! An object as a link has it that shortened its code: bytes are gone, everything behind has moved up, and relocations have become
//! others. From there on the linker has only moved sections and filled in fields, as linkers do on every machine.

use super::elf::{Elf, Place};
use object::elf;
use ulp_arch::{Arch, CodeReloc, LinkAddr, Shortened};

/// Says of a section, by its name, the sizes of all sections of this name, and which of them it is, where the link put it and
/// what stands there.
pub(crate) type Placed<'l> = dyn Fn(&str, &[u64], usize) -> Option<(LinkAddr, &'l [u8])> + 'l;

/// Whether a linker may have shortened code of the object.
pub(crate) fn may_be(elf: &Elf<'_>, arch: &dyn Arch) -> bool {
    let marked =
        |s: &super::Section<'_>| s.has(elf::SHF_EXECINSTR) && s.relocs.iter().any(|r| arch.allows_relaxation(r.r_type));
    elf.sections.iter().any(marked)
}

/// Shortens the object's code as the link did. A section that cannot be followed stays as it is, so that its size or its
/// bytes are not those of the link.
pub(super) fn apply(elf: &mut Elf<'_>, arch: &dyn Arch, placed: &Placed<'_>) {
    let mut done: Vec<Option<Shortened>> = Vec::with_capacity(elf.sections.len());
    for (index, section) in elf.sections.iter().enumerate() {
        let code = section.has(elf::SHF_ALLOC) && section.has(elf::SHF_EXECINSTR);
        if !code || !section.relocs.iter().any(|r| arch.allows_relaxation(r.r_type)) {
            done.push(None);
            continue;
        }
        let same = |(_, s): &(usize, &super::Section<'_>)| s.name == section.name;
        let namesakes: Vec<_> = elf.sections.iter().enumerate().filter(same).collect();
        let sizes: Vec<u64> = namesakes.iter().map(|(_, s)| s.size).collect();
        let nth = namesakes.iter().position(|(i, _)| *i == index);
        let relocs: Option<Vec<CodeReloc>> = section.relocs.iter().map(code_reloc).collect();
        let there = nth.and_then(|nth| placed(&section.name, &sizes, nth)).zip(relocs);
        done.push(there.and_then(|((at, linked), relocs)| arch.relaxed(&section.bytes, &relocs, linked, at)));
    }
    for (section, shortened) in elf.sections.iter_mut().zip(&done) {
        let Some(shortened) = shortened else { continue };
        let mut relocs = Vec::with_capacity(section.relocs.len());
        for (reloc, r_type) in section.relocs.iter().zip(&shortened.types) {
            if let Some(r_type) = *r_type {
                relocs.push(super::Reloc { offset: shortened.moved(reloc.offset), r_type, ..*reloc });
            }
        }
        section.relocs = relocs;
        section.size = shortened.code.len() as u64;
        section.bytes = shortened.code.clone().into();
    }
    for symbol in &mut elf.symbols {
        let Place::Section(section) = symbol.place else { continue };
        let Some(Some(shortened)) = done.get(section) else { continue };
        let end = shortened.moved(symbol.value.saturating_add(symbol.size));
        symbol.value = shortened.moved(symbol.value);
        symbol.size = end.saturating_sub(symbol.value);
    }
}

fn code_reloc(r: &super::Reloc) -> Option<CodeReloc> {
    let offset = usize::try_from(r.offset).ok()?;
    Some(CodeReloc { offset, r_type: r.r_type, symbol: r.symbol, addend: r.addend })
}
