// SPDX-License-Identifier: GPL-2.0-or-later
//! Gates of x86_64 against the GNU assembler and linker, which make the code that is expected, and against the processor,
//! which runs a function through its gate.

use object::{Object, ObjectSection};
use std::path::Path;
use std::process::Command;
use ulp_arch::{Arch, Commit, Gate, JumpError, RemoteAddr, Undisplaceable};

const FUNCTION: u64 = 0x40_1000;
const GATE: u64 = 0x41_0000;
const NEW: u64 = 0x41_1000;
const COMMIT: u64 = 0x42_0010;
const FAR_COMMIT: u64 = 0x7fff_1234_5670;
const OLD: u32 = 0xfa1e_0ff3;

fn x86_64() -> &'static dyn Arch {
    ulp_arch::by_name("x86_64").unwrap()
}

fn run(tool: &str, args: &[&str], dir: &Path) {
    let native = ulp_arch::host().is_some_and(|host| host.machine() == x86_64().machine());
    let tool = if native { tool.to_owned() } else { format!("x86_64-linux-gnu-{tool}") };
    let done = Command::new(&tool).args(args).current_dir(dir).output();
    let done = done.unwrap_or_else(|e| panic!("these tests need binutils: {tool}: {e}"));
    assert!(done.status.success(), "{tool}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The bytes of `source` linked at `address`.
fn assemble(source: &str, address: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.s"), format!(".text\n{source}\n")).unwrap();
    run("as", &["-o", "a.o", "a.s"], dir.path());
    let text = format!("-Ttext={address:#x}");
    let known = [("function", FUNCTION), ("new", NEW), ("commit", COMMIT), ("var", 0x42_0100)];
    let known = known.map(|(name, value)| format!("--defsym={name}={value:#x}"));
    let mut args = vec!["-e", "0", &text, "-o", "a", "a.o"];
    args.extend(known.iter().map(String::as_str));
    run("ld", &args, dir.path());
    let file = std::fs::read(dir.path().join("a")).unwrap();
    object::File::parse(&*file).unwrap().section_by_name(".text").unwrap().data().unwrap().to_vec()
}

fn gate_of(code: &[u8], at: usize, commit: u64) -> Result<Vec<u8>, JumpError> {
    let len = x86_64().displaceable(code, at).unwrap();
    let gate = Gate {
        at: RemoteAddr(GATE),
        commit: Commit { at: RemoteAddr(commit), old: OLD },
        new: RemoteAddr(NEW),
        from: RemoteAddr(FUNCTION + at as u64),
        displaced: &code[at..at + len],
    };
    let bytes = x86_64().gate(&gate)?;
    assert!(bytes.len() <= x86_64().gate_len(gate.displaced), "gate_len is a bound");
    Ok(bytes)
}

const NEAR: &str = "cmpl $0xfa1e0ff3,commit(%rip)\n jne new\n";
const FAR: &str = "lea -128(%rsp),%rsp\n push %rax\n movabs 0x7fff12345670,%eax\n cmp $0xfa1e0ff3,%eax\n pop %rax\n
    lea.d32 128(%rsp),%rsp\n jne new\n";

#[test]
fn gates_are_the_assemblers() {
    // Function, what of it is displaced, what its gate has behind the question.
    let rows: [(&str, &str, usize, usize, &str); 14] = [
        (
            "as they are",
            "push %rbp; mov %rsp,%rbp; sub $16,%rsp; ret",
            0,
            8,
            "push %rbp; mov %rsp,%rbp; sub $16,%rsp; jmp function+8",
        ),
        (
            "landing pad",
            "endbr64; mov %edi,%eax; imul %esi,%eax; ret",
            4,
            5,
            "mov %edi,%eax; imul %esi,%eax; jmp function+9",
        ),
        ("rip-relative load", "mov var(%rip),%eax; ret", 0, 6, "mov var(%rip),%eax; jmp function+6"),
        ("and an immediate behind", "movl $7,var(%rip); ret", 0, 10, "movl $7,var(%rip); jmp function+10"),
        ("lea", "lea var(%rip),%rax; ret", 0, 7, "lea var(%rip),%rax; jmp function+7"),
        (
            "short jcc",
            "test %edi,%edi; jg 1f; inc %eax; nop; nop; 1: ret",
            0,
            6,
            "test %edi,%edi; {disp32} jg function+8; inc %eax; jmp function+6",
        ),
        (
            "near jcc",
            "test %edi,%edi; {disp32} jne function+60; .skip 60,0x90; ret",
            0,
            8,
            "test %edi,%edi; jne function+60; jmp function+8",
        ),
        (
            "short jmp ends",
            "mov %edi,%eax; nop; jmp 1f; .skip 9,0x90; 1: ret",
            0,
            5,
            "mov %edi,%eax; nop; jmp function+14",
        ),
        ("near jmp ends", "{disp32} jmp new", 0, 5, "jmp new"),
        ("ret ends", "mov %edi,%eax; ret", 0, 3, "mov %edi,%eax; ret"),
        ("ud2 ends", "ud2", 0, 2, "ud2"),
        ("jump through a slot", "jmp *var(%rip)", 0, 6, "jmp *var(%rip)"),
        (
            "loop to the entry",
            "1: dec %edi; nop; jne 1b; ret",
            0,
            5,
            "dec %edi; nop; {disp32} jne function; jmp function+5",
        ),
        ("thread storage", "mov %fs:0x10,%rax; ret", 0, 9, "mov %fs:0x10,%rax; jmp function+9"),
    ];
    for (name, function, at, len, rest) in rows {
        let code = assemble(function, FUNCTION);
        assert_eq!(x86_64().displaceable(&code, at), Ok(len), "{name}");
        for (commit, question) in [(COMMIT, NEAR), (FAR_COMMIT, FAR)] {
            let want = assemble(&format!("{question}{rest}"), GATE);
            assert_eq!(gate_of(&code, at, commit).unwrap(), want, "{name}, {commit:#x}");
        }
    }
}

#[test]
fn what_cannot_stand_elsewhere_is_told() {
    use Undisplaceable::{Instruction, JumpedInto};
    for (name, function, want) in [
        ("call", "push %rbp; call new; ret", Instruction),
        ("call through a register", "push %rbp; call *%rax; ret", Instruction),
        ("jrcxz", "jrcxz 1f; nop; nop; nop; 1: ret", Instruction),
        ("loop", "loop 1f; nop; nop; nop; 1: ret", Instruction),
        ("xbegin", "xbegin 1f; nop; 1: ret", Instruction),
        ("int3", "nop; int3; nop; nop; nop; ret", Instruction),
        ("hlt", "hlt; nop; nop; nop; nop; ret", Instruction),
        ("system call", "mov $39,%al; syscall; ret; nop; nop", Instruction),
        ("no instruction", "nop; .byte 6; nop; nop; nop; nop", Instruction),
        ("cut short", ".byte 0x48, 0x8b", Instruction),
        ("address of 32 bits", "mov 4(%eip),%eax; ret", Instruction),
        (
            "jump behind the first instruction",
            "xor %eax,%eax; 1: inc %eax; nop; nop; cmp %edi,%eax; jne 1b; ret",
            JumpedInto,
        ),
        ("call likewise", "nop; nop; 1: nop; nop; nop; call 1b; ret", JumpedInto),
        ("loop likewise", "nop; nop; 1: nop; nop; nop; loop 1b; ret", JumpedInto),
        ("address of a label there", "nop; 1: nop; nop; nop; nop; lea 1b(%rip),%rax; jmp *%rax", JumpedInto),
        ("from the displaced ones themselves", "jmp 1f; 1: nop; nop; nop; ret", JumpedInto),
        ("behind an early end, in the jump's bytes", "xor %eax,%eax; ret; 1: nop; nop; ret; jmp 1b", JumpedInto),
        ("not all can be seen", "nop; nop; nop; nop; nop; .byte 6; ret", JumpedInto),
    ] {
        let code = assemble(function, FUNCTION);
        assert_eq!(x86_64().displaceable(&code, 0), Err(want), "{name}");
    }
    for (name, function, len) in [
        ("jump to the entry", "nop; nop; nop; nop; nop; jmp function; ret", 5),
        ("jump to the first byte behind", "nop; nop; nop; nop; nop; 1: nop; jmp 1b", 5),
    ] {
        assert_eq!(x86_64().displaceable(&assemble(function, FUNCTION), 0), Ok(len), "{name}");
    }
    assert_eq!(x86_64().displaceable(&[], 0), Err(Instruction), "nothing");
    assert_eq!(x86_64().displaceable(&[0x90; 4], 5), Err(Instruction), "behind the code");
}

#[test]
fn what_is_out_of_reach_is_told() {
    let far = RemoteAddr(GATE + (1 << 32));
    let base = Gate {
        at: RemoteAddr(GATE),
        commit: Commit { at: RemoteAddr(COMMIT), old: 0 },
        new: RemoteAddr(NEW),
        from: RemoteAddr(FUNCTION),
        displaced: &[0x90; 5],
    };
    assert!(x86_64().gate(&base).is_ok());
    let new = x86_64().gate(&Gate { new: far, ..base });
    assert!(matches!(new, Err(JumpError::OutOfReach { to, .. }) if to == far), "{new:?}");
    let from = x86_64().gate(&Gate { from: far, ..base });
    assert!(matches!(from, Err(JumpError::OutOfReach { to, .. }) if to == far.plus(5)), "{from:?}");
    // mov var(%rip),%eax, where var is as far from the gate as a displacement reaches and a bit.
    let load = [0x8b, 0x05, 0xff, 0xff, 0xff, 0x7f];
    let load = x86_64().gate(&Gate { displaced: &load, from: RemoteAddr(GATE + 0x1000), ..base });
    assert!(matches!(load, Err(JumpError::OutOfReach { .. })), "{load:?}");
    // Bytes of a damaged package.
    for displaced in [&[0xe8, 0, 0, 0, 0][..], &[0xcc, 0x90, 0x90, 0x90, 0x90], &[0x48, 0x8b], &[0xc3, 0x90], &[6]] {
        assert_eq!(x86_64().gate(&Gate { displaced, ..base }), Err(JumpError::Displaced), "{displaced:x?}");
    }
}

/// A program with the function, the gate that we made for it behind an entry jump that we made, and new code. Its status
/// is what the function returned, plus 128 where a register or the red zone is not what it was.
#[test]
fn gates_ask_and_lead_on() {
    if ulp_arch::host().is_none_or(|host| host.machine() != x86_64().machine()) {
        println!("SKIPPED: the program is for x86_64, and this machine is not");
        return;
    }
    // The function gets edi = 5 and has var = 30; the new code returns 77.
    let rows = [
        ("moved as they are", "mov %edi,%eax; add $1,%eax; ret", 6),
        ("rip-relative", "mov var(%rip),%eax; add %edi,%eax; ret", 35),
        ("a jump that is taken", "test %edi,%edi; jne 1f; mov $1,%eax; ret; 1: mov $9,%eax; ret", 9),
        ("a jump that is not", "test %edi,%edi; je 1f; mov $1,%eax; ret; 1: mov $9,%eax; ret", 1),
        ("a loop to the entry", "1: dec %edi; nop; jne 1b; mov $11,%eax; ret", 11),
        ("its end is displaced", "lea 3(%rdi),%eax; ret; nop", 8),
    ];
    for (name, function, old) in rows {
        let code = assemble(function, FUNCTION);
        let jump = x86_64().entry_jump(RemoteAddr(FUNCTION), RemoteAddr(GATE)).unwrap();
        let mut entered = code.clone();
        entered.resize(code.len().max(jump.len()), 0x90);
        entered[..jump.len()].copy_from_slice(&jump);
        for far in [false, true] {
            let gate = gate_of(&code, 0, if far { FAR_COMMIT } else { COMMIT }).unwrap();
            for (word, want) in [(OLD, old), (OLD ^ 0x100, 77)] {
                let got = execute(&entered, &gate, far, word);
                assert_eq!(got, Some(want), "{name}, far: {far}, word {word:#x}");
            }
        }
    }
}

fn execute(function: &[u8], gate: &[u8], far: bool, word: u32) -> Option<i32> {
    let list = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    let registers = ["rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "rbx", "rbp", "r12", "r13", "r14", "r15"];
    // The new code looks whether the gate left every register; the old one's own code may have changed rax.
    let set: String = registers.iter().enumerate().map(|(i, r)| format!("mov ${},%{r}\n", 1000 + i)).collect();
    let look = |from: usize| -> String {
        let look = |(i, r): (usize, &&str)| format!("cmp ${},%{r}\n jne wrong\n", 1000 + i);
        registers.iter().enumerate().skip(from).map(look).collect()
    };
    let source = format!(
        ".globl _start\n.section .start,\"ax\"\n_start:\n movl $0x5a5a5a5a,-16(%rsp)\n mov %rsp,saved\n{set} mov $5,%edi\n
        call function\n cmp %rsp,saved\n jne wrong\n {}\n cmpl $0x5a5a5a5a,-16(%rsp)\n jne wrong\n
        mov %eax,%edi\n mov $60,%eax\n syscall\nwrong: mov $200,%edi\n mov $60,%eax\n syscall\n
        .section .function,\"ax\"\nfunction: .byte {}\n.section .gate,\"ax\"\n.byte {}\n
        .section .new,\"ax\"\n{} cmp $1000,%rax\n jne wrong\n mov $77,%eax\n ret\n
        .section .commit,\"aw\"\n.long {word}\n.section .var,\"aw\"\n.long 30\n.section .saved,\"aw\"\nsaved: .quad 0\n",
        look(1),
        list(function),
        list(gate),
        look(1),
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.s"), source).unwrap();
    run("as", &["-o", "a.o", "a.s"], dir.path());
    let commit = if far { FAR_COMMIT } else { COMMIT };
    let places = [
        ("start", 0x40_0000),
        ("function", FUNCTION),
        ("gate", GATE),
        ("new", NEW),
        ("commit", commit),
        ("var", 0x42_0100),
        ("saved", 0x42_0200),
    ];
    let places = places.map(|(name, at)| format!("--section-start=.{name}={at:#x}"));
    let mut args = vec!["-o", "a", "a.o"];
    args.extend(places.iter().map(String::as_str));
    run("ld", &args, dir.path());
    Command::new(dir.path().join("a")).status().unwrap().code()
}
