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
    /// `Z + A`: the size of the symbol.
    Size,
    /// `Page(S + A) - Page(P)`: the page of the symbol, for an instruction that adds pages to its own.
    PagePcRelative,
    /// The place of a slot, seen from somewhere. The addend belongs to what the slot holds: it is for `S + A`.
    Slot(SlotKind, SeenFrom),
    /// `S + A - DTP`: the variable's distance from the start of its module's block (local-dynamic).
    ModuleOffset,
    /// Known by name, but not something a patch can carry yet: the build refuses it.
    Unsupported,
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
        }
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
        }
    }
}

impl RelocRow {
    /// Checks `value` and puts it into `section` at `offset`; on an error nothing is written.
    pub fn insert(&self, section: &mut [u8], offset: usize, value: i64) -> Result<(), RelocError> {
        let outside = RelocError::OutsideSection { name: self.name, offset };
        let end = offset.checked_add(self.field.size()).ok_or(outside)?;
        let place = section.get_mut(offset..end).ok_or(outside)?;
        if !self.range.holds(value) {
            return Err(RelocError::OutOfRange { name: self.name, value });
        }
        if self.align > 1 && value % i64::from(self.align) != 0 {
            return Err(RelocError::Misaligned { name: self.name, value });
        }
        match self.field {
            Field::Bytes(n) => place.copy_from_slice(&value.to_le_bytes()[..usize::from(n)]),
            Field::Bits(parts) => {
                let mut word = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
                for part in parts {
                    let mask = ((1u64 << part.width) - 1) as u32;
                    let bits = ((value >> part.low) as u32) & mask;
                    word = word & !(mask << part.at) | bits << part.at;
                }
                place.copy_from_slice(&word.to_le_bytes());
            }
            Field::MovWide { low } => {
                const MOVZ: u32 = 1 << 30;
                let word = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
                let bits = if value < 0 { !value } else { value };
                let bits = (bits >> low) as u32 & 0xffff;
                let opcode = if value < 0 { word & !MOVZ } else { word | MOVZ };
                place.copy_from_slice(&(opcode & !(0xffff << 5) | bits << 5).to_le_bytes());
            }
        }
        Ok(())
    }
}
