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
    /// Known by name, but not something a patch can carry yet: the build refuses it.
    Unsupported,
}

/// Where the computed value goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Field {
    /// A little-endian number of this many bytes (0, 1, 2, 4, 8).
    Bytes(u8),
    /// Instruction bits: each part takes `value[low + width - 1 : low]` into the 32-bit instruction word at `at`.
    Bits(&'static [BitPart]),
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
            Self::Bits(_) => 4,
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
        }
        Ok(())
    }
}
