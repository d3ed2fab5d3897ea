// SPDX-License-Identifier: GPL-2.0-or-later
//! Relocations as data. A row says what is computed, where it goes and what must hold; one routine
//! ([`RelocRow::insert`]) checks and inserts for every row of every architecture. The letters are those
//! of the psABI documents: S symbol, A addend, P place, G slot in the global offset table, L procedure
//! linkage table entry.

use core::fmt;

/// What a relocation computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Formula {
    /// Nothing: a marker for the linker (R_*_NONE, RELAX, ALIGN).
    Nothing,
    /// `S + A`
    Absolute,
    /// `S + A - P`
    PcRelative,
    /// `L + A - P`: a branch; `L` is the symbol itself when it is in reach and not imported.
    PltPcRelative,
    /// `G + A - P`: the place of a slot that holds the symbol's address.
    GotPcRelative,
    /// `S + A - TP`: the variable's distance from the thread pointer (local-exec).
    TpOffset,
    /// `GT + A - P`: the place of a slot that holds the variable's distance from the thread pointer (initial-exec).
    TpSlotPcRelative,
    /// `G + A - P` of two words: the place of what a call takes to find a thread-local variable (general-dynamic,
    /// local-dynamic, descriptors).
    ThreadSlotPcRelative(SlotKind),
    /// `Z + A`: the size of the symbol.
    Size,
    /// `Page(S + A) - Page(P)`: the page of the symbol, for an instruction that adds pages to its own.
    PagePcRelative,
    /// `S + A`, of which only the lowest 12 bits count: the place in its page, the same wherever a file is loaded.
    PageOffset,
    /// `S + A` counted in pages from `P`.
    PcPages(Pages),
    /// `S + A - TP + 0x800`: the upper part of the distance, where the lower one is added as a signed number of 12 bits.
    TpOffsetRounded,
    /// `S + A`, added to what the field holds or taken off it: one half of a distance between two symbols.
    Difference,
    /// The place of a slot, seen from somewhere. The addend belongs to what the slot holds: it is for `S + A`.
    Slot(SlotKind, SeenFrom),
    /// `S + A - DTP`: the variable's distance from the start of its module's block (local-dynamic).
    ModuleOffset,
    /// Known by name, but not something a patch can carry yet: the build refuses it.
    Unsupported,
}

/// What a formula begins with: the psABI's letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Letter {
    /// No address: nothing is computed, or nothing that a patch can carry.
    None,
    /// `S`: the symbol's address.
    Symbol,
    /// `L`: its linkage table entry, or the symbol itself when it is in reach and not imported.
    Branch,
    /// `G`, `GT` and others: one or two words, with what they hold.
    Slot(SlotKind),
    /// `S - TP`: the variable's distance from the thread pointer.
    ThreadOffset,
    /// `S - DTP`: its distance from the start of its module's block.
    ModuleOffset,
    /// `Z`: the size of the symbol.
    Size,
}

impl Formula {
    /// What [`Formula::value`] wants to be given.
    pub fn letter(self) -> Letter {
        match self {
            Self::Nothing | Self::Unsupported => Letter::None,
            Self::Absolute | Self::PcRelative | Self::PagePcRelative => Letter::Symbol,
            Self::PageOffset | Self::PcPages(_) | Self::Difference => Letter::Symbol,
            Self::PltPcRelative => Letter::Branch,
            Self::GotPcRelative => Letter::Slot(SlotKind::Address),
            Self::TpSlotPcRelative => Letter::Slot(SlotKind::ThreadOffset),
            Self::Slot(kind, _) | Self::ThreadSlotPcRelative(kind) => Letter::Slot(kind),
            Self::TpOffset | Self::TpOffsetRounded => Letter::ThreadOffset,
            Self::ModuleOffset => Letter::ModuleOffset,
            Self::Size => Letter::Size,
        }
    }

    /// The formula's value, with what its letter stands for, `A`, `P` and `GOT`.
    pub fn value(self, letter: u64, addend: i64, place: u64, table: u64) -> i64 {
        let sum = letter.wrapping_add_signed(addend);
        match self {
            Self::Nothing | Self::Unsupported => 0,
            Self::Absolute | Self::PageOffset | Self::Difference | Self::Size => sum as i64,
            Self::TpOffset | Self::ModuleOffset => sum as i64,
            Self::TpOffsetRounded => sum.wrapping_add(0x800) as i64,
            Self::PcRelative | Self::PltPcRelative | Self::GotPcRelative => sum.wrapping_sub(place) as i64,
            Self::TpSlotPcRelative | Self::ThreadSlotPcRelative(_) => sum.wrapping_sub(place) as i64,
            Self::PagePcRelative => SeenFrom::PlacePage.distance(sum, place, table),
            Self::PcPages(pages) => pages.distance(sum, place),
            Self::Slot(_, seen) => seen.distance(letter, place, table),
        }
    }
}

/// How a distance in pages of 4 KiB is counted, from `P`'s page to that of an address `X`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Pages {
    /// `page(X + 0x800) - page(P)`: the low 12 bits of `X` are added to it as a signed number.
    Rounded,
    /// The upper 32 bits of a distance of 64, for an instruction so many bytes behind the one with the lower 32. What that one
    /// and the low 12 bits add as signed numbers is made good here.
    Upper {
        /// Distance between the two instructions.
        behind: u8,
    },
}

impl Pages {
    /// The distance from the instruction at `place` to the page of `to`.
    pub fn distance(self, to: u64, place: u64) -> i64 {
        const PAGE: u64 = !0xfff;
        let distance = match self {
            Self::Rounded => (to.wrapping_add(0x800) & PAGE).wrapping_sub(place & PAGE),
            Self::Upper { behind } => {
                let low = if to & 0x800 == 0 { 0 } else { 0x1000u64.wrapping_sub(1 << 32) };
                let to = to.wrapping_add(1 << 31).wrapping_add(low) & PAGE;
                to.wrapping_sub(place.wrapping_sub(u64::from(behind)) & PAGE)
            }
        };
        distance as i64
    }
}

/// What a slot of [`Formula::Slot`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SlotKind {
    /// `S + A`
    Address,
    /// `S + A - TP`: the variable's distance from the thread pointer (initial-exec).
    ThreadOffset,
    /// Two words for `__tls_get_addr`: the module, and the variable's distance from the start of its block (general-dynamic).
    ThreadIndex,
    /// Two words likewise, the second of them 0 (local-dynamic).
    ThreadModule,
    /// Two words: a resolver, and its argument (TLS descriptor).
    ThreadDescriptor,
}

/// From where a place is seen: what is taken off its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SeenFrom {
    /// Nothing: the address itself.
    Zero,
    /// `P`
    Place,
    /// `Page(P)`, off the page of the address.
    PlacePage,
    /// `P`, in pages.
    PlacePages(Pages),
    /// `GOT`, the start of the table of slots (`_GLOBAL_OFFSET_TABLE_`).
    Table,
    /// `Page(GOT)`
    TablePage,
}

impl SeenFrom {
    /// The distance to `address`, for the relocated place `place` and a table of slots at `table`. `Page(x)` is the
    /// 4096 bytes around `x`, whatever the pages of the system are.
    pub fn distance(self, address: u64, place: u64, table: u64) -> i64 {
        let page = |x: u64| x & !0xfff;
        let (to, from) = match self {
            Self::Zero => (address, 0),
            Self::Place => (address, place),
            Self::PlacePage => (page(address), page(place)),
            Self::PlacePages(pages) => return pages.distance(address, place),
            Self::Table => (address, table),
            Self::TablePage => (address, page(table)),
        };
        to.wrapping_sub(from) as i64
    }
}

/// Where the computed value goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Field {
    /// A little-endian number of this many bytes (0, 1, 2, 4, 8).
    Bytes(u8),
    /// Instruction bits: each part takes `value[low + width - 1 : low]` into the 32-bit instruction word at `at`.
    Bits(&'static [BitPart]),
    /// `value[low + 15 : low]` in bits [20:5] of a `movz`; of a negative value the complement, and the `movz` becomes a
    /// `movn` (bit 30 clear).
    MovWide {
        /// Lowest bit of the value that goes here.
        low: u8,
    },
    /// Two instructions, of which the second one adds its part as a signed number, so that the first one's is rounded.
    Pair {
        /// Part of the first instruction.
        high: BitPart,
        /// Part of the second instruction.
        low: BitPart,
    },
    /// The value is added to the low bits of a little-endian number, or taken off them; nothing else of it changes.
    Sum {
        /// How many bits: of one byte, or whole bytes.
        bits: u8,
        /// Taken off.
        minus: bool,
    },
    /// Likewise to a ULEB128 number, which keeps its length.
    SumUleb128 {
        /// Taken off.
        minus: bool,
    },
}

/// One part of an instruction field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct BitPart {
    /// Lowest bit of the value that goes here.
    pub low: u8,
    /// Number of bits.
    pub width: u8,
    /// Lowest bit position in the instruction word.
    pub at: u8,
}

/// What must hold for the value to be representable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Range {
    /// Any 64-bit value, truncated to the field by definition.
    Any,
    /// A two's complement number of this many bits.
    Signed(u8),
    /// An unsigned number of this many bits.
    Unsigned(u8),
    /// Either of the two readings fits this many bits.
    Either(u8),
    /// From the first number to the second one.
    Within(i64, i64),
}

/// One relocation type of one architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelocRow {
    /// The `r_type` number.
    pub r_type: u32,
    /// The psABI's name for it.
    pub name: &'static str,
    /// What is computed.
    pub formula: Formula,
    /// Where it goes.
    pub field: Field,
    /// What must hold.
    pub range: Range,
    /// The value must be a multiple of this.
    pub align: u8,
}

/// Why a value could not be inserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RelocError {
    /// The value does not fit the field's range.
    OutOfRange {
        /// The row's name.
        name: &'static str,
        /// The value that did not fit.
        value: i64,
    },
    /// The value is not a multiple of the row's alignment.
    Misaligned {
        /// The row's name.
        name: &'static str,
        /// The value.
        value: i64,
    },
    /// The place is not wholly inside the section.
    OutsideSection {
        /// The row's name.
        name: &'static str,
        /// Offset of the place.
        offset: usize,
    },
}

impl fmt::Display for RelocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { name, value } => write!(f, "{name}: value {value:#x} is out of range"),
            Self::Misaligned { name, value } => write!(f, "{name}: value {value:#x} is not aligned"),
            Self::OutsideSection { name, offset } => write!(f, "{name}: offset {offset:#x} is outside its section"),
        }
    }
}

impl std::error::Error for RelocError {}

impl Field {
    /// How many bytes of the section the field spans.
    pub fn size(self) -> usize {
        match self {
            Self::Bytes(n) => usize::from(n),
            Self::Bits(_) | Self::MovWide { .. } => 4,
            Self::Pair { .. } => 8,
            Self::Sum { bits, .. } => usize::from(bits).div_ceil(8),
            // The least that it can be: its bytes tell where it ends.
            Self::SumUleb128 { .. } => 1,
        }
    }

    /// Puts `value` into `place`, which is what there is of the section from the field on; `false`: it does not end there.
    fn put(self, place: &mut [u8], value: i64) -> bool {
        let size = self.size();
        match self {
            Self::Bytes(_) => place[..size].copy_from_slice(&value.to_le_bytes()[..size]),
            Self::Bits(parts) => change(place, |word| parts.iter().fold(word, |word, part| part.put(word, value))),
            Self::MovWide { low } => {
                const MOVZ: u32 = 1 << 30;
                let bits = if value < 0 { !value } else { value };
                let bits = (bits >> low) as u32 & 0xffff;
                change(place, |word| {
                    let opcode = if value < 0 { word & !MOVZ } else { word | MOVZ };
                    opcode & !(0xffff << 5) | bits << 5
                });
            }
            Self::Pair { high, low } => {
                let rounded = value.wrapping_add(1 << (low.low + low.width - 1));
                change(place, |word| high.put(word, rounded));
                change(&mut place[4..], |word| low.put(word, value));
            }
            Self::Sum { bits, minus } => {
                let mut word = [0; 8];
                word[..size].copy_from_slice(&place[..size]);
                let (old, mask) = (u64::from_le_bytes(word), u64::MAX >> (64 - bits));
                let new = old & !mask | sum(old, value, minus) & mask;
                place[..size].copy_from_slice(&new.to_le_bytes()[..size]);
            }
            Self::SumUleb128 { minus } => {
                // Ten bytes hold 64 bits; who writes more is mistaken.
                let Some(last) = place.iter().take(10).position(|byte| byte & 0x80 == 0) else { return false };
                let groups = || (0..).step_by(7).take(last + 1);
                let old = groups().zip(&*place).fold(0, |sum, (at, byte)| sum | u64::from(byte & 0x7f) << at);
                let new = sum(old, value, minus);
                for (at, byte) in groups().zip(place) {
                    *byte = *byte & 0x80 | (new >> at) as u8 & 0x7f;
                }
            }
        }
        true
    }
}

/// What a field that holds `old` holds afterwards.
fn sum(old: u64, value: i64, minus: bool) -> u64 {
    if minus { old.wrapping_sub(value as u64) } else { old.wrapping_add(value as u64) }
}

/// Changes the instruction word at the start of `place`.
fn change(place: &mut [u8], with: impl FnOnce(u32) -> u32) {
    if let Some(word) = place.first_chunk_mut::<4>() {
        *word = with(u32::from_le_bytes(*word)).to_le_bytes();
    }
}

/// imm16 in [20:5] and bit 30 of a `movz` or `movn`, as bytes.
const MOVE_WIDE: [u8; 4] = (0xffffu32 << 5 | 1 << 30).to_le_bytes();

impl BitPart {
    fn put(self, word: u32, value: i64) -> u32 {
        let mask = ((1u64 << self.width) - 1) as u32;
        let bits = ((value >> self.low) as u32) & mask;
        word & !(mask << self.at) | bits << self.at
    }
}

impl Range {
    fn holds(self, value: i64) -> bool {
        let signed = |bits: u8| bits >= 64 || (value >> (bits - 1) == 0 || value >> (bits - 1) == -1);
        let unsigned = |bits: u8| bits >= 64 || (value as u64) >> bits == 0;
        match self {
            Self::Any => true,
            Self::Signed(bits) => signed(bits),
            Self::Unsigned(bits) => unsigned(bits),
            Self::Either(bits) => signed(bits) || unsigned(bits),
            Self::Within(first, last) => (first..=last).contains(&value),
        }
    }
}

impl RelocRow {
    /// The value in the field at the start of `bytes`, which a linker filled in: bits that the field does not hold are 0, and the
    /// highest one that it does is the sign. `None` where it is more than one number or one instruction's bits.
    pub fn extract(&self, bytes: &[u8]) -> Option<i64> {
        match self.field {
            Field::Bytes(size @ (1 | 2 | 4 | 8)) => {
                let mut word = [0; 8];
                word[..usize::from(size)].copy_from_slice(bytes.get(..usize::from(size))?);
                let unused = 64 - 8 * u32::from(size);
                Some((u64::from_le_bytes(word) << unused) as i64 >> unused)
            }
            Field::Bits(parts) => {
                let word = u32::from_le_bytes(*bytes.first_chunk()?);
                let value = parts
                    .iter()
                    .fold(0u64, |value, part| value | (u64::from(word >> part.at) % (1 << part.width)) << part.low);
                let unused = 64 - self.span()?.end;
                Some((value << unused) as i64 >> unused)
            }
            _ => None,
        }
    }

    /// Which bits of the value the field of an instruction holds.
    pub fn span(&self) -> Option<core::ops::Range<u32>> {
        let Field::Bits(parts) = self.field else { return None };
        let low = parts.iter().map(|part| u32::from(part.low)).min()?;
        Some(low..parts.iter().map(|part| u32::from(part.low + part.width)).max()?)
    }

    /// The bits of the field, byte by byte: what the value decides. Of a number whose length is its own they are all.
    pub fn mask(&self) -> Vec<u8> {
        let size = self.field.size();
        match self.field {
            // What rounds the value for the other part makes 0 of -1.
            Field::Pair { high, low } => {
                let ones = |part: BitPart| part.put(0, -1).to_le_bytes();
                [ones(high), ones(low)].concat()
            }
            Field::Bits(_) | Field::MovWide { .. } => {
                let (mut ones, mut zeroes) = (vec![0; size], vec![0; size]);
                let _ = self.field.put(&mut ones, -1) && self.field.put(&mut zeroes, 0);
                // The complement of -1 is 0 in a field that takes its sign from elsewhere.
                let field = |at: usize| if let Field::MovWide { .. } = self.field { MOVE_WIDE[at % 4] } else { 0 };
                (0..size).map(|at| ones[at] ^ zeroes[at] | field(at)).collect()
            }
            Field::Bytes(_) | Field::Sum { .. } | Field::SumUleb128 { .. } => vec![0xff; size],
        }
    }

    /// Checks `value` and puts it into `section` at `offset`; on an error nothing is written.
    pub fn insert(&self, section: &mut [u8], offset: usize, value: i64) -> Result<(), RelocError> {
        let outside = RelocError::OutsideSection { name: self.name, offset };
        let end = offset.checked_add(self.field.size()).ok_or(outside)?;
        if end > section.len() {
            return Err(outside);
        }
        if !self.range.holds(value) {
            return Err(RelocError::OutOfRange { name: self.name, value });
        }
        if self.align > 1 && value % i64::from(self.align) != 0 {
            return Err(RelocError::Misaligned { name: self.name, value });
        }
        if self.field.put(&mut section[offset..], value) { Ok(()) } else { Err(outside) }
    }
}
