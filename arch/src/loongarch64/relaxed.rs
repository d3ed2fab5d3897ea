// SPDX-License-Identifier: GPL-2.0-or-later
//! What linkers make of sequences for which they find a shorter way (psABI, "R_LARCH_RELAX"; GNU ld and lld). Most of them lose an
//! instruction, and everything behind moves up: `pcalau12i` and `addi.d` (or the slot's `ld.d`) become `pcaddi`, `pcaddu18i` and
//! `jirl` become `bl` or `b`, local-exec's `lu12i.w` and `add.d` vanish. What stands where a field would be is told here; which
//! instruction of the object that is, somebody else has to find.

use super::insn::{self, Kind, LEN};
use crate::LinkedForm;

/// The thread pointer, which holds nothing else (psABI, "Register usage convention").
const TP: u32 = 2;

/// Markers have no field, but stand for an instruction that may become another one: TLS_DESC_LD, TLS_DESC_CALL, TLS_LE_ADD_R.
pub(super) fn around(r_type: u32) -> (usize, usize) {
    match r_type {
        119 | 120 | 122 => (0, LEN),
        _ => (0, 0),
    }
}

pub(super) fn form(r_type: u32, code: &[u8], field: usize) -> LinkedForm {
    let Some(word) = insn::word(code, field) else { return LinkedForm::Rewritten };
    let kept = match r_type {
        // GOT_PC_HI20: pcalau12i stays when `ld.d` becomes `addi.d`, and means another page.
        75 => match (insn::kind(word), insn::word(code, field + LEN)) {
            (Kind::PcAlaU12I, Some(next)) if insn::is_addi(next) && insn::rj(next) == insn::rd(word) => {
                return LinkedForm::Direct { before: 0 };
            }
            (Kind::PcAlaU12I, next) => next.is_some(),
            _ => false,
        },
        // GOT_PC_LO12: a load; or an addition to $zero in the sequence for 64 bits. Any other addition may be what became of a load,
        // or the address of a pair of slots.
        76 => insn::is_load(word) || insn::is_addi(word) && insn::rj(word) == insn::ZERO,
        // TLS_IE_PC_LO12
        88 => insn::is_load(word) || insn::is_addi(word) && insn::rj(word) == insn::ZERO,
        // PCALA_HI20, TLS_IE_PC_HI20, TLS_LD_PC_HI20, TLS_GD_PC_HI20, TLS_DESC_PC_HI20
        71 | 87 | 95 | 97 | 111 => insn::kind(word) == Kind::PcAlaU12I,
        // TLS_LE_LO12 and TLS_LE_LO12_R: without an upper half in the register the whole distance is an operand.
        84 if insn::is_ori(word) && insn::rj(word) == insn::ZERO => return LinkedForm::Immediate,
        123 if insn::rj(word) == TP => return LinkedForm::Immediate,
        // CALL36
        110 => insn::kind(word) == Kind::PcAddU18I,
        // TLS_LE_HI20_R
        121 => insn::is_lu12i(word),
        _ => true,
    };
    if kept { LinkedForm::AsWritten } else { LinkedForm::Rewritten }
}

/// The distance from the thread pointer where one instruction holds all of it: TLS_LE_LO12 in `ori`, without a sign, and
/// TLS_LE_LO12_R, which is signed. Two instructions have it where the load of a slot became one: TLS_IE_PC_HI20 and _LO12.
pub(super) fn immediate_part(r_type: u32, code: &[u8]) -> Option<i64> {
    let word = insn::word(code, 0)?;
    let operand = i64::from(word >> 10 & 0xfff);
    match r_type {
        84 => Some(operand),
        87 if insn::is_lu12i(word) => Some(insn::si20(word) << 12),
        88 if insn::is_ori(word) => Some(operand),
        123 => Some((operand ^ 0x800) - 0x800),
        _ => None,
    }
}
