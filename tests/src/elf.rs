// SPDX-License-Identifier: GPL-2.0-or-later
//! What the harness itself reads from ELF files. It uses none of the code under test.

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SegmentFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names of all symbols and sections of an object file.
pub fn names(path: &Path) -> Result<BTreeSet<String>> {
    let data = std::fs::read(path)?;
    let file = object::File::parse(&*data).with_context(|| path.display().to_string())?;
    let symbols = file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_string));
    let sections = file.sections().filter_map(|section| section.name().ok().map(str::to_string));
    // The linker merges relocation sections away from this list, so a table of code addresses is named by its owner.
    let tables = file.sections().filter(|section| section.relocations().next().is_some());
    let tables = tables.filter_map(|section| section.name().ok().map(|name| format!(".rela{name}")));
    Ok(symbols.chain(sections).chain(tables).collect())
}

/// Link addresses of the functions of an ELF file, by name. A name may stand for several static functions.
pub fn functions(path: &Path) -> Result<BTreeMap<String, Vec<u64>>> {
    let data = std::fs::read(path)?;
    let file = object::File::parse(&*data).with_context(|| path.display().to_string())?;
    let mut found = BTreeMap::<String, Vec<u64>>::new();
    for symbol in file.symbols().filter(|s| s.is_definition() && s.kind() == object::SymbolKind::Text) {
        if let Ok(name) = symbol.name() {
            found.entry(name.to_string()).or_default().push(symbol.address());
        }
    }
    Ok(found)
}

/// A function's bytes in an object file, relocations not applied.
pub fn code(path: &Path, name: &str) -> Result<Vec<u8>> {
    let data = std::fs::read(path)?;
    let file = object::File::parse(&*data).with_context(|| path.display().to_string())?;
    let symbol =
        file.symbols().find(|symbol| symbol.name() == Ok(name)).with_context(|| format!("no symbol {name}"))?;
    let section = file.section_by_index(symbol.section_index().context("a function is defined")?)?;
    let bytes = section.data_range(symbol.address(), symbol.size())?.context("a function lies in its section")?;
    Ok(bytes.to_vec())
}

/// Link address and file size of each executable segment.
pub fn executable_segments(data: &[u8]) -> Result<Vec<(u64, u64)>> {
    let file = object::File::parse(data)?;
    let executable = |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.0 & object::elf::PF_X.0 != 0);
    Ok(file.segments().filter(|s| executable(s.flags())).map(|s| (s.address(), s.file_range().1)).collect())
}

/// File offset and link address of the first loaded segment.
pub fn first_segment(data: &[u8]) -> Result<(u64, u64)> {
    let file = object::File::parse(data)?;
    let first = file.segments().min_by_key(|s| s.address()).context("the file has no segment")?;
    Ok((first.file_range().0, first.address()))
}

/// The GNU build-id in hex.
pub fn build_id(path: &Path) -> Result<String> {
    let data = std::fs::read(path)?;
    let file = object::File::parse(&*data)?;
    let id = file.build_id()?.context("the file has no build-id")?;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
}
