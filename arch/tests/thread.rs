// SPDX-License-Identifier: GPL-2.0-or-later
//! Calls for thread-local variables, rewritten by us and by GNU ld: byte for byte the same, and read back for what they are.

use object::{Object, ObjectSection, ObjectSymbol};
use std::path::Path;
use std::process::Command;
use ulp_arch::{Arch, LinkAddr, LinkedForm, ThreadForm, ThreadModel};

/// A sequence; `VAR` is the variable.
struct Sequence {
    arch: &'static str,
    text: &'static str,
    /// Whether there is a way through a slot.
    slot: bool,
    /// Relocations of which nothing is left.
    gone: &'static [u32],
}

const fn x86(text: &'static str, slot: bool, gone: &'static [u32]) -> Sequence {
    Sequence { arch: "x86_64", text, slot, gone }
}
const fn a64(text: &'static str, gone: &'static [u32]) -> Sequence {
    Sequence { arch: "aarch64", text, slot: true, gone }
}

const SEQUENCES: [Sequence; 10] = [
    x86(
        ".byte 0x66; lea VAR@tlsgd(%rip),%rdi; .byte 0x66,0x66; rex.W call __tls_get_addr@plt; mov (%rax),%ebx",
        true,
        &[4],
    ),
    x86(
        ".byte 0x66; lea VAR@tlsgd(%rip),%rdi; .byte 0x66; rex.W call *__tls_get_addr@GOTPCREL(%rip); nop",
        true,
        &[41],
    ),
    x86("lea VAR@tlsld(%rip),%rdi; call __tls_get_addr@plt; add VAR@dtpoff(%rax),%ebx", false, &[20, 4]),
    x86("lea VAR@tlsld(%rip),%rdi; call *__tls_get_addr@GOTPCREL(%rip); mov %ebx,VAR@dtpoff(%rax)", false, &[20, 41]),
    x86("lea VAR@tlsdesc(%rip),%rax; call *VAR@tlscall(%rax); add %fs:0,%rax", true, &[]),
    x86("mov %rbx,%rcx; lea VAR@tlsdesc(%rip),%rax; call *VAR@tlscall(%rax); mov %fs:(%rax),%ecx", true, &[]),
    a64("adrp x0,:tlsgd:VAR; add x0,x0,:tlsgd_lo12:VAR; bl __tls_get_addr; nop; ldr w1,[x0]", &[283]),
    a64(
        "adrp x0,:tlsdesc:VAR; ldr x1,[x0,:tlsdesc_lo12:VAR]; add x0,x0,:tlsdesc_lo12:VAR; .tlsdesccall VAR; blr x1",
        &[564],
    ),
    a64(
        "adrp x0,:tlsdesc:VAR; ldr x3,[x0,:tlsdesc_lo12:VAR]; add x0,x0,:tlsdesc_lo12:VAR; .tlsdesccall VAR; blr x3; ret",
        &[564],
    ),
    a64("mov x19,x0; adrp x0,:tlsgd:VAR; add x0,x0,:tlsgd_lo12:VAR; bl __tls_get_addr; nop; mov x1,x19", &[283]),
];

fn arch(name: &str) -> &'static dyn Arch {
    ulp_arch::by_name(name).expect("known")
}

/// A tool for the machine; `None` where it is not installed.
fn run(arch: &str, tool: &str, args: &[&str], dir: &Path) -> Option<()> {
    let native = ulp_arch::host().is_some_and(|host| host.name() == arch);
    let tool = if native { tool.to_owned() } else { format!("{arch}-linux-gnu-{tool}") };
    let Ok(out) = Command::new(&tool).args(args).current_dir(dir).output() else {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
        println!("SKIPPED: no {tool}");
        return None;
    };
    assert!(out.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Some(())
}

fn text(file: &object::File<'_>) -> (u64, Vec<u8>) {
    let text = file.section_by_name(".text").expect("code");
    (text.address(), text.data().expect("bytes").to_vec())
}

fn relocations(file: &object::File<'_>) -> Vec<(usize, u32, i64, String)> {
    let text = file.section_by_name(".text").expect("code");
    let one = |(at, r): (u64, object::Relocation)| {
        let object::RelocationFlags::Elf { r_type } = r.flags() else { panic!("not elf") };
        let object::RelocationTarget::Symbol(symbol) = r.target() else { panic!("no symbol") };
        let name = file.symbol_by_index(symbol).expect("a symbol").name().expect("a name").to_owned();
        (usize::try_from(at).expect("small"), r_type.0, r.addend(), name)
    };
    text.relocations().map(one).collect()
}

/// Links the sequence with a variable of the program or of a library, and compares.
fn check(sequence: &Sequence, model: ThreadModel) -> Option<()> {
    let what = format!("{} {model:?}: {}", sequence.arch, sequence.text);
    let arch = arch(sequence.arch);
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let variable = if model == ThreadModel::Slot { "far_var" } else { "var" };
    // Some data in front of the variable, so that no distance is 0.
    let own = ".section .tdata,\"awT\",%progbits\n.fill 0x12348,1,1\n.globl var\n.type var,%object\n.size var,8\nvar: .quad 5\n";
    let text_of = sequence.text.replace("VAR", variable);
    std::fs::write(dir.join("a.s"), format!("{own}.text\n.globl _start,__tls_get_addr\n_start:\n{text_of}\n"))
        .expect("written");
    let far = ".section .tdata,\"awT\",%progbits\n.globl far_var\n.type far_var,%object\n.size far_var,8\nfar_var: .quad 0\n\
               .text\n.globl __tls_get_addr\n.type __tls_get_addr,%function\n__tls_get_addr: ret\n";
    std::fs::write(dir.join("b.s"), far).expect("written");
    run(sequence.arch, "as", &["-o", "a.o", "a.s"], dir)?;
    run(sequence.arch, "as", &["-o", "b.o", "b.s"], dir)?;
    run(sequence.arch, "ld", &["-shared", "-o", "b.so", "b.o"], dir)?;
    run(sequence.arch, "ld", &["-o", "a", "a.o", "b.so"], dir)?;
    let read = |name: &str| std::fs::read(dir.join(name)).expect("a file");
    let (object, linked) = (read("a.o"), read("a"));
    let (object, linked) = (object::File::parse(&*object).expect("elf"), object::File::parse(&*linked).expect("elf"));
    let (start, theirs) = text(&linked);
    let (_, mut ours) = text(&object);

    // What ours becomes: each relocation rewritten, and its new fields filled in.
    let size = linked.section_by_name(".tdata").expect("storage").size();
    let within = size - 8;
    let tpoff = arch.thread_block(size, 1).expect("a block") + i64::try_from(within).expect("small");
    let (mut fields, mut done): (_, Vec<std::ops::Range<usize>>) = (Vec::new(), Vec::new());
    for (at, r_type, addend, _) in relocations(&object) {
        if done.iter().any(|range| range.contains(&at)) || arch.relocation(r_type).expect("known").field.size() == 0 {
            continue;
        }
        let short =
            arch.relax_thread_access(r_type, &mut ours, at, model).unwrap_or_else(|| panic!("{what}: {r_type}"));
        let variable = addend
            + if arch.counts_from(&ulp_arch::Insn { start: at, end: at + 4, flow: ulp_arch::Flow::Next }) > at {
                4
            } else {
                0
            };
        let variable = if r_type == 21 { addend } else { variable };
        assert_eq!(variable, 0, "{what}");
        done.push(short.range.clone());
        fields.extend(short.fields);
    }
    let mut offsets = Vec::new();
    for (at, r_type, _, _) in relocations(&object) {
        if arch.relocation(r_type).expect("known").field.size() == 0 {
            continue;
        }
        let place = LinkAddr(start + at as u64);
        match arch.thread_form(r_type, &theirs, at, place) {
            ThreadForm::Gone => assert!(sequence.gone.contains(&r_type), "{what}: {r_type} is gone"),
            form @ (ThreadForm::Slot(_) | ThreadForm::Offset(_)) => offsets.push(form),
            ThreadForm::AsWritten => panic!("{what}: {r_type} is as written"),
            ThreadForm::Unknown if sequence.gone.contains(&r_type) => {
                assert_eq!(arch.linked_form(r_type, &theirs, at), LinkedForm::Elided, "{what}: {r_type}");
            }
            // A distance within the module's block.
            ThreadForm::Unknown => assert!(matches!(r_type, 21), "{what}: {r_type}"),
        }
    }
    let slot = offsets.iter().find_map(|form| match form {
        ThreadForm::Slot(slot) => Some(*slot),
        _ => None,
    });
    match model {
        ThreadModel::Slot => {
            let (slot_at, _) = linked
                .dynamic_relocations()
                .expect("some")
                .find(|(_, r)| match r.flags() {
                    object::RelocationFlags::Elf { r_type } => r_type.0 == arch.slot_relocations().thread_offset,
                    _ => false,
                })
                .expect("a slot");
            assert!(offsets.iter().all(|form| *form == ThreadForm::Slot(LinkAddr(slot_at))), "{what}: {offsets:?}");
            assert!(!offsets.is_empty(), "{what}");
        }
        ThreadModel::Offset => {
            assert!(offsets.iter().all(|form| *form == ThreadForm::Offset(tpoff)), "{what}: {offsets:x?} {tpoff:x}");
        }
    }
    for field in fields {
        let row = arch.relocation(field.r_type).expect("a row");
        let letter = if model == ThreadModel::Slot { slot.expect("a slot").0 } else { tpoff as u64 };
        let value = row.formula.value(letter, field.adjust, start + field.at as u64, 0);
        row.insert(&mut ours, field.at, value).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    assert_eq!(ours, theirs, "{what}\n{ours:02x?}\n{theirs:02x?}");
    Some(())
}

#[test]
fn calls_are_shortened_as_gnu_ld_does_it() {
    for sequence in &SEQUENCES {
        let _ = check(sequence, ThreadModel::Offset);
        if sequence.slot {
            let _ = check(sequence, ThreadModel::Slot);
        }
    }
}

#[test]
fn what_is_not_exactly_a_sequence_stays() {
    let x86 = arch("x86_64");
    let gd = [0x66, 0x48, 0x8d, 0x3d, 0, 0, 0, 0, 0x66, 0x66, 0x48, 0xe8, 0, 0, 0, 0];
    let desc = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xff, 0x10];
    let a64 = arch("aarch64");
    let words = |words: [u32; 4]| words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    let a64_gd = words([0x9000_0000, 0x9100_0000, 0x9400_0000, 0xd503_201f]);
    let a64_desc = words([0x9000_0000, 0xf940_0001, 0x9100_0000, 0xd63f_0020]);
    for (arch, r_type, code, field) in
        [(x86, 19, &gd[..], 4), (x86, 34, &desc[..], 3), (a64, 513, &a64_gd[..], 0), (a64, 562, &a64_desc[..], 0)]
    {
        assert!(arch.relax_thread_access(r_type, &mut code.to_vec(), field, ThreadModel::Offset).is_some(), "{r_type}");
        let mask = |at: usize| {
            // Fields of the call's destination are the linker's.
            !(r_type == 19 && (at >= 12 || (4..8).contains(&at)) || r_type == 34 && (3..7).contains(&at))
                && !(r_type == 513 && (8..12).contains(&at))
        };
        for at in (0..code.len()).filter(|at| mask(*at)) {
            let mut other = code.to_vec();
            other[at] ^= 0x20;
            let before = other.clone();
            // Another register that the descriptor's resolver is called through is none of the same sequence.
            assert_eq!(
                arch.relax_thread_access(r_type, &mut other, field, ThreadModel::Offset),
                None,
                "{r_type}: byte {at}"
            );
            assert_eq!(other, before, "{r_type}: byte {at}");
        }
        for len in 0..code.len() {
            let mut cut = code[..len].to_vec();
            let got = arch.relax_thread_access(r_type, &mut cut, field, ThreadModel::Slot);
            assert!(got.is_none() || r_type == 19 && len == 16, "{r_type}: cut to {len}");
        }
    }
}

/// What a linker makes of a call for a variable is behind a read of the thread pointer, and so may be ordinary data.
#[test]
fn data_beside_the_thread_pointer_is_no_call_that_is_gone() {
    let arch = ulp_arch::by_name("x86_64").expect("it exists");
    // mov %fs:0,%rax; add data(%rip),%rax
    let code = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x03, 0x05, 0x10, 0, 0, 0];
    // R_X86_64_PC32, which is of data as well, and PLT32, which is not.
    assert_eq!(arch.linked_form(2, &code, 12), ulp_arch::LinkedForm::AsWritten);
    assert_eq!(arch.linked_form(4, &code, 12), ulp_arch::LinkedForm::Elided);
}
