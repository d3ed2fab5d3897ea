// SPDX-License-Identifier: GPL-2.0-or-later
//! The relocation rows: ELF for the Arm 64-bit Architecture (<https://github.com/ARM-software/abi-aa>, aaelf64), "Relocation
//! types". An instruction's row names the bits of its immediate; the ranges and alignments are the document's "check" column
//! and the notes below its tables. A branch's distance must be a multiple of 4 besides: what is lost of any other one would
//! lead elsewhere. Rows that no compiler emits and no linker knows are there by name only.

use crate::{BitPart, Field, Formula, Range, RelocRow, SeenFrom, SlotKind};
use Formula::{
    Absolute, ModuleOffset, Nothing, PageOffset, PagePcRelative, PcRelative, PltPcRelative, TpOffset, Unsupported,
};
use Range::{Any, Either, Signed, Unsigned};

const fn row(r_type: u32, name: &'static str, formula: Formula, field: Field, range: Range, align: u8) -> RelocRow {
    RelocRow { r_type, name, formula, field, range, align }
}

const WORD8: Field = Field::Bytes(8);
const WORD4: Field = Field::Bytes(4);
const WORD2: Field = Field::Bytes(2);
const NONE: Field = Field::Bytes(0);

const fn part(low: u8, width: u8, at: u8) -> BitPart {
    BitPart { low, width, at }
}

/// `movz`, `movk`: imm16 in [20:5].
const G0: Field = Field::Bits(&[part(0, 16, 5)]);
const G1: Field = Field::Bits(&[part(16, 16, 5)]);
const G2: Field = Field::Bits(&[part(32, 16, 5)]);
const G3: Field = Field::Bits(&[part(48, 16, 5)]);
/// Likewise, but the sign chooses between `movz` and `movn`.
const S0: Field = Field::MovWide { low: 0 };
const S1: Field = Field::MovWide { low: 16 };
const S2: Field = Field::MovWide { low: 32 };
const S3: Field = Field::MovWide { low: 48 };
/// `adr`: the low 2 bits in [30:29], the high 19 in [23:5].
const ADR: Field = Field::Bits(&[part(0, 2, 29), part(2, 19, 5)]);
/// `adrp` likewise, in pages.
const ADRP: Field = Field::Bits(&[part(12, 2, 29), part(14, 19, 5)]);
/// `ldr` of a literal, `b.cond`, `cbz`: imm19 in [23:5], in words.
const IMM19: Field = Field::Bits(&[part(2, 19, 5)]);
/// `tbz`: imm14 in [18:5], in words.
const IMM14: Field = Field::Bits(&[part(2, 14, 5)]);
/// `b`, `bl`: imm26 in [25:0], in words.
const IMM26: Field = Field::Bits(&[part(2, 26, 0)]);
/// `add`: imm12 in [21:10]. Loads and stores likewise, in units of what they move.
const LO12: Field = Field::Bits(&[part(0, 12, 10)]);
const HI12: Field = Field::Bits(&[part(12, 12, 10)]);
const LO12_2: Field = Field::Bits(&[part(1, 11, 10)]);
const LO12_4: Field = Field::Bits(&[part(2, 10, 10)]);
const LO12_8: Field = Field::Bits(&[part(3, 9, 10)]);
const LO12_16: Field = Field::Bits(&[part(4, 8, 10)]);
const LO15_8: Field = Field::Bits(&[part(3, 12, 10)]);

const fn slot(seen: SeenFrom) -> Formula {
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
use SeenFrom::{Place, PlacePage, Table, TablePage, Zero};

pub(super) static RELOCATIONS: &[RelocRow] = &[
    row(0, "R_AARCH64_NONE", Nothing, NONE, Any, 1),
    // Data.
    row(257, "R_AARCH64_ABS64", Absolute, WORD8, Any, 1),
    row(258, "R_AARCH64_ABS32", Absolute, WORD4, Either(32), 1),
    row(259, "R_AARCH64_ABS16", Absolute, WORD2, Either(16), 1),
    row(260, "R_AARCH64_PREL64", PcRelative, WORD8, Any, 1),
    row(261, "R_AARCH64_PREL32", PcRelative, WORD4, Either(32), 1),
    row(262, "R_AARCH64_PREL16", PcRelative, WORD2, Either(16), 1),
    // A value in a group of instructions.
    row(263, "R_AARCH64_MOVW_UABS_G0", Absolute, G0, Unsigned(16), 1),
    row(264, "R_AARCH64_MOVW_UABS_G0_NC", Absolute, G0, Any, 1),
    row(265, "R_AARCH64_MOVW_UABS_G1", Absolute, G1, Unsigned(32), 1),
    row(266, "R_AARCH64_MOVW_UABS_G1_NC", Absolute, G1, Any, 1),
    row(267, "R_AARCH64_MOVW_UABS_G2", Absolute, G2, Unsigned(48), 1),
    row(268, "R_AARCH64_MOVW_UABS_G2_NC", Absolute, G2, Any, 1),
    row(269, "R_AARCH64_MOVW_UABS_G3", Absolute, G3, Any, 1),
    row(270, "R_AARCH64_MOVW_SABS_G0", Absolute, S0, Signed(17), 1),
    row(271, "R_AARCH64_MOVW_SABS_G1", Absolute, S1, Signed(33), 1),
    row(272, "R_AARCH64_MOVW_SABS_G2", Absolute, S2, Signed(49), 1),
    // PC-relative addresses, and what is left of an address below its page.
    row(273, "R_AARCH64_LD_PREL_LO19", PcRelative, IMM19, Signed(21), 4),
    row(274, "R_AARCH64_ADR_PREL_LO21", PcRelative, ADR, Signed(21), 1),
    row(275, "R_AARCH64_ADR_PREL_PG_HI21", PagePcRelative, ADRP, Signed(33), 1),
    row(276, "R_AARCH64_ADR_PREL_PG_HI21_NC", PagePcRelative, ADRP, Any, 1),
    row(277, "R_AARCH64_ADD_ABS_LO12_NC", PageOffset, LO12, Any, 1),
    row(278, "R_AARCH64_LDST8_ABS_LO12_NC", PageOffset, LO12, Any, 1),
    row(284, "R_AARCH64_LDST16_ABS_LO12_NC", PageOffset, LO12_2, Any, 2),
    row(285, "R_AARCH64_LDST32_ABS_LO12_NC", PageOffset, LO12_4, Any, 4),
    row(286, "R_AARCH64_LDST64_ABS_LO12_NC", PageOffset, LO12_8, Any, 8),
    row(299, "R_AARCH64_LDST128_ABS_LO12_NC", PageOffset, LO12_16, Any, 16),
    // Branches.
    row(279, "R_AARCH64_TSTBR14", PcRelative, IMM14, Signed(16), 4),
    row(280, "R_AARCH64_CONDBR19", PcRelative, IMM19, Signed(21), 4),
    row(282, "R_AARCH64_JUMP26", PltPcRelative, IMM26, Signed(28), 4),
    row(283, "R_AARCH64_CALL26", PltPcRelative, IMM26, Signed(28), 4),
    row(314, "R_AARCH64_PLT32", PltPcRelative, WORD4, Signed(32), 1),
    // A distance in a group of instructions.
    row(287, "R_AARCH64_MOVW_PREL_G0", PcRelative, S0, Signed(17), 1),
    row(288, "R_AARCH64_MOVW_PREL_G0_NC", PcRelative, G0, Any, 1),
    row(289, "R_AARCH64_MOVW_PREL_G1", PcRelative, S1, Signed(33), 1),
    row(290, "R_AARCH64_MOVW_PREL_G1_NC", PcRelative, G1, Any, 1),
    row(291, "R_AARCH64_MOVW_PREL_G2", PcRelative, S2, Signed(49), 1),
    row(292, "R_AARCH64_MOVW_PREL_G2_NC", PcRelative, G2, Any, 1),
    row(293, "R_AARCH64_MOVW_PREL_G3", PcRelative, S3, Any, 1),
    // Slots.
    row(300, "R_AARCH64_MOVW_GOTOFF_G0", Unsupported, S0, Signed(17), 1),
    row(301, "R_AARCH64_MOVW_GOTOFF_G0_NC", slot(Table), G0, Any, 1),
    row(302, "R_AARCH64_MOVW_GOTOFF_G1", slot(Table), S1, Signed(33), 1),
    row(303, "R_AARCH64_MOVW_GOTOFF_G1_NC", Unsupported, G1, Any, 1),
    row(304, "R_AARCH64_MOVW_GOTOFF_G2", Unsupported, S2, Signed(49), 1),
    row(305, "R_AARCH64_MOVW_GOTOFF_G2_NC", Unsupported, G2, Any, 1),
    row(306, "R_AARCH64_MOVW_GOTOFF_G3", Unsupported, S3, Any, 1),
    row(307, "R_AARCH64_GOTREL64", Unsupported, WORD8, Any, 1),
    row(308, "R_AARCH64_GOTREL32", Unsupported, WORD4, Signed(32), 1),
    row(309, "R_AARCH64_GOT_LD_PREL19", slot(Place), IMM19, Signed(21), 4),
    row(310, "R_AARCH64_LD64_GOTOFF_LO15", slot(Table), LO15_8, Unsigned(15), 8),
    row(311, "R_AARCH64_ADR_GOT_PAGE", slot(PlacePage), ADRP, Signed(33), 1),
    row(312, "R_AARCH64_LD64_GOT_LO12_NC", slot(Zero), LO12_8, Any, 8),
    row(313, "R_AARCH64_LD64_GOTPAGE_LO15", slot(TablePage), LO15_8, Unsigned(15), 8),
    // Thread-local storage: general-dynamic.
    row(512, "R_AARCH64_TLSGD_ADR_PREL21", gd(Place), ADR, Signed(21), 1),
    row(513, "R_AARCH64_TLSGD_ADR_PAGE21", gd(PlacePage), ADRP, Signed(33), 1),
    row(514, "R_AARCH64_TLSGD_ADD_LO12_NC", gd(Zero), LO12, Any, 1),
    row(515, "R_AARCH64_TLSGD_MOVW_G1", gd(Table), S1, Signed(33), 1),
    row(516, "R_AARCH64_TLSGD_MOVW_G0_NC", gd(Table), G0, Any, 1),
    // Local-dynamic.
    row(517, "R_AARCH64_TLSLD_ADR_PREL21", ld(Place), ADR, Signed(21), 1),
    row(518, "R_AARCH64_TLSLD_ADR_PAGE21", ld(PlacePage), ADRP, Signed(33), 1),
    row(519, "R_AARCH64_TLSLD_ADD_LO12_NC", ld(Zero), LO12, Any, 1),
    row(520, "R_AARCH64_TLSLD_MOVW_G1", Unsupported, S1, Signed(33), 1),
    row(521, "R_AARCH64_TLSLD_MOVW_G0_NC", Unsupported, G0, Any, 1),
    row(522, "R_AARCH64_TLSLD_LD_PREL19", Unsupported, IMM19, Signed(21), 4),
    row(523, "R_AARCH64_TLSLD_MOVW_DTPREL_G2", ModuleOffset, S2, Signed(49), 1),
    row(524, "R_AARCH64_TLSLD_MOVW_DTPREL_G1", ModuleOffset, S1, Signed(33), 1),
    row(525, "R_AARCH64_TLSLD_MOVW_DTPREL_G1_NC", ModuleOffset, G1, Any, 1),
    row(526, "R_AARCH64_TLSLD_MOVW_DTPREL_G0", ModuleOffset, S0, Signed(17), 1),
    row(527, "R_AARCH64_TLSLD_MOVW_DTPREL_G0_NC", ModuleOffset, G0, Any, 1),
    row(528, "R_AARCH64_TLSLD_ADD_DTPREL_HI12", ModuleOffset, HI12, Unsigned(24), 1),
    row(529, "R_AARCH64_TLSLD_ADD_DTPREL_LO12", ModuleOffset, LO12, Unsigned(12), 1),
    row(530, "R_AARCH64_TLSLD_ADD_DTPREL_LO12_NC", ModuleOffset, LO12, Any, 1),
    row(531, "R_AARCH64_TLSLD_LDST8_DTPREL_LO12", ModuleOffset, LO12, Unsigned(12), 1),
    row(532, "R_AARCH64_TLSLD_LDST8_DTPREL_LO12_NC", ModuleOffset, LO12, Any, 1),
    row(533, "R_AARCH64_TLSLD_LDST16_DTPREL_LO12", ModuleOffset, LO12_2, Unsigned(12), 2),
    row(534, "R_AARCH64_TLSLD_LDST16_DTPREL_LO12_NC", ModuleOffset, LO12_2, Any, 2),
    row(535, "R_AARCH64_TLSLD_LDST32_DTPREL_LO12", ModuleOffset, LO12_4, Unsigned(12), 4),
    row(536, "R_AARCH64_TLSLD_LDST32_DTPREL_LO12_NC", ModuleOffset, LO12_4, Any, 4),
    row(537, "R_AARCH64_TLSLD_LDST64_DTPREL_LO12", ModuleOffset, LO12_8, Unsigned(12), 8),
    row(538, "R_AARCH64_TLSLD_LDST64_DTPREL_LO12_NC", ModuleOffset, LO12_8, Any, 8),
    row(572, "R_AARCH64_TLSLD_LDST128_DTPREL_LO12", Unsupported, LO12_16, Unsigned(12), 16),
    row(573, "R_AARCH64_TLSLD_LDST128_DTPREL_LO12_NC", Unsupported, LO12_16, Any, 16),
    // Initial-exec.
    row(539, "R_AARCH64_TLSIE_MOVW_GOTTPREL_G1", ie(Table), S1, Signed(33), 1),
    row(540, "R_AARCH64_TLSIE_MOVW_GOTTPREL_G0_NC", ie(Table), G0, Any, 1),
    row(541, "R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21", ie(PlacePage), ADRP, Signed(33), 1),
    row(542, "R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC", ie(Zero), LO12_8, Any, 8),
    row(543, "R_AARCH64_TLSIE_LD_GOTTPREL_PREL19", ie(Place), IMM19, Signed(21), 4),
    // Local-exec.
    row(544, "R_AARCH64_TLSLE_MOVW_TPREL_G2", TpOffset, S2, Signed(49), 1),
    row(545, "R_AARCH64_TLSLE_MOVW_TPREL_G1", TpOffset, S1, Signed(33), 1),
    row(546, "R_AARCH64_TLSLE_MOVW_TPREL_G1_NC", TpOffset, G1, Any, 1),
    row(547, "R_AARCH64_TLSLE_MOVW_TPREL_G0", TpOffset, S0, Signed(17), 1),
    row(548, "R_AARCH64_TLSLE_MOVW_TPREL_G0_NC", TpOffset, G0, Any, 1),
    row(549, "R_AARCH64_TLSLE_ADD_TPREL_HI12", TpOffset, HI12, Unsigned(24), 1),
    row(550, "R_AARCH64_TLSLE_ADD_TPREL_LO12", TpOffset, LO12, Unsigned(12), 1),
    row(551, "R_AARCH64_TLSLE_ADD_TPREL_LO12_NC", TpOffset, LO12, Any, 1),
    row(552, "R_AARCH64_TLSLE_LDST8_TPREL_LO12", TpOffset, LO12, Unsigned(12), 1),
    row(553, "R_AARCH64_TLSLE_LDST8_TPREL_LO12_NC", TpOffset, LO12, Any, 1),
    row(554, "R_AARCH64_TLSLE_LDST16_TPREL_LO12", TpOffset, LO12_2, Unsigned(12), 2),
    row(555, "R_AARCH64_TLSLE_LDST16_TPREL_LO12_NC", TpOffset, LO12_2, Any, 2),
    row(556, "R_AARCH64_TLSLE_LDST32_TPREL_LO12", TpOffset, LO12_4, Unsigned(12), 4),
    row(557, "R_AARCH64_TLSLE_LDST32_TPREL_LO12_NC", TpOffset, LO12_4, Any, 4),
    row(558, "R_AARCH64_TLSLE_LDST64_TPREL_LO12", TpOffset, LO12_8, Unsigned(12), 8),
    row(559, "R_AARCH64_TLSLE_LDST64_TPREL_LO12_NC", TpOffset, LO12_8, Any, 8),
    row(570, "R_AARCH64_TLSLE_LDST128_TPREL_LO12", Unsupported, LO12_16, Unsigned(12), 16),
    row(571, "R_AARCH64_TLSLE_LDST128_TPREL_LO12_NC", TpOffset, LO12_16, Any, 16),
    // Descriptors.
    row(560, "R_AARCH64_TLSDESC_LD_PREL19", desc(Place), IMM19, Signed(21), 4),
    row(561, "R_AARCH64_TLSDESC_ADR_PREL21", desc(Place), ADR, Signed(21), 1),
    row(562, "R_AARCH64_TLSDESC_ADR_PAGE21", desc(PlacePage), ADRP, Signed(33), 1),
    row(563, "R_AARCH64_TLSDESC_LD64_LO12", desc(Zero), LO12_8, Any, 8),
    row(564, "R_AARCH64_TLSDESC_ADD_LO12", desc(Zero), LO12, Any, 1),
    row(565, "R_AARCH64_TLSDESC_OFF_G1", desc(Table), S1, Signed(33), 1),
    row(566, "R_AARCH64_TLSDESC_OFF_G0_NC", desc(Table), G0, Any, 1),
    row(567, "R_AARCH64_TLSDESC_LDR", Nothing, NONE, Any, 1),
    row(568, "R_AARCH64_TLSDESC_ADD", Nothing, NONE, Any, 1),
    row(569, "R_AARCH64_TLSDESC_CALL", Nothing, NONE, Any, 1),
];
