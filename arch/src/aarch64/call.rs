// SPDX-License-Identifier: GPL-2.0-or-later
//! System calls in a stopped thread. Linux's arch/arm64/kernel/signal.c (`do_signal`): when a thread stops on its way out of an
//! interrupted call, the kernel has decided already what becomes of the call. To one that is restarted x0 has been given
//! back and pc stands on its `svc` again; nothing tells any more that there was a call, nor which (NT_ARM_SYSTEM_CALL says -1). All
//! other calls have their result in x0, EINTR too, and the argument that was there is not among the registers. Both are to be had from
//! `/proc/PID/task/TID/syscall`: before the stop; and under it as long as NT_ARM_SYSTEM_CALL says the number again, because
//! the kernel keeps `orig_x0`.

use super::jump::Code;
use crate::{Asleep, Mark, Regs, RemoteAddr, SetWord, Stub};

// Words of `struct user_pt_regs` (arch/arm64/include/uapi/asm/ptrace.h): x0..x30, sp, pc, pstate.
pub(super) const NUMBER: usize = 8;
pub(super) const SP: usize = 31;
pub(super) const PC: usize = 32;
pub(super) const PSTATE: usize = 33;
pub(super) const WORDS: usize = 34;

/// PSTATE.BTYPE, bits [11:10]: an indirect branch that has not landed yet.
const BTYPE: u64 = 3 << 10;
const SVC: u32 = 0xd400_0001;
const SVC_LEN: u64 = 4;
pub(super) const SVC_BYTES: [u8; 4] = SVC.to_le_bytes();
const EINTR: u64 = -4i64 as u64;

// include/uapi/asm-generic/unistd.h
const FUTEX: u64 = 98;
const NANOSLEEP: u64 = 101;
const CLOCK_NANOSLEEP: u64 = 115;
pub(super) const RESTART_SYSCALL: u64 = 128;

/// Calls which the kernel ends with EINTR at every ptrace stop although restarting them is harmless; the same as x86_64's.
const CURED: [u64; 13] = [
    4,   // io_getevents
    22,  // epoll_pwait
    137, // rt_sigtimedwait
    192, // semtimedop
    193, // semop
    202, // accept
    206, // sendto
    207, // recvfrom
    211, // sendmsg
    212, // recvmsg
    242, // accept4
    243, // recvmmsg
    441, // epoll_pwait2
];

/// Calls that a signal's handler always ends with EINTR, SA_RESTART or not (ERESTARTNOHAND). Restart blocks are ended too.
const ENDED: [u64; 7] = [
    72,  // pselect6
    73,  // ppoll
    133, // rt_sigsuspend
    188, // msgrcv
    189, // msgsnd
    292, // io_pgetevents
    CLOCK_NANOSLEEP,
];

/// Documentation/arch/arm64/sve.rst and sme.rst: a call leaves the lower 128 bits of vectors, and ends the streaming mode. NT_ARM_SVE
/// and NT_ARM_SSVE, `struct user_sve_header`: the half word at byte 12 is `flags`, whose bit 0 (SVE_PT_REGS_SVE) says
/// that all of the registers are in use.
pub(super) const LOST: [(SetWord, Mark); 2] = [lost(0x405), lost(0x40b)];

const fn lost(set: u32) -> (SetWord, Mark) {
    (SetWord { set, word: 1 }, Mark { mask: 1 << 32, value: 1 << 32 })
}

/// Whether the thread has not left the call in which it slept: everything is as then, but for x0 and pc.
fn same_call(regs: &Regs, asleep: &Asleep) -> bool {
    regs.words[SP] == asleep.sp && regs.words[NUMBER] == asleep.number && regs.words[1..6] == asleep.args[1..6]
}

/// Whether the kernel has sent the thread back to begin its call again.
pub(super) fn restarts(regs: &Regs, asleep: &Asleep) -> bool {
    let rewound = regs.words[PC] == asleep.pc.wrapping_sub(SVC_LEN) && regs.words[0] == asleep.args[0];
    rewound && same_call(regs, asleep)
}

/// Whether the thread stands where its call brought it, and has run no instruction since.
pub(super) fn in_call(regs: &Regs, asleep: &Asleep) -> bool {
    restarts(regs, asleep) || regs.words[PC] == asleep.pc && same_call(regs, asleep)
}

/// [`cure`] would act if this was how a call ended.
pub(super) fn may_be_cured(regs: &Regs) -> Option<u64> {
    let number = regs.words[NUMBER];
    (regs.words[0] == EINTR && CURED.contains(&number)).then_some(number)
}

/// The number of the call that may have a restart block.
pub(super) fn may_be_resumed(regs: &Regs) -> Option<u64> {
    let number = regs.words[NUMBER];
    waits_with_a_limit(number, &regs.words).then_some(number)
}

/// The wait that `restart_syscall` would go on with, ended.
pub(super) fn resuming_ended(regs: &Regs) -> Option<Regs> {
    let mut ended = *regs;
    ended.words[0] = EINTR;
    ended.words[PC] = regs.words[PC].wrapping_add(SVC_LEN);
    (regs.words[NUMBER] == RESTART_SYSCALL).then_some(ended)
}

/// Whether the call that restarts waits with a restart block: `restart_syscall` goes on with it, and the call itself
/// waits its whole time again.
pub(super) fn has_restart_block(regs: &Regs, asleep: &Asleep) -> bool {
    waits_with_a_limit(asleep.number, &asleep.args) && restarts(regs, asleep)
}

/// Whether such a call waits for a time that begins anew when the call does: the kernel keeps how much of it is left.
fn waits_with_a_limit(number: u64, args: &[u64]) -> bool {
    let arg = |n: usize| args.get(n).copied().unwrap_or(0);
    /// TIMER_ABSTIME
    const ABSOLUTE: u64 = 1;
    /// FUTEX_CMD_MASK, FUTEX_WAIT and FUTEX_WAIT_BITSET
    const COMMAND: u64 = 0x7f;
    const WAITS: [u64; 2] = [0, 9];
    match number {
        NANOSLEEP | RESTART_SYSCALL => true,
        CLOCK_NANOSLEEP => arg(1) & ABSOLUTE == 0,
        FUTEX => WAITS.contains(&(arg(1) & COMMAND)) && arg(3) != 0,
        _ => false,
    }
}

/// Makes a listed call that ended with EINTR begin again.
pub(super) fn cure(regs: &mut Regs, asleep: &Asleep) -> bool {
    let ended = regs.words[PC] == asleep.pc && regs.words[0] == EINTR && same_call(regs, asleep);
    let cured = ended && CURED.contains(&asleep.number);
    if cured {
        regs.words[0] = asleep.args[0];
        regs.words[PC] = asleep.pc.wrapping_sub(SVC_LEN);
    }
    cured
}

/// How the thread goes on after a call of ours.
pub(super) fn resumed(saved: &Regs, asleep: &Asleep) -> Regs {
    let mut regs = *saved;
    if has_restart_block(saved, asleep) {
        regs.words[NUMBER] = RESTART_SYSCALL;
    }
    regs
}

/// How it goes on when a signal's handler runs first.
pub(super) fn interrupted(saved: &Regs, asleep: &Asleep, restart: bool) -> Regs {
    let mut regs = *saved;
    let ended = || ENDED.contains(&asleep.number) || has_restart_block(saved, asleep);
    if restarts(saved, asleep) && (!restart || ended()) {
        regs.words[0] = EINTR;
        regs.words[PC] = asleep.pc;
    }
    regs
}

pub(super) fn call_regs(saved: &Regs, pc: RemoteAddr, number: u64, args: [u64; 6]) -> Regs {
    let mut regs = *saved;
    regs.words[PC] = pc.0;
    regs.words[NUMBER] = number;
    regs.words[..6].copy_from_slice(&args);
    // The stub begins with no landing pad.
    regs.words[PSTATE] &= !BTYPE;
    regs
}

/// `svc`, seven loads, `b`, one word for alignment, and seven numbers.
pub(super) const STUB_LEN: usize = 4 * 10 + 8 * 7;

/// The call changes x0; its set-up x0 to x5 and x8. There is no jump that needs no register but `b`, so that the stub must
/// be in its reach.
pub(super) fn stub(saved: &Regs, at: RemoteAddr) -> Option<Stub> {
    // All stubs have their numbers at the same places.
    if !at.0.is_multiple_of(8) {
        return None;
    }
    let mut code = Code::new(at);
    code.push(SVC);
    for register in [0, 1, 2, 3, 4, 5, NUMBER] {
        code.number(register as u8, saved.words[register]);
    }
    code.jump(RemoteAddr(saved.words[PC])).ok()?;
    Some(Stub { bytes: code.bytes() })
}

/// Two stubs that have in common what all have.
pub(super) fn stub_shapes() -> Option<[Vec<u8>; 2]> {
    let shape = |word: u64, pc: u64| {
        let mut regs = Regs::zeroed(WORDS);
        regs.words = [word; Regs::MAX];
        regs.words[PC] = pc;
        stub(&regs, RemoteAddr(0)).map(|stub| stub.bytes)
    };
    // The `b` is the ninth word; its distance is all zeros, then all ones.
    Some([shape(0, 32)?, shape(u64::MAX, 28)?])
}
