// SPDX-License-Identifier: GPL-2.0-or-later
//! What linkers put between a branch and its destination, and instructions that they move away to work around errata of the
//! Cortex-A53 (843419, 835769). AAPCS64, "Use of IP0 and IP1 by the linker": x16 and x17 belong to such code. The shapes are
//! those that GNU ld writes; whatever is not exactly one of them is none.

use super::insn::{Kind, bits, kind, register, word_at};
use super::relaxed::{self, is_add, is_adrp};
use crate::LinkAddr;

const BR_X16: u32 = 0xd61f_0200; // br x16
const LDR_X16: u32 = 0x5800_0090; // ldr x16,.+16
const ADR_X17: u32 = 0x1000_0011; // adr x17,.
const ADD_X16_X17: u32 = 0x8b11_0210; // add x16,x16,x17

pub(super) fn veneer(code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
    let [first, second, third] = [word_at(code, 0)?, word_at(code, 4)?, word_at(code, 8)?];
    // adrp x16,page; add x16,x16,#low; br x16
    let low = is_add(second) && register(second, 0) == 16 && register(second, 5) == 16;
    if is_adrp(first) && register(first, 0) == 16 && low && third == BR_X16 {
        return Some(relaxed::page_taken(code, place)?.plus(u64::from(bits(second, 21, 10))));
    }
    // ldr x16,1f; adr x17,.; add x16,x16,x17; br x16; 1: .xword destination - (veneer + 4)
    if [first, second, third] == [LDR_X16, ADR_X17, ADD_X16_X17] && word_at(code, 12)? == BR_X16 {
        let distance = code.get(16..24)?.try_into().ok().map(i64::from_le_bytes)?;
        return Some(LinkAddr(place.0.wrapping_add(4).wrapping_add_signed(distance)));
    }
    None
}

/// Where `b` leads.
pub(super) fn branch(code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
    match kind(word_at(code, 0)?)? {
        Kind::Jump { distance, form: super::insn::Form::Always } => {
            Some(LinkAddr(place.0.wrapping_add_signed(distance)))
        }
        _ => None,
    }
}

/// `insn; b place+4`, where `insn` is one that linkers move: a load or store with an offset from a register (erratum 843419), or a
/// multiplication with 64 bits that adds or takes off (835769). Neither depends on where it stands.
pub(super) fn moved(code: &[u8], at: LinkAddr, place: LinkAddr) -> Option<&[u8]> {
    let word = word_at(code, 0)?;
    let memory = bits(word, 29, 27) == 0b111 && bits(word, 25, 24) == 0b01;
    let multiply = bits(word, 31, 24) == 0b1001_1011;
    let back = branch(code.get(4..)?, at.plus(4))?;
    if (memory || multiply) && back == place.plus(4) { code.get(..4) } else { None }
}
