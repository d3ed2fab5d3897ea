// SPDX-License-Identifier: GPL-2.0-or-later
//! A relocatable ELF file, checked and with every relocation attached to the section it changes. The `object` crate does the
//! reading; its low-level layer, because the friendlier one passes over damaged relocation sections without a word.

use super::settle::settle;
use super::shorten::{self, Placed};
use crate::model::{Code, Refusal};
use object::elf::{self, FileHeader64};
use object::read::elf::{CompressionHeader as _, FileHeader, Rela as _, SectionHeader, Sym as _};
use object::{Endianness, SectionIndex, SymbolIndex};
use std::path::Path;
use ulp_arch::Arch;

type Header = FileHeader64<Endianness>;

/// The file: sections and symbols by index, index 0 included.
pub(crate) struct Elf<'a> {
    pub machine: u16,
    pub sections: Vec<Section<'a>>,
    pub symbols: Vec<Symbol>,
}

pub(crate) struct Section<'a> {
    pub name: String,
    pub kind: elf::SectionType,
    pub flags: u64,
    pub size: u64,
    pub align: u64,
    pub entsize: u64,
    /// Empty for sections without bytes in the file.
    pub bytes: std::borrow::Cow<'a, [u8]>,
    /// In the order of their offsets.
    pub relocs: Vec<Reloc>,
    pub comdat: Option<String>,
    /// How the bytes are compressed, behind a header, and how many they are without.
    pub compressed: Option<(elf::CompressionType, u64)>,
}

impl Section<'_> {
    pub fn has(&self, flag: elf::SectionFlags) -> bool {
        self.flags & flag.0 != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reloc {
    pub offset: u64,
    pub r_type: u32,
    pub symbol: usize,
    pub addend: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Undefined,
    Absolute,
    Common,
    Section(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Symbol {
    pub name: String,
    pub place: Place,
    pub value: u64,
    pub size: u64,
    pub bind: elf::SymbolBind,
    pub kind: elf::SymbolType,
    pub hidden: bool,
}

/// A file that is not a whole ELF object.
pub(crate) fn damaged(path: &Path, what: impl std::fmt::Display) -> Refusal {
    Refusal {
        code: Code::BadElf,
        symbol: Some(path.display().to_string()),
        message: format!("{} is no intact ELF object: {what}", path.display()),
        advice: "compile the unit again; the file may be truncated or damaged".into(),
    }
}

impl<'a> Elf<'a> {
    /// The object as the compiler made it.
    pub fn read(path: &Path, bytes: &'a [u8]) -> Result<Self, Refusal> {
        Self::read_then(path, bytes, |_, _| ())
    }

    /// The object as a link has it that may have shortened its code.
    pub fn read_linked(path: &Path, bytes: &'a [u8], placed: &Placed<'_>) -> Result<Self, Refusal> {
        Self::read_then(path, bytes, |elf, arch| shorten::apply(elf, arch, placed))
    }

    fn read_then(path: &Path, bytes: &'a [u8], change: impl FnOnce(&mut Self, &dyn Arch)) -> Result<Self, Refusal> {
        check_ident(path, bytes)?;
        let mut elf = parse(bytes).map_err(|e| damaged(path, e))?;
        if let Some(arch) = ulp_arch::by_machine(elf.machine) {
            change(&mut elf, arch);
            settle(&mut elf, arch);
        }
        Ok(elf)
    }
}

/// Class, byte order and machine first: a healthy file of another machine is not a damaged one.
fn check_ident(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let ident = bytes.get(..64).filter(|b| b.starts_with(&elf::ELFMAG));
    let ident = ident.ok_or_else(|| damaged(path, "there is no whole ELF header"))?;
    let machine = u16::from_le_bytes([ident[18], ident[19]]);
    let known = ulp_arch::by_machine(machine);
    if ident[4] != elf::ELFCLASS64.0 || ident[5] != elf::ELFDATA2LSB.0 || known.is_none() {
        return Err(Refusal {
            code: Code::Arch,
            symbol: Some(path.display().to_string()),
            message: format!(
                "{} is for another machine (ELF class {}, byte order {}, machine {machine})",
                path.display(),
                ident[4],
                ident[5]
            ),
            advice: "objects of 64-bit little-endian x86_64, aarch64 and loongarch64 are understood".into(),
        });
    }
    Ok(())
}

type Why = String;

fn why(e: object::read::Error) -> Why {
    e.to_string().to_lowercase()
}

fn text(bytes: &[u8]) -> Result<String, Why> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a name is not UTF-8".into())
}

fn parse(bytes: &[u8]) -> Result<Elf<'_>, Why> {
    let header = Header::parse(bytes).map_err(why)?;
    let endian = header.endian().map_err(why)?;
    if header.e_type(endian) != elf::ET_REL {
        return Err("it is not a relocatable object".into());
    }
    let table = header.sections(endian, bytes).map_err(why)?;
    let mut sections = Vec::with_capacity(table.len());
    for (index, section) in table.enumerate() {
        let data = section.data(endian, bytes).map_err(why)?;
        let size = section.sh_size(endian);
        let compressed = section.compression(endian, bytes).map_err(why)?;
        if section.sh_flags(endian).contains(elf::SHF_COMPRESSED) && section.sh_flags(endian).contains(elf::SHF_ALLOC) {
            return Err(format!("section {} is loaded and compressed", index.0));
        }
        if !section.sh_addralign(endian).max(1).is_power_of_two() {
            return Err(format!("section {} has an alignment that is no power of two", index.0));
        }
        sections.push(Section {
            name: text(table.section_name(endian, section).map_err(why)?)?,
            kind: section.sh_type(endian),
            flags: section.sh_flags(endian).0,
            size,
            align: section.sh_addralign(endian).max(1),
            entsize: section.sh_entsize(endian),
            bytes: data.into(),
            relocs: Vec::new(),
            comdat: None,
            compressed: compressed.map(|(header, ..)| (header.ch_type(endian), header.ch_size(endian))),
        });
    }
    let symbols = read_symbols(endian, bytes, &table, &sections)?;
    for section in table.iter() {
        attach_relocations(endian, bytes, section, &mut sections, symbols.len())?;
        attach_group(endian, bytes, section, &mut sections, &symbols)?;
    }
    for section in &mut sections {
        section.relocs.sort_by_key(|r| r.offset);
    }
    Ok(Elf { machine: header.e_machine(endian).0, sections, symbols })
}

fn read_symbols(
    endian: Endianness,
    bytes: &[u8],
    table: &object::read::elf::SectionTable<'_, Header>,
    sections: &[Section<'_>],
) -> Result<Vec<Symbol>, Why> {
    let symtab = table.symbols(endian, bytes, elf::SHT_SYMTAB).map_err(why)?;
    let declared = table.section(symtab.section()).map(|s| s.sh_size(endian)).unwrap_or(0);
    if declared != symtab.len() as u64 * size_of::<elf::Sym64<Endianness>>() as u64 {
        return Err("the symbol table is cut short".into());
    }
    let mut symbols = Vec::with_capacity(symtab.len());
    for (index, sym) in symtab.symbols().iter().enumerate() {
        let place = match symtab.symbol_section(endian, sym, SymbolIndex(index)).map_err(why)? {
            Some(SectionIndex(index)) => {
                // Symbols count in the unpacked bytes.
                let section = sections.get(index).ok_or("a symbol names a section that is not there")?;
                let section_size = section.compressed.map_or(section.size, |(_, size)| size);
                let end = sym.st_value(endian).checked_add(sym.st_size(endian));
                if end.is_none_or(|end| end > section_size) {
                    return Err(format!("symbol {index} reaches beyond its section"));
                }
                Place::Section(index)
            }
            None if sym.is_undefined(endian) => Place::Undefined,
            None if sym.is_common(endian) => Place::Common,
            None if sym.is_absolute(endian) => Place::Absolute,
            None => return Err(format!("symbol {index} has an unknown section number")),
        };
        symbols.push(Symbol {
            name: text(symtab.symbol_name(endian, sym).map_err(why)?)?,
            place,
            value: sym.st_value(endian),
            size: sym.st_size(endian),
            bind: sym.st_bind(),
            kind: sym.st_type(),
            hidden: matches!(sym.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL),
        });
    }
    Ok(symbols)
}

fn attach_relocations(
    endian: Endianness,
    bytes: &[u8],
    section: &elf::SectionHeader64<Endianness>,
    sections: &mut [Section<'_>],
    symbols: usize,
) -> Result<(), Why> {
    let kind = section.sh_type(endian);
    if !matches!(kind, elf::SHT_RELA | elf::SHT_REL | elf::SHT_RELR | elf::SHT_CREL) {
        return Ok(());
    }
    let target = sections.get_mut(section.info_link(endian).0).ok_or("a relocation section names no section")?;
    let Some((relas, _)) = section.rela(endian, bytes).map_err(why)? else {
        return Err(format!("section {} has relocations without addends", target.name));
    };
    if section.sh_size(endian) != size_of_val(relas) as u64 {
        return Err(format!("the relocations of {} are cut short", target.name));
    }
    // Relocations count in the unpacked bytes.
    let size = target.compressed.map_or(target.size, |(_, size)| size);
    for rela in relas {
        let reloc = Reloc {
            offset: rela.r_offset(endian),
            r_type: rela.r_type(endian, false).0,
            symbol: rela.r_sym(endian, false) as usize,
            addend: rela.r_addend(endian),
        };
        if reloc.symbol >= symbols || reloc.offset > size {
            return Err(format!("a relocation of {} leads nowhere", target.name));
        }
        target.relocs.push(reloc);
    }
    Ok(())
}

fn attach_group(
    endian: Endianness,
    bytes: &[u8],
    section: &elf::SectionHeader64<Endianness>,
    sections: &mut [Section<'_>],
    symbols: &[Symbol],
) -> Result<(), Why> {
    let Some((flags, members)) = section.group(endian, bytes).map_err(why)? else { return Ok(()) };
    if !flags.contains(elf::GRP_COMDAT) {
        return Ok(());
    }
    let signature = symbols.get(section.sh_info(endian) as usize).ok_or("a group has no signature")?;
    let name = match (signature.name.as_str(), signature.place) {
        ("", Place::Section(i)) => sections.get(i).ok_or("a group has no signature")?.name.clone(),
        (name, _) => name.to_owned(),
    };
    for member in members {
        let member =
            sections.get_mut(member.get(endian) as usize).ok_or("a group names a section that is not there")?;
        member.comdat = Some(name.clone());
    }
    Ok(())
}
