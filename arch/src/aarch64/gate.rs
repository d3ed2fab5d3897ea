// SPDX-License-Identifier: GPL-2.0-or-later
//! Gates: whether a function's first instruction can stand elsewhere, and the code that asks before it runs there. x16 and x17
//! hold nothing at a function's entry (see `jump.rs`), and nothing else changes, flags included.

use super::insn::{Form, Kind, bits, kind, operand, register, signed, word_at};
use super::jump::{Code, adrp};
use crate::{Gate, JumpError, RemoteAddr, Undisplaceable};

/// 8 words of question, 3 of the displaced instruction, one back, one for alignment, and two numbers.
pub(super) const GATE_LEN: usize = 4 * 13 + 16;

/// What becomes of an instruction in a gate.
enum Moved {
    /// It stays as it is.
    Copied,
    /// `adr`, `adrp`: the address, into this register.
    Address { register: u8, address: u64 },
    /// `ldr` of a literal: the same load through x16.
    Literal { through_x16: u32, address: u64 },
    /// A direct jump; conditional: the word with its distance left out, and where it has its distance in words.
    Jump { conditional: Option<(u32, u32)>, to: u64 },
}

/// How the instruction that stood at `from` moves, and whether the next one is never reached from it; `None`: it cannot
/// stand elsewhere.
fn moved(word: u32, from: u64) -> Option<(Moved, bool)> {
    let to = |distance: i64| from.wrapping_add_signed(distance);
    if signs_with_place(word) || reads_scratch(word) {
        return None;
    }
    Some(match kind(word)? {
        Kind::Jump { distance, form: Form::Always } => (Moved::Jump { conditional: None, to: to(distance) }, true),
        Kind::Jump { distance, form } => {
            let width = if form == Form::Test { 14 } else { 19 };
            let field = ((1u32 << width) - 1) << 5;
            (Moved::Jump { conditional: Some((word & !field, 5)), to: to(distance) }, false)
        }
        Kind::Return | Kind::JumpRegister(_) => (Moved::Copied, true),
        // A call leaves where it stands in x30; a system call may wait there and be restarted there; a trap is told by its
        // place.
        Kind::Call { .. } | Kind::CallRegister | Kind::SystemCall | Kind::Trap => return None,
        Kind::Other if word & 0x9f00_0000 == 0x9000_0000 => {
            let pages = signed(word, 5, 19) << 2 | i64::from(bits(word, 30, 29));
            let address = (from & !0xfff).wrapping_add_signed(pages << 12);
            (Moved::Address { register: register(word, 0), address }, false)
        }
        Kind::Other => match operand(word) {
            Some((distance, true)) => (Moved::Address { register: register(word, 0), address: to(distance) }, false),
            Some((distance, false)) => {
                // opc [31:30] and V [26] of the literal's load; [x16] and no offset of the other one.
                let load = match (bits(word, 31, 30), bits(word, 26, 26)) {
                    (0b00, 0) => 0xb940_0000, // ldr Wt
                    (0b01, 0) => 0xf940_0000, // ldr Xt
                    (0b10, 0) => 0xb980_0000, // ldrsw
                    (0b11, 0) => 0xf980_0000, // prfm
                    (0b00, _) => 0xbd40_0000, // ldr St
                    (0b01, _) => 0xfd40_0000, // ldr Dt
                    _ => 0x3dc0_0000,         // ldr Qt
                };
                let through_x16 = load | 16 << 5 | u32::from(register(word, 0));
                (Moved::Literal { through_x16, address: to(distance) }, false)
            }
            None => (Moved::Copied, false),
        },
    })
}

/// Instructions that sign the return address with their own place too (FEAT_PAuth_LR), and `pacm`, which makes others do it.
fn signs_with_place(word: u32) -> bool {
    const PACM: u32 = 0xd503_24ff;
    // paciasppc, pacibsppc, pacnbiasppc, pacnbibsppc
    matches!(word, PACM | 0xdac1_a3fe | 0xdac1_a7fe | 0xdac1_83fe | 0xdac1_87fe)
}

/// Whether an instruction may read x16 or x17, which the question changes: no function of the ABI begins with one, but
/// the loader's resolvers do. Where fields are not told apart, yes.
fn reads_scratch(word: u32) -> bool {
    let scratch = |at| matches!(register(word, at), 16 | 17);
    let op0 = bits(word, 28, 25);
    match op0 {
        // Immediates: addresses; movk changes what is there; of the rest Rn, and of extr Rm.
        0b1000 | 0b1001 => match bits(word, 25, 23) {
            0b000 | 0b001 => false,
            0b101 => bits(word, 30, 29) == 0b11 && scratch(0),
            0b111 => scratch(5) || scratch(16),
            _ => scratch(5),
        },
        // cbz and tbz; br and ret; msr.
        0b1010 | 0b1011 => match kind(word) {
            Some(Kind::Jump { form: Form::Compare | Form::Test, .. }) => scratch(0),
            Some(Kind::Jump { .. }) => false,
            Some(Kind::Other) => scratch(0),
            _ => scratch(5) || scratch(0),
        },
        // Loads and stores: the base; what is stored; the index.
        op0 if op0 & 0b0101 == 0b0100 => {
            if operand(word).is_some() {
                return false; // a literal
            }
            let simple = bits(word, 29, 27) == 0b111 && bits(word, 24, 24) == 1; // [Xn,#imm]
            let pair = bits(word, 29, 27) == 0b101;
            let loads = bits(word, 22, 22) == 1;
            let vector = bits(word, 26, 26) == 1;
            let stored = !vector && !(loads && (simple || pair)) && scratch(0);
            let other = !(simple || pair) && scratch(16) || pair && !loads && !vector && scratch(10);
            scratch(5) || stored || other
        }
        // Registers: Rn, Rm, and Ra of multiplications.
        0b0101 | 0b1101 => scratch(5) || scratch(16) || bits(word, 28, 24) == 0b11011 && scratch(10),
        _ => scratch(5) || scratch(16),
    }
}

pub(super) fn displaceable(code: &[u8], at: usize) -> Result<usize, Undisplaceable> {
    // All instructions are words, so that nothing can lead into the middle of the one that is displaced. Who leads to its
    // start meets the jump, which is what it is there for.
    let word = word_at(code, at).filter(|_| at.is_multiple_of(4)).ok_or(Undisplaceable::Instruction)?;
    moved(word, 0).map(|_| 4).ok_or(Undisplaceable::Instruction)
}

pub(super) fn gate(gate: &Gate<'_>) -> Result<Vec<u8>, JumpError> {
    let word = word_at(gate.displaced, 0).filter(|_| gate.displaced.len() == 4).ok_or(JumpError::Displaced)?;
    let (moved, ends) = moved(word, gate.from.0).ok_or(JumpError::Displaced)?;
    let back = gate.from.plus(4);
    let mut code = Code::new(gate.at);

    // w16 = the commit word
    match adrp(16, code.here(), gate.commit.at) {
        Ok(page) if gate.commit.at.0.is_multiple_of(4) => {
            let low = (gate.commit.at.0 & 0xfff) as u32;
            code.push(page); //                             adrp x16,commit
            code.push(0xb940_0210 | (low / 4) << 10); //      ldr w16,[x16,#:lo12:commit]
        }
        _ => {
            code.number(16, gate.commit.at.0); //           ldr x16,=commit
            code.push(0xb940_0210); //                      ldr w16,[x16]
        }
    }
    if gate.commit.old != 0 {
        code.push(0x5280_0011 | (gate.commit.old & 0xffff) << 5); //    movz w17,#old
        code.push(0x72a0_0011 | gate.commit.old >> 16 << 5); //         movk w17,#old>>16,lsl #16
        code.push(0x4a11_0210); //                                      eor w16,w16,w17
    }
    code.push(0x3400_0000 | 2 << 5 | 16); //                            cbz w16,.+8
    code.jump(gate.new)?;

    match moved {
        Moved::Copied => code.push(word),
        Moved::Address { register, address } => code.number(register, address),
        Moved::Literal { through_x16, address } => {
            code.number(16, address);
            code.push(through_x16);
        }
        Moved::Jump { conditional: None, to } => code.jump(RemoteAddr(to))?,
        Moved::Jump { conditional: Some((word, at)), to } => {
            code.push(word | 2 << at); //                               b.cond .+8, and the like
            code.jump(back)?;
            code.jump(RemoteAddr(to))?;
            return Ok(code.bytes());
        }
    }
    if !ends {
        code.jump(back)?;
    }
    Ok(code.bytes())
}
