// SPDX-License-Identifier: GPL-2.0-or-later
//! The layout of a signal handler's frame against the C library's headers and the assembler.

use object::{Object, ObjectSection};
use std::path::Path;
use std::process::Command;
use ulp_arch::by_name;

fn gcc(dir: &Path, name: &str, text: &str, args: &[&str]) {
    std::fs::write(dir.join(name), text).expect("written");
    let status = Command::new("gcc").args(args).arg(name).current_dir(dir).status().expect("gcc runs");
    assert!(status.success(), "{text}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn registers_are_where_the_headers_say() {
    let registers = "RAX RDX RCX RBX RSI RDI RBP RSP R8 R9 R10 R11 R12 R13 R14 R15 RIP";
    let place = |name| format!("(long)offsetof(ucontext_t, uc_mcontext.gregs[REG_{name}])");
    let mut places: Vec<String> = registers.split(' ').map(place).collect();
    places.push(place("CSGSFS"));
    let text = format!(
        "#define _GNU_SOURCE\n#include <stddef.h>\n#include <stdio.h>\n#include <ucontext.h>\n\
         int main(void) {{ long places[] = {{ {} }};\n\
         for (unsigned i = 0; i < sizeof places / sizeof *places; i++) printf(\"%ld\\n\", places[i]); }}\n",
        places.join(", ")
    );
    let dir = tempfile::tempdir().expect("a directory");
    gcc(dir.path(), "places.c", &text, &["-o", "places"]);
    let output = Command::new(dir.path().join("places")).output().expect("it runs").stdout;
    let output = String::from_utf8(output).expect("numbers");
    let mut places: Vec<i64> = output.lines().map(|line| line.parse().expect("a number")).collect();
    let mark = places.pop().expect("the selectors");
    let arch = by_name("x86_64").expect("known");
    // In DWARF's order, the return address last.
    let own: Vec<i64> = (0..).map_while(|dwarf| arch.saved_by_signal(dwarf)).map(|at| at + mark).collect();
    assert_eq!(own, places);
    let trampoline = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
    assert_eq!(arch.signal_trampoline(&trampoline), u64::try_from(mark).ok(), "it stands at the ucontext");
}

#[test]
fn trampolines_are_told_from_other_calls() {
    let arch = by_name("x86_64").expect("known");
    let dir = tempfile::tempdir().expect("a directory");
    for (text, is) in [
        ("mov $15, %rax; syscall", true),
        ("mov $15, %eax; syscall", true),
        ("mov $14, %rax; syscall", false),
        ("mov $15, %rcx; syscall", false),
        ("mov $15, %eax; ret", false),
    ] {
        gcc(dir.path(), "code.s", &format!("{text}\n"), &["-c", "-o", "code.o"]);
        let bytes = std::fs::read(dir.path().join("code.o")).expect("an object");
        let file = object::File::parse(&bytes[..]).expect("an object");
        let code = file.section_by_name(".text").expect("text").data().expect("bytes").to_vec();
        assert_eq!(arch.signal_trampoline(&code).is_some(), is, "{text}");
        assert_eq!(arch.signal_trampoline(&code[..code.len() - 1]), None, "{text}, cut");
    }
}

#[test]
fn selectors_mark_a_context() {
    let mark = by_name("x86_64").expect("known").signal_mark();
    // cs, gs, fs, ss, on the bare processor and under Xen; then kernel selectors, 32-bit code, a small number.
    for (word, is) in [
        (0x002b_0000_0000_0033, true),
        (0xe02b_0000_0000_e033, true),
        (0x002b_0063_0000_0033, true),
        (0x0018_0000_0000_0010, false),
        (0x002b_0000_0000_0023, false),
        (0x33, false),
        (0, false),
    ] {
        assert_eq!(mark.is(word), is, "{word:#x}");
    }
}
