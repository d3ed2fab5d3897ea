// SPDX-License-Identifier: GPL-2.0-or-later
//! A file becomes a package, or an error. Nothing is believed before the digest holds; afterwards the bytes are still those of
//! a stranger (the digest is no signature), so every number is checked, and what this reader does not know is refused.

use crate::elf::{DIGEST, MANIFEST, section_kind, symbol_kind};
use crate::{
    FORMAT, Manifest, Package, Place, ReadError, Relocation, Section, SectionKind, Symbol, check, check::limits, digest,
};
use object::elf::{self, FileHeader64, SectionHeader64};
use object::read::elf::{FileHeader as _, SectionHeader as _, SectionTable, Sym as _};
use object::{LittleEndian, SectionIndex};
use std::collections::HashMap;

const LE: LittleEndian = LittleEndian;
type Sections<'a> = SectionTable<'a, FileHeader64<LittleEndian>>;
type Header = SectionHeader64<LittleEndian>;

/// The one part of a manifest that every version has.
#[derive(serde::Deserialize)]
struct Version {
    format: u32,
}

impl Package {
    /// The package in a file's bytes.
    pub fn read(file: &[u8]) -> Result<Self, ReadError> {
        digest::verify(file)?;
        let header = FileHeader64::<LittleEndian>::parse(file).map_err(from_elf)?;
        let sections = header.sections(LE, file).map_err(from_elf)?;

        // The version first: a newer format may have anything elsewhere, and is not damaged because of it.
        let manifest = manifest(file, &sections)?;
        let arch = ulp_arch::by_name(&manifest.arch)
            .ok_or_else(|| damaged(format!("no architecture is called {:?}", manifest.arch)))?;
        if header.e_type(LE) != elf::ET_REL || header.e_phnum(LE) != 0 {
            return Err(damaged("it is not a relocatable file"));
        }
        if header.e_machine(LE) != elf::Machine(arch.machine()) {
            return Err(damaged(format!("its elf header is not of the manifest's architecture {}", arch.name())));
        }

        let (loaded, mut package) = load(file, &sections, manifest)?;
        let symtab = symbols(file, &sections, &loaded, &mut package)?;
        relocations(file, &sections, &loaded, symtab, &mut package)?;
        check::package(&package).map_err(ReadError::Damaged)?;
        Ok(package)
    }
}

fn damaged(what: impl Into<String>) -> ReadError {
    ReadError::Damaged(what.into())
}

fn from_elf(error: object::Error) -> ReadError {
    damaged(error.to_string().to_lowercase())
}

fn name<'a>(sections: &Sections<'a>, header: &Header) -> Result<&'a str, ReadError> {
    let bytes = sections.section_name(LE, header).map_err(from_elf)?;
    std::str::from_utf8(bytes).map_err(|_| damaged("a section's name is not utf-8"))
}

fn manifest(file: &[u8], sections: &Sections<'_>) -> Result<Manifest, ReadError> {
    let (_, header) = sections
        .section_by_name(LE, MANIFEST.as_bytes())
        .ok_or_else(|| ReadError::NotAPackage("it has no .ulp.manifest".into()))?;
    if header.sh_size(LE) > limits::MANIFEST {
        return Err(damaged("its manifest is too large"));
    }
    let text = header.data(LE, file).map_err(from_elf)?;
    let unreadable = |e: serde_json::Error| damaged(format!("its manifest cannot be read: {e}"));
    let Version { format } = serde_json::from_slice(text).map_err(unreadable)?;
    if format > FORMAT {
        return Err(ReadError::Newer { found: format });
    }
    serde_json::from_slice(text).map_err(unreadable)
}

/// The loaded sections, and which index each has in the package; any section that is neither loaded nor one of the
/// package's own tables is refused.
fn load(
    file: &[u8],
    sections: &Sections<'_>,
    manifest: Manifest,
) -> Result<(HashMap<SectionIndex, usize>, Package), ReadError> {
    let mut loaded = HashMap::new();
    let mut package = Package { manifest, sections: Vec::new(), symbols: Vec::new() };
    let mut own = [(MANIFEST, 0), (DIGEST, 0), (".strtab", 0), (".shstrtab", 0), (".symtab", 0)];
    let mut total = 0u64;
    for (index, header) in sections.enumerate().skip(1) {
        let name = name(sections, header)?;
        if let Some((_, seen)) = own.iter_mut().find(|(own, _)| *own == name) {
            *seen += 1;
            continue;
        }
        if header.sh_type(LE) == elf::SHT_RELA {
            continue; // read once every symbol is known
        }
        let kind = section_kind(name, header.sh_type(LE), header.sh_flags(LE))
            .ok_or_else(|| damaged(format!("section {name} is of no kind that a package has")))?;
        let size = header.sh_size(LE);
        total = total.saturating_add(size);
        if total > limits::MEMORY || package.sections.len() == limits::SECTIONS {
            return Err(damaged("its sections are too many or too large"));
        }
        let data = match kind {
            SectionKind::ZeroData => Vec::new(),
            _ => header.data(LE, file).map_err(from_elf)?.to_vec(),
        };
        loaded.insert(index, package.sections.len());
        let align = header.sh_addralign(LE);
        package.sections.push(Section { name: name.into(), kind, align, data, size, relocations: Vec::new() });
    }
    match own.iter().find(|(_, seen)| *seen != 1) {
        Some((name, seen)) => Err(damaged(format!("it has {seen} sections called {name}"))),
        None => Ok((loaded, package)),
    }
}

/// Reads the symbols into the package, and says which section they were in.
fn symbols(
    file: &[u8],
    sections: &Sections<'_>,
    loaded: &HashMap<SectionIndex, usize>,
    package: &mut Package,
) -> Result<SectionIndex, ReadError> {
    let table = sections.symbols(LE, file, elf::SHT_SYMTAB).map_err(from_elf)?;
    if table.len() > limits::SYMBOLS {
        return Err(damaged("it has too many symbols"));
    }
    for (_, symbol) in table.enumerate().skip(1) {
        let name = table.symbol_name(LE, symbol).map_err(from_elf)?;
        let name = std::str::from_utf8(name).map_err(|_| damaged("a symbol's name is not utf-8"))?;
        let wrong = |what: &str| damaged(format!("symbol {name:?} {what}"));
        let kind = symbol_kind(symbol.st_type()).ok_or_else(|| wrong("is of no kind that a package has"))?;
        if symbol.st_bind() != elf::STB_GLOBAL || symbol.st_other().0 != 0 {
            return Err(wrong("is not global and visible"));
        }
        let (offset, size) = (symbol.st_value(LE), symbol.st_size(LE));
        let place = if symbol.st_shndx(LE) == elf::SHN_UNDEF {
            if (offset, size) != (0, 0) {
                return Err(wrong("is undefined and has a place"));
            }
            None
        } else {
            let index = symbol.st_shndx(LE).index().map(|i| SectionIndex(i.into()));
            let section = index.and_then(|i| loaded.get(&i)).ok_or_else(|| wrong("is in no loaded section"))?;
            Some(Place { section: *section, offset, size })
        };
        package.symbols.push(Symbol { name: name.into(), place, kind });
    }
    Ok(table.section())
}

/// Reads each relocation table into the section that it is for.
fn relocations(
    file: &[u8],
    sections: &Sections<'_>,
    loaded: &HashMap<SectionIndex, usize>,
    symtab: SectionIndex,
    package: &mut Package,
) -> Result<(), ReadError> {
    let mut total = 0;
    for header in sections.iter() {
        let Some((rows, link)) = header.rela(LE, file).map_err(from_elf)? else { continue };
        let name = name(sections, header)?;
        let wrong = |what: &str| damaged(format!("relocation section {name} {what}"));
        let target = loaded.get(&SectionIndex(header.sh_info(LE) as usize));
        let section = target.and_then(|i| package.sections.get_mut(*i)).ok_or_else(|| wrong("is for no section"))?;
        total += rows.len();
        if link != symtab || name.strip_prefix(".rela") != Some(&section.name) || total > limits::RELOCATIONS {
            return Err(wrong("is not as a package has it"));
        }
        if !section.relocations.is_empty() {
            return Err(wrong("is there twice"));
        }
        for row in rows {
            let symbol = (row.r_sym(LE, false) as usize).checked_sub(1);
            section.relocations.push(Relocation {
                offset: row.r_offset.get(LE),
                r_type: row.r_type(LE, false).0,
                symbol: symbol.ok_or_else(|| wrong("names no symbol"))?,
                addend: row.r_addend.get(LE),
            });
        }
    }
    Ok(())
}
