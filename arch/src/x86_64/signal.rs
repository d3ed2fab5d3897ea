// SPDX-License-Identifier: GPL-2.0-or-later
//! The frame that the kernel lays on a stack for a signal handler: `struct rt_sigframe` of Linux's
//! arch/x86/include/asm/sigframe.h, with `struct ucontext` and `struct sigcontext` of its uapi headers.

use crate::Mark;

/// `rt_sigreturn`.
const SIGRETURN: u8 = 15;
/// `cs`, `gs`, `fs` and `ss`, 16 bits each: the selectors of 64-bit user code (0x33) and of its data (0x2b), to both of which
/// Xen's paravirtualisation adds 0xe000.
pub const MARK: Mark = Mark { mask: 0x1fff_0000_0000_1fff, value: 0x002b_0000_0000_0033 };
/// From `ucontext`, at which the stack pointer stands in the trampoline, to the word with the selectors: flags, link and
/// `stack_t` (40 bytes), then eighteen registers.
const UCONTEXT_TO_MARK: u64 = 40 + 18 * 8;

/// Bytes from the mark to the saved value of a DWARF register. The kernel's order: r8 to r15, rdi, rsi, rbp, rbx, rdx,
/// rax, rcx, rsp, rip, flags.
pub fn saved(dwarf: u16) -> Option<i64> {
    let place = match dwarf {
        8..=15 => i64::from(dwarf) - 8,
        5 => 8,   // rdi
        4 => 9,   // rsi
        6 => 10,  // rbp
        3 => 11,  // rbx
        1 => 12,  // rdx
        0 => 13,  // rax
        2 => 14,  // rcx
        7 => 15,  // rsp
        16 => 16, // rip
        _ => return None,
    };
    Some(8 * (place - 18))
}

/// The code to which a handler returns, `rt_sigreturn` in one of the two ways in which assemblers write it.
pub fn trampoline(code: &[u8]) -> Option<u64> {
    const LONG: [u8; 9] = [0x48, 0xc7, 0xc0, SIGRETURN, 0, 0, 0, 0x0f, 0x05]; // mov $15,%rax; syscall
    const SHORT: [u8; 7] = [0xb8, SIGRETURN, 0, 0, 0, 0x0f, 0x05]; // mov $15,%eax; syscall
    (code.starts_with(&LONG) || code.starts_with(&SHORT)).then_some(UCONTEXT_TO_MARK)
}
