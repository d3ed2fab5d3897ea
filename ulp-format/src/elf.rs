// SPDX-License-Identifier: GPL-2.0-or-later
//! How the parts of a package are spelled in ELF: the one table that `write` and `read` share, so that they cannot disagree.

use crate::{SectionKind, SymbolKind};
use object::elf;

pub(crate) const MANIFEST: &str = ".ulp.manifest";
pub(crate) const DIGEST: &str = ".ulp.digest";

/// Section type and flags of each kind. Frames have a constant's type and flags: they are known by their name.
const SECTIONS: [(SectionKind, elf::SectionType, elf::SectionFlags); 5] = [
    (SectionKind::Code, elf::SHT_PROGBITS, flags(elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0)),
    (SectionKind::ReadOnly, elf::SHT_PROGBITS, elf::SHF_ALLOC),
    (SectionKind::Frames, elf::SHT_PROGBITS, elf::SHF_ALLOC),
    (SectionKind::Data, elf::SHT_PROGBITS, flags(elf::SHF_ALLOC.0 | elf::SHF_WRITE.0)),
    (SectionKind::ZeroData, elf::SHT_NOBITS, flags(elf::SHF_ALLOC.0 | elf::SHF_WRITE.0)),
];

const SYMBOLS: [(SymbolKind, elf::SymbolType); 4] = [
    (SymbolKind::Untyped, elf::STT_NOTYPE),
    (SymbolKind::Function, elf::STT_FUNC),
    (SymbolKind::Object, elf::STT_OBJECT),
    (SymbolKind::Tls, elf::STT_TLS),
];

const fn flags(bits: u64) -> elf::SectionFlags {
    elf::SectionFlags(bits)
}

/// Whether a section of this name holds call frame information: one per target, so later ones have a suffix.
pub(crate) fn names_frames(name: &str) -> bool {
    name == ".eh_frame" || name.starts_with(".eh_frame.")
}

/// Names that the package's own tables have, which no loaded section may take.
pub(crate) fn is_reserved(name: &str) -> bool {
    matches!(name, ".symtab" | ".strtab" | ".shstrtab") || name.starts_with(".rela") || name.starts_with(".ulp.")
}

pub(crate) fn section_spelling(kind: SectionKind) -> (elf::SectionType, elf::SectionFlags) {
    let (_, sh_type, sh_flags) = SECTIONS[kind as usize];
    (sh_type, sh_flags)
}

pub(crate) fn section_kind(name: &str, sh_type: elf::SectionType, sh_flags: elf::SectionFlags) -> Option<SectionKind> {
    let wanted = |kind| if names_frames(name) { kind == SectionKind::Frames } else { kind != SectionKind::Frames };
    SECTIONS.iter().find(|(kind, t, f)| wanted(*kind) && *t == sh_type && *f == sh_flags).map(|(kind, ..)| *kind)
}

pub(crate) fn symbol_spelling(kind: SymbolKind) -> elf::SymbolType {
    SYMBOLS[kind as usize].1
}

pub(crate) fn symbol_kind(st_type: elf::SymbolType) -> Option<SymbolKind> {
    SYMBOLS.iter().find(|(_, t)| *t == st_type).map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_stand_in_the_order_of_their_enums() {
        for (i, (kind, ..)) in SECTIONS.iter().enumerate() {
            assert_eq!(*kind as usize, i);
        }
        for (i, (kind, _)) in SYMBOLS.iter().enumerate() {
            assert_eq!(*kind as usize, i);
        }
    }
}
