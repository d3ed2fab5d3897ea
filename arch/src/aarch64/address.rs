// SPDX-License-Identifier: GPL-2.0-or-later
//! What code does with an address that it takes: the registers that may hold it are followed along every path until they are
//! overwritten. What is not understood counts as handed on.

use super::insn::{Form, Kind, bits, kind, operand, register, word_at};
use crate::AddressUse;
use std::collections::BTreeMap;

/// One bit for each general register; none for number 31, which is sp or zero.
type Holders = u32;

fn bit(register: u8) -> Holders {
    if register < 31 { 1 << register } else { 0 }
}

/// x0 to x8 carry arguments and results (AAPCS64).
const PASSED: Holders = 0x1ff;
/// x19 to x29 outlive a call.
const PRESERVED: Holders = 0x3ff8_0000;

/// What one instruction does with the registers that hold the address.
struct Step {
    found: AddressUse,
    holders: Holders,
    /// Whether the next instruction may follow, and how far away another one that may.
    falls: bool,
    jump: Option<i64>,
}

/// The fate of the address that the field at `field` of `code` means.
pub(super) fn follow(code: &[u8], field: usize) -> AddressUse {
    let start = field & !3;
    let Some((first, _)) = word_at(code, start).and_then(|word| Some((word, kind(word)?))) else {
        return AddressUse::Handed;
    };
    let (mut found, holders) = taken(first);
    let mut seen: BTreeMap<usize, Holders> = BTreeMap::new();
    let mut todo = vec![(start + 4, holders)];
    while let Some((at, holders)) = todo.pop() {
        let before = seen.entry(at).or_default();
        if holders & !*before == 0 {
            continue;
        }
        *before |= holders;
        let word = word_at(code, at);
        let Some((word, kind)) = word.and_then(|word| Some((word, kind(word)?))) else {
            found = found.max(AddressUse::Handed);
            continue;
        };
        let step = step(word, kind, *before);
        found = found.max(step.found);
        if step.falls {
            todo.push((at + 4, step.holders));
        }
        // A jump out of the code hands on what it passes.
        match step.jump.map(|distance| usize::try_from(at as i64 + distance)) {
            Some(Ok(to)) if to < code.len() => todo.push((to, step.holders)),
            Some(_) if step.holders & PASSED != 0 => found = found.max(AddressUse::Handed),
            _ => {}
        }
    }
    found
}

/// What the instruction that names the address does with it: a part of it goes into a register, or memory there is reached.
fn taken(word: u32) -> (AddressUse, Holders) {
    let immediate = matches!(bits(word, 28, 25), 0b1000 | 0b1001);
    // ldr Xt,[Xn,#imm]; ldr Xt,label: of a slot that holds the address, perhaps.
    let slot = word & 0xffc0_0000 == 0xf940_0000 || word & 0xff00_0000 == 0x5800_0000;
    match is_memory(word) {
        _ if slot => (AddressUse::Read, bit(register(word, 0))),
        true => (AddressUse::Read, 0),
        // adr, adrp, add, movz, movk
        false if immediate => (AddressUse::Read, bit(register(word, 0))),
        false => (AddressUse::Handed, 0),
    }
}

fn is_memory(word: u32) -> bool {
    bits(word, 28, 25) & 0b0101 == 0b0100
}

fn step(word: u32, kind: Kind, holders: Holders) -> Step {
    let hands = |set: Holders| if set & holders != 0 { AddressUse::Handed } else { AddressUse::Read };
    let going = Step { found: AddressUse::Read, holders, falls: true, jump: None };
    match kind {
        Kind::Call { .. } | Kind::CallRegister => Step { found: hands(PASSED), holders: holders & PRESERVED, ..going },
        Kind::SystemCall => Step { found: hands(PASSED), ..going },
        Kind::Return => Step { found: hands(PASSED), falls: false, ..going },
        // A switch goes on in the function, with everything.
        Kind::JumpRegister(_) => Step { found: hands(holders), falls: false, ..going },
        Kind::Trap => Step { falls: false, ..going },
        // A field that waits for its relocation leads to itself: it leaves the function.
        Kind::Jump { distance: 0, form: Form::Always } => Step { found: hands(PASSED), falls: false, ..going },
        Kind::Jump { distance, form } => Step { falls: form != Form::Always, jump: Some(distance), ..going },
        Kind::Other if is_memory(word) => memory(word, going),
        Kind::Other => compute(word, going),
    }
}

/// Loads and stores.
fn memory(word: u32, going: Step) -> Step {
    let holders = going.holders;
    let held = |at| bit(register(word, at)) & holders != 0;
    let class = bits(word, 29, 27);
    let vector = bits(word, 26, 26) == 1;
    let load = bits(word, 22, 22) == 1 || bits(word, 23, 23) == 1 && class == 0b111;
    let pair = class == 0b101;
    // What is overwritten is only said where it is certain; that an old value is taken for the address is cautious.
    let loaded = |holders: Holders| match (vector, pair) {
        (true, _) => holders,
        (false, true) => holders & !bit(register(word, 0)) & !bit(register(word, 10)),
        (false, false) => holders & !bit(register(word, 0)),
    };
    let to_stack = matches!(register(word, 5), 29 | 31);
    let stored = if to_stack { AddressUse::Handed } else { AddressUse::Stored };
    match class {
        _ if operand(word).is_some() => Step { holders: loaded(holders), ..going },
        0b101 | 0b111
            if class == 0b101 || bits(word, 24, 24) == 1 || bits(word, 21, 21) == 0 || bits(word, 11, 10) == 2 =>
        {
            if vector || load {
                return Step { holders: if load { loaded(holders) } else { holders }, ..going };
            }
            let data = held(0) || pair && held(10);
            Step { found: if data { stored } else { AddressUse::Read }, ..going }
        }
        // Exclusive and atomic ones, and whatever came later: any register but the base may be data.
        _ if held(0) || held(10) || held(16) => Step { found: AddressUse::Stored, ..going },
        _ => going,
    }
}

/// Everything that neither leads elsewhere nor reaches memory.
fn compute(word: u32, going: Step) -> Step {
    let holders = going.holders;
    let held = |at| bit(register(word, at)) & holders != 0;
    let result = |from: bool| {
        let rd = bit(register(word, 0));
        Step { holders: if from { holders | rd } else { holders & !rd }, ..going }
    };
    let handed = |when: bool| Step {
        found: if when { AddressUse::Handed } else { AddressUse::Read },
        holders,
        falls: true,
        jump: None,
    };
    let op0 = bits(word, 28, 25);
    match op0 {
        0b1000 | 0b1001 => match bits(word, 25, 23) {
            0b000 | 0b001 => result(false),                       // adr, adrp
            0b101 if bits(word, 30, 29) == 0b11 => handed(false), // movk
            0b101 => result(false),                               // movz, movn
            // add and sub write sp where others have no result.
            0b010 if register(word, 0) == 31 && bits(word, 29, 29) == 0 => handed(held(5)),
            0b111 => result(held(5) || held(16)), // extr
            _ => result(held(5)),
        },
        0b0101 | 0b1101 => match bits(word, 28, 21) {
            0b11010010 => handed(false), // ccmp: flags only
            _ if bits(word, 28, 24) == 0b11011 => result(held(5) || held(16) || held(10)),
            _ => result(held(5) || held(16)),
        },
        // Hints have no register; mrs writes one; msr and sys read it.
        0b1010 | 0b1011 => match bits(word, 31, 20) {
            0xd53 => result(false),
            _ => handed(held(0)),
        },
        0b0111 | 0b1111 => {
            // fmov, scvtf and their like, dup and ins: a general register goes into a vector.
            let converts = bits(word, 30, 24) == 0b0011110 && bits(word, 21, 21) == 1 && bits(word, 15, 10) == 0;
            let copies = bits(word, 28, 21) == 0b01110000 && bits(word, 15, 15) == 0 && bits(word, 10, 10) == 1;
            handed((converts || copies) && held(5))
        }
        _ => handed(held(0) || held(5) || held(10) || held(16)),
    }
}
