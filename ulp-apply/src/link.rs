// SPDX-License-Identifier: GPL-2.0-or-later
//! A target's sections become three runs of bytes: constants (read), code (read, execute), data (read, write). First
//! [`Layout`] decides what goes where relative to a base and which addresses must be known; then, with a base and those
//! addresses, [`Layout::link`] relocates. Pure: whatever is wrong is found here, before the process has been touched.

use crate::error::{Error, Result};
use crate::memory;
use std::collections::{BTreeMap, BTreeSet};
use ulp_arch::{Arch, Formula, Letter, LoadBias, Range, RelocRow, RemoteAddr, SeenFrom, SlotKind};
use ulp_format::{Function, Package, Place, Reference, Section, SectionKind, Source, SymbolKind, Target};

/// A patch larger than this in memory is no patch: what is read back from a process at once has the same bound.
const LARGEST: u64 = memory::LARGEST;
const WORD: u64 = 8;

/// The three runs, in the order in which they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Run {
    /// Registry, constants, call frame information.
    Constants,
    /// Code and linkage table entries.
    Code,
    /// Data and own slots.
    Data,
}

impl Run {
    pub const ALL: [Self; 3] = [Self::Constants, Self::Code, Self::Data];

    fn of(kind: SectionKind) -> Self {
        match kind {
            SectionKind::ReadOnly | SectionKind::Frames => Self::Constants,
            SectionKind::Code => Self::Code,
            SectionKind::Data | SectionKind::ZeroData => Self::Data,
        }
    }
}

/// What an own slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    /// The symbol's address.
    Address,
    /// The variable's distance from the thread pointer.
    ThreadOffset,
}

/// What must be found out about a reference before linking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'p> {
    /// Index of the symbol in the package.
    pub symbol: usize,
    pub source: &'p Source,
    pub what: Wanted,
}

/// Kinds of demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The symbol's address in the process.
    Address,
    /// The word in the target's thread-local slot.
    ThreadSlotWord,
}

/// What was found out: by symbol index.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub addresses: BTreeMap<usize, RemoteAddr>,
    pub thread_words: BTreeMap<usize, i64>,
}

/// Where everything of one target goes, relative to a base address.
#[derive(Debug)]
pub struct Layout<'p> {
    arch: &'static dyn Arch,
    package: &'p Package,
    references: BTreeMap<&'p str, &'p Source>,
    /// Start and length of each run: multiples of the page size.
    runs: [(u64, u64); 3],
    /// Sections of this target: index in the package to offset from the base.
    places: BTreeMap<usize, u64>,
    linkage: BTreeMap<usize, u64>,
    slots: BTreeMap<(usize, Slot), u64>,
    /// Where the slots begin: the table that code counts from which finds them by their distance from its page.
    table: u64,
    wanted: BTreeSet<(usize, Wanted)>,
    /// Hops, by the section whose first function they lead to: right in front of it.
    hops: BTreeMap<usize, u64>,
    /// Where the room for gates begins.
    gates: u64,
}

/// The bytes of a patch at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub base: RemoteAddr,
    /// One per [`Run`]; its start, and as many bytes as the run is long. An empty run has none.
    pub runs: [(RemoteAddr, Vec<u8>); 3],
    /// Where each symbol defined in this target's sections is.
    pub symbols: BTreeMap<usize, RemoteAddr>,
}

impl Image {
    pub fn run(&self, run: Run) -> &(RemoteAddr, Vec<u8>) {
        &self.runs[run as usize]
    }

    /// Puts constants at their place.
    pub fn put_constants(&mut self, at: RemoteAddr, bytes: &[u8]) -> Result<()> {
        put(&mut self.runs[Run::Constants as usize], at, bytes)
    }

    /// Puts code at its place.
    pub fn put_code(&mut self, at: RemoteAddr, bytes: &[u8]) -> Result<()> {
        put(&mut self.runs[Run::Code as usize], at, bytes)
    }
}

fn put(run: &mut (RemoteAddr, Vec<u8>), at: RemoteAddr, bytes: &[u8]) -> Result<()> {
    let place = at.0.checked_sub(run.0.0).and_then(|o| usize::try_from(o).ok());
    let place = place.and_then(|start| run.1.get_mut(start..start.checked_add(bytes.len())?));
    place.ok_or_else(|| unlinkable("the patch does not fit its own layout".into()))?.copy_from_slice(bytes);
    Ok(())
}

fn unlinkable(message: String) -> Error {
    Error::refused(message, "the package asks for something ulp-apply cannot do safely; rebuild it with this release")
}

/// Sections of which the first function replaces one whose landing pad has an effect: an entry jump behind it leads to a hop.
fn layout_hops(arch: &dyn Arch, package: &Package, target: &Target) -> BTreeMap<usize, u64> {
    let acts = |f: &&Function| ulp_format::hex::decode(&f.old_bytes).is_some_and(|old| arch.pad_acts(&old));
    let acting = target.functions.iter().filter(acts);
    acting.filter_map(|f| Some((package.symbol(&f.new_symbol)?.1.place?.section, 0))).collect()
}

/// Rounds up to a power of two; `None` on overflow.
fn align(value: u64, to: u64) -> Option<u64> {
    value.checked_add(to.checked_sub(1)?).map(|v| v & !(to - 1))
}

impl<'p> Layout<'p> {
    /// Lays `target`'s sections out, with `registry` bytes kept free at the very start, and `gates` bytes at the end of
    /// the code.
    pub fn new(
        arch: &'static dyn Arch,
        package: &'p Package,
        target: &'p Target,
        registry: u64,
        gates: u64,
        page: u64,
    ) -> Result<Self> {
        let mut layout = Self {
            arch,
            package,
            references: target.references.iter().map(|r: &Reference| (r.symbol.as_str(), &r.source)).collect(),
            runs: [(0, 0); 3],
            places: BTreeMap::new(),
            linkage: BTreeMap::new(),
            slots: BTreeMap::new(),
            table: 0,
            wanted: BTreeSet::new(),
            hops: layout_hops(arch, package, target),
            gates: 0,
        };
        let sections = layout.sections_of(target)?;
        let mut linkage = BTreeSet::new();
        let mut slots = BTreeSet::new();
        for (_, section) in &sections {
            for relocation in &section.relocations {
                let row = layout.row(relocation.r_type)?;
                layout.note_needs(row, relocation.symbol, &sections, &mut linkage, &mut slots)?;
            }
        }
        layout.assign(&sections, &linkage, &slots, (registry, gates), page)?;
        Ok(layout)
    }

    fn sections_of(&self, target: &Target) -> Result<Vec<(usize, &'p Section)>> {
        target
            .sections
            .iter()
            .map(|name| {
                let found = self.package.sections.iter().enumerate().find(|(_, s)| s.name == *name);
                found.ok_or_else(|| unlinkable(format!("{} has no section {name} in the package", target.file)))
            })
            .collect()
    }

    fn row(&self, r_type: u32) -> Result<&'static RelocRow> {
        self.arch.relocation(r_type).ok_or_else(|| unlinkable(format!("unknown relocation type {r_type}")))
    }

    fn name(&self, symbol: usize) -> &'p str {
        self.package.symbols.get(symbol).map_or("(no symbol)", |s| s.name.as_str())
    }

    fn place(&self, symbol: usize) -> Option<&'p Place> {
        self.package.symbols.get(symbol).and_then(|s| s.place.as_ref())
    }

    fn source(&self, symbol: usize) -> Result<&'p Source> {
        let name = self.name(symbol);
        let source = self.references.get(name).copied();
        source.ok_or_else(|| {
            unlinkable(format!("{name} is undefined, and the manifest does not say where it is")).code("E-UNRESOLVED")
        })
    }

    /// Notes which own slots, linkage entries and addresses one relocation needs, and refuses the combinations that have no meaning.
    fn note_needs(
        &mut self,
        row: &'static RelocRow,
        symbol: usize,
        sections: &[(usize, &Section)],
        linkage: &mut BTreeSet<usize>,
        slots: &mut BTreeSet<(usize, Slot)>,
    ) -> Result<()> {
        if row.formula == Formula::Nothing {
            return Ok(());
        }
        if let Some(place) = self.place(symbol) {
            let (_, home) = sections.iter().find(|(i, _)| *i == place.section).ok_or_else(|| {
                unlinkable(format!("{} lies in a section that is not loaded for this target", self.name(symbol)))
            })?;
            if place.offset > home.size {
                return Err(unlinkable(format!("{} lies outside its section", self.name(symbol))));
            }
            match row.formula.letter() {
                Letter::Symbol | Letter::Branch | Letter::Size => {}
                Letter::Slot(SlotKind::Address) => {
                    slots.insert((symbol, Slot::Address));
                }
                _ => return Err(self.meaningless(row, symbol)),
            }
            return Ok(());
        }
        let source = self.source(symbol)?;
        match (row.formula.letter(), source) {
            (Letter::Symbol, Source::OwnTable) if row.formula == Formula::PagePcRelative => {}
            (_, Source::OwnTable) => return Err(self.meaningless(row, symbol)),
            // Counted from the patch's own table: the slot has to stand there, whatever the target has.
            (Letter::Slot(SlotKind::Address), Source::Slot { .. } | Source::Import { .. })
                if matches!(row.formula, Formula::Slot(_, SeenFrom::TablePage)) =>
            {
                slots.insert((symbol, Slot::Address));
                self.wanted.insert((symbol, Wanted::Address));
            }
            (Letter::Symbol | Letter::Branch, Source::Local { .. }) => {}
            (Letter::Slot(SlotKind::Address), Source::Local { .. }) => {
                slots.insert((symbol, Slot::Address));
            }
            (Letter::Size, Source::Local { size, .. }) if *size > 0 => {}
            (Letter::Symbol, Source::Slot { .. } | Source::Import { .. }) => {
                self.wanted.insert((symbol, Wanted::Address));
            }
            (Letter::Branch, Source::Slot { .. }) => {
                linkage.insert(symbol);
            }
            (Letter::Branch, Source::Import { .. }) => {
                linkage.insert(symbol);
                slots.insert((symbol, Slot::Address));
                self.wanted.insert((symbol, Wanted::Address));
            }
            (Letter::Slot(SlotKind::Address), Source::Slot { lazy: false, .. }) => {}
            (Letter::Slot(SlotKind::Address), Source::Slot { lazy: true, .. } | Source::Import { .. }) => {
                slots.insert((symbol, Slot::Address));
                self.wanted.insert((symbol, Wanted::Address));
            }
            (Letter::ThreadOffset, Source::TlsLocalExec { .. }) => {}
            (Letter::ThreadOffset, Source::TlsSlot { .. }) => {
                self.wanted.insert((symbol, Wanted::ThreadSlotWord));
            }
            (Letter::Slot(SlotKind::ThreadOffset), Source::TlsSlot { delta: 0, .. }) => {}
            (Letter::Slot(SlotKind::ThreadOffset), Source::TlsSlot { .. }) => {
                slots.insert((symbol, Slot::ThreadOffset));
                self.wanted.insert((symbol, Wanted::ThreadSlotWord));
            }
            (Letter::Slot(SlotKind::ThreadOffset), Source::TlsLocalExec { .. }) => {
                slots.insert((symbol, Slot::ThreadOffset));
            }
            (Letter::Slot(SlotKind::ThreadIndex | SlotKind::ThreadModule), Source::TlsPair { .. }) => {}
            (Letter::Slot(SlotKind::ThreadDescriptor), Source::TlsDescriptor { .. }) => {}
            (Letter::ModuleOffset, Source::TlsOffset { .. }) => {}
            _ => return Err(self.meaningless(row, symbol)),
        }
        Ok(())
    }

    fn meaningless(&self, row: &RelocRow, symbol: usize) -> Error {
        unlinkable(format!("{} against {} has no meaning here", row.name, self.name(symbol)))
    }

    fn assign(
        &mut self,
        sections: &[(usize, &Section)],
        linkage: &BTreeSet<usize>,
        slots: &BTreeSet<(usize, Slot)>,
        (registry, gates): (u64, u64),
        page: u64,
    ) -> Result<()> {
        let too_large = || unlinkable("the patch is too large".into());
        let mut at = 0u64;
        for run in Run::ALL {
            let start = at;
            if run == Run::Constants {
                at = at.checked_add(registry).ok_or_else(too_large)?;
            }
            for (index, section) in sections.iter().filter(|(_, s)| Run::of(s.kind) == run) {
                if !section.align.is_power_of_two() || section.align > page {
                    return Err(unlinkable(format!("section {} has alignment {}", section.name, section.align)));
                }
                if section.kind != SectionKind::ZeroData && section.data.len() as u64 != section.size {
                    return Err(unlinkable(format!("section {} has not the bytes it says", section.name)));
                }
                at = align(at, section.align).ok_or_else(too_large)?;
                if let Some(hop) = self.hops.get_mut(index) {
                    let room = align(self.arch.hop_len() as u64, section.align.max(WORD)).ok_or_else(too_large)?;
                    *hop = at;
                    at = at.checked_add(room).ok_or_else(too_large)?;
                }
                self.places.insert(*index, at);
                at = at.checked_add(section.size).ok_or_else(too_large)?;
                if section.kind == SectionKind::Frames {
                    // An unwinder stops at a zero length word.
                    at = at.checked_add(4).ok_or_else(too_large)?;
                }
            }
            if run == Run::Code {
                for symbol in linkage {
                    at = align(at, 16).ok_or_else(too_large)?;
                    self.linkage.insert(*symbol, at);
                    at = at.checked_add(self.arch.plt_entry_len() as u64).ok_or_else(too_large)?;
                }
                at = align(at, 16).ok_or_else(too_large)?;
                self.gates = at;
                at = at.checked_add(gates).ok_or_else(too_large)?;
            }
            if run == Run::Data {
                at = align(at, WORD).ok_or_else(too_large)?;
                self.table = at;
                for slot in slots {
                    self.slots.insert(*slot, at);
                    at = at.checked_add(WORD).ok_or_else(too_large)?;
                }
            }
            at = align(at, page).filter(|a| *a <= LARGEST).ok_or_else(too_large)?;
            self.runs[run as usize] = (start, at - start);
        }
        Ok(())
    }

    /// Bytes of all runs together.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(_, len)| len).sum()
    }

    /// Whether there is nothing to load.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Start (relative to the base) and length of a run.
    pub fn run(&self, run: Run) -> (u64, u64) {
        self.runs[run as usize]
    }

    /// Where a hop to a symbol of the package stands, relative to the base; `None`: it needs none.
    pub fn hop(&self, symbol: usize) -> Option<u64> {
        let place = self.place(symbol).filter(|place| place.offset == 0)?;
        self.hops.get(&place.section).copied()
    }

    /// Where the room for gates begins, relative to the base.
    pub fn gates(&self) -> u64 {
        self.gates
    }

    /// Where the call frame information lies, relative to the base, and its length with the end mark.
    pub fn frames(&self) -> Option<(u64, u64)> {
        self.places.iter().find_map(|(&index, &at)| {
            let section = self.package.sections.get(index).filter(|s| s.kind == SectionKind::Frames)?;
            Some((at, section.size + 4))
        })
    }

    /// The functions in the code run, each with its place relative to the run's start and its size. What is kept free in
    /// front of the run, or behind the code in it, moves none of them.
    pub fn functions(&self) -> impl Iterator<Item = (&'p str, u64, u64)> {
        let (code, len) = self.run(Run::Code);
        let of_code = move |at: &u64| (code..code + len).contains(at);
        self.package.symbols.iter().filter(|s| s.kind == SymbolKind::Function).filter_map(move |s| {
            let place = s.place.as_ref()?;
            let at = self.places.get(&place.section)?.checked_add(place.offset).filter(of_code)?;
            Some((s.name.as_str(), at - code, place.size))
        })
    }

    /// What must be found out before [`Layout::link`].
    pub fn demands(&self) -> Result<Vec<Demand<'p>>> {
        self.wanted
            .iter()
            .map(|&(symbol, what)| self.source(symbol).map(|source| Demand { symbol, source, what }))
            .collect()
    }

    /// Relocates everything for `base`, in a target that lies at `bias`.
    pub fn link(&self, base: RemoteAddr, bias: LoadBias, found: &Found) -> Result<Image> {
        let linker = Linker { layout: self, base, bias, found };
        let mut runs = self.runs.map(|(start, len)| (base.plus(start), vec![0; len as usize]));
        for (&index, &offset) in &self.places {
            let Some(section) = self.package.sections.get(index) else { continue };
            let mut data = section.data.clone();
            for relocation in &section.relocations {
                let row = self.row(relocation.r_type)?;
                if row.formula == Formula::Nothing {
                    continue;
                }
                let place = base.plus(offset).plus(relocation.offset);
                let value = linker.value(row, relocation.symbol, relocation.addend, place)?;
                let at = usize::try_from(relocation.offset).unwrap_or(usize::MAX);
                let row = self.arch.relocation_at(relocation.r_type, &data, at).unwrap_or(row);
                let wide = self.arch.widened_by(relocation.r_type).is_some_and(|upper| {
                    let behind = relocation.offset.checked_add(8);
                    section.relocations.iter().any(|other| other.r_type == upper && Some(other.offset) == behind)
                });
                let row = RelocRow { range: if wide { Range::Any } else { row.range }, ..*row };
                row.insert(&mut data, at, value).map_err(|e| {
                    unlinkable(format!("{}+{:#x}: {e}, for {}", section.name, at, self.name(relocation.symbol)))
                })?;
            }
            put(&mut runs[Run::of(section.kind) as usize], base.plus(offset), &data)?;
        }
        for &symbol in self.linkage.keys() {
            let at = linker.own(&self.linkage, &symbol)?;
            let slot = match self.source(symbol)? {
                Source::Slot { slot, .. } => bias.remote(*slot),
                _ => linker.own(&self.slots, &(symbol, Slot::Address))?,
            };
            let entry = self.arch.plt_entry(at, slot).map_err(|e| unlinkable(format!("{}: {e}", self.name(symbol))))?;
            put(&mut runs[Run::Code as usize], at, &entry)?;
        }
        for &(symbol, slot) in self.slots.keys() {
            let at = linker.own(&self.slots, &(symbol, slot))?;
            let word = match slot {
                Slot::Address => linker.address(symbol)?.0,
                Slot::ThreadOffset => linker.thread_offset(symbol)? as u64,
            };
            put(&mut runs[Run::Data as usize], at, &word.to_le_bytes())?;
        }
        let symbols = self.package.symbols.iter().enumerate();
        let symbols = symbols.filter_map(|(i, s)| {
            let place = s.place.as_ref()?;
            Some((i, base.plus(*self.places.get(&place.section)?).plus(place.offset)))
        });
        Ok(Image { base, runs, symbols: symbols.collect() })
    }
}

/// The letters of the psABI, for one base.
struct Linker<'a, 'p> {
    layout: &'a Layout<'p>,
    base: RemoteAddr,
    bias: LoadBias,
    found: &'a Found,
}

impl Linker<'_, '_> {
    fn own<K: Ord>(&self, table: &BTreeMap<K, u64>, key: &K) -> Result<RemoteAddr> {
        let offset = table.get(key).ok_or_else(|| unlinkable("a slot was not planned".into()))?;
        Ok(self.base.plus(*offset))
    }

    /// `S`
    fn address(&self, symbol: usize) -> Result<RemoteAddr> {
        if let Some(place) = self.layout.place(symbol) {
            return Ok(self.own(&self.layout.places, &place.section)?.plus(place.offset));
        }
        match self.layout.source(symbol)? {
            Source::Local { addr, .. } => Ok(self.bias.remote(*addr)),
            Source::OwnTable => Ok(self.base.plus(self.layout.table)),
            _ => self.found.addresses.get(&symbol).copied().ok_or_else(|| {
                unlinkable(format!("the address of {} was not found", self.layout.name(symbol))).code("E-UNRESOLVED")
            }),
        }
    }

    /// `L`
    fn branch(&self, symbol: usize) -> Result<RemoteAddr> {
        match self.layout.linkage.get(&symbol) {
            Some(offset) => Ok(self.base.plus(*offset)),
            None => self.address(symbol),
        }
    }

    /// `G`, `GT`
    fn slot(&self, symbol: usize, slot: Slot) -> Result<RemoteAddr> {
        if let Some(offset) = self.layout.slots.get(&(symbol, slot)) {
            return Ok(self.base.plus(*offset));
        }
        match self.layout.source(symbol)? {
            Source::Slot { slot, .. } | Source::TlsSlot { slot, .. } => Ok(self.bias.remote(*slot)),
            _ => Err(unlinkable(format!("{} has no slot", self.layout.name(symbol)))),
        }
    }

    /// `S - TP`
    fn thread_offset(&self, symbol: usize) -> Result<i64> {
        match self.layout.source(symbol)? {
            Source::TlsLocalExec { offset } => Ok(*offset),
            Source::TlsSlot { delta, .. } => {
                let word = self.found.thread_words.get(&symbol);
                word.map(|w| w.wrapping_add(*delta)).ok_or_else(|| {
                    unlinkable(format!("the thread-local slot of {} was not read", self.layout.name(symbol)))
                })
            }
            _ => Err(unlinkable(format!("{} is not thread-local", self.layout.name(symbol)))),
        }
    }

    /// `S - DTP`
    fn module_offset(&self, symbol: usize) -> Result<i64> {
        match self.layout.source(symbol)? {
            Source::TlsOffset { offset } => Ok(*offset),
            _ => Err(unlinkable(format!("{} has no place in its module's block", self.layout.name(symbol)))),
        }
    }

    /// The two words of the target that a call for a thread-local variable takes: the loader has filled them, or will, and the
    /// target's own code uses the very same.
    fn thread_words(&self, kind: SlotKind, symbol: usize) -> Result<RemoteAddr> {
        match (kind, self.layout.source(symbol)?) {
            (SlotKind::ThreadIndex | SlotKind::ThreadModule, Source::TlsPair { slot })
            | (SlotKind::ThreadDescriptor, Source::TlsDescriptor { slot }) => Ok(self.bias.remote(*slot)),
            _ => Err(unlinkable(format!("the target has no words that find {}", self.layout.name(symbol)))),
        }
    }

    /// `Z`
    fn size(&self, symbol: usize) -> Result<u64> {
        match self.layout.place(symbol) {
            Some(place) => Ok(place.size),
            None => match self.layout.source(symbol)? {
                Source::Local { size, .. } => Ok(*size),
                _ => Err(unlinkable(format!("the size of {} is not known", self.layout.name(symbol)))),
            },
        }
    }

    fn value(&self, row: &RelocRow, symbol: usize, addend: i64, place: RemoteAddr) -> Result<i64> {
        let letter = match row.formula.letter() {
            Letter::Symbol => self.address(symbol)?.0,
            Letter::Branch => self.branch(symbol)?.0,
            Letter::Slot(SlotKind::Address) => self.slot(symbol, Slot::Address)?.0,
            Letter::ThreadOffset => self.thread_offset(symbol)? as u64,
            Letter::Slot(SlotKind::ThreadOffset) => self.slot(symbol, Slot::ThreadOffset)?.0,
            Letter::Size => self.size(symbol)?,
            Letter::Slot(kind) => self.thread_words(kind, symbol)?.0,
            Letter::ModuleOffset => self.module_offset(symbol)? as u64,
            Letter::None => return Err(self.layout.meaningless(row, symbol)),
        };
        match row.formula {
            // Only the page of a patch's own table is counted from, and its slots hold plain addresses.
            Formula::Slot(_, SeenFrom::Table) => Err(self.layout.meaningless(row, symbol)),
            Formula::Slot(..) if addend != 0 => Err(self.layout.meaningless(row, symbol)),
            formula => Ok(formula.value(letter, addend, place.0, self.base.plus(self.layout.table).0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ulp_arch::LinkAddr;
    use ulp_format::{FORMAT, Identity, Kind, Manifest, ObjectKind, Relocation, Symbol};

    const BASE: u64 = 0x40_0000;
    const BIAS: u64 = 0x50_0000;
    const PC32: u32 = 2;
    const PLT32: u32 = 4;
    const GOTPCREL: u32 = 9;
    const GOTTPOFF: u32 = 22;
    const TPOFF32: u32 = 23;
    const TLSGD: u32 = 19;
    const TLSLD: u32 = 20;
    const DTPOFF32: u32 = 21;
    const TLSDESC: u32 = 34;
    const ABS64: u32 = 1;

    /// One code section with eight bytes for each relocation, one word of data, and a symbol for each source.
    fn package(relocations: &[(u32, &str)], sources: &[(&str, Source)]) -> Package {
        let code = Section {
            name: ".text.f".into(),
            kind: SectionKind::Code,
            align: 16,
            data: vec![0; 8 * relocations.len()],
            size: 8 * relocations.len() as u64,
            relocations: vec![],
        };
        let data = Section {
            name: ".data.x".into(),
            kind: SectionKind::Data,
            align: 8,
            data: vec![7; 8],
            size: 8,
            ..code.clone()
        };
        let here = |section, size| Some(Place { section, offset: 0, size });
        let symbol = |name: &str, place| Symbol { name: name.into(), place, kind: SymbolKind::Untyped };
        let mut symbols = vec![symbol("f", here(0, 4)), symbol("x", here(1, 8))];
        symbols.extend(sources.iter().map(|(name, _)| symbol(name, None)));
        let index = |name: &str| symbols.iter().position(|s| s.name == name).expect("a symbol");
        let relocations = (0u64..).zip(relocations).map(|(i, (r_type, name))| Relocation {
            offset: 8 * i,
            r_type: *r_type,
            symbol: index(name),
            addend: -4,
        });
        let code = Section { relocations: relocations.collect(), ..code };
        let target = Target {
            file: "app".into(),
            build_id: "ab".into(),
            kind: Kind::Pie,
            identity: Identity::SameBuildId,
            functions: vec![],
            sections: vec![code.name.clone(), data.name.clone()],
            references: sources
                .iter()
                .map(|(s, source)| Reference { symbol: (*s).into(), source: source.clone(), found: None })
                .collect(),
        };
        let manifest = Manifest {
            format: FORMAT,
            name: "t".into(),
            description: String::new(),
            cves: vec![],
            tool: String::new(),
            compiler: String::new(),
            arch: "x86_64".into(),
            accepted: vec![],
            warnings: vec![],
            escape: false,
            exceptions: false,
            atomic: true,
            replaces: vec![],
            requires: vec![],
            targets: vec![target],
        };
        Package { manifest, sections: vec![code, data], symbols }
    }

    fn layout(package: &Package) -> Result<Layout<'_>> {
        let arch = ulp_arch::by_name("x86_64").expect("it exists");
        Layout::new(arch, package, &package.manifest.targets[0], 100, 0, 4096)
    }

    fn linked(package: &Package, found: &Found) -> Result<Image> {
        layout(package)?.link(RemoteAddr(BASE), LoadBias(BIAS), found)
    }

    fn local(addr: u64) -> Source {
        Source::Local { addr: LinkAddr(addr), size: 8 }
    }
    fn slot(lazy: bool) -> Source {
        let object = ObjectKind::Function;
        Source::Slot { slot: LinkAddr(0x8000), lazy, name: "g".into(), version: None, object }
    }
    fn import() -> Source {
        Source::Import { name: "g".into(), version: None, object: ObjectKind::Function }
    }

    // The runs: constants (the registry) at BASE, code at BASE + 0x1000, data at BASE + 0x2000.
    const CODE: u64 = BASE + 0x1000;
    const DATA: u64 = BASE + 0x2000;
    /// The first own slot stands behind the word of data, the first linkage entry at the next multiple of 16 behind the code.
    const OWN_SLOT: u64 = DATA + 8;
    const OWN_PLT: u64 = CODE + 16;

    /// `S + A - P` at the start of the code, with the addend -4.
    fn from_code(to: u64) -> i32 {
        (to as i64 - 4 - CODE as i64) as i32
    }

    #[test]
    fn one_relocation_each() {
        let known = Found { addresses: [(2, RemoteAddr(0x7000_1234))].into(), thread_words: [(2, -64)].into() };
        let tls = |delta| Source::TlsSlot { slot: LinkAddr(0x8000), delta };
        // (type, source, what stands in the code, the first own slot if there must be one, the slot an own linkage entry jumps through)
        let rows = [
            (PC32, local(0x300), from_code(BIAS + 0x300), None, None),
            (PLT32, local(0x300), from_code(BIAS + 0x300), None, None),
            (PLT32, slot(true), from_code(OWN_PLT), None, Some(BIAS + 0x8000)),
            (PLT32, import(), from_code(OWN_PLT), Some(0x7000_1234), Some(OWN_SLOT)),
            (PC32, import(), from_code(0x7000_1234), None, None),
            (GOTPCREL, slot(false), from_code(BIAS + 0x8000), None, None),
            (GOTPCREL, slot(true), from_code(OWN_SLOT), Some(0x7000_1234), None),
            (GOTPCREL, import(), from_code(OWN_SLOT), Some(0x7000_1234), None),
            (GOTPCREL, local(0x300), from_code(OWN_SLOT), Some(BIAS + 0x300), None),
            (TPOFF32, Source::TlsLocalExec { offset: -16 }, -20, None, None),
            (TPOFF32, tls(8), -64 + 8 - 4, None, None),
            (GOTTPOFF, tls(0), from_code(BIAS + 0x8000), None, None),
            (GOTTPOFF, tls(8), from_code(OWN_SLOT), Some((-56i64) as u64), None),
            (GOTTPOFF, Source::TlsLocalExec { offset: -16 }, from_code(OWN_SLOT), Some((-16i64) as u64), None),
            (TLSGD, Source::TlsPair { slot: LinkAddr(0x8000) }, from_code(BIAS + 0x8000), None, None),
            (TLSLD, Source::TlsPair { slot: LinkAddr(0x8000) }, from_code(BIAS + 0x8000), None, None),
            (TLSDESC, Source::TlsDescriptor { slot: LinkAddr(0x8000) }, from_code(BIAS + 0x8000), None, None),
            (DTPOFF32, Source::TlsOffset { offset: 24 }, 20, None, None),
        ];
        for (r_type, source, field, own, through) in rows {
            let what = format!("type {r_type}, {source:?}");
            let package = package(&[(r_type, "r")], &[("r", source)]);
            let image = linked(&package, &known).expect(&what);
            let (code_at, code) = image.run(Run::Code);
            let (data_at, data) = image.run(Run::Data);
            assert_eq!((code_at.0, data_at.0), (CODE, DATA), "{what}");
            assert_eq!(code[..4], field.to_le_bytes(), "{what}");
            assert_eq!(data[..8], [7; 8], "{what}");
            assert_eq!(data[8..16], own.unwrap_or(0).to_le_bytes(), "{what}");
            if let Some(slot) = through {
                // ff 25 rel32         jmp *slot(%rip)
                let entry = &code[16..22];
                assert_eq!(entry[..2], [0xff, 0x25], "{what}");
                let distance = (slot as i64 - (OWN_PLT as i64 + 6)) as i32;
                assert_eq!(entry[2..], distance.to_le_bytes(), "{what}");
            }
        }
    }

    #[test]
    fn runs_of_different_rights_share_no_page_of_any_size() {
        let arch = ulp_arch::by_name("x86_64").expect("it exists");
        for page in [4096, 16384, 65536] {
            let mut package = package(&[(PC32, "x")], &[]);
            package.sections[0].data.resize(page as usize + 1, 0x90);
            package.sections[0].size = page + 1;
            let laid_out = |p: &Package| {
                let layout = Layout::new(arch, p, &p.manifest.targets[0], 100, 64, page)?;
                Ok::<_, Error>((
                    Run::ALL.map(|run| layout.run(run)),
                    layout.link(RemoteAddr(BASE), LoadBias(BIAS), &Found::default())?,
                ))
            };
            let (runs, image) = laid_out(&package).expect("it has room");
            assert_eq!(runs, [(0, page), (page, 2 * page), (3 * page, page)], "{page}");
            for (run, (at, len)) in Run::ALL.into_iter().zip(runs) {
                let (start, bytes) = image.run(run);
                assert_eq!((start.0, bytes.len() as u64), (BASE + at, len), "{page}");
            }
            // S + A - P: data begins two pages behind the code.
            assert_eq!(image.run(Run::Code).1[..4], (2 * page as i32 - 4).to_le_bytes(), "{page}");
            package.sections[1].align = 2 * page;
            assert!(laid_out(&package).is_err(), "pages of {page} bytes are nowhere aligned to more");
        }
    }

    #[test]
    fn what_is_defined_is_where_it_was_loaded() {
        let package = package(&[(PC32, "x"), (ABS64, "f")], &[]);
        let image = linked(&package, &Found::default()).expect("links");
        let code = &image.run(Run::Code).1;
        assert_eq!(code[..4], from_code(DATA).to_le_bytes());
        assert_eq!(code[8..16], (CODE - 4).to_le_bytes());
        assert_eq!(image.symbols, [(0, RemoteAddr(CODE)), (1, RemoteAddr(DATA))].into());
    }

    #[test]
    fn what_has_no_meaning_or_no_room_is_refused() {
        let refused = |r_type, source| linked(&package(&[(r_type, "r")], &[("r", source)]), &Found::default()).is_err();
        assert!(refused(PC32, local(1 << 40)), "out of reach");
        assert!(refused(PLT32, Source::TlsLocalExec { offset: 0 }), "a call of a variable");
        assert!(refused(TPOFF32, local(0)), "not thread-local");
        assert!(refused(9999, local(0)), "an unknown type");
        assert!(refused(TLSGD, local(0)), "TLSGD of something that is no thread-local variable");
        assert!(refused(TLSGD, Source::TlsDescriptor { slot: LinkAddr(0x8000) }), "a pair that is a descriptor");
        assert!(refused(TLSDESC, Source::TlsPair { slot: LinkAddr(0x8000) }), "a descriptor that is a pair");
        assert!(refused(TLSGD, Source::TlsLocalExec { offset: -16 }), "a pair that the target does not have");
        assert!(refused(DTPOFF32, Source::TlsLocalExec { offset: -16 }), "another distance");
        assert!(refused(PC32, import()), "an address that was not found");
        let mut outside = package(&[(PC32, "x")], &[]);
        outside.sections[0].relocations[0].offset = u64::MAX - 2;
        assert!(linked(&outside, &Found::default()).is_err(), "outside its section");
        let mut unnamed = package(&[(PC32, "r")], &[("r", local(0))]);
        unnamed.manifest.targets[0].references.clear();
        assert_eq!(layout(&unnamed).expect_err("not in the manifest").code, Some("E-UNRESOLVED"));
        let mut huge = package(&[], &[]);
        huge.sections[0].kind = SectionKind::ZeroData;
        huge.sections[0].size = u64::MAX - 8;
        assert!(layout(&huge).is_err(), "too large");
    }
}
