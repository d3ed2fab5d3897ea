// SPDX-License-Identifier: GPL-2.0-or-later
//! Jumps, linkage table entries and the code in front of the unwinder are the assembler's bytes.

use super::{instructions, loongarch64, missing, run};
use std::fs;
use ulp_arch::{JumpError, RemoteAddr};

const TEXT: u64 = 0x1_2000_1000;

#[test]
fn entry_jumps_as_the_assembler_makes_them() {
    if missing() {
        return;
    }
    let from = RemoteAddr(TEXT);
    let (first, last) = (TEXT - (1 << 27), TEXT + (1 << 27) - 4);
    for to in [TEXT, TEXT + 4, TEXT - 4, TEXT - 0x1000, TEXT + 0x765_4320, first, last] {
        let ours = loongarch64().entry_jump(from, RemoteAddr(to)).unwrap();
        assert_eq!(ours.len(), loongarch64().entry_jump_len());
        assert_eq!(ours, instructions("b to", TEXT, &[("to", to)]), "b {to:#x}");
    }
    for to in [first - 4, last + 4, TEXT + 2, u64::MAX / 2] {
        let error = loongarch64().entry_jump(from, RemoteAddr(to));
        assert_eq!(error, Err(JumpError::OutOfReach { from, to: RemoteAddr(to) }), "{to:#x}");
    }
    // The end of the address space is no limit: the processor's addition wraps.
    let wrapped = loongarch64().entry_jump(RemoteAddr(u64::MAX - 3), RemoteAddr(0));
    assert_eq!(wrapped, Ok(instructions("b 4", TEXT, &[])));
}

#[test]
fn hops_as_the_assembler_makes_them() {
    if missing() {
        return;
    }
    let at = RemoteAddr(TEXT);
    let first = TEXT.wrapping_sub((1 << 37) + 0x2_0000);
    let last = TEXT + (1 << 37) - 0x2_0004;
    for to in [TEXT + 0x2_0000, TEXT + 0x1_fffc, TEXT - 0x1000, TEXT + (1 << 36), first, last] {
        let ours = loongarch64().hop(at, &[], RemoteAddr(to)).unwrap();
        assert_eq!(ours, instructions("tail36 $r21,to", TEXT, &[("to", to)]), "{to:#x}");
    }
    for to in [first.wrapping_sub(4), last + 4, 0x7fff_f765_4320] {
        let ours = loongarch64().hop(at, &[], RemoteAddr(to)).unwrap();
        let part = |low: u32, width: u32| ((to << (64 - low - width)) as i64) >> (64 - width);
        let (upper, low, third, fourth) = (part(12, 20), to & 0xfff, part(32, 20), part(52, 12));
        let source = format!(
            "lu12i.w $r21,{upper}\n ori $r21,$r21,{low}\n lu32i.d $r21,{third}\n lu52i.d $r21,$r21,{fourth}\n jr $r21"
        );
        assert_eq!(ours, instructions(&source, TEXT, &[]), "{to:#x}");
        assert!(ours.len() <= loongarch64().hop_len());
    }
    assert!(loongarch64().hop(at, &[], RemoteAddr(TEXT + 2)).is_err());
}

#[test]
fn linkage_table_entries_as_the_assembler_makes_them() {
    if missing() {
        return;
    }
    let at = RemoteAddr(TEXT);
    let last = TEXT + (1 << 31) - 0x801;
    for slot in
        [TEXT + 8, TEXT + 0x7f8, TEXT + 0x800, TEXT - 0x2000, TEXT + 0x7fff_0000, last, TEXT - (1 << 31) - 0x800]
    {
        let ours = loongarch64().plt_entry(at, RemoteAddr(slot)).unwrap();
        assert_eq!(ours.len(), loongarch64().plt_entry_len());
        let rounded = slot.wrapping_sub(TEXT).wrapping_add(0x800) as i64;
        let (upper, lower) = (rounded >> 12, (rounded & 0xfff) - 0x800);
        let source = format!("pcaddu12i $r21,{upper}\nld.d $r21,$r21,{lower}\njr $r21\nnop");
        assert_eq!(ours, instructions(&source, TEXT, &[]), "{slot:#x}");
    }
    for slot in [last + 1, TEXT - (1 << 31) - 0x801] {
        assert!(loongarch64().plt_entry(at, RemoteAddr(slot)).is_err(), "{slot:#x}");
    }
}

/// What jumps and gates take for themselves, no compiler uses.
#[test]
fn compiled_code_leaves_the_register_alone() {
    if missing() {
        return;
    }
    // More values at once than there are registers, with a call among them and without.
    let names: Vec<String> = (0..40).map(|i| format!("v{i}")).collect();
    let loads: String = names.iter().enumerate().map(|(i, v)| format!("long {v} = p[{i}];\n")).collect();
    // What was read last is needed first.
    let sum = names.iter().rev().fold("1".to_owned(), |inner, v| format!("({v} + 3 * {inner})"));
    let source = format!(
        "static __attribute__((noinline)) long leaf(long n) {{ return n * 3 + 1; }}\n
        long many(volatile long *p) {{ {loads} return {sum}; }}\n
        long calls(volatile long *p) {{ {loads} long m = leaf(v0); return m + {sum}; }}\n",
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.c"), source).unwrap();
    for level in ["-O0", "-O2", "-O3"] {
        let args = ["--target=loongarch64-linux-gnu", level, "-S", "a.c", "-o", "a.s"];
        run("clang-19", &args, dir.path()).expect("clang compiles it");
        let text = fs::read_to_string(dir.path().join("a.s")).unwrap();
        let uses = |register: &str| text.split(|c: char| !c.is_alphanumeric() && c != '$').any(|word| word == register);
        assert!(uses("$s8") && uses("$t8") || level == "-O0", "{level}: the code has registers to spare:\n{text}");
        assert!(!uses("$r21") && !uses("$x"), "{level}:\n{text}");
    }
}

const HOOK: &str = "
    lu12i.w $t0, 0x55667
    ori $t0, $t0, 0x788
    lu32i.d $t0, 0x23344
    lu52i.d $t0, $t0, 0x112
    ld.d $t1, $t0, 0
next:
    beqz $t1, old
    addi.d $t1, $t1, -1
    addi.d $t0, $t0, 32
    ld.d $t2, $t0, 0
    bltu $a0, $t2, next
    ld.d $t2, $t0, 8
    bgeu $a0, $t2, next
    ld.d $t1, $t0, 16
    ld.d $t0, $t0, 24
find:
    beqz $t0, none
    addi.d $t0, $t0, -1
    ld.d $t2, $t1, 0
    ld.d $t3, $t1, 8
    ld.d $t4, $t1, 16
    addi.d $t1, $t1, 24
    bltu $a0, $t2, find
    bgeu $a0, $t3, find
    st.d $zero, $a1, 0
    st.d $zero, $a1, 8
    st.d $t2, $a1, 16
    move $a0, $t4
    ret
none:
    move $a0, $zero
    ret
old:
";

#[test]
fn the_hook_is_what_the_assembler_makes() {
    if missing() {
        return;
    }
    let hook = loongarch64().unwind_hook(RemoteAddr(0x1122_3344_5566_7788)).expect("there is one");
    assert_eq!(hook, instructions(HOOK, TEXT, &[]));
}

/// The hook as a function, with the list that a patch would have: its answers for addresses in and around a patch's code.
#[test]
fn the_hook_answers_for_the_list_and_runs_on_for_others() {
    if missing() {
        return;
    }
    const LIST: u64 = 0x2000_0000;
    let hook = loongarch64().unwind_hook(RemoteAddr(LIST)).unwrap();
    // Two rows, the first of them none; three functions in the second one's 0x7000..0x8000.
    let list = format!(
        ".quad 2,0,0,0\n .quad 0,0,0,0\n .quad 0x7000,0x8000,{},3\n
         functions: .quad 0x7000,0x7010,11, 0x7010,0x7100,22, 0x7200,0x8000,33\n",
        LIST + 0x60
    );
    // pc, the answer, and the start of the function; 99 is what stands behind the hook.
    for (pc, answer, start) in [
        (0x6fff, 99, 0),
        (0x7000, 11, 0x7000),
        (0x700f, 11, 0x7000),
        (0x7010, 22, 0x7010),
        (0x7100, 0, 0),
        (0x7fff, 33, 0x7200),
        (0x8000, 99, 0),
        (0, 99, 0),
    ] {
        let code = super::listed(&hook);
        let start_shown = if answer == 0 || answer == 99 { 0x5a } else { start };
        let source = format!(
            ".globl _start\n.section .text,\"ax\"\n_start:\n li.d $a0,{pc:#x}\n la.abs $a1,bases\n li.d $a2,0\n bl hook\n
             la.abs $t0,bases\n ld.d $t1,$t0,16\n li.d $t2,{start_shown:#x}\n bne $t1,$t2,wrong\n
             li.w $a7,93\n syscall 0\nwrong: li.w $a0,200\n li.w $a7,93\n syscall 0\n
             hook: .byte {code}\n li.w $a0,99\n ret\n
             .section .list,\"aw\"\n{list}\n.section .bases,\"aw\"\nbases: .quad 0x5a,0x5a,0x5a\n"
        );
        let sections = [("text", TEXT & 0x7fff_ffff), ("list", LIST), ("bases", 0x2001_0000)];
        assert_eq!(super::execute(&source, &sections), Some(answer), "{pc:#x}");
    }
}
