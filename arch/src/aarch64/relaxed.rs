// SPDX-License-Identifier: GPL-2.0-or-later
//! What linkers make of instructions when they find a shorter way: AAELF64, "Relocation optimization", and the TLS
//! sequences as GNU ld and lld rewrite them. A relocation's field is the whole instruction word, so only what stands behind
//! it has to be said.

use super::insn::{NOP, bits, register, signed, word_at};
use super::relocations::RELOCATIONS;
use crate::{Field, LinkAddr, LinkedForm, RelocRow};

pub(super) fn around(r_type: u32) -> (usize, usize) {
    match r_type {
        // TLSGD and TLSLD, ADR_PREL21 and ADD_LO12_NC: the call of __tls_get_addr and the nop behind it become what adds the
        // thread pointer.
        512 | 514 | 517 | 519 => (0, 8),
        // TLSGD_MOVW_G0_NC: the add, the call and the nop likewise.
        516 => (0, 12),
        // TLSDESC_ADD_LO12: the call of the resolver behind it becomes a nop.
        564 => (0, 4),
        // TLSDESC_LDR, ADD and CALL have no field; their instruction becomes a nop, or a load of a slot.
        567..=569 => (0, 4),
        _ => (0, 0),
    }
}

pub(super) fn form(r_type: u32, code: &[u8], field: usize) -> LinkedForm {
    let row = RELOCATIONS.iter().find(|row| row.r_type == r_type);
    let Some(Field::Bits(parts)) = row.map(|row| row.field) else { return LinkedForm::AsWritten };
    let (Some(part), Some(word)) = (parts.first(), word_at(code, field)) else { return LinkedForm::AsWritten };
    let next = word_at(code, field + 4);
    let before = field.checked_sub(4).and_then(|at| word_at(code, at));
    // The first two registers of an instruction are the same.
    let same = |word: u32| register(word, 0) == register(word, 5);
    let written = match (part.at, part.width) {
        (5, 16) => is_move(word),
        (29, _) if part.low == 0 => is_adr(word),
        (29, _) => is_adrp(word),
        // What the row is for, add or load, is in its name alone; so are lengths of loads.
        (10, _) => !(is_adr(word) || is_adrp(word) || is_move(word)),
        (0, 26) => bits(word, 30, 26) == 0b00101,
        _ => true,
    };
    match r_type {
        _ if word == NOP => LinkedForm::Elided,
        // A call of __tls_get_addr that has become mrs Xd,tpidr_el0.
        283 if is_mrs(word) => LinkedForm::Elided,
        // ADR_GOT_PAGE: the page of the symbol, if the load of its slot has become an addition.
        311 if written
            && next.is_some_and(|next| is_add(next) && same(next) && register(next, 0) == register(word, 0)) =>
        {
            LinkedForm::Direct { before: 0 }
        }
        // LD64_GOT_LO12_NC: add Xd,Xd,#lo12 of the symbol, or adr Xd,symbol. ADD_ABS_LO12_NC: the latter.
        312 if is_add(word) || is_adr(word) => LinkedForm::Direct { before: 0 },
        277 if is_adr(word) => LinkedForm::Direct { before: 0 },
        // TLSLD, for a variable of the program itself: the thread pointer, and the distance to the first variable.
        517 | 518 if is_mrs(word) => LinkedForm::Elided,
        519 if before.is_some_and(is_mrs) => LinkedForm::Elided,
        // TLSGD, TLSDESC, for a variable of which a slot tells how far it is from the thread pointer.
        513 | 562 if written && next.is_some_and(|next| is_load(next) && same(next)) => LinkedForm::Rewritten,
        514 if is_load(word) => LinkedForm::Rewritten,
        563 if is_load(word) && same(word) => LinkedForm::Rewritten,
        // The page all the same.
        275 | 276 | 311 | 541 if is_adr(word) => LinkedForm::AsWritten,
        // Distances from the thread pointer.
        _ if is_move(word) && !written => LinkedForm::Immediate,
        _ if !written => LinkedForm::Rewritten,
        _ => LinkedForm::AsWritten,
    }
}

/// The workaround for erratum 843419 of the Cortex-A53 turns an `adrp` into an `adr` of the same page: bit 31.
pub(super) fn mask(row: &RelocRow) -> Vec<u8> {
    let mut mask = row.mask();
    if let (Some(byte), true) = (mask.get_mut(3), row.span() == Some(12..33)) {
        *byte |= 0x80;
    }
    mask
}

/// `adrp Xd,page`, or `adr Xd,page` in its stead.
pub(super) fn page_taken(code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
    let word = word_at(code, 0)?;
    let distance = i64::from(bits(word, 30, 29)) | signed(word, 5, 19) << 2;
    match () {
        () if is_adrp(word) => Some(LinkAddr((place.0 & !0xfff).wrapping_add_signed(distance << 12))),
        () if is_adr(word) => Some(LinkAddr(place.0.wrapping_add_signed(distance))).filter(|page| page.0 & 0xfff == 0),
        () => None,
    }
}

/// TLSIE_ADR_GOTTPREL_PAGE21 and TLSIE_LD64_GOTTPREL_LO12_NC as `movz Xd,#upper,lsl #16` and `movk Xd,#lower`.
pub(super) fn immediate_part(r_type: u32, code: &[u8]) -> Option<i64> {
    let word = word_at(code, 0)?;
    let (imm, shift) = (i64::from(bits(word, 20, 5)), bits(word, 22, 21));
    match (r_type, bits(word, 31, 23), shift) {
        (541, 0b1_1010_0101, 1) => Some(imm << 16),
        (542, 0b1_1110_0101, 0) => Some(imm),
        _ => None,
    }
}

/// `[bti c]; adrp x16,page; ldr x17,[x16,#low]; ...`
pub(super) fn linkage_slot(code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
    const BTI_C: u32 = 0xd503_245f;
    let first = if word_at(code, 0)? == BTI_C { 4 } else { 0 };
    let (adrp, load) = (word_at(code, first)?, word_at(code, first + 4)?);
    let known =
        is_adrp(adrp) && is_load(load) && (register(adrp, 0), register(load, 0), register(load, 5)) == (16, 17, 16);
    let page = page_taken(code.get(first..)?, place.plus(first as u64)).filter(|_| known)?;
    Some(page.plus(8 * u64::from(bits(load, 21, 10))))
}

/// `add Xd,Xn,#imm`
pub(super) fn is_add(word: u32) -> bool {
    word & 0xffc0_0000 == 0x9100_0000
}
/// `ldr Xd,[Xn,#imm]`
pub(super) fn is_load(word: u32) -> bool {
    word & 0xffc0_0000 == 0xf940_0000
}
fn is_adr(word: u32) -> bool {
    word & 0x9f00_0000 == 0x1000_0000
}
pub(super) fn is_adrp(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}
/// `movn`, `movz`, `movk`
fn is_move(word: u32) -> bool {
    bits(word, 28, 23) == 0b100101
}
/// `mrs Xd,tpidr_el0`
fn is_mrs(word: u32) -> bool {
    word & !31 == 0xd53b_d040
}
