// SPDX-License-Identifier: GPL-2.0-or-later
//! System calls made in the target, and calls that our stop interrupted. Linux, arch/loongarch: `do_syscall` of kernel/syscall.c
//! writes the call's number plus 1 into the slot of register 0, which every other way into the kernel sets to 0;
//! `arch_do_signal_or_restart` of kernel/signal.c restarts a call only where that *marker* is set, and clears it.
//! `handle_syscall` of kernel/entry.S does not save `$t0` to `$t8`, but loads them on the way out from where it would have:
//! a system call leaves anything in them.

use super::insn::REG;
use super::jump::bytes;
use super::{MARKER, ORIG_A0, PC, RESULT};
use crate::{Call, Regs, RemoteAddr, Stub};

/// a7
const NUMBER: usize = 11;
const SYSCALL_LEN: u64 = 4;

// The kernel's own codes for "restart this call", which only tracers see (include/linux/errno.h).
const EINTR: i64 = 4;
const ERESTARTSYS: i64 = 512;
const ERESTARTNOINTR: i64 = 513;
const ERESTARTNOHAND: i64 = 514;
const ERESTART_RESTARTBLOCK: i64 = 516;

/// Calls which the kernel ends with EINTR at every ptrace stop although restarting them is harmless. Never `close` (the descriptor
/// is gone), `ioctl` (KVM_RUN means it), `connect`, or anything whose effect may have happened already. There is no
/// `epoll_wait` here.
const CURED: &[(u64, &str)] = &[
    (4, "io_getevents"),
    (22, "epoll_pwait"),
    (137, "rt_sigtimedwait"),
    (192, "semtimedop"),
    (193, "semop"),
    (202, "accept"),
    (206, "sendto"),
    (207, "recvfrom"),
    (211, "sendmsg"),
    (212, "recvmsg"),
    (242, "accept4"),
    (243, "recvmmsg"),
    (441, "epoll_pwait2"),
];

/// include/uapi/asm-generic/unistd.h
pub(super) fn number(call: Call) -> u64 {
    match call {
        Call::Munmap => 215,
        Call::Mmap => 222,
        Call::Mprotect => 226,
        Call::SignalAction => 134,
        Call::Restart => 128,
    }
}

/// The state in which the thread goes on in user mode when no tracer is there to let the kernel restart its call.
fn user_level(saved: &Regs) -> Regs {
    let mut regs = *saved;
    if !in_system_call(saved) {
        return regs;
    }
    let (again, number) = match (saved.words[RESULT] as i64).wrapping_neg() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => (true, saved.words[NUMBER]),
        ERESTART_RESTARTBLOCK => (true, number(Call::Restart)),
        _ => (cure_eintr(&mut saved.clone()), saved.words[NUMBER]),
    };
    if again {
        regs.words[RESULT] = saved.words[ORIG_A0];
        regs.words[NUMBER] = number;
        regs.words[PC] = regs.words[PC].wrapping_sub(SYSCALL_LEN);
    }
    regs
}

/// The registers that the call's set-up changes (a0 to a5, a7) or the kernel (a0, t0 to t8).
const RESTORED: [usize; 16] = [4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
/// Where the values are: behind the code.
const POOL: usize = 4 * (2 + RESTORED.len() + 2);
pub(super) const STUB_LEN: usize = POOL + 8 * (RESTORED.len() + 1);

/// No jump but through a register leads to any address, and `$r21` is nobody's (see `jump.rs`): it alone is another one afterwards.
pub(super) fn stub(saved: &Regs) -> Stub {
    let resume = user_level(saved);
    let load = |register: usize, slot: usize| {
        0x28c0_0000 | (8 * slot as u32) << 10 | REG << 5 | register as u32 // ld.d register, $r21, 8 * slot
    };
    let mut words = vec![
        0x002b_0000,                                      // syscall 0
        0x1800_0000 | ((POOL as u32 - 4) / 4) << 5 | REG, // pcaddi $r21, pool
    ];
    words.extend(RESTORED.iter().enumerate().map(|(slot, register)| load(*register, slot)));
    words.push(load(REG as usize, RESTORED.len()));
    words.push(0x4c00_0000 | REG << 5); // jirl $zero, $r21, 0
    let mut bytes = bytes(&words);
    for word in RESTORED.iter().chain([&PC]) {
        bytes.extend(resume.words[*word].to_le_bytes());
    }
    Stub { bytes }
}

pub(super) fn call_regs(saved: &Regs, pc: RemoteAddr, call: Call, args: [u64; 6]) -> Regs {
    let mut regs = *saved;
    regs.words[PC] = pc.0;
    regs.words[MARKER] = 0; // not inside a call: nothing for the kernel to restart
    regs.words[NUMBER] = number(call);
    regs.words[RESULT..RESULT + args.len()].copy_from_slice(&args); // a0 to a5
    regs
}

pub(super) fn in_system_call(regs: &Regs) -> bool {
    regs.words[MARKER] != 0
}

pub(super) fn in_restart_block(regs: &Regs) -> bool {
    in_system_call(regs) && regs.words[RESULT] as i64 == -ERESTART_RESTARTBLOCK
}

pub(super) fn cure_eintr(regs: &mut Regs) -> bool {
    let listed = CURED.iter().any(|(number, _)| number + 1 == regs.words[MARKER]);
    let cured = listed && regs.words[RESULT] as i64 == -EINTR;
    if cured {
        begin_anew(regs);
    }
    cured
}

/// The kernel puts a0 back and goes back to the call; where a handler runs first, the call ends with EINTR.
pub(super) fn begin_anew(regs: &mut Regs) {
    regs.words[RESULT] = (-ERESTARTNOHAND) as u64;
}
