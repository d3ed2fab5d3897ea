// SPDX-License-Identifier: GPL-2.0-or-later
//! Writes a selection down as sections, symbols and relocations of a package. The order depends on names alone, so that the
//! same input gives the same bytes.

use crate::model::{Code, Refusal};
use crate::object::{Atom, AtomKind, Frame, Ref, encoded_size};
use crate::resolve::{Key, Meaning, Outside, refusal};
use crate::select::Selection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use ulp_arch::{AddressUse, Arch, Field, Formula, Insn, RelocRow};
use ulp_format::{Place, Reference, Relocation, Section, SectionKind, Symbol, SymbolKind};

/// The package as it grows, target by target.
#[derive(Debug, Default)]
pub struct Builder {
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
    names: BTreeSet<String>,
    section_names: BTreeSet<String>,
    /// Whether an address inside the patch may end up in data that outlives it.
    pub escape: bool,
}

/// One target's part.
#[derive(Debug, Default)]
pub struct Part {
    pub sections: Vec<String>,
    pub references: Vec<Reference>,
    /// The package symbol of each carried atom.
    pub symbols: BTreeMap<Key, usize>,
}

fn unique(names: &mut BTreeSet<String>, wanted: &str) -> String {
    let mut name = wanted.to_owned();
    let mut n = 2;
    while !names.insert(name.clone()) {
        name = format!("{wanted}.{n}");
        n += 1;
    }
    name
}

impl Builder {
    /// Adds everything that `selection` carries.
    pub fn add(&mut self, selection: &Selection<'_>) -> Result<Part, Refusal> {
        let mut part = Part::default();
        let order = self.order(selection);
        for (key, atom) in &order {
            self.define(&mut part, *key, atom);
        }
        let mut outside: HashMap<String, usize> = HashMap::new();
        for (key, atom) in &order {
            let meanings = selection.carried.get(key).map_or(&[][..], Vec::as_slice);
            self.relocate(selection, &mut part, &mut outside, *key, atom, meanings)?;
        }
        self.frames(selection, &mut part, &mut outside, &order)?;
        part.references.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        Ok(part)
    }

    fn order<'s>(&self, selection: &'s Selection<'_>) -> Vec<(Key, &'s Atom)> {
        let units = &selection.context.units;
        let mut order: Vec<(Key, &Atom)> =
            selection.carried.keys().filter_map(|key| Some((*key, selection.atom(*key)?))).collect();
        order.sort_by_key(|(key, atom)| (rank(atom.kind), &units[key.0].unit.source, &atom.name, *key));
        order
    }

    /// A section and a symbol for one atom.
    fn define(&mut self, part: &mut Part, key: Key, atom: &Atom) {
        let (kind, prefix) = match atom.kind {
            AtomKind::Function => (SectionKind::Code, ".text"),
            AtomKind::Data => (SectionKind::Data, ".data"),
            AtomKind::ZeroData => (SectionKind::ZeroData, ".bss"),
            _ => (SectionKind::ReadOnly, ".rodata"),
        };
        // Names of mergeable strings tell their section already.
        let bare = atom.name.strip_prefix(prefix).map_or_else(
            || if atom.name.starts_with('.') { atom.name.clone() } else { format!(".{}", atom.name) },
            str::to_owned,
        );
        let name = unique(&mut self.section_names, &format!("{prefix}{bare}"));
        let symbol_name = unique(&mut self.names, &atom.name);
        part.sections.push(name.clone());
        part.symbols.insert(key, self.symbols.len());
        self.symbols.push(Symbol {
            name: symbol_name,
            place: Some(Place { section: self.sections.len(), offset: 0, size: atom.size }),
            kind: if kind == SectionKind::Code { SymbolKind::Function } else { SymbolKind::Object },
        });
        self.sections.push(Section {
            name,
            kind,
            align: atom.align.max(1),
            data: if kind == SectionKind::ZeroData { Vec::new() } else { atom.bytes.clone() },
            size: atom.size,
            relocations: Vec::new(),
        });
        // New variables can be pointed to by anything that the new code stores.
        self.escape |= matches!(kind, SectionKind::Data | SectionKind::ZeroData);
    }

    fn relocate(
        &mut self,
        selection: &Selection<'_>,
        part: &mut Part,
        outside: &mut HashMap<String, usize>,
        key: Key,
        atom: &Atom,
        meanings: &[Meaning],
    ) -> Result<(), Refusal> {
        let arch = selection.context.arch;
        let lost =
            || refusal(Code::Unresolved, &atom.name, format!("a reference of {} is lost", atom.name), "report it");
        let mut relocations = Vec::new();
        for (r, meaning) in atom.refs.iter().zip(meanings) {
            let symbol = match meaning {
                Meaning::Own(own) => {
                    self.escape |= !r.branch && address_is_taken(arch, atom, r.offset, arch.relocation(r.r_type));
                    *part.symbols.get(own).ok_or_else(lost)?
                }
                Meaning::Outside(what) => self.refer(part, outside, what),
            };
            let addend = r.target_offset.checked_add(r.adjust).ok_or_else(lost)?;
            relocations.push(Relocation { offset: r.offset, r_type: r.r_type, symbol, addend });
        }
        relocations.sort_by_key(|r| (r.offset, r.r_type));
        let place = part.symbols.get(&key).and_then(|i| self.symbols.get(*i)).and_then(|s| s.place).ok_or_else(lost)?;
        let section = self.sections.get_mut(place.section).ok_or_else(lost)?;
        if section.kind == SectionKind::ZeroData && !relocations.is_empty() {
            return Err(lost());
        }
        section.relocations = relocations;
        Ok(())
    }

    /// The undefined symbol for something outside; one for each thing, however often it is used.
    fn refer(&mut self, part: &mut Part, known: &mut HashMap<String, usize>, what: &Outside) -> usize {
        let identity = format!("{:?}", what.source);
        if let Some(index) = known.get(&identity) {
            return *index;
        }
        let index = self.symbols.len();
        let name = unique(&mut self.names, &what.name);
        part.references.push(Reference { symbol: name.clone(), source: what.source.clone(), found: None });
        self.symbols.push(Symbol { name, place: None, kind: what.kind });
        known.insert(identity, index);
        index
    }

    /// One `.eh_frame` for all functions, from their own entries.
    fn frames(
        &mut self,
        selection: &Selection<'_>,
        part: &mut Part,
        outside: &mut HashMap<String, usize>,
        order: &[(Key, &Atom)],
    ) -> Result<(), Refusal> {
        let mut data = Vec::new();
        let mut relocations = Vec::new();
        let mut commons: BTreeMap<(Vec<u8>, Option<usize>), usize> = BTreeMap::new();
        for (key, atom) in order {
            let (Some(frame), Some(symbol)) = (&atom.frame, part.symbols.get(key).copied()) else { continue };
            let bad = |why: &str| {
                let message = format!("the call frame information of {} is not understood: {why}", atom.name);
                refusal(Code::Eh, &atom.name, message, "report it with the object file")
            };
            let pointer = Pointer::of(selection.context.arch, frame).map_err(bad)?;
            // What the frame's pointers mean stands behind what the code's do.
            let meanings = selection.carried.get(key).and_then(|m| m.get(atom.refs.len()..)).unwrap_or(&[]);
            let mut meanings = meanings.iter();
            let mut symbol_of = |r: &Option<Ref>| match (r, if r.is_some() { meanings.next() } else { None }) {
                (None, _) => Ok(None),
                (Some(_), Some(Meaning::Outside(what))) => Ok(Some(self.refer(part, outside, what))),
                (Some(_), Some(Meaning::Own(own))) => {
                    part.symbols.get(own).copied().map(Some).ok_or("a pointer is lost")
                }
                (Some(_), None) => Err("a pointer is lost"),
            };
            let personality = symbol_of(&frame.personality).map_err(bad)?;
            let lsda = symbol_of(&frame.lsda).map_err(bad)?;
            let mut point = |from: usize, r: &Ref, symbol: usize| {
                let addend = r.target_offset.saturating_add(r.adjust);
                let offset = (from as u64).saturating_add(r.offset);
                relocations.push(Relocation { offset, r_type: r.r_type, symbol, addend });
            };
            let cie = match commons.get(&(frame.cie.clone(), personality)) {
                Some(at) => *at,
                None => {
                    let at = data.len();
                    data.extend(&frame.cie);
                    commons.insert((frame.cie.clone(), personality), at);
                    if let (Some(r), Some(symbol)) = (&frame.personality, personality) {
                        point(at, r, symbol);
                    }
                    at
                }
            };
            let at = data.len();
            if let (Some(r), Some(symbol)) = (&frame.lsda, lsda) {
                point(at, r, symbol);
            }
            data.extend(&frame.fde);
            let back = u32::try_from(at + 4 - cie).map_err(|_| bad("it is too far from its common entry"))?;
            let field = data.get_mut(at + 4..at + 8).ok_or_else(|| bad("it is cut short"))?;
            field.copy_from_slice(&back.to_le_bytes());
            let offset = (at + 8) as u64;
            let start = i64::try_from(frame.start).map_err(|_| bad("it begins too far away"))?;
            let initial = data.get_mut(at + 8..at + 8 + pointer.size).ok_or_else(|| bad("it is cut short"))?;
            initial.fill(0);
            relocations.push(Relocation { offset, r_type: pointer.r_type, symbol, addend: start });
        }
        if data.is_empty() {
            return Ok(());
        }
        relocations.sort_by_key(|r| (r.offset, r.r_type));
        // The entry of length zero that ends a table.
        data.extend([0; 4]);
        let name = unique(&mut self.section_names, ".eh_frame");
        part.sections.push(name.clone());
        let size = data.len() as u64;
        self.sections.push(Section { name, kind: SectionKind::Frames, align: 8, data, size, relocations });
        Ok(())
    }
}

fn rank(kind: AtomKind) -> u8 {
    match kind {
        AtomKind::Function => 0,
        AtomKind::ReadOnly | AtomKind::Constructors => 1,
        AtomKind::Data | AtomKind::TlsData => 2,
        AtomKind::ZeroData | AtomKind::TlsZero => 3,
    }
}

/// Whether the field at `offset` makes an address of the patch a value, which the code may store anywhere. Loads from and
/// stores to a place in the patch do not, nor do distances in a jump table.
fn address_is_taken(arch: &dyn Arch, atom: &Atom, offset: u64, row: Option<&RelocRow>) -> bool {
    let formula = row.map_or(Formula::Absolute, |row| row.formula);
    if atom.kind != AtomKind::Function {
        return formula != Formula::PcRelative;
    }
    let Ok(offset) = usize::try_from(offset) else { return true };
    // Where an address takes several instructions, what becomes of the register tells.
    if row.is_some_and(|row| !matches!(row.field, Field::Bytes(_))) {
        return arch.address_use(&atom.bytes, offset) != AddressUse::Read;
    }
    if formula != Formula::PcRelative {
        return true;
    }
    let insns = arch.decode(&atom.bytes);
    let insn = Insn::containing(&insns, offset).and_then(|i| Some((i.start, arch.detail(&atom.bytes, i.start)?)));
    match insn.and_then(|(start, d)| d.pc_relative.map(|p| (start + p.at, p.taken))) {
        Some((field, taken)) if field == offset => taken,
        _ => true,
    }
}

/// How a frame entry gives its function's address.
struct Pointer {
    size: usize,
    r_type: u32,
}

impl Pointer {
    /// From the `R` of the common entry's augmentation (LSB core, 10.6.1.1.1); absolute where there is none.
    fn of(arch: &dyn Arch, frame: &Frame) -> Result<Self, &'static str> {
        const CUT: &str = "its common entry is cut short";
        let cie = &frame.cie;
        let text = cie.get(9..).ok_or(CUT)?;
        let len = text.iter().position(|b| *b == 0).ok_or(CUT)?;
        let augmentation = text.get(..len).ok_or(CUT)?;
        let encoding = match augmentation {
            [] => 0,
            [b'z', letters @ ..] => {
                let mut at = 9 + len + 1;
                for _ in 0..4 {
                    // Code and data alignment, the return address column, the length of what follows: LEB128 each.
                    while cie.get(at).ok_or(CUT)? & 0x80 != 0 {
                        at += 1;
                    }
                    at += 1;
                }
                let mut encoding = 0;
                for letter in letters {
                    match letter {
                        b'R' => encoding = *cie.get(at).ok_or(CUT)?,
                        // The encoding of the personality routine's address, and the address.
                        b'P' => at += encoded_size(*cie.get(at).ok_or(CUT)?).ok_or("its augmentation is unknown")?,
                        b'L' => {}
                        b'S' => continue,
                        _ => return Err("its augmentation is unknown"),
                    }
                    at += 1;
                }
                encoding
            }
            _ => return Err("its augmentation is unknown"),
        };
        // DW_EH_PE_absptr; pcrel with sdata4 or sdata8.
        match encoding {
            0x00 => Self::row(arch, Formula::Absolute, 8),
            0x1b => Self::row(arch, Formula::PcRelative, 4),
            0x1c => Self::row(arch, Formula::PcRelative, 8),
            _ => Err("its pointers are encoded in an unknown way"),
        }
    }

    fn row(arch: &dyn Arch, formula: Formula, size: u8) -> Result<Self, &'static str> {
        let row = arch.data_relocation(formula, size).ok_or("its pointers have no relocation")?;
        Ok(Self { size: row.field.size(), r_type: row.r_type })
    }
}
