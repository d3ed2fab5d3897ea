// SPDX-License-Identifier: GPL-2.0-or-later
//! Gates: which of a function's first instructions can stand elsewhere, and the code that asks before they run there. It has one
//! register, `$r21` (see `jump.rs`), and no flags to care for.

use super::insn::{self, Kind, LEN, REG, ZERO};
use super::jump::{b, bytes, constant, parts};
use crate::{Gate, JumpError, RemoteAddr, Undisplaceable};

/// The longest question: a far address, the load, the comparison with a word that is not 0, and the way to the new code.
const QUESTION: usize = 12 * LEN;
/// The most that becomes of one instruction: a constant.
const MOVED: usize = 4;

/// What becomes of an instruction in a gate. Distances are from the instruction.
enum Moved {
    /// The same word.
    Copied(u32),
    /// A value that depends on where the instruction stands, put into a register.
    Value { rd: u32, of: fn(u64, i64) -> u64, si20: i64 },
    /// `b`
    Jump { distance: i64 },
    /// A branch on a condition.
    Branch { word: u32, distance: i64 },
    /// `pcaddu18i rd` and `jirl $zero, rd`
    Far { rd: u32, distance: i64 },
}

/// How the instruction at `at` moves, its length, and whether the next one is never reached from it; `None`: it cannot stand
/// elsewhere.
fn moved(code: &[u8], at: usize) -> Option<(Moved, usize, bool)> {
    let word = insn::word(code, at)?;
    let value = |of| Some((Moved::Value { rd: insn::rd(word), of, si20: insn::si20(word) }, LEN, false));
    match insn::kind(word) {
        Kind::None | Kind::Call { .. } => None,
        Kind::PcAddU18I => match insn::word(code, at + LEN).and_then(|next| insn::far_branch(word, next)) {
            Some((distance, ZERO)) => Some((Moved::Far { rd: insn::rd(word), distance }, 2 * LEN, true)),
            Some(_) => None, // a call
            None => value(|pc, si20| pc.wrapping_add_signed(si20 << 18)),
        },
        Kind::PcAddI => value(|pc, si20| pc.wrapping_add_signed(si20 << 2)),
        Kind::PcAddU12I => value(|pc, si20| pc.wrapping_add_signed(si20 << 12)),
        Kind::PcAlaU12I => value(|pc, si20| pc.wrapping_add_signed(si20 << 12) & !0xfff),
        Kind::Jump { distance, condition: false } => Some((Moved::Jump { distance }, LEN, true)),
        Kind::Jump { distance, condition: true } => Some((Moved::Branch { word, distance }, LEN, false)),
        // A call's return address is where it stands.
        Kind::Register { .. } if insn::rd(word) != ZERO => None,
        Kind::Register { .. } => Some((Moved::Copied(word), LEN, true)),
        // A system call may wait there and be restarted there; break 0 is __builtin_trap, any other may be a debugger's.
        Kind::Plain if insn::is_system_call(word) => None,
        Kind::Plain if insn::is_break(word) => (word == insn::BREAK).then_some((Moved::Copied(word), LEN, true)),
        Kind::Plain => Some((Moved::Copied(word), LEN, false)),
    }
}

pub(super) fn displaceable(code: &[u8], at: usize) -> Result<usize, Undisplaceable> {
    let (_, len, _) = moved(code, at).ok_or(Undisplaceable::Instruction)?;
    // Nothing may lead into what is overwritten or moved. Who leads to its first byte meets the jump, which is what it is
    // there for.
    let inside = at as i64 + 1..(at + len) as i64;
    for here in (0..code.len()).step_by(LEN) {
        let word = insn::word(code, here).ok_or(Undisplaceable::JumpedInto)?;
        let distance = match insn::kind(word) {
            // What stands behind, and where it leads, cannot be seen.
            Kind::None => return Err(Undisplaceable::JumpedInto),
            Kind::Jump { distance, .. } | Kind::Call { distance } => distance,
            // The address of a label, to jump there later; or of the bytes, to read them.
            Kind::PcAddI => insn::si20(word) << 2,
            Kind::PcAddU18I => match insn::word(code, here + LEN).and_then(|next| insn::far_branch(word, next)) {
                Some((distance, _)) => distance,
                None => continue,
            },
            Kind::Plain | Kind::PcAlaU12I | Kind::PcAddU12I | Kind::Register { .. } => continue,
        };
        if inside.contains(&(here as i64 + distance)) {
            return Err(Undisplaceable::JumpedInto);
        }
    }
    Ok(len)
}

pub(super) fn gate_len(displaced: &[u8]) -> usize {
    QUESTION + MOVED * displaced.len() + LEN
}

pub(super) fn gate(gate: &Gate<'_>) -> Result<Vec<u8>, JumpError> {
    let mut words: Vec<u32> = Vec::new();
    let here = |words: &Vec<u32>| gate.at.plus((LEN * words.len()) as u64);
    let load = |lower: u32| 0x2880_0000 | lower << 10 | REG << 5 | REG; // ld.w $r21, $r21, lower
    match parts(gate.at, gate.commit.at) {
        // pcaddu12i $r21, upper
        Ok((upper, lower)) => words.extend([0x1c00_0000 | upper << 5 | REG, load(lower)]),
        // The word is a far library's.
        Err(_) => {
            words.extend(constant(REG, gate.commit.at.0));
            words.push(load(0));
        }
    }
    if gate.commit.old != 0 {
        // Twelve bits of the difference at a time, since there is no other register to hold the word: 0 is left of equal ones.
        let xori = |bits: u32| 0x03c0_0000 | (bits & 0xfff) << 10 | REG << 5 | REG; // xori $r21, $r21, bits
        const ROTATE: u32 = 0x004c_8000 | 12 << 10 | REG << 5 | REG; // rotri.w $r21, $r21, 12
        let old = gate.commit.old;
        words.extend([xori(old), ROTATE, xori(old >> 12), ROTATE, xori(old >> 24)]);
    }
    words.push(0x4000_0000 | 2 << 10 | REG << 5); // beqz $r21, 8
    words.push(b(here(&words), gate.new)?);

    let mut at = 0;
    let mut ended = false;
    while at < gate.displaced.len() {
        if ended {
            return Err(JumpError::Displaced);
        }
        let (moved, len, ends) = moved(gate.displaced, at).ok_or(JumpError::Displaced)?;
        let from = gate.from.plus(at as u64);
        let to = |distance: i64| RemoteAddr(from.0.wrapping_add_signed(distance));
        match moved {
            Moved::Copied(word) => words.push(word),
            Moved::Value { rd, of, si20 } => words.extend(constant(rd, of(from.0, si20))),
            Moved::Jump { distance } => words.push(b(here(&words), to(distance))?),
            Moved::Branch { word, distance } => {
                // The condition leads over the jump that leads on.
                let next = b(here(&words).plus(4), from.plus(4))?;
                words.extend([insn::over_one(word), next]);
                words.push(b(here(&words), to(distance))?);
                ended = true;
            }
            Moved::Far { rd, distance } => {
                let place = here(&words);
                words.extend(insn::far_jump(rd, place, to(distance))?);
            }
        }
        at += len;
        ended |= ends;
    }
    if !ended {
        words.push(b(here(&words), gate.from.plus(gate.displaced.len() as u64))?);
    }
    Ok(bytes(&words))
}
