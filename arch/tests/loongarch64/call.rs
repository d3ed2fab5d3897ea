// SPDX-License-Identifier: GPL-2.0-or-later
//! System calls in the target: what the stub does, by its words and by QEMU, and when a call is made again.

use super::{execute, listed, loongarch64, missing, run};
use std::fs;
use ulp_arch::{Call, Regs, RemoteAddr};

const A0: usize = 4;
const A7: usize = 11;
const R21: usize = 21;
const ORIG_A0: usize = 32;
const PC: usize = 33;
const STUB: u64 = 0x1500_0000;
const BACK: u64 = 0x1600_0000;

/// Registers with a different value in every word, stopped outside any call.
fn marked() -> Regs {
    let mut regs = Regs::zeroed(loongarch64().regs_len());
    for (i, value) in regs.words.iter_mut().enumerate() {
        *value = 0x8123_4567_0000_1111u64.wrapping_mul(2 * i as u64 + 1);
    }
    regs.words[0] = 0;
    regs.words[PC] = BACK;
    regs
}

/// Inside the call `number`, which the stop ended with `result`.
fn stopped(number: u64, result: i64) -> Regs {
    let mut regs = marked();
    regs.words[0] = number + 1;
    regs.words[A0] = result as u64;
    regs.words[A7] = number;
    regs
}

#[test]
fn words_stand_where_the_kernel_has_them() {
    let regs = marked();
    assert_eq!(loongarch64().regs_len(), 45);
    assert_eq!(loongarch64().pc(&regs), regs.words[33]);
    assert_eq!(loongarch64().sp(&regs), regs.words[3]);
    assert_eq!(loongarch64().thread_pointer(&regs), Some(regs.words[2]));
    assert!((0..32).all(|number| loongarch64().dwarf_slot(number) == Some(usize::from(number))));
    assert_eq!(loongarch64().dwarf_slot(32), None);
    assert_eq!((loongarch64().dwarf_sp(), loongarch64().dwarf_ra(), loongarch64().red_zone()), (3, 1, 0));
}

/// What a thread does that finds itself at the stub without a tracer, by the stub's words.
fn walk(stub: &[u8], regs: &Regs) -> Regs {
    let word = |at: usize| u32::from_le_bytes(stub[at..at + 4].try_into().unwrap());
    let mut regs = *regs;
    assert_eq!(word(0), 0x002b_0000, "syscall 0");
    // What the set-up or the kernel destroys.
    for register in [4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, R21] {
        regs.words[register] = 0xdead;
    }
    for at in (4..).step_by(4) {
        let insn = word(at);
        let (rd, rj, imm) = ((insn & 31) as usize, (insn >> 5 & 31) as usize, (insn >> 10 & 0xfff) as usize);
        match insn >> 22 {
            // pcaddi, forwards
            _ if insn >> 25 == 0b0001100 => regs.words[rd] = at as u64 + 4 * u64::from(insn >> 5 & 0x7_ffff),
            // ld.d
            0b00_1010_0011 => {
                let from = regs.words[rj] as usize + imm;
                regs.words[rd] = u64::from_le_bytes(stub[from..from + 8].try_into().unwrap());
            }
            // jirl $zero
            _ if insn >> 26 == 0b010011 && rd == 0 => {
                regs.words[PC] = regs.words[rj];
                return regs;
            }
            _ => panic!("{insn:#x} at {at}"),
        }
    }
    unreachable!()
}

#[test]
fn the_stub_puts_every_register_back() {
    let saved = marked();
    let stub = loongarch64().stub(&saved).unwrap().bytes;
    assert!(stub.len() <= loongarch64().stub_len());
    let call = loongarch64().call_regs(&saved, RemoteAddr(STUB), Call::Mmap, [1, 2, 3, 4, 5, 6]);
    assert_eq!(call.words[A0..A0 + 6], [1, 2, 3, 4, 5, 6]);
    assert_eq!((loongarch64().pc(&call), call.words[A7]), (STUB, loongarch64().call_number(Call::Mmap)));
    let blocked = stopped(22, -514);
    assert!(loongarch64().in_system_call(&blocked));
    let out_of_it = loongarch64().call_regs(&blocked, RemoteAddr(STUB), Call::Mmap, [0; 6]);
    assert!(!loongarch64().in_system_call(&out_of_it), "the kernel must find nothing to restart");
    let mut back = walk(&stub, &call);
    assert_eq!(back.words[R21], BACK, "what it is left with");
    back.words[R21] = saved.words[R21];
    assert_eq!(back, saved);
}

#[test]
fn the_stub_resumes_an_interrupted_call() {
    const EPOLL_PWAIT: u64 = 22;
    const PPOLL: u64 = 73;
    const CLOSE: u64 = 57;
    const RESTART: u64 = 128;
    // (number, result at the stop) -> what the thread must do: the call again, restart_syscall, or nothing.
    for (number, result, again) in [
        (PPOLL, -512i64, Some(PPOLL)),
        (PPOLL, -513, Some(PPOLL)),
        (PPOLL, -514, Some(PPOLL)),
        (PPOLL, -516, Some(RESTART)),
        (EPOLL_PWAIT, -4, Some(EPOLL_PWAIT)),
        (CLOSE, -4, None),
        (PPOLL, -515, None),
        (PPOLL, 3, None),
        (PPOLL, i64::MIN, None),
    ] {
        let saved = stopped(number, result);
        let back = walk(&loongarch64().stub(&saved).unwrap().bytes, &saved);
        let expected = match again {
            // Four bytes back: onto the `syscall` instruction, with its first argument.
            Some(number) => (number, saved.words[ORIG_A0], BACK - 4),
            None => (number, result as u64, BACK),
        };
        assert_eq!((back.words[A7], back.words[A0], back.words[PC]), expected, "call {number} stopped with {result}");
        assert_eq!(loongarch64().in_restart_block(&saved), result == -516);
        // Outside a call the same number is just a number.
        let mut outside = saved;
        outside.words[0] = 0;
        let back = walk(&loongarch64().stub(&outside).unwrap().bytes, &outside);
        assert_eq!((back.words[A7], back.words[A0], back.words[PC]), (number, result as u64, BACK));
        assert!(!loongarch64().in_restart_block(&outside));
    }
}

/// The stub in a program that makes a call (getpid) with it, from where each register has a value of its own.
#[test]
fn the_stub_runs() {
    if missing() {
        return;
    }
    let saved = marked();
    let stub = loongarch64().stub(&saved).unwrap().bytes;
    // The stack and the thread pointer are the program's own.
    let own = |register: &usize| ![0, 2, 3, R21].contains(register);
    let set: String = (0..32).filter(own).map(|r| format!(" li.d $r{r},{:#x}\n", saved.words[r])).collect();
    let look: String =
        (0..32).filter(own).map(|r| format!(" li.d $r21,{:#x}\n bne $r{r},$r21,wrong\n", saved.words[r])).collect();
    // A call's set-up, and what a kernel may leave in the temporaries.
    let spoil: String = (4..10).chain(12..21).map(|r| format!(" li.d $r{r},{}\n", 7000 + r)).collect();
    for getpid in [172, 100_000] {
        let source = format!(
            ".globl _start\n.section .text,\"ax\"\n_start:\n{set}{spoil} li.d $a7,{getpid}\n b stub\n
             .section .stub,\"ax\"\nstub: .byte {}\n
             .section .back,\"ax\"\n{look} li.w $a0,42\n li.w $a7,93\n syscall 0\nwrong: li.w $a0,200\n li.w $a7,93\n syscall 0\n",
            listed(&stub)
        );
        let sections = [("text", 0x1400_0000), ("stub", STUB), ("back", BACK)];
        assert_eq!(execute(&source, &sections), Some(42), "call {getpid}");
    }
}

#[test]
fn the_cure_is_for_listed_calls_with_eintr_alone() {
    let listed = [
        (22, "epoll_pwait"),
        (441, "epoll_pwait2"),
        (207, "recvfrom"),
        (212, "recvmsg"),
        (243, "recvmmsg"),
        (202, "accept"),
        (242, "accept4"),
        (206, "sendto"),
        (211, "sendmsg"),
        (137, "rt_sigtimedwait"),
        (193, "semop"),
        (192, "semtimedop"),
        (4, "io_getevents"),
    ];
    for call in 0..512 {
        let mut regs = stopped(call, -4);
        let cured = loongarch64().cure_eintr(&mut regs);
        assert_eq!(cured, listed.iter().any(|(number, _)| *number == call), "call {call}");
        assert_eq!(regs, stopped(call, if cured { -514 } else { -4 }));
        let mut other = stopped(call, -11);
        assert!(!loongarch64().cure_eintr(&mut other));
        assert_eq!(other, stopped(call, -11));
        let mut outside = stopped(call, -4);
        outside.words[0] = 0;
        assert!(!loongarch64().cure_eintr(&mut outside), "call {call}, outside");
    }
    let mut waits = stopped(115, -516);
    loongarch64().begin_anew(&mut waits);
    assert_eq!(waits, stopped(115, -514));
    if missing() {
        return;
    }
    // The numbers are those of the header that every architecture without a table of its own has.
    let calls = [
        (Call::Mmap, "mmap"),
        (Call::Munmap, "munmap"),
        (Call::Mprotect, "mprotect"),
        (Call::SignalAction, "rt_sigaction"),
        (Call::Restart, "restart_syscall"),
    ];
    let calls = calls.map(|(call, name)| (loongarch64().call_number(call), name));
    let more = [(73, "ppoll"), (57, "close"), (172, "getpid"), (93, "exit"), (115, "clock_nanosleep")];
    let all = listed.iter().chain(&calls).chain(&more);
    let asserts: String = all.map(|(n, name)| format!("_Static_assert(__NR_{name}=={n},\"{name}\");\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("n.c"), format!("#include <asm-generic/unistd.h>\n{asserts}")).unwrap();
    run("clang-19", &["-fsyntax-only", "n.c"], dir.path()).expect("the numbers are those of <asm-generic/unistd.h>");
}
