// SPDX-License-Identifier: GPL-2.0-or-later
//! Instructions, as far as live patching asks: where they lead, which of them hold an address, which registers an address
//! goes through. Arm Architecture Reference Manual, C4.1 (encodings) and C6.2 (base instructions). Whatever is not known
//! among branches is no instruction: to take one for something harmless would hide where it leads.

use crate::{Flow, Insn, InsnDetail, PcRelative};

pub(super) const NOP: u32 = 0xd503_201f;

/// One word of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// `b`, `b.cond`, `cbz`, `tbz`: leads this far, in bytes.
    Jump { distance: i64, form: Form },
    /// `bl`
    Call { distance: i64 },
    /// `blr`, with or without authentication.
    CallRegister,
    /// `br`, with or without authentication, through this register.
    JumpRegister(u8),
    /// `ret`, with or without authentication, `eret`.
    Return,
    /// `svc`, `hvc`, `smc`: where a thread may wait, and be sent back to.
    SystemCall,
    /// `brk`, `hlt`: nobody goes on behind it.
    Trap,
    /// Everything else.
    Other,
}

/// The forms of direct jumps, by what their fields are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Always,
    /// imm19: `b.cond`, `bc.cond`.
    Condition,
    /// imm19: `cbz`, `cbnz`.
    Compare,
    /// imm14: `tbz`, `tbnz`.
    Test,
}

/// The two's complement number in `width` bits from bit `at` on.
pub(super) fn signed(word: u32, at: u32, width: u32) -> i64 {
    i64::from((word << (32 - at - width)) as i32 >> (32 - width))
}

/// Bits `[high:low]`.
pub(super) fn bits(word: u32, high: u32, low: u32) -> u32 {
    word << (31 - high) >> (31 - high + low)
}

/// The register number in five bits from bit `at` on.
pub(super) fn register(word: u32, at: u32) -> u8 {
    (word >> at & 31) as u8
}

pub(super) fn word_at(code: &[u8], at: usize) -> Option<u32> {
    let bytes = code.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// What a word is; `None`: no instruction, or none that is known.
pub(super) fn kind(word: u32) -> Option<Kind> {
    // op0, bits [28:25], divides everything.
    match bits(word, 28, 25) {
        // Reserved (with `udf`), but for SME's.
        0b0000 => (word >> 31 == 1).then_some(Kind::Other),
        0b0001 | 0b0011 => None,
        0b1010 | 0b1011 => branch(word),
        _ => Some(Kind::Other),
    }
}

/// Branches, exception generating and system instructions.
fn branch(word: u32) -> Option<Kind> {
    let jump = |at, width, form| Some(Kind::Jump { distance: 4 * signed(word, at, width), form });
    match word >> 24 {
        0x14..=0x17 => jump(0, 26, Form::Always),
        0x94..=0x97 => Some(Kind::Call { distance: 4 * signed(word, 0, 26) }),
        0x54 => jump(5, 19, Form::Condition),
        0x34 | 0x35 | 0xb4 | 0xb5 => jump(5, 19, Form::Compare),
        0x36 | 0x37 | 0xb6 | 0xb7 => jump(5, 14, Form::Test),
        // opc [24:21], op2 [20:16], op3 [15:10], Rn [9:5], op4 [4:0]; op3 of 2 and 3 authenticates.
        0xd6 | 0xd7 if bits(word, 20, 16) == 31 && matches!(bits(word, 15, 10), 0 | 2 | 3) => {
            match bits(word, 24, 21) {
                0b0000 | 0b1000 => Some(Kind::JumpRegister(register(word, 5))),
                0b0001 | 0b1001 => Some(Kind::CallRegister),
                0b0010 | 0b0100 => Some(Kind::Return),
                _ => None,
            }
        }
        // opc [23:21], op2 [4:2], LL [1:0]
        0xd4 => match (bits(word, 23, 21), bits(word, 4, 0)) {
            (0b000, 1..=3) => Some(Kind::SystemCall),
            (0b001 | 0b010, 0) => Some(Kind::Trap),
            _ => None,
        },
        // Hints, barriers, system registers.
        0xd5 => Some(Kind::Other),
        _ => None,
    }
}

pub(super) fn decode(code: &[u8]) -> Vec<Insn> {
    let one = |start: usize| {
        let field = Some(start);
        let flow = match kind(word_at(code, start)?)? {
            Kind::Jump { distance, .. } => Flow::Jump { field, target: Some(start as i64 + distance) },
            Kind::Call { distance } => Flow::Call { field, target: Some(start as i64 + distance) },
            Kind::CallRegister => Flow::Call { field: None, target: None },
            Kind::JumpRegister(register) if holds_slot(code, start, register) => Flow::TailCall,
            Kind::JumpRegister(_) => Flow::Jump { field: None, target: None },
            Kind::Return | Kind::SystemCall | Kind::Trap | Kind::Other => Flow::Next,
        };
        Some(Insn { start, end: start + 4, flow })
    };
    (0..code.len()).step_by(4).map_while(one).collect()
}

/// Whether the register holds, at `at`, what was loaded from a place that is fixed: `adrp r; ldr r,[r,#imm]`, as -fno-plt
/// and linkage tables make it. A switch has an index in what it loads, and a computed goto of an array too.
fn holds_slot(code: &[u8], at: usize, r: u8) -> bool {
    /// How far back it is looked for: arguments are moved in between.
    const WINDOW: usize = 16;
    let mut wanted_page = false;
    for start in (1..=WINDOW).map_while(|back| at.checked_sub(4 * back)) {
        let Some(word) = word_at(code, start) else { return false };
        // ldr Xr,[Xr,#imm]; adrp Xr,page
        let load = word & 0xffc0_0000 == 0xf940_0000 && register(word, 0) == r && register(word, 5) == r;
        let page = word & 0x9f00_0000 == 0x9000_0000 && register(word, 0) == r;
        match (wanted_page, load, page) {
            (false, true, _) => wanted_page = true,
            (true, _, true) => return true,
            // Anything else that may write it, and whatever may be reached from elsewhere.
            _ if [0, 5, 10].into_iter().any(|at| register(word, at) == r) => return false,
            _ if kind(word) != Some(Kind::Other) => return false,
            _ => {}
        }
    }
    false
}

/// Whether control may leave `code` by itself, or that cannot be seen.
pub(super) fn returns(code: &[u8]) -> bool {
    let leads_out = |start: usize| match word_at(code, start).and_then(kind) {
        Some(Kind::Return | Kind::JumpRegister(_)) | None => true,
        Some(Kind::Jump { distance, .. }) => !(0..code.len() as i64).contains(&(start as i64 + distance)),
        Some(_) => false,
    };
    (0..code.len()).step_by(4).any(leads_out)
}

/// Whether control may run over the end of `code`, or that cannot be seen.
pub(super) fn runs_over_end(code: &[u8]) -> bool {
    let mut last = None;
    for start in (0..code.len()).step_by(4) {
        match word_at(code, start).map(|word| (word, kind(word))) {
            Some((NOP, _)) => {}
            Some((_, Some(kind))) => last = Some(kind),
            _ => return true,
        }
    }
    let leaves = |kind| {
        let jump = matches!(kind, Kind::Jump { form: Form::Always, .. });
        jump || matches!(kind, Kind::Return | Kind::JumpRegister(_) | Kind::Trap)
    };
    !last.is_some_and(leaves)
}

/// The relocation that stands for a distance which the assembler filled in.
pub(super) fn assembled(word: u32) -> Option<u32> {
    match kind(word)? {
        Kind::Jump { form: Form::Always, .. } => Some(282), // JUMP26
        Kind::Call { .. } => Some(283),                     // CALL26
        Kind::Jump { form: Form::Condition | Form::Compare, .. } => Some(280), // CONDBR19
        Kind::Jump { form: Form::Test, .. } => Some(279),   // TSTBR14
        _ => match operand(word)? {
            (_, true) => Some(274),  // ADR_PREL_LO21
            (_, false) => Some(273), // LD_PREL_LO19
        },
    }
}

/// The PC-relative operand of `adr` and of a load of a literal: its distance, and whether the address itself is the result.
/// What `adrp` makes depends on where it stands.
pub(super) fn operand(word: u32) -> Option<(i64, bool)> {
    if word & 0x9f00_0000 == 0x1000_0000 {
        return Some((signed(word, 5, 19) << 2 | i64::from(bits(word, 30, 29)), true));
    }
    // opc [31:30], 011, V [26], 00, imm19; opc 11 with V is none.
    let literal = word & 0x3b00_0000 == 0x1800_0000 && word >> 30 | bits(word, 26, 26) << 2 != 7;
    literal.then(|| (4 * signed(word, 5, 19), false))
}

pub(super) fn detail(code: &[u8], at: usize) -> Option<InsnDetail> {
    let word = word_at(code, at)?;
    let target = |distance| at as i64 + distance;
    // What is done, without how far it leads: a number for each form, and what the form has besides.
    let does = |form: u32, rest: u32| (form << 12 | rest) as u16;
    let branch = match kind(word)? {
        Kind::Jump { distance, form } => {
            let what = match form {
                Form::Always => does(0, 0),
                Form::Condition => does(1, bits(word, 4, 0)),
                Form::Compare => does(2, bits(word, 31, 31) << 6 | bits(word, 24, 24) << 5 | bits(word, 4, 0)),
                Form::Test => {
                    let bit = bits(word, 31, 31) << 5 | bits(word, 23, 19);
                    does(3, bit << 6 | bits(word, 24, 24) << 5 | bits(word, 4, 0))
                }
            };
            Some((what, target(distance)))
        }
        Kind::Call { distance } => Some((does(4, 0), target(distance))),
        _ => None,
    };
    let pc_relative =
        operand(word).map(|(distance, taken)| PcRelative { at: 0, len: 4, target: target(distance), taken });
    Some(InsnDetail { len: 4, nop: word == NOP, branch, pc_relative })
}
