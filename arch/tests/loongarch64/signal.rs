// SPDX-License-Identifier: GPL-2.0-or-later
//! The layout of a signal handler's frame, against the assembler and what QEMU lays down.

use super::{instructions, loongarch64, missing, run};
use std::process::Command;

#[test]
fn trampolines_are_told_from_other_calls() {
    if missing() {
        return;
    }
    let code = instructions("li.w $a7, 139\nsyscall 0", 0, &[]);
    assert_eq!(loongarch64().signal_trampoline(&code), Some(128), "siginfo stands before it");
    assert_eq!(loongarch64().signal_trampoline(&code[..code.len() - 1]), None, "cut");
    for text in
        ["li.w $a7, 138\nsyscall 0", "li.w $a6, 139\nsyscall 0", "li.w $a7, 139\nsyscall 1", "li.w $a7, 139\nret"]
    {
        assert_eq!(loongarch64().signal_trampoline(&instructions(text, 0, &[])), None, "{text}");
    }
}

#[test]
fn a_frame_that_lies_on_its_own_alternate_stack_is_a_context() {
    assert!(loongarch64().signal_mark().is(0) && !loongarch64().signal_mark().is(1));
    let at = 0x7000_1000;
    // uc_link, ss_sp, ss_size.
    for (link, start, size, is) in [
        (Some(0), Some(0x7000_0000), Some(0x4000), true),
        (Some(0), Some(at), Some(8), true),
        (Some(0), Some(0x7000_0000), Some(0x1000), false),
        (Some(0), Some(at + 8), Some(0x4000), false),
        (Some(1), Some(0x7000_0000), Some(0x4000), false),
        (Some(0), Some(0), Some(0), false),
        // What is not known speaks for one.
        (None, Some(0x7000_0000), Some(0x4000), true),
        (Some(0), None, None, true),
        (Some(0), Some(0x7000_0000), None, true),
        (Some(0), Some(at + 8), None, false),
    ] {
        let word = |offset: i64| match offset {
            8 => link,
            16 => start,
            32 => size,
            _ => panic!("{offset} was not to be asked for"),
        };
        assert_eq!(loongarch64().may_be_context(at, &word), is, "{link:x?} {start:x?} {size:x?}");
    }
}

/// A handler on an alternate stack looks for what it interrupted where we would: a place with known registers.
#[test]
fn the_frame_that_is_laid_down() {
    if missing() {
        return;
    }
    assert_eq!(
        loongarch64().saved_by_signal(32),
        None,
        "not among the registers of DWARF: it is where the thread goes on"
    );
    let code = instructions("li.w $a7, 139\nsyscall 0", 0, &[]);
    let mark = loongarch64().signal_trampoline(&code).unwrap();
    let places: Vec<String> = (0..32).map(|r| loongarch64().saved_by_signal(r).unwrap().to_string()).collect();
    let pc = loongarch64().interrupted_at().unwrap();
    let constants =
        format!("enum {{ MARK = {mark}, PC = {pc} }}; static const long places[] = {{ {} }};", places.join(", "));
    let source = constants
        + "
        typedef unsigned long word;
        static char stack[16384] __attribute__((aligned(16)));
        static volatile int status = 1;
        extern char here[];
        static long call(long number, word a, word b, word c, word d)
        {
            register long n __asm__(\"a7\") = number;
            register word r __asm__(\"a0\") = a, y __asm__(\"a1\") = b, z __asm__(\"a2\") = c, w __asm__(\"a3\") = d;
            __asm__ volatile(\"syscall 0\" : \"+r\"(r) : \"r\"(n), \"r\"(y), \"r\"(z), \"r\"(w)
                : \"t0\", \"t1\", \"t2\", \"t3\", \"t4\", \"t5\", \"t6\", \"t7\", \"t8\", \"memory\");
            return r;
        }
        static word at(char *frame, long offset) { return *(word *)(frame + MARK + offset); }
        static void handler(int signal, char *frame, char *context)
        {
            int good = context == frame + MARK && frame > stack && frame < stack + sizeof(stack);
            good &= at(frame, 0) == 0 && at(frame, 8) == 0 && at(frame, 16) == (word)stack && at(frame, 32) == sizeof(stack);
            for (int r = 23; r < 31; r++)
                good &= at(frame, places[r]) == 1000u + r;
            good &= at(frame, places[3]) % 16 == 0 && at(frame, PC) == (word)here;
            status = good ? 42 : 2;
            *(word *)(frame + MARK + PC) += 4;
        }
        static int work(void)
        {
            struct { void *sp; int flags; word size; } alternate = { stack, 0, sizeof(stack) };
            struct { void *handler; word flags, mask, none; } action = { handler, 0x08000000 | 4, 0, 0 };
            call(132, (word)&alternate, 0, 0, 0);
            call(134, 4, (word)&action, 0, 8);
            __asm__ volatile(\"li.w $s0,1023\\n li.w $s1,1024\\n li.w $s2,1025\\n li.w $s3,1026\\n li.w $s4,1027\\n\"
                \"li.w $s5,1028\\n li.w $s6,1029\\n li.w $s7,1030\\n .globl here\\nhere: .word 0\\n\"
                ::: \"s0\", \"s1\", \"s2\", \"s3\", \"s4\", \"s5\", \"s6\", \"s7\", \"memory\");
            return status;
        }
        void _start(void) { call(94, work(), 0, 0, 0); }\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("h.c"), source).unwrap();
    let target = "--target=loongarch64-linux-gnu";
    run(
        "clang-19",
        &[target, "-march=loongarch64", "-O1", "-ffreestanding", "-fno-pic", "-c", "h.c", "-o", "h.o"],
        dir.path(),
    )
    .expect("it compiles");
    run("ld.lld-19", &["-static", "-o", "h", "h.o"], dir.path()).expect("it links");
    let status = Command::new("qemu-loongarch64").arg(dir.path().join("h")).status().unwrap();
    assert_eq!(status.code(), Some(42), "{status}");
}
