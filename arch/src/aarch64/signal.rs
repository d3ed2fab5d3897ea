// SPDX-License-Identifier: GPL-2.0-or-later
//! The frame that the kernel lays on a stack for a signal handler: `struct rt_sigframe` of Linux's arch/arm64/kernel/signal.c, with
//! `struct ucontext` and `struct sigcontext` of its uapi headers. The handler's stack pointer is the frame's address.

use crate::Mark;

/// The head of the vector registers' record, FPSIMD_MAGIC and its size of 0x210 bytes: `init_user_layout` gives it the first place of
/// `__reserved` on every processor.
pub const MARK: Mark = Mark { mask: u64::MAX, value: 0x0000_0210_4650_8001 };
/// `siginfo`, then flags, link, `stack_t`, 128 bytes of signal set, all of it aligned to 16.
const CONTEXT: i64 = 128 + 176;
/// In `sigcontext`: the fault's address, x0 to x30, sp, pc, pstate, all of it aligned to 16.
const RESERVED: i64 = 288;
/// From the mark to pc.
pub const PC: i64 = 8 * 33 - RESERVED;

/// Bytes from the mark to the saved value of a DWARF register: x0 to x30, sp.
pub fn saved(dwarf: u16) -> Option<i64> {
    (dwarf <= 31).then(|| 8 * (1 + i64::from(dwarf)) - RESERVED)
}

/// The code to which a handler returns: `__kernel_rt_sigreturn` of the vDSO and what a C library may give in its place.
pub fn trampoline(code: &[u8]) -> Option<u64> {
    const SIGRETURN: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]; // mov x8,#139; svc #0
    /// Before it, where the way back is a landing: `bti c`.
    const PAD: [u8; 4] = [0x5f, 0x24, 0x03, 0xd5];
    let code = code.strip_prefix(PAD.as_slice()).unwrap_or(code);
    code.starts_with(&SIGRETURN).then_some((CONTEXT + RESERVED).unsigned_abs())
}
