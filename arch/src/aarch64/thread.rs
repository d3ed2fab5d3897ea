// SPDX-License-Identifier: GPL-2.0-or-later
//! The sequences that find a thread-local variable, and what linkers make of them: AAELF64, "Thread Local Storage
//! relocations" and "Relocation optimization"; the instructions that take each other's place are those of GNU ld and lld.

use super::insn::{NOP, bits, register, word_at};
use super::relaxed::{self, is_add, is_adrp, is_load};
use crate::{LinkAddr, LinkedForm, ShorterField, ShorterWay, ThreadForm, ThreadModel};

const GD_PAGE: u32 = 513;
const GD_LOW: u32 = 514;
const IE_PAGE: u32 = 541;
const IE_LOW: u32 = 542;
const LE_G1: u32 = 545;
const LE_G0_NC: u32 = 548;
const DESC_PAGE: u32 = 562;
const DESC_LOAD: u32 = 563;

const MRS_X1: u32 = 0xd53b_d041; // mrs x1,tpidr_el0
const ADD_X0: u32 = 0x8b00_0020; // add x0,x1,x0
const ADRP_X0: u32 = 0x9000_0000; // adrp x0,0
const ADD_LOW_X0: u32 = 0x9100_0000; // add x0,x0,#0
const LDR_X0: u32 = 0xf940_0000; // ldr x0,[x0]
const MOVZ_X0: u32 = 0xd2a0_0000; // movz x0,#0,lsl #16
const MOVK_X0: u32 = 0xf280_0000; // movk x0,#0

pub(super) fn form(r_type: u32, code: &[u8], field: usize, place: LinkAddr) -> ThreadForm {
    let back = match r_type {
        GD_PAGE | DESC_PAGE => 0,
        GD_LOW | DESC_LOAD => 4,
        // Others stand alone: nothing is left of them, or they are as written.
        _ => {
            return match relaxed::form(r_type, code, field) {
                LinkedForm::AsWritten => ThreadForm::AsWritten,
                LinkedForm::Elided => ThreadForm::Gone,
                _ => ThreadForm::Unknown,
            };
        }
    };
    let first = field.checked_sub(back).and_then(|at| Some((word_at(code, at)?, word_at(code, at + 4)?)));
    let (Some((upper, lower)), Some(start)) = (first, place.0.checked_sub(back as u64)) else {
        return ThreadForm::Unknown;
    };
    let same = register(lower, 0) == register(lower, 5) && register(lower, 5) == register(upper, 0);
    // movz Xd,#upper,lsl #16; movk Xd,#lower
    let moves = upper & 0xffe0_0000 == MOVZ_X0 && lower & 0xffe0_0000 == MOVK_X0;
    match () {
        () if moves && register(upper, 0) == register(lower, 0) => {
            ThreadForm::Offset(i64::from(bits(upper, 20, 5)) << 16 | i64::from(bits(lower, 20, 5)))
        }
        // adrp Xd,page; ldr Xd,[Xd,#low]: what a descriptor's own load does not do, which keeps the register.
        () if is_adrp(upper) && is_load(lower) && same => {
            let page = relaxed::page_taken(&upper.to_le_bytes(), LinkAddr(start));
            page.map_or(ThreadForm::Unknown, |page| ThreadForm::Slot(page.plus(8 * u64::from(bits(lower, 21, 10)))))
        }
        () if is_adrp(upper) => match r_type {
            GD_LOW if is_add(lower) && same => ThreadForm::AsWritten,
            DESC_LOAD if is_load(lower) => ThreadForm::AsWritten,
            GD_PAGE | DESC_PAGE if is_load(lower) || is_add(lower) => ThreadForm::AsWritten,
            _ => ThreadForm::Unknown,
        },
        () => ThreadForm::Unknown,
    }
}

pub(super) fn shorten(r_type: u32, code: &mut [u8], field: usize, model: ThreadModel) -> Option<ShorterWay> {
    // The sequence is rewritten at its first relocation, which takes the others along.
    let words = || Some([0, 4, 8, 12].map(|at| word_at(code, field + at))).filter(|_| field.is_multiple_of(4));
    let [Some(first), Some(second), Some(third), Some(fourth)] = words()? else { return None };
    let call = match r_type {
        // adrp x0,:tlsgd:x; add x0,x0,:tlsgd_lo12:x; bl __tls_get_addr; nop
        GD_PAGE if (first, second, fourth) == (ADRP_X0, ADD_LOW_X0, NOP) => third >> 26 == 0b10_0101,
        // adrp x0,:tlsdesc:x; ldr Xr,[x0,:tlsdesc_lo12:x]; add x0,x0,:tlsdesc_lo12:x; blr Xr
        DESC_PAGE if (first, second & !31, third) == (ADRP_X0, LDR_X0, ADD_LOW_X0) => {
            fourth == 0xd63f_0000 | u32::from(register(second, 0)) << 5 && register(second, 0) != 0
        }
        _ => false,
    };
    if !call {
        return None;
    }
    let (load, types) = match model {
        ThreadModel::Slot => ([ADRP_X0, LDR_X0], [IE_PAGE, IE_LOW]),
        ThreadModel::Offset => ([MOVZ_X0, MOVK_X0], [LE_G1, LE_G0_NC]),
    };
    let rest = if r_type == GD_PAGE { [MRS_X1, ADD_X0] } else { [NOP, NOP] };
    for (at, word) in (field..).step_by(4).zip(load.into_iter().chain(rest)) {
        code.get_mut(at..at + 4)?.copy_from_slice(&word.to_le_bytes());
    }
    let fields = [field, field + 4].into_iter().zip(types);
    let fields = fields.map(|(at, r_type)| ShorterField { at, r_type, adjust: 0 }).collect();
    Some(ShorterWay { range: field..field + 16, fields })
}
