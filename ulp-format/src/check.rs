// SPDX-License-Identifier: GPL-2.0-or-later
//! The rules of a package, the same for writing and for reading: what is written can be read, and what was read can be
//! relied on. Each rule answers with a sentence that names what breaks it.

use crate::elf::{is_reserved, names_frames};
use crate::{
    FORMAT, Function, Manifest, Package, Reference, Section, SectionKind, Source, Symbol, SymbolKind, Target, hex,
};
use std::collections::{HashMap, HashSet};
use ulp_arch::{Arch, Formula, Letter, SlotKind};

/// Bounds on what one package may hold. They are far above any patch and keep a hostile file from costing memory.
pub(crate) mod limits {
    /// Bytes of manifest text.
    pub(crate) const MANIFEST: u64 = 64 << 20;
    /// Loaded sections: with their relocations they stay below the number where ELF needs extended indices.
    pub(crate) const SECTIONS: usize = 16_384;
    /// Bytes of all loaded sections together: they are held in memory, written and measured as a whole.
    pub(crate) const MEMORY: u64 = 48 << 20;
    /// Symbols.
    pub(crate) const SYMBOLS: usize = 1 << 20;
    /// Relocations of all sections together.
    pub(crate) const RELOCATIONS: usize = 1 << 24;
    /// Bytes of a name (C++ has long ones) or of a sentence.
    pub(crate) const TEXT: usize = 64 << 10;
    /// Bytes that an entry jump displaces: a few instructions.
    pub(crate) const DISPLACED: usize = 64;
    /// Characters of a patch's name.
    pub(crate) const NAME: usize = 128;
    /// Bytes of a build-id; the GNU linker makes 16 or 20 and accepts any.
    pub(crate) const BUILD_ID: usize = 64;
    /// Alignment of a section.
    pub(crate) const ALIGN: u64 = 4096;
}

type Checked = Result<(), String>;

/// Answers with the sentence unless the rule holds.
macro_rules! rule {
    ($holds:expr, $($sentence:tt)*) => {
        if !$holds {
            return Err(format!($($sentence)*));
        }
    };
}

/// Whether a patch can have this name: it appears in file names, in commands and in log lines.
pub fn is_patch_name(name: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._+:~-".contains(c);
    !name.is_empty() && name.len() <= limits::NAME && !name.starts_with('-') && name.chars().all(safe)
}

/// All rules.
pub(crate) fn package(package: &Package) -> Checked {
    let manifest = &package.manifest;
    let arch = head(manifest)?;
    let sections = sections(package)?;
    let symbols = symbols(package)?;
    let owners = owners(manifest, &sections, package)?;

    let mut names = HashSet::new();
    for (index, target) in manifest.targets.iter().enumerate() {
        self::target(target, arch)?;
        rule!(names.insert(&target.build_id), "two targets have the build-id {}", target.build_id);
        for function in &target.functions {
            let symbol = symbols.get(function.new_symbol.as_str()).map(|i| &package.symbols[*i]);
            let place = symbol.filter(|s| s.kind == SymbolKind::Function).and_then(|s| s.place);
            let place = place.ok_or_else(|| format!("{:?} is no function of the package", function.new_symbol))?;
            rule!(owners[place.section] == index, "{:?} belongs to another target", function.new_symbol);
        }
    }
    let sources = sources(manifest, &symbols, package)?;
    for (section, owner) in package.sections.iter().zip(&owners) {
        relocations(section, *owner, arch, package, &owners, &sources)?;
    }
    Ok(())
}

/// What the manifest says of the whole patch.
fn head(manifest: &Manifest) -> Result<&'static dyn Arch, String> {
    let m = manifest;
    rule!(m.format == FORMAT, "the manifest's format is {}, not {FORMAT}", m.format);
    rule!(is_patch_name(&m.name), "{:?} cannot be a patch's name", m.name);
    let arch = ulp_arch::by_name(&m.arch).ok_or_else(|| format!("no architecture is called {:?}", m.arch))?;
    prose("the description", &m.description)?;
    for (what, text) in [("the tool's name", &m.tool), ("the compiler's name", &m.compiler)] {
        line(what, text)?;
    }
    for cve in &m.cves {
        line("a cve", cve)?;
        rule!(!cve.is_empty(), "a cve is empty");
    }
    for accepted in &m.accepted {
        line("an accepted refusal", &accepted.code)?;
        accepted.symbol.iter().try_for_each(|symbol| line("an accepted symbol", symbol))?;
    }
    m.warnings.iter().try_for_each(|warning| prose("a warning", warning))?;
    for other in m.replaces.iter().chain(&m.requires) {
        rule!(is_patch_name(other) && *other != m.name, "{other:?} cannot be replaced or required");
    }
    rule!(!m.targets.is_empty(), "it has no target");
    let functions = m.targets.iter().flat_map(|target| &target.functions);
    let ungated = functions.filter(|function| function.gate.is_none()).count();
    rule!(!m.atomic || ungated <= 1, "it claims to switch several functions at once and has too few gates");
    Ok(arch)
}

/// Text of one line, which may be shown on a terminal as it is.
fn line(what: &str, text: &str) -> Checked {
    rule!(text.len() <= limits::TEXT, "{what} is too long");
    rule!(!text.chars().any(char::is_control), "{what} has control characters");
    Ok(())
}

/// Text of several lines.
fn prose(what: &str, text: &str) -> Checked {
    text.split(['\n', '\t']).try_for_each(|part| line(what, part))?;
    rule!(text.len() <= limits::TEXT, "{what} is too long");
    Ok(())
}

/// The name of a symbol, section or file.
fn identifier(what: &str, name: &str) -> Checked {
    rule!(!name.is_empty(), "{what} has no name");
    line(what, name)
}

/// Each section by itself; gives their indices by name.
fn sections(package: &Package) -> Result<HashMap<&str, usize>, String> {
    rule!(package.sections.len() <= limits::SECTIONS, "it has more than {} sections", limits::SECTIONS);
    let mut by_name = HashMap::new();
    let (mut memory, mut relocations) = (0u64, 0usize);
    for (index, section) in package.sections.iter().enumerate() {
        let name = &section.name;
        identifier("a section", name)?;
        rule!(name.starts_with('.') && !is_reserved(name), "no loaded section can be called {name}");
        rule!(by_name.insert(name.as_str(), index).is_none(), "two sections are called {name}");
        rule!(
            section.align.is_power_of_two() && section.align <= limits::ALIGN,
            "section {name} cannot have the alignment {}",
            section.align
        );
        rule!(
            names_frames(name) == (section.kind == SectionKind::Frames),
            "section {name} has another kind than its name says"
        );
        match section.kind {
            SectionKind::ZeroData => {
                rule!(section.data.is_empty(), "section {name} has bytes although it is zero");
                rule!(section.relocations.is_empty(), "section {name} has relocations although it is zero");
            }
            _ => rule!(section.data.len() as u64 == section.size, "section {name} has not the size of its bytes"),
        }
        memory = memory.saturating_add(section.size);
        relocations = relocations.saturating_add(section.relocations.len());
    }
    rule!(memory <= limits::MEMORY, "its sections are larger than {} bytes", limits::MEMORY);
    rule!(relocations <= limits::RELOCATIONS, "it has more than {} relocations", limits::RELOCATIONS);
    Ok(by_name)
}

/// Each symbol by itself; gives their indices by name.
fn symbols(package: &Package) -> Result<HashMap<&str, usize>, String> {
    rule!(package.symbols.len() < limits::SYMBOLS, "it has more than {} symbols", limits::SYMBOLS - 1);
    let mut by_name = HashMap::new();
    for (index, Symbol { name, place, kind }) in package.symbols.iter().enumerate() {
        identifier("a symbol", name)?;
        rule!(by_name.insert(name.as_str(), index).is_none(), "two symbols are called {name:?}");
        let Some(place) = place else { continue };
        let section = package.sections.get(place.section);
        let section = section.ok_or_else(|| format!("symbol {name:?} is in no section"))?;
        let end = place.offset.checked_add(place.size);
        rule!(end.is_some_and(|end| end <= section.size), "symbol {name:?} is not inside section {}", section.name);
        match kind {
            SymbolKind::Tls => return Err(format!("symbol {name:?} is a new thread-local variable")),
            SymbolKind::Function => {
                rule!(section.kind == SectionKind::Code, "function {name:?} is not in code");
                rule!(place.size > 0, "function {name:?} has no size");
            }
            SymbolKind::Untyped | SymbolKind::Object => {}
        }
    }
    Ok(by_name)
}

/// Which target each section belongs to: exactly one.
fn owners(manifest: &Manifest, sections: &HashMap<&str, usize>, package: &Package) -> Result<Vec<usize>, String> {
    let mut owners = vec![None; package.sections.len()];
    for (target_index, target) in manifest.targets.iter().enumerate() {
        let mut last = None;
        for name in &target.sections {
            let index = sections.get(name.as_str()).copied();
            let index = index.ok_or_else(|| format!("{} wants section {name:?}, which is not there", target.file))?;
            rule!(last < Some(index), "the sections of {} are not in the package's order", target.file);
            rule!(owners[index].replace(target_index).is_none(), "section {name} belongs to two targets");
            last = Some(index);
        }
    }
    let unowned = |(i, owner): (usize, Option<usize>)| {
        owner.ok_or_else(|| format!("section {} belongs to no target", package.sections[i].name))
    };
    owners.into_iter().enumerate().map(unowned).collect()
}

/// One target by itself.
fn target(target: &Target, arch: &dyn Arch) -> Checked {
    let file = &target.file;
    identifier("a target's file", file)?;
    rule!(!file.contains('/'), "{file:?} is a path, not a file name");
    let id = hex::decode(&target.build_id).filter(|id| (1..=limits::BUILD_ID).contains(&id.len()));
    rule!(id.is_some(), "{:?} is no build-id", target.build_id);
    rule!(!target.functions.is_empty(), "{file} has no function to replace");
    for function in &target.functions {
        self::function(function, arch)?;
    }
    for pair in target.functions.windows(2) {
        let end = pair[0].entry.0.saturating_add(pair[0].room);
        rule!(
            pair[0].entry < pair[1].entry && end <= pair[1].entry.0,
            "functions {:?} and {:?} are not sorted or reach into each other",
            pair[0].name,
            pair[1].name
        );
    }
    for Reference { symbol, source, .. } in &target.references {
        identifier("a reference", symbol)?;
        match source {
            Source::Slot { name, version, .. } | Source::Import { name, version, .. } => {
                identifier("an imported symbol", name)?;
                version.iter().try_for_each(|version| identifier("a symbol version", version))?;
            }
            _ => {}
        }
        if let Source::Slot { slot, .. }
        | Source::TlsSlot { slot, .. }
        | Source::TlsPair { slot }
        | Source::TlsDescriptor { slot } = source
        {
            rule!(slot.0.is_multiple_of(8), "the slot of {symbol:?} is not aligned");
        }
    }
    let sorted = target.references.windows(2).all(|pair| pair[0].symbol < pair[1].symbol);
    rule!(sorted, "the references of {file} are not sorted by symbol, or one is there twice");
    Ok(())
}

/// One replaced function by itself.
fn function(function: &Function, arch: &dyn Arch) -> Checked {
    let name = &function.name;
    identifier("a function", name)?;
    function.source.iter().try_for_each(|source| line("a source file", source))?;
    if let Some(gate) = &function.gate {
        let displaced = hex::decode(&gate.displaced).filter(|bytes| (1..=limits::DISPLACED).contains(&bytes.len()));
        let displaced = displaced.ok_or_else(|| {
            format!("the displaced bytes of {name:?} are not 1 to {} bytes of hex", limits::DISPLACED)
        })?;
        let pad = usize::from(function.landing);
        let same = hex::decode(&function.old_bytes)
            .is_some_and(|old| old.iter().skip(pad).zip(&displaced).all(|(old, displaced)| old == displaced));
        rule!(same, "the displaced bytes of {name:?} are not those at its entry");
    }
    let first = function.ranges.first();
    let starts = first.is_some_and(|range| range.start == function.entry);
    rule!(starts, "the old code of {name:?} does not begin at its entry");
    for range in &function.ranges {
        identifier("an old range", &range.name)?;
        let end = range.start.0.checked_add(range.size);
        rule!(range.size > 0 && end.is_some(), "the old range {:?} of {name:?} is empty or wraps", range.name);
        let digest = hex::decode(&range.sha256).filter(|digest| digest.len() == crate::digest::LEN);
        rule!(digest.is_some(), "the digest of the old range {:?} is no sha-256", range.name);
    }
    let old = hex::decode(&function.old_bytes).ok_or_else(|| format!("the old bytes of {name:?} are not hex"))?;
    let landing = usize::from(function.landing);
    rule!(landing == arch.landing_pad_len(&old), "the landing pad of {name:?} is not {landing} bytes");
    let jump = landing + arch.entry_jump_len();
    rule!(old.len() == jump, "the old bytes of {name:?} are not the {jump} that an entry jump needs");
    rule!(function.room >= jump as u64, "function {name:?} has no room for an entry jump");
    rule!(function.entry.0.checked_add(function.room).is_some(), "the room of {name:?} wraps");
    Ok(())
}

/// The target and the source of each undefined symbol, by its index.
type Sources<'a> = HashMap<usize, (usize, &'a Source)>;

/// Undefined symbols and references are one and the same.
fn sources<'a>(
    manifest: &'a Manifest,
    symbols: &HashMap<&str, usize>,
    package: &Package,
) -> Result<Sources<'a>, String> {
    let mut sources = Sources::new();
    for (owner, target) in manifest.targets.iter().enumerate() {
        for Reference { symbol, source, .. } in &target.references {
            let found = symbols.get(symbol.as_str()).filter(|i| package.symbols[**i].place.is_none());
            let index = *found.ok_or_else(|| format!("reference {symbol:?} is no undefined symbol"))?;
            let twice = sources.insert(index, (owner, source));
            rule!(twice.is_none(), "reference {symbol:?} belongs to two targets");
            let tls = source.is_thread_local();
            let typed = package.symbols[index].kind == SymbolKind::Tls;
            rule!(tls == typed, "reference {symbol:?} is thread-local as a symbol or as a source, not as both");
        }
    }
    for (index, symbol) in package.symbols.iter().enumerate() {
        rule!(
            symbol.place.is_some() || sources.contains_key(&index),
            "nothing says where {:?} comes from",
            symbol.name
        );
    }
    Ok(sources)
}

/// The relocations of one section: known, inside it, and naming only what its own target has.
fn relocations(
    section: &Section,
    owner: usize,
    arch: &dyn Arch,
    package: &Package,
    owners: &[usize],
    sources: &Sources<'_>,
) -> Checked {
    let mut last = 0;
    for relocation in &section.relocations {
        let at = || format!("the relocation at {}+{:#x}", section.name, relocation.offset);
        rule!(relocation.offset >= last, "{} is not sorted by offset", at());
        last = relocation.offset;
        let row = arch.relocation(relocation.r_type).filter(|row| row.formula != Formula::Unsupported);
        let row = row.ok_or_else(|| format!("{} has the type {}, which is not known", at(), relocation.r_type))?;
        let end = relocation.offset.checked_add(row.field.size() as u64);
        rule!(end.is_some_and(|end| end <= section.size), "{} is not inside its section", at());
        let symbol = package.symbols.get(relocation.symbol).ok_or_else(|| format!("{} names no symbol", at()))?;
        let (of, source) = match (symbol.place, sources.get(&relocation.symbol)) {
            (Some(place), _) => (owners[place.section], None),
            (None, Some((of, source))) => (*of, Some(*source)),
            (None, None) => return Err(format!("nothing says where {:?} comes from", symbol.name)),
        };
        rule!(of == owner, "{} names {:?} of another target", at(), symbol.name);
        let fits = match row.formula.letter() {
            Letter::ThreadOffset | Letter::Slot(SlotKind::ThreadOffset) => {
                matches!(source, Some(Source::TlsLocalExec { .. } | Source::TlsSlot { .. }))
            }
            Letter::Slot(SlotKind::ThreadIndex | SlotKind::ThreadModule) => {
                matches!(source, Some(Source::TlsPair { .. }))
            }
            Letter::Slot(SlotKind::ThreadDescriptor) => matches!(source, Some(Source::TlsDescriptor { .. })),
            Letter::ModuleOffset => matches!(source, Some(Source::TlsOffset { .. })),
            Letter::None => true,
            // What the table is there for: the page from which slots are counted.
            _ if matches!(source, Some(Source::OwnTable)) => row.formula == Formula::PagePcRelative,
            Letter::Symbol | Letter::Branch | Letter::Size | Letter::Slot(SlotKind::Address) => {
                symbol.kind != SymbolKind::Tls
            }
        };
        rule!(fits, "{} does not fit what {:?} is: {}", at(), symbol.name, row.name);
    }
    Ok(())
}
