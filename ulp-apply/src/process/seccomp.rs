// SPDX-License-Identifier: GPL-2.0-or-later
//! What a thread's seccomp filters would say to one exact system call: a small interpreter of classic BPF as seccomp
//! allows it (linux/filter.h, linux/seccomp.h). An instruction it does not know makes the answer unknown, never "allow".

use super::sys::{self, BpfWords};
use super::task;
use ulp_arch::{Arch, Call, Regs};

/// A filter's answer. The order is the kernel's: of several filters the first in this order wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Verdict {
    /// The filter cannot be understood: as bad as a kill.
    Unknown,
    Kill,
    Trap,
    Errno,
    UserNotify,
    Trace,
    Allow,
}

impl Verdict {
    fn of(value: u32) -> Self {
        match value & 0xffff_0000 {
            0x8000_0000 | 0x0000_0000 => Self::Kill, // the process, the thread
            0x0003_0000 => Self::Trap,
            0x0005_0000 => Self::Errno,
            0x7fc0_0000 => Self::UserNotify,
            0x7ff0_0000 => Self::Trace,
            0x7ffc_0000 | 0x7fff_0000 => Self::Allow, // log, allow
            _ => Self::Unknown,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "something we do not understand",
            Self::Kill => "a kill",
            Self::Trap => "a trap",
            Self::Errno => "an error",
            Self::UserNotify => "a supervisor's decision",
            Self::Trace => "a tracer's decision",
            Self::Allow => "yes",
        }
    }
}

/// `struct seccomp_data`, 64 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallData {
    pub number: u32,
    pub arch: u32,
    pub pc: u64,
    pub args: [u64; 6],
}

impl CallData {
    fn word(&self, offset: u32) -> Option<u32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let half = |v: u64, high: bool| if high { (v >> 32) as u32 } else { v as u32 };
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            8 | 12 => Some(half(self.pc, offset == 12)),
            _ => {
                let at = offset.checked_sub(16)?;
                let arg = self.args.get(usize::try_from(at / 8).ok()?)?;
                Some(half(*arg, at % 8 == 4))
            }
        }
    }
}

/// The answer of all filters of a thread.
pub(super) fn evaluate(filters: &[Vec<BpfWords>], call: &CallData) -> Verdict {
    let answers = filters.iter().map(|f| run(f, call).map_or(Verdict::Unknown, Verdict::of));
    answers.min().unwrap_or(Verdict::Allow)
}

fn run(program: &[BpfWords], call: &CallData) -> Option<u32> {
    let (mut a, mut x, mut scratch) = (0u32, 0u32, [0u32; 16]);
    let mut pc = 0usize;
    // Jumps only lead forward, so the program ends.
    loop {
        let [c0, c1, jump_true, jump_false, k0, k1, k2, k3] = *program.get(pc)?;
        let code = u16::from_le_bytes([c0, c1]);
        let k = u32::from_le_bytes([k0, k1, k2, k3]);
        pc += 1;
        let cell = usize::try_from(k).ok()?;
        // Bit 3 of ALU and JMP selects the register instead of the constant.
        let operand = if code & 0x08 != 0 { x } else { k };
        match code {
            0x20 => a = call.word(k)?,           // ld [k]
            0x80 => a = 64,                      // ld len
            0x81 => x = 64,                      // ldx len
            0x00 => a = k,                       // ld #k
            0x01 => x = k,                       // ldx #k
            0x60 => a = *scratch.get(cell)?,     // ld M[k]
            0x61 => x = *scratch.get(cell)?,     // ldx M[k]
            0x02 => *scratch.get_mut(cell)? = a, // st
            0x03 => *scratch.get_mut(cell)? = x, // stx
            0x07 => x = a,                       // tax
            0x87 => a = x,                       // txa
            0x06 => return Some(k),              // ret #k
            0x16 => return Some(a),              // ret a
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            0x34 | 0x3c => match a.checked_div(operand) {
                Some(quotient) => a = quotient,
                // The kernel ends the filter with 0, which is a kill.
                None => return Some(0),
            },
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0x64 | 0x6c => a = a.wrapping_shl(operand),
            0x74 | 0x7c => a = a.wrapping_shr(operand),
            0x84 => a = a.wrapping_neg(),
            0xa4 | 0xac => a ^= operand,
            0x05 => pc = pc.checked_add(cell)?, // ja
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                let taken = match code & 0xf0 {
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    _ => a & operand != 0,
                };
                pc = pc.checked_add(usize::from(if taken { jump_true } else { jump_false }))?;
            }
            _ => return None,
        }
    }
}

/// Whether the kernel may resume the wait of a stopped thread by a `restart_syscall` of its own. That call is made because of
/// our stop, and a filter that does not know it would end the process. Where filters cannot be read, any may be of that kind.
pub(super) fn allows_resuming(arch: &dyn Arch, tid: i32, regs: &Regs) -> bool {
    of_resuming(arch, tid, regs) == Verdict::Allow
}

/// What filters say of it.
pub(super) fn of_resuming(arch: &dyn Arch, tid: i32, regs: &Regs) -> Verdict {
    let mut filters = Vec::new();
    loop {
        match sys::seccomp_filter(tid, filters.len()) {
            Ok(Some(filter)) => filters.push(filter),
            Ok(None) => break,
            // EINVAL says that there is no filter; others need to be told by the thread's status.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Verdict::Allow,
            Err(_) if task::Status::read(tid, tid).is_ok_and(|s| s.seccomp == 0) => return Verdict::Allow,
            Err(_) => return Verdict::Unknown,
        }
    }
    let number = u32::try_from(arch.call_number(Call::Restart)).unwrap_or(u32::MAX);
    let call = CallData { number, arch: audit_arch(arch), pc: arch.pc(regs), args: [0; 6] };
    evaluate(&filters, &call)
}

/// `AUDIT_ARCH_*`: the machine, 64 bits, little endian.
pub(super) fn audit_arch(arch: &dyn Arch) -> u32 {
    u32::from(arch.machine()) | 0xc000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const EPERM: u32 = 0x0005_0001;

    fn i(code: u16, jump_true: u8, jump_false: u8, k: u32) -> BpfWords {
        let ([c0, c1], [k0, k1, k2, k3]) = (code.to_le_bytes(), k.to_le_bytes());
        [c0, c1, jump_true, jump_false, k0, k1, k2, k3]
    }

    fn check(filters: &[Vec<BpfWords>], expected: Verdict) {
        let call =
            CallData { number: 9, arch: 0xc000_003e, pc: 0x1_0000_0002, args: [7, 4096, 5, 0x10_0022, u64::MAX, 0] };
        assert_eq!(evaluate(filters, &call), expected, "{filters:?}");
    }

    #[test]
    fn filters_answer_as_in_the_kernel() {
        let number_is = |n, yes, no| vec![i(0x20, 0, 0, 0), i(0x15, 0, 1, n), i(0x06, 0, 0, yes), i(0x06, 0, 0, no)];
        check(&[], Verdict::Allow);
        check(&[number_is(9, ALLOW, KILL)], Verdict::Allow);
        check(&[number_is(11, ALLOW, KILL)], Verdict::Kill);
        check(&[number_is(9, ALLOW, KILL), number_is(9, EPERM, ALLOW)], Verdict::Errno);
        // prot (argument 2, low half at 32) has PROT_EXEC: systemd's MemoryDenyWriteExecute asks so.
        check(
            &[vec![i(0x20, 0, 0, 32), i(0x54, 0, 0, 4), i(0x15, 0, 1, 4), i(0x06, 0, 0, EPERM), i(0x06, 0, 0, ALLOW)]],
            Verdict::Errno,
        );
        // high half of argument 4
        check(&[vec![i(0x20, 0, 0, 52), i(0x16, 0, 0, 0)]], Verdict::Unknown);
        check(
            &[vec![i(0x00, 0, 0, 0x7ff0_0000), i(0x07, 0, 0, 0), i(0x87, 0, 0, 0), i(0x16, 0, 0, 0)]],
            Verdict::Trace,
        );
        check(&[vec![i(0x00, 0, 0, ALLOW), i(0x02, 0, 0, 15), i(0x60, 0, 0, 15), i(0x16, 0, 0, 0)]], Verdict::Allow);
        // x is 0: a division by it kills.
        check(&[vec![i(0x00, 0, 0, 8), i(0x3c, 0, 0, 0), i(0x06, 0, 0, ALLOW)]], Verdict::Kill);
        check(&[vec![i(0x05, 0, 0, 1), i(0x06, 0, 0, KILL), i(0x06, 0, 0, ALLOW)]], Verdict::Allow);
    }

    #[test]
    fn nonsense_is_never_yes() {
        for bad in [
            vec![],
            vec![i(0x28, 0, 0, 0)],
            vec![i(0x20, 0, 0, 64), i(0x06, 0, 0, ALLOW)],
            vec![i(0x20, 0, 0, 2), i(0x06, 0, 0, ALLOW)],
            vec![i(0x02, 0, 0, 16), i(0x06, 0, 0, ALLOW)],
            vec![i(0x05, 0, 0, u32::MAX), i(0x06, 0, 0, ALLOW)],
            vec![i(0x06, 0, 0, 0x1234_0000)],
        ] {
            check(&[bad], Verdict::Unknown);
        }
    }
}
