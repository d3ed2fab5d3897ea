// SPDX-License-Identifier: GPL-2.0-or-later
//! Jumps and linkage table entries. `b` reaches 128 MiB; whatever reaches farther needs a register. That is `$r21` everywhere:
//! the psABI (lapcs, "General-purpose registers") reserves it and lets no compiler allocate it, gcc has it among its fixed
//! registers and LLVM among its reserved ones, so that no value of compiled code lives in it. A caller compiled with
//! `-fipa-ra` may keep values in every other register which the old function is known not to change, `$t0` to `$t8` too.

use super::insn::{B, NOP, REG, far_jump};
use crate::{JumpError, RemoteAddr};

/// `b to`; `None`: out of reach, or no place for an instruction.
pub(super) fn b(from: RemoteAddr, to: RemoteAddr) -> Result<u32, JumpError> {
    let distance = to.0.wrapping_sub(from.0) as i64;
    if distance % 4 != 0 || !(-(1 << 27)..1 << 27).contains(&distance) {
        return Err(JumpError::OutOfReach { from, to });
    }
    // offs[15:0] at [25:10], offs[25:16] at [9:0]
    let words = (distance >> 2) as u32 & 0x3ff_ffff;
    Ok(B | (words & 0xffff) << 10 | words >> 16)
}

/// The two parts of a distance: pcaddu12i's si20, and the si12 that is added as a signed number.
pub(super) fn parts(from: RemoteAddr, to: RemoteAddr) -> Result<(u32, u32), JumpError> {
    let distance = to.0.wrapping_sub(from.0);
    let rounded = distance.wrapping_add(0x800) as i64;
    let upper = i32::try_from(rounded).map_err(|_| JumpError::OutOfReach { from, to })? as u32 >> 12;
    Ok((upper, distance as u32 & 0xfff))
}

pub(super) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(super) const PLT_LEN: usize = 16;

pub(super) fn plt_entry(at: RemoteAddr, slot: RemoteAddr) -> Result<Vec<u8>, JumpError> {
    let (upper, lower) = parts(at, slot)?;
    Ok(bytes(&[
        0x1c00_0000 | upper << 5 | REG,             // pcaddu12i $r21, upper
        0x28c0_0000 | lower << 10 | REG << 5 | REG, // ld.d $r21, $r21, lower
        0x4c00_0000 | REG << 5,                     // jirl $zero, $r21, 0
        NOP,
    ]))
}

pub(super) const HOP_LEN: usize = 20;

/// 128 GiB far with `pcaddu18i` and `jirl`; anywhere with the whole address.
pub(super) fn hop(at: RemoteAddr, to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
    if !to.0.is_multiple_of(4) {
        return Err(JumpError::OutOfReach { from: at, to });
    }
    if let Ok(pair) = far_jump(REG, at, to) {
        return Ok(bytes(&pair));
    }
    let mut words = constant(REG, to.0).to_vec();
    words.push(0x4c00_0000 | REG << 5); // jirl $zero, $r21, 0
    Ok(bytes(&words))
}

/// `rd = value`, in four instructions.
pub(super) fn constant(rd: u32, value: u64) -> [u32; 4] {
    let field = |low: u32, width: u32| (value >> low) as u32 & ((1 << width) - 1);
    [
        0x1400_0000 | field(12, 20) << 5 | rd,            // lu12i.w rd, value[31:12]
        0x0380_0000 | field(0, 12) << 10 | rd << 5 | rd,  // ori rd, rd, value[11:0]
        0x1600_0000 | field(32, 20) << 5 | rd,            // lu32i.d rd, value[51:32]
        0x0300_0000 | field(52, 12) << 10 | rd << 5 | rd, // lu52i.d rd, rd, value[63:52]
    ]
}
