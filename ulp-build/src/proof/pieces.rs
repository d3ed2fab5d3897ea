// SPDX-License-Identifier: GPL-2.0-or-later
//! The pieces that a link was put together from: the sections of the objects, as the compiler and the assembler left them. A
//! linker moves a piece and fills in its fields, and changes nothing else of it.

use crate::linkmap::{Extent, Fate, LinkMap};
use crate::object::{Elf as ObjectElf, Place};
use crate::production::{Elf, SymbolKind};
use object::elf;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use ulp_arch::{Arch, LinkAddr, LinkedForm, RelocRow};

/// Where the upper part of an address begins that instructions hold in two parts: above 4096 bytes.
pub(super) const BELOW_PAGE: u32 = 12;

/// What a piece holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Code,
    /// Bytes that the file holds.
    Data,
    /// Zeroes that the file does not hold.
    Zero,
    /// Strings and constants that the linker merges with their equals: no place of their own, only content.
    Merged {
        /// 0: strings that end with a zero byte.
        size: u64,
    },
}

/// One input section of the link.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub object: String,
    pub section: String,
    pub kind: PieceKind,
    /// Thread-local storage: its addresses are those of the thread-local segment, and may be others' too.
    pub thread: bool,
    pub align: u64,
    /// Where the rebuilt file has it.
    pub at: Extent,
    /// In the order of their offsets.
    pub fields: Vec<Field>,
    /// The functions in it, in the order of their offsets.
    pub functions: Vec<Function>,
}

/// A relocated field.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub offset: u64,
    pub row: Option<&'static RelocRow>,
    pub addend: i64,
    pub goal: Goal,
    /// The relocation names a section, and its addend says which part of it is meant.
    pub by_section: bool,
}

/// What the relocation names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// A place in a piece of the same object, by the section's number there.
    Section(usize, u64),
    /// A symbol that every object sees.
    Name(String),
    /// A value without a place.
    Nothing,
}

/// A function in a piece of code.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub name: String,
    pub offset: u64,
    pub size: u64,
}

/// All pieces, and how to find them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    pub all: Vec<Piece>,
    /// Object and section number to piece.
    pub by_section: BTreeMap<(String, usize), usize>,
    /// Start in the rebuilt file to piece; thread-local pieces apart.
    by_addr: [BTreeMap<LinkAddr, usize>; 2],
}

impl Pieces {
    /// Takes the objects of a link apart. What the store has no copy of is not among the pieces.
    pub fn of(arch: &'static dyn Arch, rebuilt: &Elf, map: &LinkMap, objects: &BTreeMap<String, PathBuf>) -> Self {
        let mut pieces = Self::default();
        let found: Vec<Vec<(usize, Piece)>> = objects
            .par_iter()
            .map(|(name, path)| object_pieces(arch, rebuilt, map, name, path).unwrap_or_default())
            .collect();
        for (index, piece) in found.into_iter().flatten() {
            pieces.by_section.insert((piece.object.clone(), index), pieces.all.len());
            pieces.add(piece);
        }
        // Common symbols are places that the linker made.
        let mut seen = BTreeSet::new();
        for symbol in rebuilt.symbols.iter().filter(|s| s.kind == SymbolKind::Data && s.size > 0) {
            if pieces.holding(symbol.addr, false).is_none()
                && seen.insert(symbol.addr)
                && rebuilt.bytes(symbol.addr, 1).is_none()
            {
                pieces.add(Piece {
                    object: String::new(),
                    section: symbol.name.clone(),
                    kind: PieceKind::Zero,
                    thread: false,
                    align: 1,
                    at: Extent { addr: symbol.addr, size: symbol.size },
                    fields: Vec::new(),
                    functions: Vec::new(),
                });
            }
        }
        pieces
    }

    fn add(&mut self, piece: Piece) {
        if !matches!(piece.kind, PieceKind::Merged { .. }) {
            self.by_addr[usize::from(piece.thread)].insert(piece.at.addr, self.all.len());
        }
        self.all.push(piece);
    }

    /// The piece that holds an address of the rebuilt file.
    pub fn holding(&self, addr: LinkAddr, thread: bool) -> Option<usize> {
        let (_, index) = self.by_addr[usize::from(thread)].range(..=addr).next_back()?;
        let at = self.all.get(*index)?.at;
        (addr.0 - at.addr.0 < at.size).then_some(*index)
    }
}

fn object_pieces(
    arch: &'static dyn Arch,
    rebuilt: &Elf,
    map: &LinkMap,
    name: &str,
    path: &PathBuf,
) -> Option<Vec<(usize, Piece)>> {
    let bytes = std::fs::read(path).ok()?;
    let placed = |section: &str, sizes: &[u64], nth: usize| rebuilt.placed(map, name, section, sizes, nth);
    let object = ObjectElf::read_linked(path, &bytes, &placed).ok()?;
    let mut namesakes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, section) in object.sections.iter().enumerate() {
        namesakes.entry(&section.name).or_default().push(index);
    }
    let mut pieces = Vec::new();
    for (index, section) in object.sections.iter().enumerate() {
        // The linker rewrites frame descriptions as a whole.
        if !section.has(elf::SHF_ALLOC) || section.size == 0 || section.name == ".eh_frame" {
            continue;
        }
        let same = namesakes.get(section.name.as_str())?;
        let sizes: Vec<u64> = same.iter().filter_map(|i| object.sections.get(*i)).map(|s| s.size).collect();
        let nth = same.iter().position(|i| *i == index)?;
        let merged = section.has(elf::SHF_MERGE);
        let at = match map.fate(name, &section.name, &sizes, nth) {
            Fate::Placed(at) => at,
            // Merged sections have another size in the map.
            _ if merged => Extent { addr: LinkAddr(0), size: 0 },
            _ => continue,
        };
        let kind = match () {
            () if merged => {
                PieceKind::Merged { size: if section.has(elf::SHF_STRINGS) { 0 } else { section.entsize.max(1) } }
            }
            () if section.has(elf::SHF_EXECINSTR) => PieceKind::Code,
            () if section.kind == elf::SHT_NOBITS => PieceKind::Zero,
            () => PieceKind::Data,
        };
        let fields = section.relocs.iter().map(|r| {
            let symbol = object.symbols.get(r.symbol);
            let goal = match symbol.map(|s| (s.place, s.bind == elf::STB_LOCAL)) {
                Some((Place::Section(target), true)) => Goal::Section(target, symbol.map_or(0, |s| s.value)),
                Some((Place::Undefined | Place::Common | Place::Section(_), false)) => {
                    Goal::Name(symbol.map_or_else(String::new, |s| s.name.clone()))
                }
                _ => Goal::Nothing,
            };
            let by_section = symbol.is_some_and(|s| s.kind == elf::STT_SECTION);
            let at = usize::try_from(r.offset).unwrap_or(usize::MAX);
            let row = arch.relocation_at(r.r_type, &section.bytes, at);
            Field { offset: r.offset, row, addend: r.addend, goal, by_section }
        });
        let mut functions: Vec<Function> = (object.symbols.iter())
            .filter(|s| s.place == Place::Section(index) && s.kind == elf::STT_FUNC && s.size > 0)
            .map(|s| Function { name: s.name.clone(), offset: s.value, size: s.size })
            .collect();
        functions.sort_by(|a, b| (a.offset, a.size, &a.name).cmp(&(b.offset, b.size, &b.name)));
        // Aliases are one function.
        functions.dedup_by_key(|f| f.offset);
        let (fields, section_name) = (fields.collect(), section.name.clone());
        pieces.push((
            index,
            Piece {
                object: name.to_owned(),
                section: section_name,
                kind,
                thread: section.has(elf::SHF_TLS),
                align: section.align,
                at,
                fields,
                functions,
            },
        ));
    }
    Some(pieces)
}

impl Piece {
    /// The fields between two offsets.
    pub fn fields_in(&self, start: u64, end: u64) -> &[Field] {
        let from = self.fields.partition_point(|f| f.offset < start);
        let to = self.fields.partition_point(|f| f.offset < end);
        self.fields.get(from..to.max(from)).unwrap_or(&[])
    }

    /// The field that holds the other part of the value of which `field` holds one: of the same symbol, in the same function,
    /// the nearest one. An instruction has room for a page or for what is below it, hardly ever for both.
    pub fn partner(&self, field: &Field) -> Option<&Field> {
        let row = field.row?;
        let upper = row.span()?.start == BELOW_PAGE;
        let other = |row: &RelocRow| match row.span() {
            Some(span) if upper => span.end == BELOW_PAGE,
            Some(span) => span.start == BELOW_PAGE,
            None => false,
        };
        let function = self.functions.iter().find(|f| field.offset.wrapping_sub(f.offset) < f.size);
        let (start, end) = function.map_or((0, u64::MAX), |f| (f.offset, f.offset + f.size));
        let fields = self.fields_in(start, end).iter().filter(|f| {
            (&f.goal, f.addend) == (&field.goal, field.addend)
                && f.row.is_some_and(|r| r.formula.letter() == row.formula.letter() && other(r))
        });
        fields.min_by_key(|f| (f.offset.abs_diff(field.offset), f.offset))
    }

    /// Which bits between two offsets are the linker's to fill in; `rebuilt` is what it made of this stretch.
    pub fn mask(&self, arch: &dyn Arch, start: u64, rebuilt: &[u8]) -> Vec<u8> {
        let mut mask = vec![0; rebuilt.len()];
        for field in self.fields_in(start, start + rebuilt.len() as u64) {
            let Some(row) = field.row else { continue };
            let at = usize::try_from(field.offset - start).unwrap_or(usize::MAX);
            let (before, bits) = match arch.linked_form(row.r_type, rebuilt, at) {
                LinkedForm::Direct { before } => (before, arch.linked_mask(row)),
                LinkedForm::AsWritten => (0, arch.linked_mask(row)),
                LinkedForm::Immediate => (0, arch.immediate_mask(row)),
                _ => (0, vec![0xff; row.field.size()]),
            };
            let place = mask.iter_mut().skip(at.saturating_sub(before));
            place.zip(bits).for_each(|(m, bits)| *m |= bits);
        }
        mask
    }

    pub fn label(&self) -> String {
        match self.object.is_empty() {
            true => self.section.clone(),
            false => format!("{} of {}", self.section, self.object),
        }
    }
}
