// SPDX-License-Identifier: GPL-2.0-or-later
//! Gates, entry jumps, hops, linkage table entries and the hook of the unwinder against the GNU assembler and linker, which
//! make the code that is expected, and against QEMU, which runs it.

use super::{aarch64, assemble, assemble_with, gnu, missing, run_linked, run_program};
use ulp_arch::{Commit, Gate, JumpError, RemoteAddr, Undisplaceable};

const FUNCTION: u64 = 0x40_1000;
const GATE: u64 = 0x41_0000;
const NEW: u64 = 0x41_1000;
const COMMIT: u64 = 0x42_0010;
const FAR_COMMIT: u64 = 0x2_1234_5670;
const VAR: u64 = 0x42_0100;
const OLD: u32 = 0xd503_245f;

fn known(source: &str, address: u64) -> Vec<u8> {
    let symbols = [("function", FUNCTION), ("new", NEW), ("commit", COMMIT), ("far_commit", FAR_COMMIT), ("var", VAR)];
    assemble_with(source, address, &symbols)
}

fn tools() -> bool {
    missing(&[&gnu("as"), &gnu("ld")])
}

fn gate_of(code: &[u8], at: usize, commit: u64, old: u32) -> Result<Vec<u8>, JumpError> {
    let len = aarch64().displaceable(code, at).unwrap();
    let gate = Gate {
        at: RemoteAddr(GATE),
        commit: Commit { at: RemoteAddr(commit), old },
        new: RemoteAddr(NEW),
        from: RemoteAddr(FUNCTION + at as u64),
        displaced: &code[at..at + len],
    };
    let bytes = aarch64().gate(&gate)?;
    assert!(bytes.len() <= aarch64().gate_len(gate.displaced), "gate_len is a bound");
    Ok(bytes)
}

#[test]
fn jumps_are_the_assemblers() {
    if tools() {
        return;
    }
    let from = RemoteAddr(FUNCTION);
    let (first, last) = (FUNCTION.wrapping_sub(1 << 27), FUNCTION + (1 << 27) - 4);
    // Beneath 0 the linker does not go.
    for to in [FUNCTION, FUNCTION + 4, FUNCTION - 0x1000, last] {
        let ours = aarch64().entry_jump(from, RemoteAddr(to)).unwrap();
        assert_eq!(ours.len(), aarch64().entry_jump_len());
        assert_eq!(ours, assemble_with("b to", FUNCTION, &[("to", to)]), "{to:#x}");
    }
    let high = RemoteAddr(FUNCTION + (1 << 40));
    let backward = aarch64().entry_jump(high, RemoteAddr(high.0 - (1 << 27))).unwrap();
    assert_eq!(backward, assemble("b .-0x8000000", FUNCTION));
    assert!(aarch64().entry_jump(from, RemoteAddr(first)).is_ok(), "the processor's addition wraps");
    for to in [first.wrapping_sub(4), last + 4, FUNCTION + 2, u64::MAX / 2] {
        let error = aarch64().entry_jump(from, RemoteAddr(to));
        assert_eq!(error, Err(JumpError::OutOfReach { from, to: RemoteAddr(to) }), "{to:#x}");
    }
}

#[test]
fn landing_pads_and_hops_are_the_assemblers() {
    if tools() {
        return;
    }
    for (pad, acts, undo) in [
        ("bti c", false, ""),
        ("bti jc", false, ""),
        ("paciasp", true, "autiasp;"),
        ("pacibsp", true, "autibsp;"),
        ("bti j", false, ""),
        ("nop", false, ""),
    ] {
        let code = assemble(&format!("{pad}; stp x29,x30,[sp,#-16]!"), FUNCTION);
        let is_pad = !matches!(pad, "bti j" | "nop");
        assert_eq!(aarch64().landing_pad_len(&code), if is_pad { 4 } else { 0 }, "{pad}");
        assert_eq!(aarch64().pad_acts(&code), acts, "{pad}");
        for (to, rest) in [
            (NEW, "b new"),
            (NEW + (1 << 30), "ldr x16,1f; br x16; .balign 8; 1: .xword new+(1<<30)"),
            (NEW | 1 << 47, "ldr x16,1f; br x16; .balign 8; 1: .xword new+(1<<47)"),
        ] {
            for at in [GATE, GATE + 4] {
                let hop = aarch64().hop(RemoteAddr(at), &code[..4], RemoteAddr(to)).unwrap();
                // The linker aligns to the section, which starts here, and not to the address.
                let source = format!(".if {at}&4\n nop\n .endif\n {undo} {rest}").replace(".balign 8", ".balign 8,0");
                let want = known(&source, at & !4);
                assert_eq!(hop, want[(at & 4) as usize..], "{pad} {to:#x} {at:#x}");
                assert!(hop.len() <= aarch64().hop_len());
            }
        }
    }
    assert_eq!(aarch64().landing_pad_len(&[0x5f, 0x24, 0x03]), 0);
}

#[test]
fn linkage_table_entries_are_the_assemblers() {
    if tools() {
        return;
    }
    let source = "adrp x16,to; ldr x17,[x16,:lo12:to]; add x16,x16,:lo12:to; br x17";
    for slot in [FUNCTION + 8, FUNCTION - 0x2000, FUNCTION + 0xff8, FUNCTION + 0xffff_f000, VAR] {
        let ours = aarch64().plt_entry(RemoteAddr(FUNCTION), RemoteAddr(slot)).unwrap();
        assert_eq!(ours.len(), aarch64().plt_entry_len());
        assert_eq!(ours, assemble_with(source, FUNCTION, &[("to", slot)]), "{slot:#x}");
    }
    for slot in [FUNCTION + 4, FUNCTION + (1 << 32)] {
        assert!(aarch64().plt_entry(RemoteAddr(FUNCTION), RemoteAddr(slot)).is_err(), "{slot:#x}");
    }
}

#[test]
fn gates_are_the_assemblers() {
    if tools() {
        return;
    }
    const VALUE: &str = "movz w17,#0x245f; movk w17,#0xd503,lsl #16; eor w16,w16,w17;";
    // The first instruction, and what its gate has behind the question; 1: is the number that it uses.
    for (first, rest, number) in [
        ("stp x29,x30,[sp,#-16]!", "stp x29,x30,[sp,#-16]!; b function+4", ""),
        ("sub sp,sp,#0x110", "sub sp,sp,#0x110; b function+4", ""),
        ("paciasp", "paciasp; b function+4", ""),
        ("adrp x3,var", "ldr x3,1f; b function+4", "var-0x100"),
        ("adr x3,.+0x1235", "ldr x3,1f; b function+4", "function+0x1235"),
        ("ldr w3,.+8", "ldr x16,1f; ldr w3,[x16]; b function+4", "function+8"),
        ("ldr x3,.-8", "ldr x16,1f; ldr x3,[x16]; b function+4", "function-8"),
        ("ldrsw x3,.+8", "ldr x16,1f; ldrsw x3,[x16]; b function+4", "function+8"),
        ("prfm pldl2strm,.+8", "ldr x16,1f; prfm pldl2strm,[x16]; b function+4", "function+8"),
        ("ldr s3,.+8", "ldr x16,1f; ldr s3,[x16]; b function+4", "function+8"),
        ("ldr d3,.+8", "ldr x16,1f; ldr d3,[x16]; b function+4", "function+8"),
        ("ldr q3,.+16", "ldr x16,1f; ldr q3,[x16]; b function+4", "function+16"),
        ("b .+0x100", "b function+0x100", ""),
        ("b .", "b function", ""),
        ("b.ls .+0x100", "b.ls .+8; b function+4; b function+0x100", ""),
        ("cbz x3,.-0x100", "cbz x3,.+8; b function+4; b function-0x100", ""),
        ("cbnz w3,.+8", "cbnz w3,.+8; b function+4; b function+8", ""),
        ("tbz x3,#45,.+0x7ffc", "tbz x3,#45,.+8; b function+4; b function+0x7ffc", ""),
        ("tbnz w3,#5,.", "tbnz w3,#5,.+8; b function+4; b function", ""),
        ("ret", "ret", ""),
        ("retaa", "retaa", ""),
        ("br x3", "br x3", ""),
        ("movz x16,#3", "movz x16,#3; b function+4", ""),
        ("ldr x16,[x3,#128]", "ldr x16,[x3,#128]; b function+4", ""),
        ("ldp x16,x17,[x3]", "ldp x16,x17,[x3]; b function+4", ""),
    ] {
        let code = known(first, FUNCTION);
        assert_eq!(aarch64().displaceable(&code, 0), Ok(4), "{first}");
        let number = if number.is_empty() { String::new() } else { format!("1: .xword {number}") };
        for (commit, old, question, own) in [
            (COMMIT, OLD, format!("adrp x16,commit; ldr w16,[x16,:lo12:commit]; {VALUE}"), ""),
            (COMMIT, 0, "adrp x16,commit; ldr w16,[x16,:lo12:commit];".to_owned(), ""),
            (FAR_COMMIT, OLD, format!("ldr x16,2f; ldr w16,[x16]; {VALUE}"), "2: .xword far_commit"),
            (FAR_COMMIT, 0, "ldr x16,2f; ldr w16,[x16];".to_owned(), "2: .xword far_commit"),
            (COMMIT + 2, 0, "ldr x16,2f; ldr w16,[x16];".to_owned(), "2: .xword commit+2"),
        ] {
            let align = if own.is_empty() && number.is_empty() { "" } else { ".balign 8,0" };
            let source = format!("{question} cbz w16,.+8; b new; {rest}\n{align}\n{own}\n{number}");
            assert_eq!(gate_of(&code, 0, commit, old).unwrap(), known(&source, GATE), "{first}: {source}");
        }
    }
}

#[test]
fn what_cannot_stand_elsewhere_is_told() {
    if tools() {
        return;
    }
    for first in [
        "bl .",
        "blr x3",
        "blraaz x3",
        "svc #0",
        "brk #1",
        "hlt #1",
        "br x16",
        "br x17",
        "ret x16",
        "add x3,x16,#1",
        "mov x3,x17",
        "movk x16,#3",
        "cbz x16,.",
        "tbnz x17,#3,.",
        "ldr x3,[x16]",
        "str x16,[x3]",
        "stp x16,x3,[sp]",
        "stp x3,x17,[sp]",
        "ldr x3,[x4,x17]",
        "str w17,[x4,x3]",
        "madd x3,x4,x5,x16",
        "add x3,x4,w17,uxtw",
        "extr x3,x4,x16,#3",
        "msr tpidr_el0,x16",
        "ldadd x16,x3,[x4]",
        "stlr x16,[x4]",
        "ldr q3,[x16]",
        "str q3,[x17,#16]!",
        ".inst 0",
        ".inst 0xd50324ff",
        ".inst 0xdac1a3fe",
        ".inst 0xdac1a7fe",
        ".inst 0xdac183fe",
        ".inst 0xdac187fe",
    ] {
        let code = assemble(&format!("{first}\nnop"), FUNCTION);
        assert_eq!(aarch64().displaceable(&code, 0), Err(Undisplaceable::Instruction), "{first}");
        let base = Gate {
            at: RemoteAddr(GATE),
            commit: Commit { at: RemoteAddr(COMMIT), old: 0 },
            new: RemoteAddr(NEW),
            from: RemoteAddr(FUNCTION),
            displaced: &code[..4],
        };
        assert_eq!(aarch64().gate(&base), Err(JumpError::Displaced), "{first}");
    }
    for first in
        ["mov x3,#16", "movz x3,#0x200", "ldr x3,[x4,#128]", "sub sp,sp,#0x200", "str q16,[sp,#-16]!", "adr x3,.+0x200"]
    {
        assert_eq!(aarch64().displaceable(&assemble(first, FUNCTION), 0), Ok(4), "{first}: no field of it is x16");
    }
    assert_eq!(aarch64().displaceable(&[], 0), Err(Undisplaceable::Instruction), "nothing");
    assert_eq!(aarch64().displaceable(&[0x1f, 0x20, 3], 0), Err(Undisplaceable::Instruction), "cut short");
    assert_eq!(
        aarch64().displaceable(&[0x1f, 0x20, 3, 0xd5, 0x1f, 0x20, 3, 0xd5], 2),
        Err(Undisplaceable::Instruction)
    );
    let far = RemoteAddr(GATE + (1 << 27));
    let nop = [0x1f, 0x20, 3, 0xd5];
    let base = Gate {
        at: RemoteAddr(GATE),
        commit: Commit { at: RemoteAddr(COMMIT), old: 0 },
        new: RemoteAddr(NEW),
        from: RemoteAddr(FUNCTION),
        displaced: &nop,
    };
    assert!(aarch64().gate(&base).is_ok());
    assert!(matches!(aarch64().gate(&Gate { new: far.plus(64), ..base }), Err(JumpError::OutOfReach { .. })));
    assert!(matches!(aarch64().gate(&Gate { from: far.plus(64), ..base }), Err(JumpError::OutOfReach { .. })));
    assert_eq!(aarch64().gate(&Gate { displaced: &nop[..2], ..base }), Err(JumpError::Displaced));
    assert_eq!(aarch64().gate(&Gate { displaced: &[nop, nop].concat(), ..base }), Err(JumpError::Displaced));
}

const HOOK: &str = "
    movz x9,#0x7788; movk x9,#0x5566,lsl #16; movk x9,#0x3344,lsl #32; movk x9,#0x1122,lsl #48
    ldr x10,[x9]
next:
    cbz x10,old
    sub x10,x10,#1
    add x9,x9,#32
    ldp x11,x12,[x9]
    cmp x0,x11
    b.lo next
    cmp x0,x12
    b.hs next
    ldp x11,x12,[x9,#16]
find:
    cbz x12,none
    sub x12,x12,#1
    ldp x13,x14,[x11]
    ldr x10,[x11,#16]
    add x11,x11,#24
    cmp x0,x13
    b.lo find
    cmp x0,x14
    b.hs find
    stp xzr,xzr,[x1]
    str x13,[x1,#16]
    mov x0,x10
    mov x13,xzr
    mov x14,xzr
    UNDO
    ret
none:
    mov x0,xzr
    mov x13,xzr
    mov x14,xzr
    UNDO
    ret
old:
    mov x11,xzr
    mov x12,xzr
";

#[test]
fn the_hook_is_the_assemblers() {
    if tools() {
        return;
    }
    let list = RemoteAddr(0x1122_3344_5566_7788);
    for (pad, undo) in [("bti c", ""), ("paciasp", "autiasp"), ("pacibsp", "autibsp")] {
        let hook = aarch64().unwind_hook_behind(&assemble(pad, FUNCTION), list).unwrap();
        assert_eq!(hook, assemble(&HOOK.replace("UNDO", undo), FUNCTION), "{pad}");
    }
    assert_eq!(aarch64().unwind_hook(list).unwrap(), assemble(&HOOK.replace("UNDO", ""), FUNCTION));
}

/// A program with the function, the gate that we made for it behind an entry jump that we made, and new code. Its status
/// is what the function returned, or 200 where a register, a flag or the stack is not what it was.
#[test]
fn gates_ask_and_lead_on() {
    if tools() || missing(&["qemu-aarch64"]) {
        return;
    }
    // The function gets w0 = 5 and has var = 30; the new code returns 77.
    for (name, function, old) in [
        ("moved as it is", "add w0,w0,#1; ret", 6),
        ("page", "adrp x1,var; ldr w1,[x1,:lo12:var]; add w0,w0,w1; ret", 35),
        ("address", "adr x1,1f; ldr w1,[x1]; add w0,w0,w1; ret; 1: .long 12", 17),
        ("literal", "ldr w1,1f; add w0,w0,w1; ret; 1: .long 13", 18),
        ("vector literal", "ldr s1,1f; fmov w1,s1; add w0,w0,w1; ret; 1: .long 14", 19),
        ("a jump that is taken", "cbnz w0,1f; mov w0,#1; ret; 1: mov w0,#9; ret", 9),
        ("a jump that is not", "cbz w0,1f; mov w0,#1; ret; 1: mov w0,#9; ret", 1),
        ("a bit", "tbnz w0,#2,1f; mov w0,#1; ret; 1: mov w0,#9; ret", 9),
        ("flags of the caller", "b.vs 1f; mov w0,#1; ret; 1: mov w0,#9; ret", 9),
        ("a loop to the entry", "sub w0,w0,#1; cbnz w0,.-4; mov w0,#11; ret", 11),
        ("its end is displaced", "b 1f; nop; nop; 1: mov w0,#3; ret", 3),
        ("return", "ret", 5),
        ("behind a landing pad", "bti c; add w0,w0,#2; ret", 7),
        ("behind a signature", "paciasp; add w0,w0,#3; retaa", 8),
    ] {
        let code = known(function, FUNCTION);
        let pad = aarch64().landing_pad_len(&code);
        let jump = aarch64().entry_jump(RemoteAddr(FUNCTION + pad as u64), RemoteAddr(GATE)).unwrap();
        let mut entered = code.clone();
        entered[pad..pad + 4].copy_from_slice(&jump);
        // A hop to the new code stands where the gate looks for it.
        let hop = aarch64().hop(RemoteAddr(NEW), &code[..pad], RemoteAddr(NEW + 0x100)).unwrap();
        for far in [false, true] {
            for value in [0, OLD] {
                let gate = gate_of(&code, pad, if far { FAR_COMMIT } else { COMMIT }, value).unwrap();
                for (word, want) in [(value, old), (value ^ 0x100, 77)] {
                    let got = execute(&entered, &gate, &hop, far, word);
                    assert_eq!(got, Some(want), "{name}, far: {far}, word {word:#x}");
                }
            }
        }
    }
}

fn list(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

fn execute(function: &[u8], gate: &[u8], hop: &[u8], far: bool, word: u32) -> Option<i32> {
    // Everything but x0, which is the argument, x16 and x17, x30 and sp. The old code changes x1 too.
    let registers = || (1..30).filter(|r| !matches!(r, 16 | 17));
    let set: String = registers().map(|r| format!("mov x{r},#{}\n", 1000 + r)).collect();
    let look = |from: u32| -> String {
        let look = |r| format!("sub x16,x{r},#{}\ncbnz x16,wrong\n", 1000 + r);
        registers().filter(|r| *r >= from).map(look).collect()
    };
    // 0x90000000 is N and V.
    let source = format!(
        ".arch armv8.5-a\n.section .start,\"ax\"\n.globl _start\n_start:\n mov x0,sp\n adr x1,saved\n str x0,[x1]\n
        ldr x0,=0x5a5a5a5a\n str x0,[sp,#-16]\n{set} mov w0,#0x90000000\n msr nzcv,x0\n mov x0,#5\n bl function\n{}
        adr x1,saved\n ldr x1,[x1]\n mov x2,sp\n cmp x1,x2\n b.ne wrong\n ldr x1,[sp,#-16]\n ldr x2,=0x5a5a5a5a\n cmp x1,x2\n
        b.ne wrong\n mov x8,#93\n svc #0\nwrong: mov x0,#200\n mov x8,#93\n svc #0\n.ltorg\n
        .section .function,\"ax\"\nfunction: .byte {}\n.section .gate,\"ax\"\n.byte {}\n
        .section .new,\"ax\"\n.byte {}\n.org 0x100\n paciasp\n mrs x16,nzcv\n mov w17,#0x90000000\n cmp w16,w17\n b.ne wrong\n{}
        sub x16,x0,#5\n cbnz x16,wrong\n mov w0,#77\n retaa\n
        .section .commit,\"aw\"\n.long {word}\n.section .var,\"aw\"\n.long 30\n.section .start\nsaved = 0x420200\n
        .section .saved,\"aw\"\n.xword 0\n",
        look(2),
        list(function),
        list(gate),
        list(hop),
        look(1),
    );
    let source = source.replace("adr x1,saved", "ldr x1,=saved");
    let commit = if far { FAR_COMMIT } else { COMMIT };
    let places = [
        ("start", 0x40_0000),
        ("function", FUNCTION),
        ("gate", GATE),
        ("new", NEW),
        ("commit", commit),
        ("var", VAR),
        ("saved", 0x42_0200),
    ];
    run_program(&source, &places)
}

/// The hook with a list of two patches, of which the first has been taken away: who asks for what, gets the answer that
/// stands there, and everything else is the old function's affair.
#[test]
fn the_hook_answers_for_its_list() {
    if tools() || missing(&["qemu-aarch64"]) {
        return;
    }
    const LIST: u64 = 0x42_0000;
    for pad in ["bti c", "paciasp"] {
        let hook = aarch64().unwind_hook_behind(&assemble(pad, FUNCTION), RemoteAddr(LIST)).unwrap();
        // The second patch is at 0x5000 to 0x6000, with functions at 0x5000 to 0x5010 and 0x5100 to 0x5200.
        for (pc, want) in [
            (0x5000, 1),
            (0x500f, 1),
            (0x5010, 0),
            (0x5100, 2),
            (0x51ff, 2),
            (0x5fff, 0),
            (0x6000, 99),
            (0x4fff, 99),
            (0x1000, 99),
        ] {
            let undo = if pad == "paciasp" { "autiasp" } else { "" };
            let source = format!(
                ".arch armv8.5-a\n.section .start,\"ax\"\n.globl _start\n_start:\n ldr x0,={pc}\n ldr x1,=bases\n bl find\n
                 mov x8,#93\n cbz x0,1f\n cmp x0,#99\n b.eq 1f\n ldr x1,=bases\n ldp x2,x3,[x1]\n ldr x4,[x1,#16]\n orr x2,x2,x3\n
                 cbnz x2,2f\n mov x3,#0x5000\n mov x5,#0x5100\n cmp x0,#1\n csel x3,x3,x5,eq\n cmp x3,x4\n b.eq 1f\n
                 2: mov x0,#200\n 1: svc #0\n.ltorg\n
                 .section .function,\"ax\"\nfind: {pad}\n.byte {}\n ldr x2,=bases\n cmp x1,x2\n b.ne 3f\n ldr x2,={pc}\n cmp x0,x2\n
                 b.ne 3f\n mov x0,#99\n {undo}\n ret\n 3: mov x0,#201\n {undo}\n ret\n.ltorg\n
                 .section .list,\"aw\"\n.xword 2,0,0,0, 0x1000,0,7,7, 0x5000,0x6000,functions,2\n
                 functions: .xword 0x5000,0x5010,1, 0x5100,0x5200,2\nbases: .xword -1,-1,-1\n",
                list(&hook),
            );
            let got = run_program(&source, &[("start", 0x40_0000), ("function", FUNCTION), ("list", LIST)]);
            assert_eq!(got, Some(want), "{pad}, pc {pc:#x}");
        }
    }
}

/// In guarded pages (BTI) a call through a register must land on a pad: what stays of a patched function's entry is one,
/// and our jumps through x16 and x17 land on those of others.
#[test]
fn guarded_pages_are_entered_through_pads() {
    if tools() || missing(&["qemu-aarch64"]) {
        return;
    }
    let far = NEW + (1 << 28);
    // The entry, how it is called, whether the jump takes the pad's place, what becomes of it.
    const SIGILL: Option<i32> = Some(-4);
    for (entry, call, over_pad, want) in [
        ("bti c", "blr x9", false, Some(77)),
        ("bti c", "blr x9", true, SIGILL),
        ("bti jc", "blr x9", false, Some(77)),
        ("paciasp", "blr x9", false, Some(77)),
        ("paciasp", "blr x9", true, SIGILL),
        ("pacibsp", "blr x9", false, Some(77)),
        ("nop", "bl function", false, Some(77)),
        ("nop", "blr x9", false, SIGILL),
    ] {
        let code = assemble(&format!("{entry}; nop"), FUNCTION);
        let pad = if over_pad { 0 } else { aarch64().landing_pad_len(&code) };
        let mut entered = code.clone();
        let jump = aarch64().entry_jump(RemoteAddr(FUNCTION + pad as u64), RemoteAddr(GATE)).unwrap();
        entered[pad..pad + 4].copy_from_slice(&jump);
        // The hop leads far to new code, which leads back through a linkage table entry of ours to the program's own end.
        let hop = aarch64().hop(RemoteAddr(GATE), &code[..pad], RemoteAddr(far)).unwrap();
        let plt = aarch64().plt_entry(RemoteAddr(far + 0x100), RemoteAddr(VAR)).unwrap();
        let source = format!(
            ".arch armv8.5-a\n.section .start,\"ax\"\n.globl _start\n_start:\n ldr x9,=function\n {call}\n mov x8,#93\n svc #0\n.ltorg\n
             own: bti c\n add x0,x0,#70\n ret\n
             .section .function,\"ax\"\nfunction: .byte {}\n.section .gate,\"ax\"\n.byte {}\n
             .section .new,\"ax\"\n paciasp\n stp x29,x30,[sp,#-16]!\n mov x0,#7\n bl .+0xf4\n ldp x29,x30,[sp],#16\n retaa\n
             .org 0x100\n.byte {}\n.section .var,\"aw\"\n.xword own\n",
            list(&entered),
            list(&hop),
            list(&plt),
        );
        let places = [("start", 0x40_0000), ("function", FUNCTION), ("gate", GATE), ("new", far), ("var", VAR)];
        // Not into a page of the code's.
        let note = "--section-start=.note.gnu.property=0x430000";
        let got = run_linked(&source, &places, &["-z", "force-bti", note]);
        assert_eq!(got, want, "{entry}; {call}, over the pad: {over_pad}");
    }
}
