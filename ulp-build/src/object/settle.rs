// SPDX-License-Identifier: GPL-2.0-or-later
//! Distances between two labels that an assembler left to the linker, because linkers may shorten the code between them
//! (loongarch64: R_LARCH_ADD32 and R_LARCH_SUB32 at one place, and their like). An object is not shortened any more when it is
//! taken apart, so a distance within a section is a number, and one from the field's own section is what a PC-relative
//! relocation says: jump tables, exception tables and frame descriptions then look as on machines whose assemblers know them.
//! Such an assembler does not fill in branches within a function either; here they are, so that code can be followed.

use super::elf::{Elf, Place, Reloc, Symbol};
use object::elf;
use ulp_arch::{Arch, Field, Formula, Letter, RelocRow};

/// What becomes of two relocations.
enum Settled {
    /// The distance stands in the bytes.
    Number(i64),
    /// One relocation in their stead.
    Relative(Reloc),
}

/// Settles all pairs that can be; the others stay, and nobody understands them.
pub(super) fn settle(elf: &mut Elf<'_>, arch: &dyn Arch) {
    if !arch.relocations().iter().any(|row| row.formula == Formula::Difference) {
        return;
    }
    for index in 0..elf.sections.len() {
        let section = &elf.sections[index];
        if section.relocs.is_empty() || section.compressed.is_some() {
            continue;
        }
        let mut bytes = section.bytes.to_vec();
        let mut kept = Vec::with_capacity(section.relocs.len());
        let mut relocs = section.relocs.iter().copied().peekable();
        while let Some(plus) = relocs.next() {
            let pair = relocs.peek().filter(|minus| minus.offset == plus.offset).copied();
            let rows = pair.and_then(|minus| Some((arch.relocation(plus.r_type)?, arch.relocation(minus.r_type)?)));
            let settled = match (pair, rows) {
                (Some(minus), Some(rows)) if partners(rows) => of_pair(elf, arch, index, (plus, minus), rows),
                _ => None,
            };
            let written = match (&settled, rows, usize::try_from(plus.offset)) {
                (Some(Settled::Number(distance)), Some((row, _)), Ok(at)) => {
                    row.insert(&mut bytes, at, *distance).is_ok()
                }
                (Some(Settled::Relative(_)), ..) => true,
                _ => false,
            };
            match settled.filter(|_| written) {
                Some(settled) => {
                    relocs.next();
                    if let Settled::Relative(reloc) = settled {
                        kept.push(reloc);
                    }
                }
                None => {
                    fill_in(elf, arch, index, &plus, &mut bytes);
                    kept.push(plus);
                }
            }
        }
        let section = &mut elf.sections[index];
        section.bytes = bytes.into();
        section.relocs = kept;
    }
}

/// Fills in the field of a branch to a label of the same section; its relocation stays.
fn fill_in(elf: &Elf<'_>, arch: &dyn Arch, index: usize, reloc: &Reloc, bytes: &mut [u8]) {
    let Ok(at) = usize::try_from(reloc.offset) else { return };
    let row = arch.relocation_at(reloc.r_type, bytes, at).filter(|row| row.formula.letter() == Letter::Branch);
    let here = |symbol: &&Symbol| symbol.place == Place::Section(index) && symbol.bind == elf::STB_LOCAL;
    if let (Some(row), Some(label)) = (row, elf.symbols.get(reloc.symbol).filter(here)) {
        // What is out of its range is the linker's to complain of.
        let _ = row.insert(bytes, at, row.formula.value(label.value, reloc.addend, reloc.offset, 0));
    }
}

/// Whether the rows are the two halves of a distance: the same field, first added to and then taken off.
fn partners((plus, minus): (&RelocRow, &RelocRow)) -> bool {
    match (plus.field, minus.field) {
        (Field::Sum { bits, minus: false }, Field::Sum { bits: also, minus: true }) => bits == also,
        (Field::SumUleb128 { minus: false }, Field::SumUleb128 { minus: true }) => true,
        _ => false,
    }
}

fn of_pair(
    elf: &Elf<'_>,
    arch: &dyn Arch,
    index: usize,
    (plus, minus): (Reloc, Reloc),
    (row, _): (&RelocRow, &RelocRow),
) -> Option<Settled> {
    // Where a label is: its section, and its place there. What has a name for others may be another object's in the end.
    let place = |r: &Reloc| match elf.symbols.get(r.symbol).filter(|s| s.bind == elf::STB_LOCAL)? {
        Symbol { place: Place::Section(section), value, .. } => {
            Some((*section, i64::try_from(*value).ok()?.checked_add(r.addend)?))
        }
        _ => None,
    };
    let (base, from) = place(&minus)?;
    if let Some((section, to)) = place(&plus)
        && section == base
    {
        return Some(Settled::Number(to.wrapping_sub(from)));
    }
    let Field::Sum { bits, .. } = row.field else { return None };
    let relative = arch.data_relocation(Formula::PcRelative, bits / 8).filter(|_| bits % 8 == 0 && base == index)?;
    let at = usize::try_from(plus.offset).ok()?;
    let empty = elf.sections.get(index)?.bytes.get(at..at.checked_add(row.field.size())?)?.iter().all(|b| *b == 0);
    let behind = i64::try_from(plus.offset).ok()?.checked_sub(from)?;
    let addend = plus.addend.checked_add(behind)?;
    empty.then_some(Settled::Relative(Reloc { r_type: relative.r_type, addend, ..plus }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::elf::Section;
    use object::elf;

    const ADD32: u32 = 50;
    const SUB32: u32 = 55;
    const ADD_ULEB128: u32 = 107;
    const SUB_ULEB128: u32 = 108;
    const PCREL32: u32 = 99;

    fn section(bytes: &[u8], relocs: Vec<Reloc>) -> Section<'static> {
        Section {
            name: ".rodata".into(),
            kind: elf::SHT_PROGBITS,
            flags: elf::SHF_ALLOC.0,
            size: bytes.len() as u64,
            align: 4,
            entsize: 0,
            bytes: bytes.to_vec().into(),
            relocs,
            comdat: None,
            compressed: None,
        }
    }

    fn label(section: usize, value: u64) -> Symbol {
        Symbol {
            name: ".L".into(),
            place: Place::Section(section),
            value,
            size: 0,
            bind: elf::STB_LOCAL,
            kind: elf::STT_NOTYPE,
            hidden: false,
        }
    }

    fn loongarch64() -> &'static dyn Arch {
        ulp_arch::by_name("loongarch64").expect("known")
    }

    #[test]
    fn branches_within_a_section_are_filled_in() {
        const B16: u32 = 64;
        const B26: u32 = 66;
        let arch = loongarch64();
        let words = [0x6800_0184u32, 0x5000_0000, 0x5000_0000, 0x5000_0000]; // bltu $t0,$a0,0; b 0; b 0; b 0
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let global = Symbol { bind: elf::STB_GLOBAL, ..label(0, 12) };
        let symbols = vec![label(0, 12), label(0, 0), label(1, 4), global];
        let reloc = |offset, r_type, symbol| Reloc { offset, r_type, symbol, addend: 0 };
        let relocs = vec![reloc(0, B16, 0), reloc(4, B26, 1), reloc(8, B26, 2), reloc(12, B26, 3)];
        let sections = vec![section(&code, relocs.clone()), section(&[0; 16], vec![])];
        let mut elf = Elf { machine: arch.machine(), sections, symbols };
        settle(&mut elf, arch);
        assert_eq!(elf.sections[0].relocs, relocs);
        let targets: Vec<_> = arch.decode(&elf.sections[0].bytes).iter().map(|insn| insn.flow).collect();
        let jump = |at: usize, to: i64| ulp_arch::Flow::Jump { field: Some(at), target: Some(to) };
        assert_eq!(targets, [jump(0, 12), jump(4, 0), jump(8, 8), jump(12, 12)]);
    }

    #[test]
    fn distances_become_numbers_or_relative() {
        let reloc = |offset, r_type, symbol| Reloc { offset, r_type, symbol, addend: 0 };
        // Labels 0 and 1 in section 0, label 2 in section 1 (the table's), label 3 elsewhere; 4 is 1 with a name for others.
        let global = Symbol { bind: elf::STB_GLOBAL, ..label(0, 0x30) };
        let symbols = vec![label(0, 0x10), label(0, 0x30), label(1, 4), label(2, 8), global];
        let rows = [
            // A distance within the other section, in four bytes and in two of ULEB128.
            (ADD32, 1, SUB32, 0, vec![0, 0, 0, 0], vec![0x20, 0, 0, 0], vec![]),
            (ADD_ULEB128, 1, SUB_ULEB128, 0, vec![0x80, 0], vec![0xa0, 0], vec![]),
            // From the table: 8 - 4 bytes behind its start.
            (ADD32, 1, SUB32, 2, vec![0; 4], vec![0; 4], vec![Reloc { addend: 4, ..reloc(8, PCREL32, 1) }]),
            // Of a name for others: within a section nobody knows, and the linker does.
            (ADD32, 4, SUB32, 0, vec![0; 4], vec![0; 4], vec![reloc(8, ADD32, 4), reloc(8, SUB32, 0)]),
            (ADD32, 4, SUB32, 2, vec![0; 4], vec![0; 4], vec![Reloc { addend: 4, ..reloc(8, PCREL32, 4) }]),
            // Between two others, halves of different lengths, a number that is there before.
            (ADD32, 1, SUB32, 3, vec![0; 4], vec![0; 4], vec![reloc(8, ADD32, 1), reloc(8, SUB32, 3)]),
            (ADD_ULEB128, 1, SUB32, 0, vec![0; 4], vec![0; 4], vec![reloc(8, ADD_ULEB128, 1), reloc(8, SUB32, 0)]),
            (ADD32, 1, SUB32, 2, vec![1; 4], vec![1; 4], vec![reloc(8, ADD32, 1), reloc(8, SUB32, 2)]),
        ];
        let arch = loongarch64();
        for (plus, a, minus, b, before, after, left) in rows {
            let bytes = [vec![0; 8], before].concat();
            let table = section(&bytes, vec![reloc(8, plus, a), reloc(8, minus, b)]);
            let sections = vec![section(&[0; 64], vec![]), table, section(&[0; 16], vec![])];
            let mut elf = Elf { machine: arch.machine(), sections, symbols: symbols.clone() };
            settle(&mut elf, arch);
            let table = &elf.sections[1];
            assert_eq!((&table.bytes[8..], &table.relocs), (&after[..], &left), "{plus} {a} {minus} {b}");
        }
    }
}
