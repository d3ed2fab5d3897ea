// SPDX-License-Identifier: GPL-2.0-or-later
//! Instructions as words: where they lead, and which of them know where they stand. LoongArch reference manual, volume 1:
//! 2.2.1.5 and 2.2.1.6 (pcaddi, pcaddu12i, pcaddu18i, pcalau12i), 2.2.5 (branches), appendix B (encodings). There is no other
//! instruction that reads the program counter.

use crate::{Flow, Insn, InsnDetail, JumpError, LinkAddr, PcRelative, RemoteAddr};

pub(super) const LEN: usize = 4;
pub(super) const ZERO: u32 = 0;
pub(super) const RA: u32 = 1;

/// `andi $zero, $zero, 0`
pub(super) const NOP: u32 = 0x0340_0000;

/// `break 0`
pub(super) const BREAK: u32 = 0x002a_0000;
/// `b`
pub(super) const B: u32 = 0x5000_0000;
/// `$r21`, which belongs to nobody.
pub(super) const REG: u32 = 21;

pub(super) fn rd(word: u32) -> u32 {
    word & 0x1f
}

pub(super) fn rj(word: u32) -> u32 {
    word >> 5 & 0x1f
}

pub(super) fn rk(word: u32) -> u32 {
    word >> 10 & 0x1f
}

/// The `width` bits of `value` as a signed number.
fn signed(value: u32, width: u32) -> i64 {
    i64::from((value << (32 - width)) as i32 >> (32 - width))
}

/// si20: bits [24:5].
pub(super) fn si20(word: u32) -> i64 {
    signed(word >> 5 & 0xf_ffff, 20)
}

/// The word at `at`; `None`: the code ends before.
pub(super) fn word(code: &[u8], at: usize) -> Option<u32> {
    code.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// What a word does with the program counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// No instruction.
    None,
    /// Nothing.
    Plain,
    /// `pcaddi rd, si20`: rd = pc + si20 * 4
    PcAddI,
    /// `pcalau12i rd, si20`: rd = (pc + si20 * 4096) without its low 12 bits
    PcAlaU12I,
    /// `pcaddu12i rd, si20`: rd = pc + si20 * 4096
    PcAddU12I,
    /// `pcaddu18i rd, si20`: rd = pc + si20 * 2^18
    PcAddU18I,
    /// `b` (a jump), or a branch on a condition; this many bytes from here.
    Jump { distance: i64, condition: bool },
    /// `bl`
    Call { distance: i64 },
    /// `jirl rd, rj, offs16`: to rj + this many bytes, the next address to rd.
    Register { distance: i64 },
}

pub(super) fn kind(word: u32) -> Kind {
    // offs[15:0] at [25:10]; offs[20:16] or offs[25:16] at the lowest bits.
    let offs16 = word >> 10 & 0xffff;
    let offs21 = offs16 | (word & 0x1f) << 16;
    let offs26 = offs16 | (word & 0x3ff) << 16;
    match (word >> 26, word >> 25) {
        (_, 0b0001100) => Kind::PcAddI,
        (_, 0b0001101) => Kind::PcAlaU12I,
        (_, 0b0001110) => Kind::PcAddU12I,
        (_, 0b0001111) => Kind::PcAddU18I,
        // beqz, bnez; bceqz and bcnez, which differ in bits [9:8] = 00, 01
        (0b010000 | 0b010001, _) => Kind::Jump { distance: 4 * signed(offs21, 21), condition: true },
        (0b010010, _) if word >> 9 & 1 == 0 => Kind::Jump { distance: 4 * signed(offs21, 21), condition: true },
        (0b010010, _) => Kind::None,
        (0b010011, _) => Kind::Register { distance: 4 * signed(offs16, 16) },
        (0b010100, _) => Kind::Jump { distance: 4 * signed(offs26, 26), condition: false },
        (0b010101, _) => Kind::Call { distance: 4 * signed(offs26, 26) },
        // beq, bne, blt, bge, bltu, bgeu
        (0b010110..=0b011011, _) => Kind::Jump { distance: 4 * signed(offs16, 16), condition: true },
        // Below clo.w there is nothing (zeroes stand behind the end of code), and nothing above the vector extensions.
        (0, _) if word < 0x1000 => Kind::None,
        (0..=0b001110 | 0b011100 | 0b011101, _) => Kind::Plain,
        _ => Kind::None,
    }
}

/// `ld.d rd, rj, si12`
pub(super) fn is_load(word: u32) -> bool {
    word >> 22 == 0b00_1010_0011
}

/// `addi.d rd, rj, si12`
pub(super) fn is_addi(word: u32) -> bool {
    word >> 22 == 0b00_0000_1011
}

/// `lu32i.d rd, si20`
pub(super) fn is_lu32i(word: u32) -> bool {
    word >> 25 == 0b0001011
}

/// `lu12i.w rd, si20`
pub(super) fn is_lu12i(word: u32) -> bool {
    word >> 25 == 0b0001010
}

/// `ori rd, rj, ui12`
pub(super) fn is_ori(word: u32) -> bool {
    word >> 22 == 0b00_0000_1110
}

/// Whether two words do the same with the same registers, whatever their immediate operands are: `lu12i.w`, `lu32i.d`, and those
/// with 12 bits.
pub(super) fn same_operation(a: u32, b: u32) -> bool {
    let operand = if is_lu12i(a) || is_lu32i(a) { 0xf_ffff << 5 } else { 0xfff << 10 };
    (a ^ b) & !operand == 0
}

/// The page that `pcalau12i` at `place` puts into its register.
pub(super) fn page_taken(code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
    let word = word(code, 0).filter(|word| kind(*word) == Kind::PcAlaU12I)?;
    Some(LinkAddr(place.0.wrapping_add_signed(si20(word) << 12) & !0xfff))
}

/// The slot of `pcaddu12i rX, upper; ld.d rY, rX, lower`, with which a linkage table entry begins.
pub(super) fn linkage_slot(code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
    let (upper, load) = (word(code, 0)?, word(code, LEN)?);
    let known = kind(upper) == Kind::PcAddU12I && is_load(load) && rj(load) == rd(upper);
    let distance = (si20(upper) << 12) + signed(load >> 10 & 0xfff, 12);
    known.then(|| LinkAddr(place.0.wrapping_add_signed(distance)))
}

/// `pcaddu18i` and the `jirl` behind it, in one: where the two lead from the first one, and the register that `jirl` leaves
/// the next address in.
pub(super) fn far_branch(first: u32, second: u32) -> Option<(i64, u32)> {
    match (kind(first), kind(second)) {
        (Kind::PcAddU18I, Kind::Register { distance }) if rj(second) == rd(first) => {
            Some(((si20(first) << 18) + distance, rd(second)))
        }
        _ => None,
    }
}

/// `jr` through a slot whose address is in the code: pcalau12i rX; ld.d rX, rX, si12; jirl zero, rX, 0. A switch has an index
/// in its way.
fn through_slot(code: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| word(code, at));
    let (Some(page), Some(load), Some(jump)) = (before(2 * LEN), before(LEN), word(code, at)) else { return false };
    let register = rj(jump);
    kind(jump) == Kind::Register { distance: 0 }
        && matches!(kind(page), Kind::PcAlaU12I | Kind::PcAddU12I | Kind::PcAddI)
        && is_load(load)
        && rd(page) == rj(load)
        && rd(load) == register
}

/// `pcaddu18i rd` and `jirl $zero, rd` at `from`.
pub(super) fn far_jump(rd: u32, from: RemoteAddr, to: RemoteAddr) -> Result<[u32; 2], JumpError> {
    let distance = to.0.wrapping_sub(from.0) as i64;
    let upper = distance.wrapping_add(1 << 17) >> 18;
    if distance % 4 != 0 || !(-(1 << 19)..1 << 19).contains(&upper) {
        return Err(JumpError::OutOfReach { from, to });
    }
    let (upper, lower) = (upper as u32 & 0xf_ffff, (distance >> 2) as u32 & 0xffff);
    Ok([0x1e00_0000 | upper << 5 | rd, 0x4c00_0000 | lower << 10 | rd << 5])
}

/// The branch on a condition `word`, leading over one instruction: its distance is 8.
pub(super) fn over_one(word: u32) -> u32 {
    // offs16 at [25:10]; beqz, bnez, bceqz and bcnez have more of it at [4:0], the others a register.
    let offs21 = word >> 26 <= 0b010010;
    let kept = if offs21 { 0xfc00_03e0 } else { 0xfc00_03ff };
    word & kept | 2 << 10
}

pub(super) fn decode(code: &[u8]) -> Vec<Insn> {
    let mut insns = Vec::new();
    let mut at = 0;
    while let Some(insn) = one(code, at) {
        at = insn.end;
        insns.push(insn);
    }
    insns
}

/// The instruction at `at`; a far branch counts as one of eight bytes, which is what its relocation covers.
pub(super) fn one(code: &[u8], at: usize) -> Option<Insn> {
    let first = word(code, at)?;
    let to = |distance: i64| Some(at as i64 + distance);
    let field = Some(at);
    if let Some((distance, link)) = word(code, at + LEN).and_then(|second| far_branch(first, second)) {
        let target = to(distance);
        let flow = if link == ZERO { Flow::Jump { field, target } } else { Flow::Call { field, target } };
        return Some(Insn { start: at, end: at + 2 * LEN, flow });
    }
    let flow = match kind(first) {
        Kind::None => return None,
        Kind::Plain | Kind::PcAddI | Kind::PcAlaU12I | Kind::PcAddU12I | Kind::PcAddU18I => Flow::Next,
        Kind::Jump { distance, .. } => Flow::Jump { field, target: to(distance) },
        Kind::Call { distance } => Flow::Call { field, target: to(distance) },
        Kind::Register { .. } if rd(first) != ZERO => Flow::Call { field: None, target: None },
        Kind::Register { distance: 0 } if rj(first) == RA => Flow::Next,
        Kind::Register { .. } if through_slot(code, at) => Flow::TailCall,
        Kind::Register { .. } => Flow::Jump { field: None, target: None },
    };
    Some(Insn { start: at, end: at + LEN, flow })
}

pub(super) fn detail(code: &[u8], at: usize) -> Option<InsnDetail> {
    let (insn, word) = (one(code, at)?, word(code, at)?);
    // What is done, without how far it leads: registers and the condition, a number for each form.
    let what = match kind(word) {
        Kind::Call { .. } => Some(1 << 15),
        Kind::Jump { condition: false, .. } => Some(2 << 12),
        // beqz, bnez; bceqz and bcnez, which bits [9:8] tell apart
        Kind::Jump { .. } if word >> 26 <= 0b010010 => Some((3 << 12 | (word >> 26 & 3) << 5 | rj(word)) as u16),
        // beq, bne, blt, bge, bltu, bgeu: the number of the condition, rj, rd
        Kind::Jump { .. } => Some((0x4000 | (word >> 26 & 7) << 10 | word & 0x3ff) as u16),
        Kind::PcAddU18I => match insn.flow {
            // By which register it goes belongs to it, and where the next address is left.
            Flow::Call { .. } => Some((0xc000 | rd(word) << 5 | rd(self::word(code, at + LEN)?)) as u16),
            Flow::Jump { .. } => Some((0xe000 | rd(word) << 5) as u16),
            Flow::Next | Flow::TailCall => None,
        },
        _ => None,
    };
    let target = match insn.flow {
        Flow::Call { target, .. } | Flow::Jump { target, .. } => target,
        Flow::Next | Flow::TailCall => None,
    };
    let pc_relative = match kind(word) {
        Kind::PcAddI => Some(si20(word) << 2),
        Kind::PcAddU12I => Some(si20(word) << 12),
        _ => None,
    };
    let operand = |distance: i64| PcRelative { at: 0, len: LEN, target: at as i64 + distance, taken: true };
    Some(InsnDetail {
        len: insn.end - insn.start,
        nop: word == NOP,
        branch: what.zip(target),
        pc_relative: pc_relative.map(operand),
    })
}

/// R_LARCH_B16, B21, B26, CALL36 or PCREL20_S2, as the instruction at `at` wants it.
pub(super) fn branch_type(code: &[u8], at: usize) -> Option<u32> {
    if kind(word(code, at)?) == Kind::PcAddI {
        return Some(103);
    }
    match word(code, at)? >> 26 {
        0b010000..=0b010010 => Some(65),
        0b010100 | 0b010101 => Some(66),
        0b010110..=0b011011 => Some(64),
        0b000111 => Some(110),
        _ => None,
    }
}

/// Whether a jump leads to itself: in an object whose linker may shorten code every branch does, until it is relocated.
pub(super) fn waits(insn: &Insn) -> bool {
    matches!(insn.flow, Flow::Jump { target: Some(to), .. } if to == insn.start as i64)
}

pub(super) fn loops_to_entry(code: &[u8]) -> bool {
    let insns = decode(code);
    let whole = insns.last().map_or(0, |last| last.end) == code.len();
    let loops = |insn: &Insn| matches!(insn.flow, Flow::Jump { target: Some(0) | None, .. }) || waits(insn);
    !whole || insns.iter().any(loops)
}

/// Whether control may go on behind the instruction, and whether it leads out of `code` in another way than by a call.
fn ends(code: &[u8], insn: &Insn) -> (bool, bool) {
    let first = word(code, insn.start).unwrap_or(0);
    let conditional = matches!(kind(first), Kind::Jump { condition: true, .. });
    let inside = |target: Option<i64>| target.is_some_and(|to| (0..code.len() as i64).contains(&to));
    match insn.flow {
        Flow::TailCall => (false, true),
        Flow::Jump { target, .. } => (conditional, !inside(target) || waits(insn)),
        // jirl zero, ra, 0
        Flow::Next if matches!(kind(first), Kind::Register { .. }) => (false, true),
        // break 0 and up: __builtin_trap and what asserts leave.
        Flow::Next if is_break(first) => (false, false),
        Flow::Next | Flow::Call { .. } => (true, false),
    }
}

/// `break code`: 0000 0000 0010 1010 0, code [14:0]
pub(super) fn is_break(word: u32) -> bool {
    word >> 15 == 0b0_0000_0000_0101_0100
}

/// `syscall code`: 0000 0000 0010 1011 0, code [14:0]
pub(super) fn is_system_call(word: u32) -> bool {
    word >> 15 == 0b0_0000_0000_0101_0110
}

pub(super) fn returns(code: &[u8]) -> bool {
    let insns = decode(code);
    insns.last().map_or(0, |last| last.end) < code.len() || insns.iter().any(|insn| ends(code, insn).1)
}

pub(super) fn runs_over_end(code: &[u8]) -> bool {
    let insns = decode(code);
    let whole = insns.last().is_some_and(|last| last.end == code.len());
    let padding = |insn: &&Insn| word(code, insn.start) != Some(NOP);
    !whole || insns.iter().rfind(padding).is_none_or(|last| ends(code, last).0)
}
