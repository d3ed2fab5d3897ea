// SPDX-License-Identifier: GPL-2.0-or-later
//! Relocation rows from the table "ELF relocation types" of the LoongArch ELF psABI
//! (<https://github.com/loongson/la-abi-specs/blob/release/laelf.adoc>). That page names a check for branches alone. What reaches
//! 32 bits is checked here as its chapter on code models has it: a part that is cut off silently would be an address
//! somewhere else. The stack operations (20 to 46) are the old object ABI's, which no `e_flags` of ours allow.

use crate::{BitPart, Field, Formula, Pages, Range, RelocRow, SeenFrom, SlotKind};

const fn part(low: u8, width: u8, at: u8) -> BitPart {
    BitPart { low, width, at }
}

// Fields of instructions, by the names of the reference manual's formats: si12 [21:10], si20 [24:5], offs[15:0] [25:10].
const SI12: Field = Field::Bits(&[part(0, 12, 10)]);
const SI12_OF_63_52: Field = Field::Bits(&[part(52, 12, 10)]);
const SI20_OF_31_12: Field = Field::Bits(&[part(12, 20, 5)]);
const SI20_OF_51_32: Field = Field::Bits(&[part(32, 20, 5)]);
const SI20_OF_21_2: Field = Field::Bits(&[part(2, 20, 5)]);
const OFFS16: Field = Field::Bits(&[part(2, 16, 10)]);
const OFFS21: Field = Field::Bits(&[part(2, 16, 10), part(18, 5, 0)]);
const OFFS26: Field = Field::Bits(&[part(2, 16, 10), part(18, 10, 0)]);
/// pcaddu18i si20, jirl offs16
const CALL36: Field = Field::Pair { high: part(18, 20, 5), low: part(2, 16, 10) };
/// A page's low 12 bits in jirl's offs16, which is signed: bit 11 is its sign.
const JIRL_OF_11_2: Field = Field::Bits(&[
    part(2, 10, 10),
    part(11, 1, 20),
    part(11, 1, 21),
    part(11, 1, 22),
    part(11, 1, 23),
    part(11, 1, 24),
    part(11, 1, 25),
]);

const NONE: Field = Field::Bytes(0);
const S32: Range = Range::Signed(32);
/// Two signed numbers: 20 bits from bit 18 on, and 16 from bit 2 on.
const S38: Range = Range::Within(-(1 << 37) - 0x2_0000, (1 << 37) - 0x2_0000 - 1);

const fn row(r_type: u32, name: &'static str, formula: Formula, field: Field, range: Range) -> RelocRow {
    RelocRow { r_type, name, formula, field, range, align: 1 }
}

const fn aligned(r_type: u32, name: &'static str, formula: Formula, field: Field, range: Range) -> RelocRow {
    RelocRow { r_type, name, formula, field, range, align: 4 }
}

const fn marker(r_type: u32, name: &'static str) -> RelocRow {
    row(r_type, name, Formula::Nothing, NONE, Range::Any)
}

const fn plus(r_type: u32, name: &'static str, bits: u8) -> RelocRow {
    row(r_type, name, Formula::Difference, Field::Sum { bits, minus: false }, Range::Any)
}

const fn minus(r_type: u32, name: &'static str, bits: u8) -> RelocRow {
    row(r_type, name, Formula::Difference, Field::Sum { bits, minus: true }, Range::Any)
}

/// `lu32i.d` and `lu52i.d` stand 8 and 12 bytes behind their `pcalau12i` (chapter "Extreme code model").
const OF_51_32: Pages = Pages::Upper { behind: 8 };
const OF_63_52: Pages = Pages::Upper { behind: 12 };

const fn got(seen: SeenFrom) -> Formula {
    Formula::Slot(SlotKind::Address, seen)
}
const fn ie(seen: SeenFrom) -> Formula {
    Formula::Slot(SlotKind::ThreadOffset, seen)
}
const fn gd(seen: SeenFrom) -> Formula {
    Formula::Slot(SlotKind::ThreadIndex, seen)
}
const fn ld(seen: SeenFrom) -> Formula {
    Formula::Slot(SlotKind::ThreadModule, seen)
}
const fn desc(seen: SeenFrom) -> Formula {
    Formula::Slot(SlotKind::ThreadDescriptor, seen)
}

const PAGES: SeenFrom = SeenFrom::PlacePages(Pages::Rounded);
const LO20: SeenFrom = SeenFrom::PlacePages(OF_51_32);
const HI12: SeenFrom = SeenFrom::PlacePages(OF_63_52);
const PLACE: SeenFrom = SeenFrom::Place;
/// An absolute address, or the low 12 bits of one.
const ZERO: SeenFrom = SeenFrom::Zero;

use Formula::{Absolute, ModuleOffset, PageOffset, PcPages, PcRelative, PltPcRelative, TpOffset, TpOffsetRounded};
use Pages::Rounded;
use Range::{Any, Either, Signed};

pub(super) static RELOCATIONS: &[RelocRow] = &[
    marker(0, "R_LARCH_NONE"),
    // The psABI truncates; what cannot be read back is refused here.
    row(1, "R_LARCH_32", Absolute, Field::Bytes(4), Either(32)),
    row(2, "R_LARCH_64", Absolute, Field::Bytes(8), Any),
    row(8, "R_LARCH_TLS_DTPREL32", ModuleOffset, Field::Bytes(4), Either(32)),
    row(9, "R_LARCH_TLS_DTPREL64", ModuleOffset, Field::Bytes(8), Any),
    marker(20, "R_LARCH_MARK_LA"),
    marker(21, "R_LARCH_MARK_PCREL"),
    plus(47, "R_LARCH_ADD8", 8),
    plus(48, "R_LARCH_ADD16", 16),
    plus(49, "R_LARCH_ADD24", 24),
    plus(50, "R_LARCH_ADD32", 32),
    plus(51, "R_LARCH_ADD64", 64),
    minus(52, "R_LARCH_SUB8", 8),
    minus(53, "R_LARCH_SUB16", 16),
    minus(54, "R_LARCH_SUB24", 24),
    minus(55, "R_LARCH_SUB32", 32),
    minus(56, "R_LARCH_SUB64", 64),
    marker(57, "R_LARCH_GNU_VTINHERIT"),
    marker(58, "R_LARCH_GNU_VTENTRY"),
    aligned(64, "R_LARCH_B16", PltPcRelative, OFFS16, Signed(18)),
    aligned(65, "R_LARCH_B21", PltPcRelative, OFFS21, Signed(23)),
    aligned(66, "R_LARCH_B26", PltPcRelative, OFFS26, Signed(28)),
    row(67, "R_LARCH_ABS_HI20", Absolute, SI20_OF_31_12, S32),
    row(68, "R_LARCH_ABS_LO12", Absolute, SI12, Any),
    row(69, "R_LARCH_ABS64_LO20", Absolute, SI20_OF_51_32, Any),
    row(70, "R_LARCH_ABS64_HI12", Absolute, SI12_OF_63_52, Any),
    row(71, "R_LARCH_PCALA_HI20", PcPages(Rounded), SI20_OF_31_12, S32),
    row(72, "R_LARCH_PCALA_LO12", PageOffset, SI12, Any),
    row(73, "R_LARCH_PCALA64_LO20", PcPages(OF_51_32), SI20_OF_51_32, Any),
    row(74, "R_LARCH_PCALA64_HI12", PcPages(OF_63_52), SI12_OF_63_52, Any),
    // The lower parts of LD's and GD's pairs have these types too, from LO12 on: of a thread-local symbol `G` is its pair.
    row(75, "R_LARCH_GOT_PC_HI20", got(PAGES), SI20_OF_31_12, S32),
    row(76, "R_LARCH_GOT_PC_LO12", got(ZERO), SI12, Any),
    row(77, "R_LARCH_GOT64_PC_LO20", got(LO20), SI20_OF_51_32, Any),
    row(78, "R_LARCH_GOT64_PC_HI12", got(HI12), SI12_OF_63_52, Any),
    row(79, "R_LARCH_GOT_HI20", got(ZERO), SI20_OF_31_12, S32),
    row(80, "R_LARCH_GOT_LO12", got(ZERO), SI12, Any),
    row(81, "R_LARCH_GOT64_LO20", got(ZERO), SI20_OF_51_32, Any),
    row(82, "R_LARCH_GOT64_HI12", got(ZERO), SI12_OF_63_52, Any),
    row(83, "R_LARCH_TLS_LE_HI20", TpOffset, SI20_OF_31_12, S32),
    row(84, "R_LARCH_TLS_LE_LO12", TpOffset, SI12, Any),
    row(85, "R_LARCH_TLS_LE64_LO20", TpOffset, SI20_OF_51_32, Any),
    row(86, "R_LARCH_TLS_LE64_HI12", TpOffset, SI12_OF_63_52, Any),
    row(87, "R_LARCH_TLS_IE_PC_HI20", ie(PAGES), SI20_OF_31_12, S32),
    row(88, "R_LARCH_TLS_IE_PC_LO12", ie(ZERO), SI12, Any),
    row(89, "R_LARCH_TLS_IE64_PC_LO20", ie(LO20), SI20_OF_51_32, Any),
    row(90, "R_LARCH_TLS_IE64_PC_HI12", ie(HI12), SI12_OF_63_52, Any),
    row(91, "R_LARCH_TLS_IE_HI20", ie(ZERO), SI20_OF_31_12, S32),
    row(92, "R_LARCH_TLS_IE_LO12", ie(ZERO), SI12, Any),
    row(93, "R_LARCH_TLS_IE64_LO20", ie(ZERO), SI20_OF_51_32, Any),
    row(94, "R_LARCH_TLS_IE64_HI12", ie(ZERO), SI12_OF_63_52, Any),
    row(95, "R_LARCH_TLS_LD_PC_HI20", ld(PAGES), SI20_OF_31_12, S32),
    row(96, "R_LARCH_TLS_LD_HI20", ld(ZERO), SI20_OF_31_12, S32),
    row(97, "R_LARCH_TLS_GD_PC_HI20", gd(PAGES), SI20_OF_31_12, S32),
    row(98, "R_LARCH_TLS_GD_HI20", gd(ZERO), SI20_OF_31_12, S32),
    row(99, "R_LARCH_32_PCREL", PcRelative, Field::Bytes(4), S32),
    marker(100, "R_LARCH_RELAX"),
    // The padding stays, as when a linker does not relax: too much of it where code in front of it was not shortened.
    marker(102, "R_LARCH_ALIGN"),
    aligned(103, "R_LARCH_PCREL20_S2", PcRelative, SI20_OF_21_2, Signed(22)),
    plus(105, "R_LARCH_ADD6", 6),
    minus(106, "R_LARCH_SUB6", 6),
    row(107, "R_LARCH_ADD_ULEB128", Formula::Difference, Field::SumUleb128 { minus: false }, Any),
    row(108, "R_LARCH_SUB_ULEB128", Formula::Difference, Field::SumUleb128 { minus: true }, Any),
    row(109, "R_LARCH_64_PCREL", PcRelative, Field::Bytes(8), Any),
    aligned(110, "R_LARCH_CALL36", PltPcRelative, CALL36, S38),
    row(111, "R_LARCH_TLS_DESC_PC_HI20", desc(PAGES), SI20_OF_31_12, S32),
    row(112, "R_LARCH_TLS_DESC_PC_LO12", desc(ZERO), SI12, Any),
    row(113, "R_LARCH_TLS_DESC64_PC_LO20", desc(LO20), SI20_OF_51_32, Any),
    row(114, "R_LARCH_TLS_DESC64_PC_HI12", desc(HI12), SI12_OF_63_52, Any),
    row(115, "R_LARCH_TLS_DESC_HI20", desc(ZERO), SI20_OF_31_12, S32),
    row(116, "R_LARCH_TLS_DESC_LO12", desc(ZERO), SI12, Any),
    row(117, "R_LARCH_TLS_DESC64_LO20", desc(ZERO), SI20_OF_51_32, Any),
    row(118, "R_LARCH_TLS_DESC64_HI12", desc(ZERO), SI12_OF_63_52, Any),
    marker(119, "R_LARCH_TLS_DESC_LD"),
    marker(120, "R_LARCH_TLS_DESC_CALL"),
    row(121, "R_LARCH_TLS_LE_HI20_R", TpOffsetRounded, SI20_OF_31_12, S32),
    marker(122, "R_LARCH_TLS_LE_ADD_R"),
    row(123, "R_LARCH_TLS_LE_LO12_R", TpOffset, SI12, Any),
    aligned(124, "R_LARCH_TLS_LD_PCREL20_S2", ld(PLACE), SI20_OF_21_2, Signed(22)),
    aligned(125, "R_LARCH_TLS_GD_PCREL20_S2", gd(PLACE), SI20_OF_21_2, Signed(22)),
    aligned(126, "R_LARCH_TLS_DESC_PCREL20_S2", desc(PLACE), SI20_OF_21_2, Signed(22)),
];

/// `pcalau12i` and `jirl` as a call, which gcc 13 makes of `-mcmodel=medium`: a number of another width, in another place.
static PCALA_LO12_OF_JIRL: RelocRow = aligned(72, "R_LARCH_PCALA_LO12", PageOffset, JIRL_OF_11_2, Any);

pub(super) fn at(r_type: u32, code: &[u8], at: usize) -> Option<&'static RelocRow> {
    let jirl =
        code.get(at..).and_then(<[u8]>::first_chunk).is_some_and(|word| u32::from_le_bytes(*word) >> 26 == 0b010011);
    if r_type == PCALA_LO12_OF_JIRL.r_type && jirl {
        return Some(&PCALA_LO12_OF_JIRL);
    }
    RELOCATIONS.iter().find(|row| row.r_type == r_type)
}

/// The *64_LO20 of a sequence whose lower half begins with `r_type`.
pub(super) fn widened_by(r_type: u32) -> Option<u32> {
    // ABS, PCALA, GOT_PC, GOT, TLS_LE, TLS_IE_PC, TLS_IE, TLS_DESC_PC, TLS_DESC: HI20, LO12, 64_LO20, 64_HI12 in a row
    const HI20: [u32; 9] = [67, 71, 75, 79, 83, 87, 91, 111, 115];
    match r_type {
        // TLS_LD_PC, TLS_LD, TLS_GD_PC, TLS_GD go on with GOT64_PC_LO20 and GOT64_LO20.
        95 | 97 => Some(77),
        96 | 98 => Some(81),
        _ => HI20.contains(&r_type).then_some(r_type + 2),
    }
}
