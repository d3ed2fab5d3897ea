// SPDX-License-Identifier: GPL-2.0-or-later
//! The frame that the kernel lays on a stack for a signal handler: `struct rt_sigframe` of Linux's arch/loongarch/kernel/signal.c, with
//! `struct ucontext` and `struct sigcontext` of its uapi headers. Behind the registers stands what the thread has used of vectors and
//! floating point, which may be nothing, so no word of the frame has a value that others have not. But a frame tells on
//! which alternate stack its handler runs: only where that is around the frame itself, frames are beneath it that are not above.

use crate::Mark;

/// `uc_flags`, which is 0.
pub const MARK: Mark = Mark { mask: u64::MAX, value: 0 };
/// From the frame, which is the handler's stack pointer, to the mark: `siginfo`.
const CONTEXT: u64 = 128;
/// From the mark on: `uc_link`, which is 0; `ss_sp` and `ss_size` of `uc_stack`.
const LINK: i64 = 8;
const STACK: i64 = 16;
const SIZE: i64 = 32;
/// `uc_mcontext` begins with the program counter.
pub const PC: i64 = 176;

/// Whether the frame around the mark at `at` lies on the alternate stack that it tells of.
pub fn may_be_context(at: u64, word: &dyn Fn(i64) -> Option<u64>) -> bool {
    let within = |start: u64| at.checked_sub(start).is_some_and(|depth| word(SIZE).is_none_or(|size| depth < size));
    word(LINK).is_none_or(|link| link == 0) && word(STACK).is_none_or(within)
}

/// Bytes from the mark to the saved value of a DWARF register: r0 to r31.
pub fn saved(dwarf: u16) -> Option<i64> {
    (dwarf < 32).then(|| PC + 8 + 8 * i64::from(dwarf))
}

/// The code to which a handler returns: `__vdso_rt_sigreturn`.
pub fn trampoline(code: &[u8]) -> Option<u64> {
    const SIGRETURN: [u8; 8] = [0x0b, 0x2c, 0x82, 0x03, 0x00, 0x00, 0x2b, 0x00]; // ori $a7, $zero, 139; syscall 0
    code.starts_with(&SIGRETURN).then_some(CONTEXT)
}
