// SPDX-License-Identifier: GPL-2.0-or-later
//! The x86_64 column against the GNU assembler, linker and disassembler: every relocation row that a patch can carry is
//! linked by `ld` and by us, every jump is assembled by `as` and by us, and the bytes must be the same.

use object::{Object, ObjectSection};
use std::fs;
use std::path::Path;
use std::process::Command;
use ulp_arch::{Arch, Call, Formula, JumpError, Range, Regs, RelocRow, RemoteAddr};

const TEXT: u64 = 0x40_1000;
/// Where in `.text` the field stands, between bytes that must stay as they are.
const FIELD: u64 = 16;
const ADDEND: i64 = 3;
const SIZE: i64 = 77;

fn x86_64() -> &'static dyn Arch {
    ulp_arch::by_name("x86_64").unwrap()
}

/// Runs a tool for x86_64, on other machines the cross one; `None` when it says no.
fn run(tool: &str, args: &[&str], dir: &Path) -> Option<Vec<u8>> {
    let native = ulp_arch::host().is_some_and(|host| host.machine() == x86_64().machine());
    let tool = if native { tool.to_owned() } else { format!("x86_64-linux-gnu-{tool}") };
    let done = Command::new(&tool).args(args).current_dir(dir).output();
    let done = done.unwrap_or_else(|e| panic!("these tests need binutils: {tool}: {e}"));
    done.status.success().then_some(done.stdout)
}

fn assemble(source: &str, dir: &Path) -> Vec<u8> {
    fs::write(dir.join("a.s"), source).unwrap();
    run("as", &["-o", "a.o", "a.s"], dir).unwrap_or_else(|| panic!("as refuses:\n{source}"));
    fs::read(dir.join("a.o")).unwrap()
}

fn text_of(file: &[u8]) -> Vec<u8> {
    object::File::parse(file).unwrap().section_by_name(".text").unwrap().data().unwrap().to_vec()
}

/// The bytes of one instruction at [`TEXT`], from `as` and, where it names the symbol `to`, `ld`.
fn instruction(text: &str, to: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    assemble(&format!(".text\n{text}\n"), dir.path());
    let text = format!("-Ttext={TEXT:#x}");
    let to = format!("--defsym=to={to:#x}");
    run("ld", &["-e", "0", &text, &to, "-o", "a", "a.o"], dir.path()).expect("ld links one instruction");
    text_of(&fs::read(dir.path().join("a")).unwrap())
}

/// Values at and around the limits of a range, and one in the middle.
fn values(row: &RelocRow) -> Vec<i64> {
    let bits = match row.range {
        Range::Signed(bits) | Range::Unsigned(bits) | Range::Either(bits) => bits,
        Range::Any | Range::Within(..) => 64,
    };
    let (half, full) = (1i128 << (bits - 1), 1i128 << bits);
    let all = [0, 0x12, half - 1, half, -half, -half - 1, full - 1, full, -full, -1];
    all.into_iter().filter_map(|v| i64::try_from(v).ok()).collect()
}

/// One row through `ld`: the linked section, and the value that the row's formula has there. `None`: `ld` refuses it.
fn link(row: &RelocRow, value: i64, dir: &Path) -> Option<(Vec<u8>, i64)> {
    let place = TEXT + FIELD;
    let text = format!("-Ttext={TEXT:#x}");
    // The symbol's address which makes the formula give `value`.
    let symbol = match row.formula {
        Formula::Absolute => value.wrapping_sub(ADDEND),
        Formula::PcRelative | Formula::PltPcRelative => value.wrapping_sub(ADDEND).wrapping_add(place as i64),
        _ => 0x12_3456,
    };
    let defined = format!("--defsym=sym={symbol:#x}");
    let mut args = vec!["--no-relax", "-e", "0", &text, "-o", "a", "a.o"];
    match row.formula {
        Formula::TpSlotPcRelative | Formula::ThreadSlotPcRelative(_) | Formula::ModuleOffset => args.push("-shared"), // else ld turns the slot into a constant
        Formula::TpOffset | Formula::Size => {}
        _ => args.push(&defined),
    }
    run("ld", &args, dir)?;
    let linked = fs::read(dir.join("a")).unwrap();
    let elf = object::File::parse(&*linked).unwrap();
    let pc_relative = |slot: u64| (slot as i64).wrapping_add(ADDEND).wrapping_sub(place as i64);
    let value = match row.formula {
        Formula::GotPcRelative => {
            let got = elf.section_by_name(".got").unwrap();
            assert_eq!(got.data().unwrap(), symbol.to_le_bytes(), "the slot holds the symbol's address");
            pc_relative(got.address())
        }
        Formula::ModuleOffset => 12 + ADDEND,
        Formula::TpSlotPcRelative | Formula::ThreadSlotPcRelative(_) => {
            let (slot, _) = elf.dynamic_relocations().unwrap().next().expect("the loader fills the slot");
            pc_relative(slot)
        }
        Formula::TpOffset => {
            // The thread pointer stands at the end of the executable's block; the variable 12 bytes into its 16.
            assert_eq!(elf.section_by_name(".tbss").unwrap().size(), 16);
            12 + ADDEND - 16
        }
        Formula::Size => SIZE + ADDEND,
        _ => value,
    };
    Some((text_of(&linked), value))
}

#[test]
fn every_relocation_row_as_the_linker_does_it() {
    let mut rows = 0;
    for row in x86_64().relocations() {
        if matches!(row.formula, Formula::Nothing | Formula::Unsupported) {
            continue;
        }
        let symbol = match row.formula {
            Formula::TpOffset | Formula::TpSlotPcRelative => "var",
            Formula::ThreadSlotPcRelative(_) | Formula::ModuleOffset => "var",
            Formula::Size => "sized",
            _ => "sym",
        };
        let dir = tempfile::tempdir().unwrap();
        let source = format!(
            ".section .tbss,\"awT\",@nobits\n .skip 12\n .hidden var\n .globl var\n var: .skip 4\n\
             .text\n .type sized,@object\n .size sized,{SIZE}\n sized:\n\
             .fill {FIELD},1,0xaa\n .reloc .,{},{symbol}+{ADDEND}\n .fill 32,1,0xaa\n",
            row.name
        );
        let object = assemble(&source, dir.path());
        let elf = object::File::parse(&*object).unwrap();
        let (_, reloc) = elf.section_by_name(".text").unwrap().relocations().next().unwrap();
        let object::RelocationFlags::Elf { r_type } = reloc.flags() else { panic!("not elf") };
        assert_eq!(r_type.0, row.r_type, "the number of {}", row.name);

        let free = matches!(row.formula, Formula::Absolute | Formula::PcRelative | Formula::PltPcRelative);
        let mut same = 0;
        for value in if free { values(row) } else { vec![0] } {
            let mut ours = text_of(&object);
            match link(row, value, dir.path()) {
                Some((theirs, value)) => match row.insert(&mut ours, FIELD as usize, value) {
                    Ok(()) => {
                        assert_eq!(ours, theirs, "{} of {value:#x}", row.name);
                        same += 1;
                    }
                    // Below 32 bits the linker takes whatever has all upper bits alike; we take what can be read back.
                    Err(e) => assert!(row.field.size() < 4, "ld accepts what we refuse: {e}"),
                },
                None => {
                    let error = row.insert(&mut ours, FIELD as usize, value);
                    assert!(error.is_err(), "ld refuses {} of {value:#x}, we do not", row.name);
                    assert_eq!(ours, text_of(&object), "a refused value leaves no trace");
                }
            }
        }
        assert!(same >= if free { 4 } else { 1 }, "only {same} values of {} were linked", row.name);
        rows += 1;
    }
    assert!(rows >= 22, "only {rows} rows were looked at");
}

#[test]
fn rows_are_found_by_number_and_names_are_unique() {
    let rows = x86_64().relocations();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(x86_64().relocation(row.r_type), Some(row), "{}", row.name);
        assert!(rows[..i].iter().all(|other| other.name != row.name), "{} is there twice", row.name);
    }
    assert_eq!(x86_64().relocation(200), None);
}

#[test]
fn entry_jumps_as_the_assembler_makes_them() {
    let from = RemoteAddr(TEXT);
    // A displacement counts from the end of the five bytes.
    let (first, last) = (TEXT.wrapping_add(5).wrapping_sub(1 << 31), TEXT + 5 + (1 << 31) - 1);
    for to in [TEXT, TEXT + 5, TEXT - 0x1000, TEXT + 0x7000_0000, first, last] {
        let ours = x86_64().entry_jump(from, RemoteAddr(to)).unwrap();
        assert_eq!(ours.len(), x86_64().entry_jump_len());
        assert_eq!(ours, instruction("jmp to", to), "jmp {to:#x}");
    }
    for to in [first.wrapping_sub(1), last + 1, u64::MAX / 2] {
        let error = x86_64().entry_jump(from, RemoteAddr(to));
        assert_eq!(error, Err(JumpError::OutOfReach { from, to: RemoteAddr(to) }));
    }
    // The end of the address space is no limit: the processor's addition wraps.
    assert_eq!(x86_64().entry_jump(RemoteAddr(u64::MAX - 4), RemoteAddr(0)), Ok(vec![0xe9, 0, 0, 0, 0]));
}

#[test]
fn linkage_table_entries_as_the_assembler_makes_them() {
    let at = RemoteAddr(TEXT);
    let last = TEXT + 6 + (1 << 31) - 1;
    for slot in [TEXT + 8, TEXT - 0x2000, TEXT + 0x7fff_0000, last] {
        let ours = x86_64().plt_entry(at, RemoteAddr(slot)).unwrap();
        assert_eq!(ours.len(), x86_64().plt_entry_len());
        assert_eq!(ours, instruction("jmp *to(%rip)\nxchg %ax,%ax", slot), "{slot:#x}");
    }
    assert!(x86_64().plt_entry(at, RemoteAddr(last + 1)).is_err());
}

#[test]
fn landing_pads() {
    let code = instruction("endbr64\npush %rbp", 0);
    assert_eq!(x86_64().landing_pad_len(&code), 4);
    assert_eq!(x86_64().landing_pad_len(&instruction("endbr32\npush %rbp", 0)), 0, "endbr32 is none in 64-bit code");
    assert_eq!(x86_64().landing_pad_len(&code[..3]), 0);
}

/// The names of the kernel's words, in its order (<sys/user.h>, struct user_regs_struct).
const WORDS: [&str; 27] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
];

fn word(name: &str) -> usize {
    WORDS.iter().position(|w| *w == name).unwrap()
}

/// Registers with a different value in every word, stopped outside any call.
fn marked() -> Regs {
    let mut regs = Regs::zeroed(x86_64().regs_len());
    for (i, value) in regs.words.iter_mut().enumerate() {
        *value = 0x1111_0000 + i as u64;
    }
    regs.words[word("orig_rax")] = u64::MAX;
    regs
}

#[test]
fn words_stand_where_the_kernel_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let fields: String =
        WORDS.iter().map(|w| format!("_Static_assert(offsetof(U,{w})==8*{},\"\");", word(w))).collect();
    let source = format!(
        "#include <stddef.h>\n#include <sys/user.h>\ntypedef struct user_regs_struct U;\n{fields}\n\
         _Static_assert(sizeof(U)==8*{},\"\");",
        x86_64().regs_len()
    );
    fs::write(dir.path().join("w.c"), source).unwrap();
    run("gcc", &["-fsyntax-only", "w.c"], dir.path()).expect("the words are those of <sys/user.h>");
    let regs = marked();
    assert_eq!(x86_64().pc(&regs), regs.words[word("rip")]);
    assert_eq!(x86_64().sp(&regs), regs.words[word("rsp")]);
    assert_eq!(x86_64().thread_pointer(&regs), Some(regs.words[word("fs_base")]));
    // psABI, figure 3.36.
    let dwarf = [
        "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
        "rip",
    ];
    for (number, name) in (0..).zip(dwarf) {
        assert_eq!(x86_64().dwarf_slot(number), Some(word(name)), "{name}");
    }
    assert_eq!(x86_64().dwarf_slot(17), None);
    assert_eq!((x86_64().dwarf_sp(), x86_64().dwarf_ra()), (7, 16));
}

/// What a thread does that finds itself at the stub without a tracer: its code, interpreted from the disassembly.
fn walk(stub: &[u8], regs: &Regs) -> Regs {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("stub"), stub).unwrap();
    let listing =
        run("objdump", &["-D", "-b", "binary", "-m", "i386:x86-64", "--no-show-raw-insn", "stub"], dir.path());
    let listing = String::from_utf8(listing.unwrap()).unwrap();
    let mut regs = *regs;
    let mut lines = listing.lines().filter_map(|line| line.split_once(":\t").map(|(_, insn)| insn));
    assert_eq!(lines.next().map(str::trim), Some("syscall"));
    // syscall leaves the result in rax, and destroys rcx and r11; the set-up destroyed the arguments.
    for name in ["rax", "rcx", "r11", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rip"] {
        regs.words[word(name)] = 0xdead;
    }
    for line in lines {
        // mov 0x57(%rip),%rax        # 0x60
        let (insn, slot) = line.split_once('#').unwrap_or_else(|| panic!("{line:?} takes nothing from the pool"));
        let slot = usize::from_str_radix(slot.trim().trim_start_matches("0x"), 16).unwrap();
        let value = u64::from_le_bytes(stub[slot..slot + 8].try_into().unwrap());
        if insn.starts_with("jmp") {
            regs.words[word("rip")] = value;
            return regs;
        }
        let (_, name) = insn.trim().split_once(",%").unwrap_or_else(|| panic!("{insn:?} loads no register"));
        assert!(insn.starts_with("mov "), "{insn}");
        regs.words[word(name)] = value;
    }
    panic!("the stub never leaves:\n{listing}");
}

#[test]
fn the_stub_puts_every_register_back() {
    let saved = marked();
    let stub = x86_64().stub(&saved).unwrap().bytes;
    assert!(stub.len() <= x86_64().stub_len());
    let at = RemoteAddr(0x7000);
    let call = x86_64().call_regs(&saved, at, Call::Mmap, [1, 2, 3, 4, 5, 6]);
    let set = ["rdi", "rsi", "rdx", "r10", "r8", "r9"].map(|name| call.words[word(name)]);
    assert_eq!(set, [1, 2, 3, 4, 5, 6]);
    assert_eq!((x86_64().pc(&call), call.words[word("rax")]), (at.0, x86_64().call_number(Call::Mmap)));
    assert!(!x86_64().in_system_call(&call), "the kernel must find nothing to restart");
    let mut back = walk(&stub, &call);
    back.words[word("orig_rax")] = saved.words[word("orig_rax")];
    assert_eq!(back, saved);
}

#[test]
fn the_stub_resumes_an_interrupted_call() {
    const EPOLL_WAIT: u64 = 232;
    const POLL: u64 = 7;
    const CLOSE: u64 = 3;
    const RESTART: u64 = 219;
    // (number, result at the stop) -> what the thread must do: the call again, restart_syscall, or nothing.
    for (number, result, again) in [
        (POLL, -512i64, Some(POLL)),
        (POLL, -513, Some(POLL)),
        (POLL, -514, Some(POLL)),
        (POLL, -516, Some(RESTART)),
        (EPOLL_WAIT, -4, Some(EPOLL_WAIT)),
        (CLOSE, -4, None),
        (POLL, -515, None),
        (POLL, 3, None),
        (POLL, i64::MIN, None),
    ] {
        let mut saved = marked();
        saved.words[word("orig_rax")] = number;
        saved.words[word("rax")] = result as u64;
        let back = walk(&x86_64().stub(&saved).unwrap().bytes, &saved);
        let (rax, rip) = (back.words[word("rax")], x86_64().pc(&back));
        let expected = match again {
            // Two bytes back: onto the `syscall` instruction.
            Some(number) => (number, x86_64().pc(&saved) - 2),
            None => (result as u64, x86_64().pc(&saved)),
        };
        assert_eq!((rax, rip), expected, "call {number} stopped with {result}");
        assert_eq!(x86_64().in_restart_block(&saved), result == -516);
    }
}

#[test]
fn the_cure_is_for_listed_calls_with_eintr_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("n.c"), "#include <asm/unistd_64.h>\n").unwrap();
    let macros = run("gcc", &["-E", "-dM", "n.c"], dir.path()).unwrap();
    let macros = String::from_utf8(macros).unwrap();
    let number = |name: &str| {
        let line = macros.lines().find_map(|l| l.strip_prefix(&format!("#define __NR_{name} ")));
        line.unwrap_or_else(|| panic!("no call {name}")).parse::<u64>().unwrap()
    };
    let listed = [
        "epoll_wait",
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
    let listed: Vec<u64> = listed.into_iter().map(number).collect();
    let stopped = |number: u64, result: i64| {
        let mut regs = marked();
        regs.words[word("orig_rax")] = number;
        regs.words[word("rax")] = result as u64;
        regs
    };
    for call in 0..512 {
        let mut regs = stopped(call, -4);
        let cured = x86_64().cure_eintr(&mut regs);
        assert_eq!(cured, listed.contains(&call), "call {call}");
        assert_eq!(regs, stopped(call, if cured { -514 } else { -4 }));
        let mut other = stopped(call, -11);
        assert!(!x86_64().cure_eintr(&mut other));
        assert_eq!(other, stopped(call, -11));
    }
    let calls = [
        (Call::Mmap, "mmap"),
        (Call::Munmap, "munmap"),
        (Call::Mprotect, "mprotect"),
        (Call::SignalAction, "rt_sigaction"),
    ];
    for (call, name) in calls {
        assert_eq!(x86_64().call_number(call), number(name));
    }
}
