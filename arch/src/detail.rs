// SPDX-License-Identifier: GPL-2.0-or-later
//! One machine instruction as far as a comparison of two compiles needs it: its length, where it leads, which bytes of it
//! are an address. Everything else about it is compared as bytes.

/// A decoded instruction, closer than [`crate::Insn`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InsnDetail {
    /// Length in bytes.
    pub len: usize,
    /// Does nothing: padding, in one of its many lengths.
    pub nop: bool,
    /// A direct branch: what it does (a jump, a call, a condition), whatever the length of its encoding, and
    /// where it leads, in bytes from the start of the code.
    pub branch: Option<(u16, i64)>,
    /// A PC-relative address operand.
    pub pc_relative: Option<PcRelative>,
}

/// An address operand relative to the program counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PcRelative {
    /// Where its field begins, in bytes from the instruction's start.
    pub at: usize,
    /// Size of the field in bytes.
    pub len: usize,
    /// The address meant, in bytes from the start of the code.
    pub target: i64,
    /// The address itself is the result (`lea`): it can be stored. Else memory there is read or written.
    pub taken: bool,
}

/// What code does with an address of data, from harmless to lasting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AddressUse {
    /// Memory there is read, and the address is gone when the function is.
    Read,
    /// It goes where it was not followed: an argument, a result, the stack.
    Handed,
    /// It is written to memory, where others find it later.
    Stored,
}
