// SPDX-License-Identifier: GPL-2.0-or-later
//! What code does with an address that it takes: the registers that may hold it, or its page, are followed along every path until
//! they are overwritten. What is not understood counts as handed on.

use super::insn::{self, Kind, LEN, RA, rd, rj, rk};
use crate::{AddressUse, Flow};
use std::collections::BTreeMap;

/// One bit for each general register.
type Holders = u32;

/// a0 to a7, and the two of them that carry results.
const ARGUMENTS: Holders = 0x0000_0ff0;
const RESULTS: Holders = 0x0000_0030;
/// What a call does not preserve: ra, a0 to a7, t0 to t8.
const CLOBBERED: Holders = 1 << RA | ARGUMENTS | 0x001f_f000;
/// sp and fp: a store there may be a spill, or an argument.
const FRAME: Holders = 1 << 3 | 1 << 22;

fn bit(register: u32) -> Holders {
    // Register 0 holds nothing.
    if register == 0 { 0 } else { 1 << register }
}

/// What an instruction does with general registers, as far as it is told apart (reference manual, volume 1, appendix B).
enum Does {
    /// Reads memory into rd, or into a floating-point register.
    Load { general: bool },
    /// Writes rd to memory at rj, or a floating-point register.
    Store { general: bool },
    /// Writes rd, which may hold what rj and rk held.
    Compute,
    /// Something else.
    Other,
}

fn does(word: u32) -> Does {
    match word >> 22 {
        // ld.[bhwd], st.[bhwd], ld.[bhw]u, preld, fld.s, fst.s, fld.d, fst.d
        0b00_1010_0000..=0b00_1010_0011 | 0b00_1010_1000..=0b00_1010_1010 => Does::Load { general: true },
        0b00_1010_0100..=0b00_1010_0111 => Does::Store { general: true },
        0b00_1010_1011 | 0b00_1010_1100 | 0b00_1010_1110 => Does::Load { general: false },
        0b00_1010_1101 | 0b00_1010_1111 => Does::Store { general: false },
        // slti, sltui, addi.w, addi.d, lu52i.d, andi, ori, xori; their rk is an immediate's part, which is one holder too many at worst
        0b00_0000_1000..=0b00_0000_1111 => Does::Compute,
        _ => match (word >> 24, word >> 15) {
            // ldptr.[wd], stptr.[wd]
            (0x24 | 0x26, _) => Does::Load { general: true },
            (0x25 | 0x27, _) => Does::Store { general: true },
            // add.w to rotr.d, mul.w to mod.du; alsl.[w, wu, d]; slli to rotri
            (0, 0b0_0000_0000_0010_0000..=0b0_0000_0000_0100_0111) => Does::Compute,
            (
                0,
                0b0_0000_0000_0000_0100..=0b0_0000_0000_0000_0111 | 0b0_0000_0000_0101_1000..=0b0_0000_0000_0101_1011,
            ) => Does::Compute,
            (0, 0b0_0000_0000_1000_0000..=0b0_0000_0000_1001_1011) => Does::Compute,
            // ldx.[bhwd], stx.[bhwd], ldx.[bhw]u: bits [17:15] are 0
            (0x38, upper) if upper & 7 == 0 => match word >> 18 & 0x3f {
                0..=3 | 8..=10 => Does::Load { general: true },
                4..=7 => Does::Store { general: true },
                12 | 13 => Does::Load { general: false },
                14 | 15 => Does::Store { general: false },
                _ => Does::Other,
            },
            _ => Does::Other,
        },
    }
}

/// What one instruction does with the registers that hold the address.
struct Step {
    found: AddressUse,
    holders: Holders,
    /// Whether the next instruction may follow, and where else it may lead.
    falls: bool,
    jump: Option<i64>,
}

/// The fate of the address that the instruction at `field` of `code` names a part of.
pub(super) fn follow(code: &[u8], field: usize) -> AddressUse {
    let Some(word) = insn::word(code, field).filter(|_| field.is_multiple_of(LEN)) else { return AddressUse::Handed };
    let (mut found, holders) = taken(word);
    let mut seen: BTreeMap<usize, Holders> = BTreeMap::new();
    let mut todo = vec![(field + LEN, holders)];
    while let Some((at, holders)) = todo.pop() {
        let before = seen.entry(at).or_default();
        if holders & !*before == 0 {
            continue;
        }
        *before |= holders;
        let Some(insn) = insn::one(code, at) else {
            found = found.max(AddressUse::Handed);
            continue;
        };
        let step = step(code, insn, *before);
        found = found.max(step.found);
        todo.extend(step.falls.then_some((insn.end, step.holders)));
        // Nothing is in front of the start.
        todo.extend(step.jump.map(|to| (usize::try_from(to).unwrap_or(usize::MAX), step.holders)));
    }
    found
}

/// What the instruction that names the address does with it.
fn taken(word: u32) -> (AddressUse, Holders) {
    match insn::kind(word) {
        Kind::PcAddI | Kind::PcAlaU12I | Kind::PcAddU12I => return (AddressUse::Read, bit(rd(word))),
        Kind::Plain => {}
        _ => return (AddressUse::Handed, 0),
    }
    match does(word) {
        // Memory at the address.
        Does::Load { .. } | Does::Store { .. } => (AddressUse::Read, 0),
        Does::Compute => (AddressUse::Read, bit(rd(word))),
        Does::Other if insn::is_lu12i(word) || insn::is_lu32i(word) => (AddressUse::Read, bit(rd(word))),
        Does::Other => (AddressUse::Handed, 0),
    }
}

fn step(code: &[u8], insn: crate::Insn, holders: Holders) -> Step {
    let word = insn::word(code, insn.start).unwrap_or(0);
    let hands = |registers: Holders| if registers == 0 { AddressUse::Read } else { AddressUse::Handed };
    let held = |register: u32| holders & bit(register);
    let mut step = Step { found: AddressUse::Read, holders, falls: true, jump: None };
    match insn.flow {
        Flow::Call { field, .. } => {
            // The address itself may be called.
            let through = if field.is_none() { held(rj(word)) } else { 0 };
            step.found = hands(holders & ARGUMENTS | through);
            step.holders &= !CLOBBERED;
            return step;
        }
        Flow::TailCall => {
            step.found = hands(holders & ARGUMENTS);
            step.falls = false;
            return step;
        }
        Flow::Jump { target, .. } => {
            step.falls = matches!(insn::kind(word), Kind::Jump { condition: true, .. });
            match target {
                // A switch whose labels are not followed, or a tail call.
                None => step.found = hands(holders),
                // A field that waits for its relocation leads to itself, and then out of the function: by a far jump to another one,
                // else perhaps to a part of this one that stands elsewhere (`.cold`).
                Some(to) if to == insn.start as i64 && insn.end - insn.start > LEN => {
                    step.found = hands(holders & ARGUMENTS);
                }
                Some(to) if to == insn.start as i64 => step.found = hands(holders),
                Some(to) => step.jump = Some(to),
            }
            return step;
        }
        Flow::Next => {}
    }
    match insn::kind(word) {
        Kind::Register { .. } => {
            step.found = hands(holders & RESULTS);
            step.falls = false;
        }
        Kind::Plain if insn::is_break(word) => step.falls = false,
        Kind::Plain => match does(word) {
            Does::Load { general: true } => step.holders &= !bit(rd(word)),
            Does::Load { general: false } | Does::Store { general: false } => {}
            Does::Store { general: true } if held(rd(word)) == 0 => {}
            Does::Store { general: true } if bit(rj(word)) & FRAME != 0 => step.found = AddressUse::Handed,
            Does::Store { general: true } => step.found = AddressUse::Stored,
            // Whatever is made from the address may still be the address.
            Does::Compute if held(rj(word)) | held(rk(word)) != 0 => step.holders |= bit(rd(word)),
            Does::Compute => step.holders &= !bit(rd(word)),
            // The upper parts of a constant, the lower ones of which stay.
            Does::Other if insn::is_lu32i(word) => {}
            Does::Other if insn::is_lu12i(word) => step.holders &= !bit(rd(word)),
            Does::Other => step.found = hands(held(rd(word)) | held(rj(word)) | held(rk(word))),
        },
        // A new address.
        _ => step.holders &= !bit(rd(word)),
    }
    step
}
