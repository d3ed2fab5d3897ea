// SPDX-License-Identifier: GPL-2.0-or-later
//! Entry jumps, hops and linkage table entries. An entry jump is one `b`, an aligned word. What is farther away, or comes
//! behind a landing pad that has an effect, is reached through a hop, which like a linker's veneer may change x16 and x17
//! (AAELF64, "Call and Jump relocations"; AAPCS64, "General-purpose registers"). gcc expects that of every call, with
//! -fipa-ra too: `arch/tests/aarch64/registers.rs`. Flags, which veneers may change as well, are left alone.

use crate::{JumpError, RemoteAddr};

const BTI_C: u32 = 0xd503_245f;
const BTI_JC: u32 = 0xd503_24df;
const PACIASP: u32 = 0xd503_233f;
const PACIBSP: u32 = 0xd503_237f;
const AUTIASP: u32 = 0xd503_23bf;
const AUTIBSP: u32 = 0xd503_23ff;

pub(super) const PLT_LEN: usize = 16;
/// autiasp; ldr x16,pool; br x16; 0; pool: 8 bytes
pub(super) const HOP_LEN: usize = 24;

/// Machine words for a place, with 64-bit numbers behind them.
pub(super) struct Code {
    at: RemoteAddr,
    words: Vec<u32>,
    /// The word that loads the number, and the number.
    pool: Vec<(usize, u64)>,
}

impl Code {
    pub fn new(at: RemoteAddr) -> Self {
        Self { at, words: Vec::new(), pool: Vec::new() }
    }

    pub fn here(&self) -> RemoteAddr {
        self.at.plus(4 * self.words.len() as u64)
    }

    pub fn push(&mut self, word: u32) {
        self.words.push(word);
    }

    /// `b to`
    pub fn jump(&mut self, to: RemoteAddr) -> Result<(), JumpError> {
        self.words.push(branch(self.here(), to)?);
        Ok(())
    }

    /// `ldr Xd,=number`
    pub fn number(&mut self, register: u8, number: u64) {
        self.pool.push((self.words.len(), number));
        self.words.push(0x5800_0000 | u32::from(register));
    }

    pub fn bytes(mut self) -> Vec<u8> {
        // The numbers are read as whole aligned ones. Words of 0 are no instruction, and never reached.
        if !self.pool.is_empty() && !self.here().0.is_multiple_of(8) {
            self.words.push(0);
        }
        let mut slot = self.words.len();
        for (load, _) in &self.pool {
            // ldr Xd,label: imm19 in [23:5], in words.
            self.words[*load] |= ((slot - load) as u32) << 5;
            slot += 2;
        }
        let words = self.words.iter().flat_map(|word| word.to_le_bytes());
        words.chain(self.pool.iter().flat_map(|(_, number)| number.to_le_bytes())).collect()
    }
}

fn distance(from: RemoteAddr, to: RemoteAddr) -> i64 {
    to.0.wrapping_sub(from.0) as i64
}

/// `b to`: imm26 in [25:0], in words.
pub(super) fn branch(from: RemoteAddr, to: RemoteAddr) -> Result<u32, JumpError> {
    let distance = distance(from, to);
    if !(-(1 << 27)..1 << 27).contains(&distance) || distance % 4 != 0 {
        return Err(JumpError::OutOfReach { from, to });
    }
    Ok(0x1400_0000 | (distance >> 2) as u32 & 0x3ff_ffff)
}

/// `adrp Xd,to`: the distance in pages of 4096 bytes, its low 2 bits in [30:29], its high 19 in [23:5].
pub(super) fn adrp(register: u8, from: RemoteAddr, to: RemoteAddr) -> Result<u32, JumpError> {
    let pages = distance(RemoteAddr(from.0 & !0xfff), RemoteAddr(to.0 & !0xfff)) >> 12;
    if !(-(1 << 20)..1 << 20).contains(&pages) {
        return Err(JumpError::OutOfReach { from, to });
    }
    let pages = pages as u32;
    Ok(0x9000_0000 | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5 | u32::from(register))
}

/// `bti c`, `bti jc`, and the two that sign the return address and are landing pads besides (Arm ARM, "PACIASP"). All of them
/// stay: in a guarded page a call through a register must find one, and nothing in the code tells whether its page is.
pub(super) fn landing_pad_len(code: &[u8]) -> usize {
    match super::insn::word_at(code, 0) {
        Some(BTI_C | BTI_JC | PACIASP | PACIBSP) => 4,
        _ => 0,
    }
}

/// What takes back the effect of a landing pad: the return address is authenticated, and unsigned again.
pub(super) fn undo(pad: &[u8]) -> Option<u32> {
    match super::insn::word_at(pad, 0)? {
        PACIASP => Some(AUTIASP),
        PACIBSP => Some(AUTIBSP),
        _ => None,
    }
}

pub(super) fn hop(at: RemoteAddr, pad: &[u8], to: RemoteAddr) -> Vec<u8> {
    let mut code = Code::new(at);
    if let Some(undo) = undo(pad) {
        code.push(undo);
    }
    // b to
    if code.jump(to).is_err() {
        // ldr x16,=to; br x16
        code.number(16, to.0);
        code.push(0xd61f_0200);
    }
    code.bytes()
}

pub(super) fn plt_entry(at: RemoteAddr, slot: RemoteAddr) -> Result<Vec<u8>, JumpError> {
    if !slot.0.is_multiple_of(8) {
        return Err(JumpError::OutOfReach { from: at, to: slot });
    }
    let low = (slot.0 & 0xfff) as u32;
    let mut code = Code::new(at);
    // A slot that is not bound yet leads to the loader, which wants to find the slot's address in x16.
    code.push(adrp(16, at, slot)?); //            adrp x16,slot
    code.push(0xf940_0211 | (low / 8) << 10); //    ldr x17,[x16,#:lo12:slot]
    code.push(0x9100_0210 | low << 10); //        add x16,x16,#:lo12:slot
    code.push(0xd61f_0220); //                    br x17
    Ok(code.bytes())
}
