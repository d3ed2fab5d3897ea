// SPDX-License-Identifier: GPL-2.0-or-later
//! How a program was compiled, as it says itself: the compiler's name in `.comment`, name and options in `DW_AT_producer`.
//! Used for one thing only: to say why production is not what was built here.

use gimli::{DwarfSections, EndianSlice, LittleEndian};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producer {
    /// `.comment`, one entry for each compiler that had a part in it.
    pub compilers: BTreeSet<String>,
    /// `DW_AT_producer` by the file name of the unit's source.
    pub units: BTreeMap<String, String>,
}

/// Reads an object, a program, or its debug file; what cannot be read is missing.
pub fn read(path: &Path) -> Producer {
    let Ok(bytes) = std::fs::read(path) else { return Producer::default() };
    let Ok(file) = object::File::parse(&*bytes) else { return Producer::default() };
    let comment = file.section_by_name(".comment").and_then(|s| s.uncompressed_data().ok()).unwrap_or_default();
    let entries = comment.split(|b| *b == 0).filter(|e| !e.is_empty());
    let compilers = entries.map(|e| String::from_utf8_lossy(e).into_owned()).collect();
    Producer { compilers, units: units(&file).unwrap_or_default() }
}

fn units(file: &object::File<'_>) -> Option<BTreeMap<String, String>> {
    let sections = DwarfSections::load(|id| -> Result<Cow<'_, [u8]>, gimli::Error> {
        let section = file.section_by_name(id.name());
        Ok(section.and_then(|s| Some(relocated(file, &s)?.into())).unwrap_or_default())
    });
    let sections = sections.ok()?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let mut found = BTreeMap::new();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next().ok()? {
        let unit = dwarf.unit(header).ok()?;
        let mut entries = unit.entries();
        let Some(root) = entries.next_dfs().ok()? else { continue };
        let text = |name| {
            let value = root.attr_value(name)?;
            Some(dwarf.attr_string(&unit, value).ok()?.to_string_lossy().into_owned())
        };
        if let (Some(name), Some(producer)) = (text(gimli::DW_AT_name), text(gimli::DW_AT_producer)) {
            let name = name.rsplit('/').next().unwrap_or(&name).to_owned();
            found.insert(name, producer);
        }
    }
    Some(found)
}

/// A debug section with its offsets into other debug sections filled in; a linked file has them already.
fn relocated(file: &object::File<'_>, section: &object::Section<'_, '_>) -> Option<Vec<u8>> {
    let mut bytes = section.uncompressed_data().ok()?.into_owned();
    if file.kind() == object::ObjectKind::Relocatable {
        for (at, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index).ok()?;
            let value = symbol.address().wrapping_add_signed(relocation.addend());
            let start = usize::try_from(at).ok()?;
            if relocation.size() == 32 {
                let low = u32::try_from(value & 0xffff_ffff).ok()?;
                bytes.get_mut(start..start + 4)?.copy_from_slice(&low.to_le_bytes());
            }
        }
    }
    Some(bytes)
}

/// Why the one may not be the other, for the unit with this source: another compiler, or other options.
pub fn difference(production: &Producer, ours: &Producer, source: &Path) -> Option<String> {
    let name = source.file_name()?.to_str()?;
    if let (Some(theirs), Some(our)) = (production.units.get(name), ours.units.get(name)) {
        let ((them, their_options), (us, our_options)) = (parts(theirs), parts(our));
        if them != us {
            return Some(format!("production was compiled by {them}, this build by {us}"));
        }
        let list = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| a.difference(b).copied().collect::<Vec<_>>().join(" ");
        let (only_there, only_here) = (list(&their_options, &our_options), list(&our_options, &their_options));
        return match (only_there.as_str(), only_here.as_str()) {
            ("", "") => None,
            (there, "") => Some(format!("production was compiled with {there}, this build without")),
            ("", here) => Some(format!("production was compiled without {here}")),
            (there, here) => Some(format!("production was compiled with {there}, this build with {here}")),
        };
    }
    let unknown = production.compilers.is_empty() || ours.compilers.is_empty();
    if unknown || !production.compilers.is_disjoint(&ours.compilers) {
        return None;
    }
    let list = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(", ");
    Some(format!("production was compiled by {}, this build by {}", list(&production.compilers), list(&ours.compilers)))
}

/// The compiler's name, and the options that can change code. Sections and debug information are of our own making.
fn parts(producer: &str) -> (String, BTreeSet<&str>) {
    let ours = |word: &str| {
        let sections = ["-ffunction-sections", "-fdata-sections", "-fmerge-constants"].contains(&word);
        sections || word.starts_with("-g") || word.starts_with("-frandom-seed")
    };
    let name: Vec<&str> = producer.split_whitespace().take_while(|w| !w.starts_with('-')).collect();
    let options = producer.split_whitespace().filter(|w| w.starts_with('-') && !ours(w)).collect();
    (name.join(" "), options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_differs() {
        let of = |comment: &str, producer: &str| Producer {
            compilers: [comment.to_owned()].into(),
            units: if producer.is_empty() { BTreeMap::new() } else { [("a.c".into(), producer.into())].into() },
        };
        let (c12, c13) = ("GCC: (Debian) 12.2.0", "GCC: (Debian) 13.1.0");
        let gnu = "GNU C17 12.2.0 -mtune=generic -O2 -g -ffunction-sections";
        let rows = [
            (of(c12, ""), of(c12, gnu), None),
            (
                of(c13, ""),
                of(c12, gnu),
                Some("production was compiled by GCC: (Debian) 13.1.0, this build by GCC: (Debian) 12.2.0"),
            ),
            (of(c12, "GNU C17 12.2.0 -mtune=generic -O2"), of(c12, gnu), None),
            (
                of(c12, "GNU C17 12.2.0 -mtune=generic -O1"),
                of(c12, gnu),
                Some("production was compiled with -O1, this build with -O2"),
            ),
            (
                of(c12, "GNU C17 12.2.0 -mtune=generic -O2 -fno-inline"),
                of(c12, gnu),
                Some("production was compiled with -fno-inline, this build without"),
            ),
            (of(c12, "GNU C17 12.2.0 -O2"), of(c12, gnu), Some("production was compiled without -mtune=generic")),
            (
                of(c12, "GNU C17 13.1.0 -O2"),
                of(c12, gnu),
                Some("production was compiled by GNU C17 13.1.0, this build by GNU C17 12.2.0"),
            ),
        ];
        for (production, ours, want) in rows {
            assert_eq!(difference(&production, &ours, Path::new("src/a.c")).as_deref(), want, "{production:?}");
        }
    }
}
