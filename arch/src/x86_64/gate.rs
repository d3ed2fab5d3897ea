// SPDX-License-Identifier: GPL-2.0-or-later
//! Gates: which of a function's first instructions can stand elsewhere, and the code that asks before they run there.
//! Instruction formats: Intel SDM volume 2.

use super::{JUMP_LEN, rel32};
use crate::{Gate, JumpError, RemoteAddr, Undisplaceable};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// The longest question: the one about a word that is farther than a displacement reaches.
const QUESTION: usize = 35;

/// What becomes of an instruction in a gate.
enum Moved {
    /// The same bytes; a displacement from the instruction pointer, at this offset of them, keeps its destination.
    Copied { ip_relative: Option<(usize, u64)> },
    /// A direct jump: these bytes and a 32-bit displacement.
    Jump { opcode: Vec<u8>, to: u64 },
}

/// How an instruction moves, and whether the next one is never reached from it; `None`: it cannot stand elsewhere.
fn moved(decoder: &Decoder<'_>, insn: &Instruction, bytes: &[u8]) -> Option<(Moved, bool)> {
    if insn.is_invalid() {
        return None;
    }
    let (direct, ends) = match insn.flow_control() {
        // Nobody goes on behind hlt but a kernel; int3 is a debugger's, or padding.
        FlowControl::Next if insn.mnemonic() != Mnemonic::Hlt => (false, false),
        FlowControl::Return if matches!(insn.code(), Code::Retnq | Code::Retnq_imm16) => (false, true),
        FlowControl::IndirectBranch if matches!(insn.code(), Code::Jmp_rm64) => (false, true),
        FlowControl::Exception if insn.mnemonic() == Mnemonic::Ud2 => (false, true),
        FlowControl::UnconditionalBranch => (true, true),
        FlowControl::ConditionalBranch => (true, false),
        // A call pushes where it stands; a system call may wait there and be restarted there.
        _ => return None,
    };
    if direct {
        let opcode = match insn.code() {
            Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => vec![0xe9],
            _ if insn.is_jcc_short_or_near() && insn.op0_kind() == OpKind::NearBranch64 => {
                // 7x rel8 or 0f 8x rel32: x is the condition.
                let field = decoder.get_constant_offsets(insn).immediate_offset();
                let condition = bytes.get(field.checked_sub(1)?)? & 0x0f;
                vec![0x0f, 0x80 | condition]
            }
            // loop and jrcxz have short forms only.
            _ => return None,
        };
        return Some((Moved::Jump { opcode, to: insn.near_branch_target() }, ends));
    }
    let ip_relative = match insn.is_ip_rel_memory_operand() {
        true if insn.memory_base() != Register::RIP => return None,
        true => {
            let fields = decoder.get_constant_offsets(insn);
            if fields.displacement_size() != 4 {
                return None;
            }
            Some((fields.displacement_offset(), insn.ip_rel_memory_address()))
        }
        false => None,
    };
    Some((Moved::Copied { ip_relative }, ends))
}

pub(super) fn displaceable(code: &[u8], at: usize) -> Result<usize, Undisplaceable> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    decoder.set_position(at).map_err(|_| Undisplaceable::Instruction)?;
    decoder.set_ip(at as u64);
    let mut insn = Instruction::default();
    let mut end = at;
    while end < at + JUMP_LEN && decoder.can_decode() {
        decoder.decode_out(&mut insn);
        let bytes = code.get(end..decoder.position()).unwrap_or(&[]);
        let (_, ends) = moved(&decoder, &insn, bytes).ok_or(Undisplaceable::Instruction)?;
        end = decoder.position();
        if ends {
            break;
        }
    }
    if end == at {
        return Err(Undisplaceable::Instruction);
    }
    // Nothing may lead into what is overwritten or moved. Who leads to its first byte meets the jump, which is what it
    // is there for.
    let inside = at as u64 + 1..end.max(at + JUMP_LEN) as u64;
    decoder.set_position(0).map_err(|_| Undisplaceable::Instruction)?;
    decoder.set_ip(0);
    while decoder.can_decode() {
        decoder.decode_out(&mut insn);
        if insn.is_invalid() {
            // What stands behind, and where it leads, cannot be seen.
            return Err(Undisplaceable::JumpedInto);
        }
        let target = match insn.op0_kind() {
            OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16 => insn.near_branch_target(),
            // The address of a label, to jump there later; or of the bytes, to read them.
            _ if insn.is_ip_rel_memory_operand() => insn.ip_rel_memory_address(),
            _ => continue,
        };
        if inside.contains(&target) {
            return Err(Undisplaceable::JumpedInto);
        }
    }
    Ok(end - at)
}

pub(super) fn gate_len(displaced: &[u8]) -> usize {
    // The shortest instruction that grows, a jump of two bytes, becomes one of six.
    QUESTION + 3 * displaced.len() + JUMP_LEN
}

pub(super) fn gate(gate: &Gate<'_>) -> Result<Vec<u8>, JumpError> {
    let mut bytes = Vec::with_capacity(gate_len(gate.displaced));
    let here = |bytes: &Vec<u8>| gate.at.plus(bytes.len() as u64);
    let old = gate.commit.old.to_le_bytes();
    // 81 3d rel32 imm32       cmpl $old,commit(%rip)
    match rel32(gate.at, 10, gate.commit.at) {
        Ok(displacement) => {
            bytes.extend([0x81, 0x3d]);
            bytes.extend(displacement);
            bytes.extend(old);
        }
        // The word is a far library's. A loop back to the entry may have something in the red zone, and no instruction
        // but the compare changes flags, which hold nothing at an entry.
        // 48 8d 64 24 80          lea -128(%rsp),%rsp
        // 50                      push %rax
        // a1 addr64               movabs commit,%eax
        // 3d imm32                cmp $old,%eax
        // 58                      pop %rax
        // 48 8d a4 24 rel32       lea 128(%rsp),%rsp
        Err(_) => {
            bytes.extend([0x48, 0x8d, 0x64, 0x24, 0x80, 0x50, 0xa1]);
            bytes.extend(gate.commit.at.0.to_le_bytes());
            bytes.push(0x3d);
            bytes.extend(old);
            bytes.extend([0x58, 0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0]);
        }
    }
    // 0f 85 rel32             jne new
    jump(&mut bytes, gate.at, &[0x0f, 0x85], gate.new)?;

    let mut decoder = Decoder::with_ip(64, gate.displaced, gate.from.0, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    let mut ended = false;
    while decoder.can_decode() {
        if ended {
            return Err(JumpError::Displaced);
        }
        let start = decoder.position();
        decoder.decode_out(&mut insn);
        let original = gate.displaced.get(start..decoder.position()).unwrap_or(&[]);
        let (moved, ends) = moved(&decoder, &insn, original).ok_or(JumpError::Displaced)?;
        ended = ends;
        match moved {
            Moved::Jump { opcode, to } => jump(&mut bytes, gate.at, &opcode, RemoteAddr(to))?,
            Moved::Copied { ip_relative: None } => bytes.extend(original),
            Moved::Copied { ip_relative: Some((field, to)) } => {
                let displacement = rel32(here(&bytes), original.len() as u64, RemoteAddr(to))?;
                let mut copy = original.to_vec();
                copy.get_mut(field..field + 4).ok_or(JumpError::Displaced)?.copy_from_slice(&displacement);
                bytes.extend(copy);
            }
        }
    }
    if !ended {
        // e9 rel32            jmp back
        jump(&mut bytes, gate.at, &[0xe9], gate.from.plus(gate.displaced.len() as u64))?;
    }
    Ok(bytes)
}

/// Appends a jump with a 32-bit displacement to code that stands at `at`.
fn jump(bytes: &mut Vec<u8>, at: RemoteAddr, opcode: &[u8], to: RemoteAddr) -> Result<(), JumpError> {
    let displacement = rel32(at.plus(bytes.len() as u64), opcode.len() as u64 + 4, to)?;
    bytes.extend(opcode);
    bytes.extend(displacement);
    Ok(())
}
