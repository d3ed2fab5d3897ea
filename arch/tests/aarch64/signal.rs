// SPDX-License-Identifier: GPL-2.0-or-later
//! The layout of a signal handler's frame, against the compiler's headers, the assembler, and what QEMU lays down.

use super::{aarch64, assemble, gnu, missing, output, run};

/// What the tests below know of a frame: `struct rt_sigframe` is a `siginfo_t` and a `ucontext_t`.
fn constants() -> String {
    let mark = aarch64().signal_mark();
    let places: Vec<String> = (0..=31).map(|r| aarch64().saved_by_signal(r).unwrap().to_string()).collect();
    format!(
        "#define _GNU_SOURCE\n#include <asm/sigcontext.h>\n#include <signal.h>\n#include <stddef.h>\n#include <ucontext.h>\n\
         struct frame {{ siginfo_t info; ucontext_t uc; }};\n\
         enum {{ MARK = {}, PC = {} }};\nstatic const unsigned long long mark = {:#x}ull;\n\
         static const long places[] = {{ {} }};\n",
        aarch64().signal_trampoline(&trampoline("")).unwrap(),
        aarch64().interrupted_at().unwrap(),
        mark.value,
        places.join(", "),
    )
}

fn trampoline(pad: &str) -> Vec<u8> {
    assemble(&format!("{pad}\nmov x8, #139\nsvc #0"), 0)
}

#[test]
fn registers_are_where_the_headers_say() {
    if missing(&[&gnu("as"), &gnu("gcc")]) {
        return;
    }
    assert_eq!(aarch64().signal_mark().mask, u64::MAX);
    assert_eq!(aarch64().saved_by_signal(32), None, "not among the registers of DWARF: it is where the thread goes on");
    let at = |member: &str| format!("(long)offsetof(struct frame, uc.uc_mcontext.{member}) - MARK");
    let mut facts = vec![
        (at("__reserved"), 0.to_string()),
        (at("pc"), "PC".into()),
        (at("sp"), aarch64().saved_by_signal(31).unwrap().to_string()),
        ("FPSIMD_MAGIC".into(), format!("{:#x}", aarch64().signal_mark().value as u32)),
        ("sizeof(struct fpsimd_context)".into(), (aarch64().signal_mark().value >> 32).to_string()),
    ];
    facts.extend((0..31).map(|r| (at(&format!("regs[{r}]")), aarch64().saved_by_signal(r).unwrap().to_string())));
    let facts = facts.iter().map(|(a, b)| format!("_Static_assert({a} == {b}, \"{a}\");\n")).collect::<String>();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.c"), constants() + &facts).unwrap();
    run(&gnu("gcc"), &["-std=gnu11", "-fsyntax-only", "f.c"], dir.path()).expect("the headers agree");
}

#[test]
fn trampolines_are_told_from_other_calls() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    for pad in ["", "bti c"] {
        let code = trampoline(pad);
        assert!(aarch64().signal_trampoline(&code).is_some(), "{pad}");
        assert_eq!(aarch64().signal_trampoline(&code[..code.len() - 1]), None, "{pad}, cut");
    }
    for text in
        ["mov x8, #138\nsvc #0", "mov x9, #139\nsvc #0", "mov x8, #139\nsvc #1", "mov x8, #139\nret", "svc #0\nret"]
    {
        assert_eq!(aarch64().signal_trampoline(&assemble(text, 0)), None, "{text}");
    }
}

/// A handler looks for what it interrupted where we would: a loop with known registers.
#[test]
fn the_frame_that_is_laid_down() {
    if missing(&[&gnu("as"), &gnu("ld"), &gnu("gcc"), "qemu-aarch64"]) {
        return;
    }
    let code = "
        static volatile int status = 1;
        extern char here[];
        static void handler(int signal, siginfo_t *info, void *context)
        {
            char *frame = (char *)info;
            unsigned long long *at = (void *)(frame + MARK);
            int good = (char *)context - frame == offsetof(struct frame, uc) && *at == mark;
            for (int r = 19; r < 28; r++)
                good &= *(unsigned long long *)((char *)at + places[r]) == 1000u + r;
            good &= *(unsigned long long *)((char *)at + places[31]) % 16 == 0;
            good &= *(char **)((char *)at + PC) == here;
            status = good ? 42 : 2;
            *(char **)((char *)at + PC) += 4;
        }
        int main(void)
        {
            struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
            sigaction(SIGILL, &action, 0);
            __asm__ volatile(\"mov x19,#1019\\n mov x20,#1020\\n mov x21,#1021\\n mov x22,#1022\\n mov x23,#1023\\n\"
                \"mov x24,#1024\\n mov x25,#1025\\n mov x26,#1026\\n mov x27,#1027\\n .globl here\\nhere: udf #0\\n\"
                ::: \"x19\", \"x20\", \"x21\", \"x22\", \"x23\", \"x24\", \"x25\", \"x26\", \"x27\", \"memory\");
            return status;
        }\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("h.c"), constants() + code).unwrap();
    run(&gnu("gcc"), &["-std=gnu11", "-O1", "-static", "-o", "h", "h.c"], dir.path()).expect("it compiles");
    for cpu in ["cortex-a72", "max"] {
        let status = output("qemu-aarch64", &["-cpu", cpu, "./h"], dir.path()).status;
        assert_eq!(status.code(), Some(42), "{cpu}: {status}");
    }
}
