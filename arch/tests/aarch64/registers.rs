// SPDX-License-Identifier: GPL-2.0-or-later
//! Register slots, the stub and the rules of restarts, against the cross compiler's headers and against QEMU; and what
//! compilers keep in registers across a call.

use super::{aarch64, assemble, gnu, missing, output, run, run_program};
use ulp_arch::{Asleep, Call, Regs, RemoteAddr, SetWord, by_name};

const SP: usize = 31;
const PC: usize = 32;
const PSTATE: usize = 33;
const EINTR: u64 = -4i64 as u64;

/// Registers with a different value in every word.
fn marked() -> Regs {
    let mut regs = Regs::zeroed(aarch64().regs_len());
    for (i, value) in regs.words.iter_mut().enumerate() {
        *value = 0x1111_0000 + i as u64;
    }
    regs.words[PC] = 0x40_2004;
    regs.words[PSTATE] = 0x6000_0000;
    regs
}

/// A thread that slept in the call, with `marked` arguments but for x0.
fn asleep(number: u64) -> (Regs, Asleep) {
    let mut regs = marked();
    regs.words[8] = number;
    let mut args = [0xa0; 6];
    args[1..].copy_from_slice(&regs.words[1..6]);
    (regs, Asleep { number, args, sp: regs.words[SP], pc: regs.words[PC] })
}

/// Such a thread, sent back to begin the call again.
fn rewound(number: u64) -> (Regs, Asleep) {
    let (mut regs, asleep) = asleep(number);
    regs.words[0] = asleep.args[0];
    regs.words[PC] -= 4;
    (regs, asleep)
}

#[test]
fn words_stand_where_the_kernel_has_them() {
    let regs = marked();
    assert_eq!((aarch64().pc(&regs), aarch64().sp(&regs)), (regs.words[PC], regs.words[SP]));
    assert_eq!((aarch64().thread_pointer(&regs), aarch64().red_zone()), (None, 0));
    for number in 0..=32 {
        assert_eq!(aarch64().dwarf_slot(number), Some(usize::from(number)));
    }
    // RA_SIGN_STATE, vectors.
    assert_eq!((aarch64().dwarf_slot(34), aarch64().dwarf_slot(64)), (None, None));
    assert_eq!((aarch64().dwarf_sp(), aarch64().dwarf_ra()), (31, 30));
    if missing(&[&gnu("gcc")]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = "#include <stddef.h>\n#include <linux/elf.h>\n#include <asm/ptrace.h>\ntypedef struct user_pt_regs U;\n
        _Static_assert(NT_ARM_TLS==0x401&&NT_ARM_SYSTEM_CALL==0x404&&NT_ARM_SVE==0x405&&NT_ARM_PAC_MASK==0x406&&NT_ARM_SSVE==0x40b,\"\");
        _Static_assert(offsetof(struct user_pac_mask,insn_mask)==8&&sizeof(struct user_pac_mask)==16,\"\");
        _Static_assert(offsetof(struct user_sve_header,flags)==12&&sizeof(struct user_sve_header)==16&&SVE_PT_REGS_SVE==1,\"\");
        _Static_assert(offsetof(U,regs)==0&&offsetof(U,sp)==8*31&&offsetof(U,pc)==8*32&&offsetof(U,pstate)==8*33&&sizeof(U)==8*34,\"\");";
    std::fs::write(dir.path().join("w.c"), source).unwrap();
    run(&gnu("gcc"), &["-fsyntax-only", "w.c"], dir.path()).expect("the words are those of <asm/ptrace.h>");
}

#[test]
fn what_is_in_other_sets() {
    let at = |set, word| SetWord { set, word };
    assert_eq!(aarch64().thread_pointer_in(), Some(at(0x401, 0)));
    assert_eq!(aarch64().signature_in(), Some(at(0x406, 1)));
    assert_eq!((aarch64().call_number_in(), aarch64().call_instruction()), (Some(0x404), &[0x01, 0, 0, 0xd4][..]));
    let lost = aarch64().lost_by_calls();
    assert_eq!(lost.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [at(0x405, 1), at(0x40b, 1)]);
    // struct user_sve_header from byte 8 on: vl, max_vl, flags, reserved.
    for (_, used) in lost {
        assert!(used.is(0x0000_0001_0040_0010) && used.is(0x0000_0003_0040_0010));
        assert!(!used.is(0x0000_0000_0040_0010) && !used.is(0x0000_0002_0001_0001));
    }
    assert_eq!(by_name("x86_64").map(|x86| x86.lost_by_calls().len()), Some(0));
    assert!(aarch64().returns_by_register() && !aarch64().stub_comes_from_anywhere());
}

#[test]
fn signatures_are_taken_off_return_addresses() {
    // 48 bits of address, the rest but bit 55 signature; and with a tag in the top byte, which is none.
    let mask = 0xff7f_0000_0000_0000;
    assert_eq!(aarch64().code_address(0x3a2a_aaaa_b123_4568, mask), 0x0000_aaaa_b123_4568);
    assert_eq!(aarch64().code_address(0x3aaa_aaaa_b123_4568, mask), 0xffff_aaaa_b123_4568 & mask | 0x80_aaaa_b123_4568);
    assert_eq!(aarch64().code_address(0x0000_aaaa_b123_4568, mask), 0x0000_aaaa_b123_4568);
    assert_eq!(aarch64().code_address(0x3a2a_aaaa_b123_4568, 0), 0x3a2a_aaaa_b123_4568);
}

#[test]
fn the_stub_is_the_assemblers() {
    let saved = marked();
    let at = RemoteAddr(0x40_1000);
    let stub = aarch64().stub_at(&saved, at).unwrap().bytes;
    assert_eq!(stub.len(), aarch64().stub_len());
    let [low, high] = aarch64().stub_shapes().unwrap();
    assert!(low.len() == stub.len() && high.len() == stub.len());
    // By what both shapes have in common a stub is known; and nothing else.
    let same = |i: &usize| low[*i] == high[*i];
    assert_eq!((0..stub.len()).filter(same).find(|i| stub[*i] != low[*i]), None);
    assert!((0..stub.len()).filter(same).count() >= 35);
    assert_eq!(aarch64().stub_at(&saved, RemoteAddr(0x40_1000 + (1 << 28))), None, "no way leads back");
    assert_eq!(aarch64().stub_at(&saved, RemoteAddr(0x40_1004)), None, "its numbers would stand elsewhere");
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    let registers = [0usize, 1, 2, 3, 4, 5, 8];
    let loads: String =
        registers.map(|r| format!("ldr x{r},9f+8*{}\n", registers.iter().position(|x| *x == r).unwrap())).concat();
    let numbers: String = registers.map(|r| format!(".xword {}\n", saved.words[r])).concat();
    let source = format!("svc #0\n{loads} b .+{}\n .long 0\n9:\n{numbers}", saved.words[PC] - (at.0 + 32));
    assert_eq!(stub, assemble(&source, at.0));
}

/// A thread that is sent into the stub and left alone there comes out where it was, with every register and the call made.
#[test]
fn the_stub_brings_a_thread_back() {
    if missing(&[&gnu("as"), &gnu("ld"), "qemu-aarch64"]) {
        return;
    }
    const STUB: u64 = 0x41_0000;
    const HOME: u64 = 0x40_1000;
    let mut saved = marked();
    saved.words[PC] = HOME;
    let call = aarch64().call_regs(&saved, RemoteAddr(STUB), Call::Munmap, [0x1_0000_0000, 0x1000, 3, 4, 5, 6]);
    assert_eq!(call.words[PC], STUB);
    assert_eq!(call.words[8], aarch64().call_number(Call::Munmap));
    let stub = aarch64().stub_at(&saved, RemoteAddr(STUB)).unwrap().bytes;
    let stub: Vec<String> = stub.iter().map(u8::to_string).collect();
    let load = |regs: &Regs| -> String { (0..31).map(|r| format!("ldr x{r},={:#x}\n", regs.words[r])).collect() };
    let look: String = (0..31)
        .filter(|r| *r != 18)
        .map(|r| format!("ldr x18,={:#x}\n sub x18,x18,x{r}\n cbnz x18,wrong\n", saved.words[r]))
        .collect();
    let source = format!(
        ".section .start,\"ax\"\n.globl _start\n_start:\n mov w0,#0xa0000000\n msr nzcv,x0\n{} b stub\n.ltorg\n
         .section .home,\"ax\"\n b.pl wrong\n b.cc wrong\n{look} mov x0,#42\n mov x8,#93\n svc #0\n
         wrong: mov x0,#1\n mov x8,#93\n svc #0\n.ltorg\n.section .island,\"ax\"\nstub: .byte {}\n",
        load(&call),
        stub.join(","),
    );
    assert_eq!(run_program(&source, &[("start", 0x40_0000), ("home", HOME), ("island", STUB)]), Some(42));
}

#[test]
fn a_call_of_ours_begins_without_an_indirect_branch() {
    let mut saved = marked();
    saved.words[PSTATE] |= 0b11 << 10;
    let regs = aarch64().call_regs(&saved, RemoteAddr(0x7000), Call::Mmap, [1, 2, 3, 4, 5, 6]);
    let mut want = saved;
    want.words[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    (want.words[8], want.words[PC], want.words[PSTATE]) = (222, 0x7000, 0x6000_0000);
    assert_eq!(regs, want);
    assert_eq!(aarch64().call_result(&Regs { words: [EINTR; Regs::MAX], ..regs }), -4);
}

/// The number of a call by its name, from the compiler's headers.
fn numbers() -> Option<impl Fn(&str) -> u64> {
    if missing(&[&gnu("gcc")]) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("n.c"), "#include <asm/unistd.h>\n").unwrap();
    let macros = output(&gnu("gcc"), &["-E", "-dM", "n.c"], dir.path());
    let macros = String::from_utf8(macros.stdout).unwrap();
    Some(move |name: &str| {
        let value = |name: &str| {
            let line = macros.lines().find_map(|l| l.strip_prefix(&format!("#define {name} ")));
            line.unwrap_or_else(|| panic!("no call {name}"))
        };
        // Some are other names of one of two numbers.
        let first = value(&format!("__NR_{name}"));
        first.parse().unwrap_or_else(|_| value(first).parse().unwrap())
    })
}

#[test]
fn the_cure_is_for_listed_calls_with_eintr_alone() {
    let Some(number) = numbers() else { return };
    let listed = [
        "epoll_pwait",
        "epoll_pwait2",
        "recvfrom",
        "recvmsg",
        "recvmmsg",
        "accept",
        "accept4",
        "sendto",
        "sendmsg",
        "rt_sigtimedwait",
        "semop",
        "semtimedop",
        "io_getevents",
    ];
    let listed = listed.map(&number);
    for call in 0..512 {
        let (mut regs, asleep) = asleep(call);
        regs.words[0] = EINTR;
        let ended = regs;
        assert_eq!(aarch64().may_be_cured(&regs), Some(call).filter(|call| listed.contains(call)));
        let cured = aarch64().cure_eintr_of(&mut regs, &asleep);
        assert_eq!(cured, listed.contains(&call), "call {call}");
        assert_eq!(regs, if cured { rewound(call).0 } else { ended });
        assert!(aarch64().in_system_call_of(&regs, &asleep));
        // Another result, place, stack, call, argument: not the call that was seen.
        for (word, value) in [(0, -11i64 as u64), (PC, 0x40_2008), (SP, 8), (8, 1000), (1, 8), (5, 8)] {
            let mut other = ended;
            other.words[word] = value;
            let before = other;
            assert!(!aarch64().cure_eintr_of(&mut other, &asleep), "call {call}, word {word}");
            assert!(word != 0 || aarch64().may_be_cured(&other).is_none(), "call {call}: another result");
            assert_eq!(other, before);
            assert_eq!(aarch64().in_system_call_of(&other, &asleep), word == 0, "call {call}, word {word}");
        }
        assert!(!aarch64().cure_eintr(&mut regs), "nothing is known without what was seen before");
    }
    let calls = [
        (Call::Mmap, "mmap"),
        (Call::Munmap, "munmap"),
        (Call::Mprotect, "mprotect"),
        (Call::SignalAction, "rt_sigaction"),
        (Call::Restart, "restart_syscall"),
    ];
    for (call, name) in calls {
        assert_eq!(aarch64().call_number(call), number(name), "{name}");
    }
}

/// The same registers with the call ended.
fn stopped(regs: &Regs, asleep: &Asleep) -> Regs {
    let mut stopped = *regs;
    (stopped.words[0], stopped.words[PC]) = (EINTR, asleep.pc);
    stopped
}

#[test]
fn what_waits_with_a_restart_block_goes_on_with_it() {
    let Some(number) = numbers() else { return };
    const PRIVATE: u64 = 128;
    // The call, two of its arguments, whether it has a restart block, whether a handler ends it in spite of SA_RESTART.
    for (name, x1, x3, block, ended) in [
        ("nanosleep", 7, 7, true, true),
        ("clock_nanosleep", 0, 7, true, true),
        ("clock_nanosleep", 1, 7, false, true),
        ("futex", PRIVATE, 7, true, true),
        ("futex", 9 | PRIVATE, 7, true, true),
        ("futex", PRIVATE, 0, false, false),
        ("futex", 6 | PRIVATE, 7, false, false),
        ("restart_syscall", 0, 0, true, true),
        ("ppoll", 7, 7, false, true),
        ("pselect6", 7, 7, false, true),
        ("rt_sigsuspend", 7, 7, false, true),
        ("msgrcv", 7, 7, false, true),
        ("msgsnd", 7, 7, false, true),
        ("io_pgetevents", 7, 7, false, true),
        ("read", 7, 7, false, false),
    ] {
        let (mut regs, mut asleep) = rewound(number(name));
        (regs.words[1], regs.words[3]) = (x1, x3);
        (asleep.args[1], asleep.args[3]) = (x1, x3);
        assert_eq!(aarch64().in_restart_block_of(&regs, &asleep), block, "{name} {x1}");
        assert_eq!(aarch64().may_be_resumed(&regs), Some(asleep.number).filter(|_| block), "{name} {x1}");
        let mut want = regs;
        if block {
            aarch64().set_call_number(&mut want, number("restart_syscall"));
            assert_eq!(want.words[8], number("restart_syscall"));
        }
        assert_eq!(aarch64().resumed(&regs, &asleep), want, "{name} {x1}");
        for restart in [false, true] {
            let want = if ended || !restart { stopped(&regs, &asleep) } else { regs };
            assert_eq!(aarch64().interrupted(&regs, &asleep, restart), want, "{name} {x1}");
        }
        // Stopped behind the entry of a call that was made in place of `restart_syscall`, and at a later stop.
        let mut entered = want;
        aarch64().set_call_number(&mut entered, asleep.number);
        assert_eq!(entered, regs, "{name} {x1}: the number is all that tells");
        // Ended where it may not be resumed.
        let resuming = regs.words[8] == number("restart_syscall");
        assert_eq!(aarch64().resuming_ended(&regs), resuming.then_some(stopped(&regs, &asleep)), "{name} {x1}");
        // A thread that has left its call is left alone.
        let gone = Regs {
            words: {
                let mut w = regs.words;
                w[PC] += 400;
                w
            },
            ..regs
        };
        assert!(!aarch64().in_restart_block_of(&gone, &asleep) && !aarch64().in_system_call_of(&gone, &asleep));
        assert_eq!((aarch64().resumed(&gone, &asleep), aarch64().interrupted(&gone, &asleep, false)), (gone, gone));
    }
    let regs = marked();
    assert!(!aarch64().in_restart_block(&regs) && !aarch64().in_system_call(&regs) && aarch64().needs_asleep());
}

/// A caller that knows its callee (-fipa-ra) keeps values in whatever the callee leaves alone, but not in x16 and x17, which
/// a veneer between the two may change; nor does it keep flags.
#[test]
fn compilers_keep_nothing_in_x16_and_x17_across_a_call() {
    if missing(&[&gnu("gcc"), &gnu("objdump")]) {
        return;
    }
    let many = 27;
    let loads: String = (0..many).map(|i| format!("long v{i} = p[{i}];")).collect();
    let stores: String = (0..many).map(|i| format!("p[{i}] = v{};", many - 1 - i)).collect();
    let source = format!(
        "static int counter; __attribute__((noinline)) static void leaf(int n) {{ counter += n; }}\n\
         long caller(long *p, int n) {{ {loads} leaf(n); {stores} return v0; }}\n\
         int flags(long a, long b, int *q) {{ int r = a < b; leaf(3); return a < b ? *q + r : r; }}\n"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.c"), source).unwrap();
    for level in ["-O1", "-O2", "-O3"] {
        run(&gnu("gcc"), &[level, "-fipa-ra", "-fno-inline", "-c", "a.c", "-o", "a.o"], dir.path()).unwrap();
        let listing = output(&gnu("objdump"), &["-d", "--no-show-raw-insn", "a.o"], dir.path());
        let listing = String::from_utf8(listing.stdout).unwrap();
        let of =
            |name: &str| listing.split(&format!("<{name}>:")).nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
        let caller = of("caller");
        let (before, after) = caller.split_once("<leaf>").expect("a call");
        let kept = |r: u32| {
            let name = format!("x{r}");
            let named = |text: &str| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
            named(before) && named(after)
        };
        assert!((9..16).filter(|r| kept(*r)).count() >= 5, "{level}: the callee's knowledge is used:\n{caller}");
        assert!(!kept(16) && !kept(17), "{level}:\n{caller}");
        let flags = of("flags");
        let (_, after) = flags.split_once("<leaf>").expect("a call");
        let reads = ["cset", "csel", "csinc", "b.", "cinc"];
        let first = after.lines().skip(1).find_map(|line| {
            let insn = line.split_once(":\t")?.1;
            if insn.starts_with("cmp") || insn.starts_with("tst") {
                return Some(false);
            }
            reads.iter().any(|r| insn.starts_with(r)).then_some(true)
        });
        assert_ne!(first, Some(true), "{level}: flags are kept across a call:\n{flags}");
    }
}
