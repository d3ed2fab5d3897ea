// SPDX-License-Identifier: GPL-2.0-or-later
//! Instructions against the GNU assembler and disassembler: single ones, and all of the C library's.

use super::{aarch64, assemble, gnu, missing, output};
use object::{Object, ObjectSection};
use std::path::Path;
use ulp_arch::{Flow, Insn, PcRelative};

fn flows(code: &[u8]) -> Vec<Flow> {
    aarch64().decode(code).into_iter().map(|i| i.flow).collect()
}

#[test]
fn instructions_and_where_they_lead() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    let jump = |target| Flow::Jump { field: Some(4), target: Some(target) };
    let (indirect_jump, indirect_call) =
        (Flow::Jump { field: None, target: None }, Flow::Call { field: None, target: None });
    for (text, flow) in [
        ("b .+8", jump(12)),
        ("b .-0x4000000", jump(4 - 0x400_0000)),
        ("bl .-4", Flow::Call { field: Some(4), target: Some(0) }),
        ("b.ne .-4", jump(0)),
        ("b.al .+0xffffc", jump(0x10_0000)),
        ("cbz x3,.+16", jump(20)),
        ("cbnz w3,.-0x100000", jump(4 - 0x10_0000)),
        ("tbz x3,#33,.-4", jump(0)),
        ("tbnz w3,#7,.+0x7ffc", jump(0x8000)),
        ("br x3", indirect_jump),
        ("braa x3,x4", indirect_jump),
        ("brabz x3", indirect_jump),
        ("blr x3", indirect_call),
        ("blrab x3,sp", indirect_call),
        ("blraaz x3", indirect_call),
        ("ret", Flow::Next),
        ("ret x3", Flow::Next),
        ("retaa", Flow::Next),
        ("retab", Flow::Next),
        ("svc #0", Flow::Next),
        ("brk #1000", Flow::Next),
        ("bti c", Flow::Next),
        ("ldr x3,.+8", Flow::Next),
        ("adr x3,.+8", Flow::Next),
        ("add z0.d,z1.d,z2.d", Flow::Next),
    ] {
        let code = assemble(&format!("nop\n{text}"), 0x1000);
        let want = [Insn { start: 0, end: 4, flow: Flow::Next }, Insn { start: 4, end: 8, flow }];
        assert_eq!(aarch64().decode(&code), want, "{text}");
        assert_eq!(aarch64().decode(&code[..7]), want[..1], "{text}, cut");
        let field = matches!(flow, Flow::Jump { field: Some(_), .. } | Flow::Call { field: Some(_), .. });
        assert_eq!(aarch64().is_branch_field(&code, 4), field, "{text}");
        assert_eq!(aarch64().counts_from(&want[1]), 4, "the processor counts from the instruction itself");
    }
    // udf #0; a reserved op0; an unknown branch.
    for word in [0u32, 0x0000_1234, 0x2200_0000, 0x5600_0000, 0xd61f_1000] {
        assert_eq!(aarch64().decode(&word.to_le_bytes()), [], "{word:#x}");
    }
}

#[test]
fn jumps_through_fixed_slots_are_tail_calls() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    let computed = Flow::Jump { field: None, target: None };
    for (text, flow) in [
        ("adrp x16,.; ldr x16,[x16,#8]; br x16", Flow::TailCall),
        ("adrp x2,.; mov w1,#3; ldr x2,[x2,#8]; ldp x29,x30,[sp],#16; br x2", Flow::TailCall),
        ("adrp x2,.; ldr x2,[x2,x1,lsl #3]; br x2", computed),
        ("adrp x2,.; ldr x2,[x2,#8]; add x2,x2,x1; br x2", computed),
        ("adrp x2,.; ldr x3,[x2,#8]; br x3", computed),
        ("adrp x2,.; add x2,x2,x1; ldr x2,[x2,#8]; br x2", computed),
        ("adrp x2,.; ldr x0,[x2],#8; ldr x2,[x2,#8]; br x2", computed),
        ("ldr x2,[x2,#8]; br x2", computed),
        ("adrp x2,.; cbz x0,.-8; ldr x2,[x2,#8]; br x2", computed),
        ("adrp x2,.; bl .; ldr x2,[x2,#8]; br x2", computed),
    ] {
        assert_eq!(flows(&assemble(text, 0x1000)).last(), Some(&flow), "{text}");
    }
}

#[test]
fn ways_out_and_back() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    // The code; whether it loops to its entry, has a way out, runs over its end.
    for (text, loops, returns, runs_over) in [
        ("nop; ret", false, true, false),
        ("nop; retaa; nop; nop", false, true, false),
        ("nop; b .-4", true, false, false),
        ("nop; nop; b .-4", false, false, false),
        ("cbz x0,.", true, false, true),
        ("nop; bl .-4; ret", false, true, false),
        ("nop; bl .-4", false, false, true),
        ("nop; b.eq .+100; b .", false, true, false),
        ("nop; tbz w0,#1,.-4; b .", true, false, false),
        ("nop; b .-100", false, true, false),
        ("br x3", true, true, false),
        ("nop; brk #1", false, false, false),
        ("nop; .inst 0", true, true, true),
        ("nop; svc #0", false, false, true),
    ] {
        let code = assemble(text, 0x1000);
        let found = (aarch64().loops_to_entry(&code), aarch64().returns(&code), aarch64().runs_over_end(&code));
        assert_eq!(found, (loops, returns, runs_over), "{text}");
    }
}

#[test]
fn details_tell_branches_addresses_and_padding() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    let detail = |text: &str| aarch64().detail(&assemble(&format!("nop\n{text}"), 0x1000), 4).expect(text);
    let forms = [
        "b .",
        "bl .",
        "b.eq .",
        "b.ne .",
        "cbz x3,.",
        "cbz w3,.",
        "cbnz x3,.",
        "cbnz w3,.",
        "cbz x4,.",
        "tbz x3,#35,.",
        "tbz w3,#3,.",
        "tbnz w3,#3,.",
        "tbz w4,#3,.",
        "tbnz x30,#63,.",
    ];
    let what = |text: &str| detail(text).branch;
    for (i, form) in forms.iter().enumerate() {
        let (kind, target) = what(form).unwrap();
        assert_eq!(target, 4, "{form}");
        assert_eq!(
            what(&form.replace('.', ".+8").replace("b.+8", "b.")).map(|w| w.0),
            Some(kind),
            "{form} and farther"
        );
        assert!(forms[..i].iter().all(|other| what(other).unwrap().0 != kind), "{form} is another one");
    }
    let address = |target, taken| Some(PcRelative { at: 0, len: 4, target, taken });
    for (text, want) in [
        ("adr x3,.+0x1235", address(4 + 0x1235, true)),
        ("adr x3,.-0x100000", address(4 - 0x10_0000, true)),
        ("ldr x3,.+0x1234", address(4 + 0x1234, false)),
        ("ldrsw x3,.-4", address(0, false)),
        ("ldr q3,.+16", address(20, false)),
        ("prfm pldl1keep,.+16", address(20, false)),
        ("adrp x3,.", None),
        ("ldr x3,[x4]", None),
    ] {
        assert_eq!(detail(text).pc_relative, want, "{text}");
    }
    assert!(detail("nop").nop && !detail("mov x0,x0").nop);
    assert_eq!(aarch64().detail(&[0; 4], 0), None, "no instruction");
    assert_eq!(aarch64().detail(&[0x1f, 0x20, 0x03], 0), None, "cut short");
    // What the assembler resolves by itself is the relocation it would have written otherwise.
    for text in ["b to", "bl to", "b.ne to", "cbz x3,to", "tbnz w3,#3,to", "adr x3,to", "ldr x3,to", "ldr q3,to"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.s"), format!("{text}\n")).unwrap();
        super::run(&gnu("as"), &["-o", "a.o", "a.s"], dir.path()).unwrap();
        let file = std::fs::read(dir.path().join("a.o")).unwrap();
        let elf = object::File::parse(&*file).unwrap();
        let (_, relocation) = elf.section_by_name(".text").unwrap().relocations().next().unwrap();
        let object::RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("not elf") };
        let code = assemble(&text.replace("to", "."), 0x1000);
        let insn = aarch64().decode(&code)[0];
        assert_eq!(aarch64().assembled_in(&code, &insn, 0), Some(r_type.0), "{text}");
    }
    let code = assemble("add x0,x0,#1", 0x1000);
    assert_eq!(aarch64().assembled_in(&code, &aarch64().decode(&code)[0], 0), None);
}

/// Every instruction of the C library: where the disassembler says that it leads, and what it takes for none.
#[test]
fn a_whole_library_as_the_disassembler_reads_it() {
    let library = "/usr/aarch64-linux-gnu/lib/libc.so.6";
    if missing(&[&gnu("objdump")]) || !Path::new(library).exists() {
        println!("SKIPPED: {library} is not installed");
        return;
    }
    let file = std::fs::read(library).unwrap();
    let elf = object::File::parse(&*file).unwrap();
    let text = elf.section_by_name(".text").unwrap();
    let (code, start) = (text.data().unwrap(), text.address());
    let args = ["-d", "-j", ".text", "--no-show-raw-insn", "-z", library];
    let listing = output(&gnu("objdump"), &args, Path::new("/"));
    let listing = String::from_utf8(listing.stdout).unwrap();
    let (mut looked, mut branches) = (0, 0);
    for line in listing.lines() {
        let Some((address, text)) = line.split_once(":\t") else { continue };
        let text = text.split("//").next().unwrap().trim_end();
        let Ok(address) = u64::from_str_radix(address.trim(), 16) else { continue };
        let at = (address - start) as usize;
        let found = aarch64().decode(&code[at..at + 4]);
        looked += 1;
        let (mnemonic, operands) = text.split_once('\t').unwrap_or((text, ""));
        let mnemonic = mnemonic.trim();
        if matches!(mnemonic, "udf" | ".inst" | ".word") {
            assert_eq!(found, [], "{line}");
            continue;
        }
        let flow = found.first().unwrap_or_else(|| panic!("no instruction: {line}")).flow;
        // The destination is the last operand: `x3, 27500 <name+0x20>`.
        let direct = || {
            let place = operands.split(" <").next().unwrap().rsplit([' ', ',', '\t']).next().unwrap();
            Some(i64::from_str_radix(place, 16).unwrap_or_else(|_| panic!("{line}")) - address as i64)
        };
        let want = match mnemonic {
            "bl" => Flow::Call { field: Some(0), target: direct() },
            "b" | "cbz" | "cbnz" | "tbz" | "tbnz" => Flow::Jump { field: Some(0), target: direct() },
            _ if mnemonic.starts_with("b.") => Flow::Jump { field: Some(0), target: direct() },
            "blr" => Flow::Call { field: None, target: None },
            "br" => Flow::Jump { field: None, target: None },
            _ => Flow::Next,
        };
        branches += usize::from(want != Flow::Next);
        assert_eq!(flow, want, "{line}");
        let address_operand = matches!(mnemonic, "adr") || mnemonic.starts_with("ldr") && text.contains(" <");
        let detail = aarch64().detail(&code[at..at + 4], 0).unwrap();
        assert_eq!(detail.pc_relative.map(|p| Some(p.target)), address_operand.then(direct), "{line}");
        assert_eq!(detail.nop, mnemonic == "nop", "{line}");
    }
    assert!(looked > 200_000 && branches > 30_000, "{looked} instructions, {branches} branches");
}
