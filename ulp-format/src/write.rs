// SPDX-License-Identifier: GPL-2.0-or-later
//! A package becomes a file. The layout is fixed by the package alone (order of sections and symbols, no time, no
//! paths), so that the same package is the same bytes on every machine.

use crate::elf::{DIGEST, MANIFEST, section_spelling, symbol_spelling};
use crate::{Package, SectionKind, WriteError, check, digest};
use object::Endianness;
use object::elf;
use object::write::StringId;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, Writer};

/// Where a section's bytes and relocations were given room.
struct Room<'a> {
    name: StringId,
    index: SectionIndex,
    offset: u64,
    rela: Option<(StringId, u64)>,
    section: &'a crate::Section,
}

impl Package {
    /// The file. Every rule that [`Package::read`] checks is checked here too, so that what is written can be read.
    pub fn write(&self) -> Result<Vec<u8>, WriteError> {
        check::package(self).map_err(WriteError)?;
        let failed = |e: object::write::Error| WriteError(e.to_string());
        let arch = ulp_arch::by_name(&self.manifest.arch).expect("checked above");
        let mut manifest = serde_json::to_vec_pretty(&self.manifest).map_err(|e| WriteError(e.to_string()))?;
        manifest.push(b'\n');

        let rela_names: Vec<String> = self.sections.iter().map(|s| format!(".rela{}", s.name)).collect();
        let mut file = Vec::new();
        let mut out = Writer::new(Endianness::Little, true, &mut file);

        // First everything gets its room, in file order: loaded sections, relocations, symbols, strings, our own sections, headers.
        out.reserve_file_header();
        let mut rooms = Vec::new();
        for (section, rela_name) in self.sections.iter().zip(&rela_names) {
            let name = out.add_section_name(section.name.as_bytes());
            let index = out.reserve_section_index();
            let offset = match section.kind {
                SectionKind::ZeroData => out.reserve(0, 1),
                _ => out.reserve(section.data.len() as u64, section.align),
            };
            let rela = (!section.relocations.is_empty()).then(|| (out.add_section_name(rela_name.as_bytes()), 0));
            rooms.push(Room { name, index, offset, rela, section });
        }
        for room in &mut rooms {
            if let Some((_, offset)) = &mut room.rela {
                out.reserve_section_index();
                *offset = out.reserve_relocations(room.section.relocations.len(), true);
            }
        }
        out.reserve_null_symbol_index();
        let names: Vec<StringId> = self.symbols.iter().map(|symbol| out.add_string(symbol.name.as_bytes())).collect();
        for symbol in &self.symbols {
            out.reserve_symbol_index(symbol.place.and_then(|p| rooms.get(p.section)).map(|room| room.index));
        }
        let symtab = out.reserve_symtab_section_index();
        out.reserve_symtab();
        out.reserve_strtab_section_index();
        out.reserve_strtab().map_err(failed)?;
        let own = [(MANIFEST, manifest.as_slice()), (DIGEST, &[0; digest::LEN])].map(|(name, bytes)| {
            out.reserve_section_index();
            (out.add_section_name(name.as_bytes()), out.reserve(bytes.len() as u64, 1), bytes)
        });
        out.reserve_shstrtab_section_index();
        out.reserve_shstrtab().map_err(failed)?;
        out.reserve_section_headers();

        // Then everything is written, in the same order.
        out.write_file_header(&FileHeader {
            e_type: elf::ET_REL,
            e_machine: elf::Machine(arch.machine()),
            e_flags: elf::FileFlags(arch.elf_flags()),
            ..FileHeader::default()
        })
        .map_err(failed)?;
        for room in &rooms {
            out.pad_until(room.offset);
            out.write(&room.section.data);
        }
        for room in &rooms {
            let Some((_, offset)) = room.rela else { continue };
            out.pad_until(offset);
            for relocation in &room.section.relocations {
                out.write_relocation(
                    true,
                    &Rel {
                        r_offset: relocation.offset,
                        r_sym: relocation.symbol as u32 + 1, // the null symbol comes first; checked to be small
                        r_type: elf::RelocationType(relocation.r_type),
                        r_addend: relocation.addend,
                    },
                );
            }
        }
        out.write_null_symbol();
        for (symbol, name) in self.symbols.iter().zip(names) {
            let section = symbol.place.and_then(|p| rooms.get(p.section)).map(|room| room.index.0);
            let st_name = out.string_offset(Some(name));
            out.write_symbol(&Sym {
                section,
                st_name,
                st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, symbol_spelling(symbol.kind)),
                st_other: elf::SymbolOther(0),
                st_shndx: elf::SHN_UNDEF,
                st_value: symbol.place.map_or(0, |p| p.offset),
                st_size: symbol.place.map_or(0, |p| p.size),
            });
        }
        out.write_strtab();
        for (_, _, bytes) in &own {
            out.write(bytes);
        }
        out.write_shstrtab();

        out.write_null_section_header();
        for room in &rooms {
            let (sh_type, sh_flags) = section_spelling(room.section.kind);
            let sh_name = out.section_name_offset(Some(room.name));
            out.write_section_header(&SectionHeader {
                sh_name,
                sh_type,
                sh_flags,
                sh_offset: room.offset,
                sh_size: room.section.size,
                sh_addralign: room.section.align,
                ..SectionHeader::default()
            });
        }
        for room in &rooms {
            let Some((name, offset)) = room.rela else { continue };
            out.write_relocation_section_header(name, room.index, symtab, offset, room.section.relocations.len(), true);
        }
        out.write_symtab_section_header(1);
        out.write_strtab_section_header();
        for (name, sh_offset, bytes) in &own {
            let sh_name = out.section_name_offset(Some(*name));
            out.write_section_header(&SectionHeader {
                sh_name,
                sh_type: elf::SHT_PROGBITS,
                sh_offset: *sh_offset,
                sh_size: bytes.len() as u64,
                sh_addralign: 1,
                ..SectionHeader::default()
            });
        }
        out.write_shstrtab_section_header();

        let start = own[1].1 as usize;
        let place = start..start + digest::LEN;
        let value = digest::compute(&file, place.clone()).expect("the digest was given room inside the file");
        file[place].copy_from_slice(&value);
        Ok(file)
    }
}
