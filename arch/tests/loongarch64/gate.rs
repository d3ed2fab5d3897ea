// SPDX-License-Identifier: GPL-2.0-or-later
//! Gates against the assembler, which makes the code that is expected, and against QEMU, which runs a function through its gate.

use super::{execute, instructions, listed, loongarch64, missing};
use ulp_arch::{Commit, Gate, JumpError, RemoteAddr, Undisplaceable};

const FUNCTION: u64 = 0x1000_0000;
const GATE: u64 = 0x1100_0000;
const NEW: u64 = 0x1200_0000;
const COMMIT: u64 = 0x1300_0010;
/// In a page of its own, of 64 KiB.
const VAR: u64 = 0x1001_0000;
const FAR_COMMIT: u64 = 0x20_1234_5670;
/// An instruction, as it is when a function's entry is asked: b and a bit of every part.
const OLD: u32 = 0x53f8_9abc;

/// The function's words have names, since the assembler takes a name alone as a place to branch to.
const KNOWN: [(&str, u64); 5] =
    [("f1", FUNCTION + 4), ("f2", FUNCTION + 8), ("f3", FUNCTION + 12), ("before", FUNCTION - 0x2_0000), ("new", NEW)];

fn assembled(source: &str, at: u64) -> Vec<u8> {
    instructions(source, at, &KNOWN)
}

fn gate_of(code: &[u8], commit: u64, old: u32) -> Result<Vec<u8>, JumpError> {
    let len = loongarch64().displaceable(code, 0).unwrap();
    let commit = Commit { at: RemoteAddr(commit), old };
    let (at, new, from) = (RemoteAddr(GATE), RemoteAddr(NEW), RemoteAddr(FUNCTION));
    let gate = Gate { at, commit, new, from, displaced: &code[..len] };
    let bytes = loongarch64().gate(&gate)?;
    assert!(bytes.len() <= loongarch64().gate_len(gate.displaced), "gate_len is a bound");
    Ok(bytes)
}

// COMMIT - GATE is 0x2000010.
const NEAR: &str = "pcaddu12i $r21,0x2000\n ld.w $r21,$r21,0x10\n";
const FAR: &str =
    "lu12i.w $r21,0x12345\n ori $r21,$r21,0x670\n lu32i.d $r21,0x20\n lu52i.d $r21,$r21,0\n ld.w $r21,$r21,0\n";
const COMPARE: &str = "xori $r21,$r21,0xabc\n rotri.w $r21,$r21,12\n xori $r21,$r21,0xf89\n rotri.w $r21,$r21,12\n xori $r21,$r21,0x053\n";
const ASK: &str = "beqz $r21,8\n b new\n";

#[test]
fn gates_are_the_assemblers() {
    if missing() {
        return;
    }
    // Function, what of it is displaced, what its gate has behind the question. var is 0x10010000.
    let value = "lu12i.w $a0,0x10010\n ori $a0,$a0,0\n lu32i.d $a0,0\n lu52i.d $a0,$a0,0\n b f1";
    let rows: [(&str, &str, usize, &str); 15] = [
        ("as it is", "addi.d $sp,$sp,-16\n ret", 4, "addi.d $sp,$sp,-16\n b f1"),
        ("load", "ld.w $a0,$a0,4\n ret", 4, "ld.w $a0,$a0,4\n b f1"),
        ("pcaddi", "pcaddi $a0,0x4000\n ret", 4, value),
        ("pcalau12i", "pcalau12i $a0,16\n ret", 4, value),
        ("pcaddu12i", "pcaddu12i $a0,16\n ret", 4, value),
        (
            "pcaddu18i",
            "pcaddu18i $a0,-0x80000\n ret",
            4,
            "lu12i.w $a0,0x10000\n ori $a0,$a0,0\n lu32i.d $a0,-0x20\n lu52i.d $a0,$a0,-1\n b f1",
        ),
        ("beq", "beq $a0,$a1,8\n nop\n ret", 4, "beq $a0,$a1,8\n b f1\n b f2"),
        ("bgeu back", "bgeu $t0,$s8,-0x20000\n ret", 4, "bgeu $t0,$s8,8\n b f1\n b before"),
        ("bnez", "bnez $a7,12\n nop\n nop\n ret", 4, "bnez $a7,8\n b f1\n b f3"),
        ("bceqz", "bceqz $fcc7,8\n nop\n ret", 4, "bceqz $fcc7,8\n b f1\n b f2"),
        ("b", "b new", 4, "b new"),
        ("ret", "ret", 4, "ret"),
        ("jr", "jirl $zero,$t0,16", 4, "jirl $zero,$t0,16"),
        ("trap", "break 0", 4, "break 0"),
        (
            "far tail call",
            // from the function to var + 0x123450000000
            "pcaddu18i $t0,0x44d14\n jirl $zero,$t0,0x2000",
            8,
            "",
        ),
    ];
    for (name, function, len, rest) in rows {
        let code = assembled(function, FUNCTION);
        assert_eq!(loongarch64().displaceable(&code, 0), Ok(len), "{name}");
        for (commit, old, question) in [
            (COMMIT, 0, NEAR.to_owned()),
            (COMMIT, OLD, format!("{NEAR}{COMPARE}")),
            (FAR_COMMIT, 0, FAR.to_owned()),
            (FAR_COMMIT, OLD, format!("{FAR}{COMPARE}")),
        ] {
            let rest = if rest.is_empty() {
                // As far from its place in the gate: the pair's low part is the assembler's business.
                let at = GATE + 4 * (question.lines().filter(|l| !l.trim().is_empty()).count() as u64 + 2);
                let distance = (FUNCTION + (0x44d14 << 18) + 0x2000) - at;
                let rounded = distance + 0x2_0000;
                let lower = (rounded & 0x3_ffff) as i64 - 0x2_0000;
                format!("pcaddu18i $t0,{}\n jirl $zero,$t0,{lower}", rounded >> 18)
            } else {
                rest.to_owned()
            };
            let want = assembled(&format!("{question}{ASK}{rest}"), GATE);
            assert_eq!(gate_of(&code, commit, old).unwrap(), want, "{name}, {commit:#x}, {old:#x}");
        }
    }
}

#[test]
fn what_cannot_stand_elsewhere_is_told() {
    use Undisplaceable::{Instruction, JumpedInto};
    if missing() {
        return;
    }
    for (name, function, want) in [
        ("call", "bl new\n ret", Instruction),
        ("call through a register", "jirl $ra,$t0,0\n ret", Instruction),
        ("call that links elsewhere", "jirl $t1,$t3,0\n ret", Instruction),
        ("far call", "pcaddu18i $ra,1\n jirl $ra,$ra,0\n ret", Instruction),
        ("system call", "syscall 0\n ret", Instruction),
        ("debugger's break", "break 5\n ret", Instruction),
        ("no instruction", ".word 0\n ret", Instruction),
        ("jump between a far jump's two", "1: pcaddu18i $t0,1\n 2: jirl $zero,$t0,0\n beqz $a0,2b\n ret", JumpedInto),
        ("call likewise", "pcaddu18i $t0,1\n 2: jirl $zero,$t0,0\n bl 2b\n ret", JumpedInto),
        ("address of it", "pcaddu18i $t0,1\n 2: jirl $zero,$t0,0\n pcaddi $a0,-1\n ret", JumpedInto),
        ("not all can be seen", "nop\n ret\n .word 0", JumpedInto),
        ("not whole", "nop\n ret\n .byte 0,0", JumpedInto),
    ] {
        let code = assembled(function, FUNCTION);
        assert_eq!(loongarch64().displaceable(&code, 0), Err(want), "{name}");
    }
    let looping = assembled("1: addi.d $a0,$a0,-1\n bnez $a0,1b\n b 1b", FUNCTION);
    assert_eq!(loongarch64().displaceable(&looping, 0), Ok(4), "jumps to the entry");
    assert_eq!(loongarch64().displaceable(&[], 0), Err(Instruction), "nothing");
    assert_eq!(loongarch64().displaceable(&looping, 12), Err(Instruction), "behind the code");
}

#[test]
fn what_is_out_of_reach_is_told() {
    const NOP: [u8; 4] = [0, 0, 0x40, 0x03];
    let base = Gate {
        at: RemoteAddr(GATE),
        commit: Commit { at: RemoteAddr(COMMIT), old: 0 },
        new: RemoteAddr(NEW),
        from: RemoteAddr(FUNCTION),
        displaced: &NOP,
    };
    assert!(loongarch64().gate(&base).is_ok());
    let far = RemoteAddr(GATE + (1 << 27) + 0x100);
    let new = loongarch64().gate(&Gate { new: far, ..base });
    assert!(matches!(new, Err(JumpError::OutOfReach { to, .. }) if to == far), "{new:?}");
    let from = loongarch64().gate(&Gate { from: far, ..base });
    assert!(matches!(from, Err(JumpError::OutOfReach { to, .. }) if to == far.plus(4)), "{from:?}");
    // Bytes of a damaged package: bl, syscall, ret and more, half an instruction, none.
    let (bl, syscall) = ([0, 0, 0, 0x54], [0, 0, 0x2b, 0]);
    for displaced in [&bl[..], &syscall, &[0x20, 0, 0, 0x4c, 0, 0, 0x40, 3], &[0, 0], &[0; 4]] {
        assert_eq!(loongarch64().gate(&Gate { displaced, ..base }), Err(JumpError::Displaced), "{displaced:x?}");
    }
}

/// Every register a gate must leave alone.
const KEPT: [&str; 24] = [
    "a1", "a2", "a3", "a4", "a5", "a6", "a7", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "fp", "s0", "s1", "s2",
    "s3", "s4", "s5", "s6", "s7",
];

/// A program with the function, the gate that we made for it behind an entry jump that we made, and new code. Its status is what
/// the function returned, or 200 where a register is not what it was.
#[test]
fn gates_ask_and_lead_on() {
    if missing() {
        return;
    }
    // The function gets a0 = 5 and has var = 30; the new code returns 77.
    let rows = [
        ("moved as it is", "addi.d $a0,$a0,1\n ret", 6),
        ("pcaddi", "pcaddi $t0,0x4000\n ld.w $t0,$t0,0\n add.d $a0,$a0,$t0\n ret", 35),
        ("pcalau12i", "pcalau12i $t0,16\n ld.w $t0,$t0,0\n add.d $a0,$a0,$t0\n ret", 35),
        ("pcaddu12i", "pcaddu12i $t0,16\n ld.w $t0,$t0,0\n add.d $a0,$a0,$t0\n ret", 35),
        ("pcaddu18i", "pcaddu18i $t0,0\n pcaddi $t1,-1\n sub.d $a0,$t0,$t1\n ret", 0),
        ("a branch that is taken", "bnez $a0,12\n li.w $a0,1\n ret\n li.w $a0,9\n ret", 9),
        ("a branch that is not", "beqz $a0,12\n li.w $a0,1\n ret\n li.w $a0,9\n ret", 1),
        ("a comparison", "bne $a0,$zero,12\n li.w $a0,1\n ret\n li.w $a0,9\n ret", 9),
        ("a loop to the entry", "1: addi.d $a0,$a0,-1\n bnez $a0,1b\n li.w $a0,11\n ret", 11),
        ("its end is displaced", "ret", 5),
        ("a jump", "b 8\n nop\n li.w $a0,8\n ret", 8),
        ("a far tail call", "pcaddu18i $t0,0\n jirl $zero,$t0,12\n nop\n li.w $a0,12\n ret", 12),
    ];
    for (name, function, old) in rows {
        let code = assembled(function, FUNCTION);
        let mut entered = code.clone();
        let jump = loongarch64().entry_jump(RemoteAddr(FUNCTION), RemoteAddr(GATE)).unwrap();
        entered[..jump.len()].copy_from_slice(&jump);
        // One bit of each part that is compared by itself; one question of each kind does for what is displaced.
        let all = name == "moved as it is";
        let bits: &[u32] = if all { &[0x100, 0x8000_0000, 0x10_0000, 0xffff_ffff] } else { &[0x100] };
        for (commit, asked) in [(COMMIT, 0), (FAR_COMMIT, OLD), (COMMIT, OLD), (FAR_COMMIT, 0)] {
            if !all && (commit == COMMIT) == (asked == OLD) {
                continue;
            }
            let gate = gate_of(&code, commit, asked).unwrap();
            for (word, want) in bits.iter().map(|bit| (asked ^ bit, 77)).chain([(asked, old)]) {
                let got = through(&entered, &gate, commit, word);
                assert_eq!(got, Some(want), "{name}, {commit:#x}, asks for {asked:#x}, finds {word:#x}");
            }
        }
    }
}

fn through(function: &[u8], gate: &[u8], commit: u64, word: u32) -> Option<i32> {
    let set: String = KEPT.iter().enumerate().map(|(i, r)| format!(" li.w ${r},{}\n", 1000 + i)).collect();
    // The old code may have changed t0 and t1, and t0 is what compares.
    let look = |label: &str, but: &[&str]| -> String {
        let kept = KEPT.iter().enumerate().filter(|(_, r)| !but.contains(r));
        kept.map(|(i, r)| format!(" li.w $t0,{}\n bne ${r},$t0,{label}\n", 1000 + i)).collect()
    };
    let source = format!(
        ".globl _start\n.section .text,\"ax\"\n_start:\n move $s8,$sp\n{set} li.w $a0,5\n bl function\n bne $s8,$sp,wrong\n{}
         li.w $a7,93\n syscall 0\nwrong: li.w $a0,200\n li.w $a7,93\n syscall 0\n
         .section .function,\"ax\"\nfunction: .byte {}\n.section .gate,\"ax\"\n.byte {}\n
         .section .new,\"ax\"\n{} li.w $a0,77\n ret\nwrong_new: li.w $a0,201\n ret\n
         .section .commit,\"aw\"\n.word {word}\n.section .var,\"aw\"\n.word 30\n",
        look("wrong", &["t1"]),
        listed(function),
        listed(gate),
        look("wrong_new", &[]),
    );
    let sections = [("text", 0x1400_0000), ("function", FUNCTION), ("gate", GATE), ("new", NEW), ("var", VAR)];
    execute(&source, &[&sections[..], &[("commit", commit)]].concat())
}
