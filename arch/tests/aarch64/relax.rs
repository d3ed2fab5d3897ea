// SPDX-License-Identifier: GPL-2.0-or-later
//! Instructions that GNU ld and lld rewrite when they find a shorter way.

use super::{aarch64, gnu, missing, run, text_of};
use object::{Object, ObjectSection};
use ulp_arch::LinkedForm;

const GOT: &str = "adrp x3,:got:sym; ldr x3,[x3,:got_lo12:sym]";
const PAGE: &str = "adrp x3,sym; add x3,x3,:lo12:sym";
const IE: &str = "adrp x3,:gottprel:var; ldr x3,[x3,:gottprel_lo12:var]";
const DESC: &str =
    "adrp x0,:tlsdesc:var; ldr x1,[x0,:tlsdesc_lo12:var]; add x0,x0,:tlsdesc_lo12:var; .tlsdesccall var; blr x1";
const GD: &str = "adrp x0,:tlsgd:var; add x0,x0,:tlsgd_lo12:var; bl __tls_get_addr; nop";
const LD: &str = "adrp x0,:tlsldm:var; add x0,x0,:tlsldm_lo12_nc:var; bl __tls_get_addr; nop";

#[test]
fn what_linkers_make_of_sequences() {
    use LinkedForm::{AsWritten, Direct, Elided, Immediate, Rewritten};
    if missing(&[&gnu("as"), &gnu("ld"), "ld.lld-16"]) {
        return;
    }
    let direct = Direct { before: 0 };
    // Sequence, linker, how far away the symbol is, the form of each relocated instruction.
    for (sequence, lld, far, forms) in [
        (GOT, false, false, &[AsWritten, AsWritten][..]),
        (GOT, true, false, &[Elided, direct]),
        (GOT, true, true, &[direct, direct]),
        (PAGE, false, false, &[AsWritten, AsWritten]),
        (PAGE, true, false, &[Elided, direct]),
        (PAGE, true, true, &[AsWritten, AsWritten]),
        (IE, false, false, &[Immediate, Immediate]),
        (IE, true, false, &[Immediate, Immediate]),
        (DESC, false, false, &[Immediate, Immediate, Elided, AsWritten]),
        (DESC, true, false, &[Immediate, Immediate, Elided, AsWritten]),
        (GD, false, false, &[Immediate, Immediate, Elided]),
        (LD, false, false, &[Elided, Elided, Elided]),
        (&GD.replace("var", "far_var"), false, false, &[Rewritten, Rewritten, Elided]),
        (&DESC.replace("var", "far_var"), false, false, &[Rewritten, Rewritten, Elided, AsWritten]),
        (&DESC.replace("var", "far_var"), true, false, &[Rewritten, Rewritten, Elided, AsWritten]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let gap = if far { ".bss\n.skip 0x800000\n" } else { ".data\n" };
        let source = format!(
            ".section .tdata,\"awT\"\n.globl var\nvar: .xword 0\n.data\n.xword 0\n{gap}.globl sym\nsym: .xword 0\n\
             .text\n.globl __tls_get_addr\n__tls_get_addr: ret\nmov x19,x20\n{sequence}\nmov x20,x19\n"
        );
        std::fs::write(dir.path().join("a.s"), source).unwrap();
        run(&gnu("as"), &["-o", "a.o", "a.s"], dir.path()).unwrap();
        let other =
            ".section .tdata,\"awT\"\n.globl far_var\n.type far_var,@object\n.size far_var,8\nfar_var: .xword 0\n";
        std::fs::write(dir.path().join("b.s"), other).unwrap();
        run(&gnu("as"), &["-o", "b.o", "b.s"], dir.path()).unwrap();
        run(&gnu("ld"), &["-shared", "-o", "lib.so", "b.o"], dir.path()).unwrap();
        let linker = if lld { "ld.lld-16".to_owned() } else { gnu("ld") };
        run(&linker, &["-m", "aarch64linux", "-e", "0", "-o", "a", "a.o", "lib.so"], dir.path()).unwrap();
        let object = std::fs::read(dir.path().join("a.o")).unwrap();
        let (written, linked) = (text_of(&object), text_of(&std::fs::read(dir.path().join("a")).unwrap()));
        let elf = object::File::parse(&*object).unwrap();
        let mut owned = vec![false; written.len()];
        let mut found = Vec::new();
        for (at, relocation) in elf.section_by_name(".text").unwrap().relocations() {
            let object::RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("not elf") };
            let at = at as usize;
            found.push(aarch64().linked_form(r_type.0, &linked, at));
            let (before, after) = aarch64().relaxed_around(r_type.0);
            let size = aarch64().relocation(r_type.0).unwrap().field.size();
            owned[at - before..at + size + after].fill(true);
        }
        let name = format!("{sequence} lld: {lld}, far: {far}");
        assert_eq!(found, forms, "{name}: {linked:02x?}");
        let changed = |i: &usize| written[*i] != linked[*i];
        assert_eq!(
            (0..written.len()).filter(changed).find(|i| !owned[*i]),
            None,
            "{name}: {written:02x?} {linked:02x?}"
        );
    }
    assert_eq!(aarch64().linked_form(312, &[0x1f, 0x20, 3], 0), AsWritten, "cut short");
    assert_eq!(aarch64().linked_form(9999, &[0; 4], 0), AsWritten);
}
