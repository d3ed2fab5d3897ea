// SPDX-License-Identifier: GPL-2.0-or-later
//! Veneers and moved instructions, as GNU ld makes them.

use super::{aarch64, gnu, missing, run};
use object::{Object, ObjectSection, ObjectSymbol};
use ulp_arch::LinkAddr;

/// Links `source`; gives the file.
fn link(source: &str, args: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.s"), source).unwrap();
    run(&gnu("as"), &["-o", "a.o", "a.s"], dir.path()).unwrap();
    let args = [&["-e", "0", "-o", "a", "a.o"], args].concat();
    run(&gnu("ld"), &args, dir.path()).unwrap();
    std::fs::read(dir.path().join("a")).unwrap()
}

/// All code from the address on.
fn code<'d>(elf: &object::File<'d>, addr: u64) -> &'d [u8] {
    let section = elf.sections().find(|s| s.address() <= addr && addr < s.address() + s.size()).unwrap();
    &section.data().unwrap()[usize::try_from(addr - section.address()).unwrap()..]
}

fn symbol(elf: &object::File<'_>, name: &str) -> u64 {
    elf.symbols().find(|s| s.name() == Ok(name)).unwrap_or_else(|| panic!("{name}")).address()
}

#[test]
fn veneers_lead_where_the_branch_leads() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    let source = ".text\n.globl from\nfrom: bl far\n bl near\n ret\n.globl near\nnear: ret\n\
                  .section .far,\"ax\"\n nop\n.globl far\nfar: ret\n";
    // Farther than a branch reaches, and farther than adrp does.
    for (far, pic) in [(0x1040_0000u64, false), (0x7f12_3456_7000, false), (0x7f12_3456_7000, true)] {
        let at = format!("--section-start=.far={far:#x}");
        let more: &[&str] = if pic { &["-pie", "--no-dynamic-linker"] } else { &[] };
        let file = link(source, &[&["-Ttext=0x400000", &at], more].concat());
        let elf = object::File::parse(&*file).unwrap();
        let from = symbol(&elf, "from");
        let arch = aarch64();
        let ulp_arch::Flow::Call { target: Some(to), .. } = arch.decode(code(&elf, from))[0].flow else { panic!("bl") };
        let veneer = from.wrapping_add_signed(to);
        assert_ne!(veneer, symbol(&elf, "far"), "there is a veneer");
        let bytes = code(&elf, veneer);
        assert_eq!(arch.veneer(bytes, LinkAddr(veneer)), Some(LinkAddr(symbol(&elf, "far"))), "{far:#x}: {bytes:02x?}");
        assert_eq!(arch.veneer(code(&elf, symbol(&elf, "near")), LinkAddr(symbol(&elf, "near"))), None);
        // Another register, another instruction, an end too soon: none.
        for bit in 0..32 {
            let mut other = bytes.to_vec();
            other[8 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(arch.veneer(&other, LinkAddr(veneer)), None, "{far:#x}: bit {bit}");
        }
        for len in 0..12 {
            assert_eq!(arch.veneer(&bytes[..len], LinkAddr(veneer)), None, "{far:#x}: cut to {len}");
        }
    }
}

#[test]
fn instructions_that_were_moved_away_are_found() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    let memory = ".text\n .skip 0xff0\n.globl f\nf: nop\n nop\n adrp x0,var\n ldr x1,[x2]\nlast: ldr x3,[x0,:lo12:var]\n ret\n\
                  .data\n .skip 0x128\n.globl var\nvar: .xword 7\n";
    let multiply = ".text\n.globl f\nf: ldr x1,[x2]\nlast: madd x3,x4,x5,x6\n ret\n";
    for (source, fix, row) in
        [(memory, "--fix-cortex-a53-843419=full", true), (multiply, "--fix-cortex-a53-835769", false)]
    {
        let plain = link(source, &["-Ttext=0x400000"]);
        // An adrp that becomes an adr is no such case: the variable is too far away for one.
        let file = link(source, &["-Ttext=0x400000", "-Tdata=0x10000000", fix]);
        let elf = object::File::parse(&*file).unwrap();
        let (arch, last) = (aarch64(), symbol(&elf, "last"));
        let to = arch.moved_to(code(&elf, last), LinkAddr(last)).unwrap_or_else(|| panic!("{fix}: nothing was moved"));
        let there = code(&elf, to.0);
        let moved = arch.moved(there, to, LinkAddr(last)).unwrap_or_else(|| panic!("{fix}: {there:02x?}"));
        let before = object::File::parse(&*plain).unwrap();
        let mut before = code(&before, last)[..4].to_vec();
        if row {
            // R_AARCH64_LDST64_ABS_LO12_NC
            let low = symbol(&elf, "var") & 0xfff;
            arch.relocation(286).unwrap().insert(&mut before, 0, low as i64).unwrap();
        }
        assert_eq!(moved, before, "{fix}");
        assert_eq!(arch.moved(there, to, LinkAddr(last + 4)), None, "{fix}: it leads back elsewhere");
        assert_eq!(arch.moved(&there[..7], to, LinkAddr(last)), None, "{fix}: cut short");
        let mut branch = there.to_vec();
        branch[..4].copy_from_slice(&0x9000_0000u32.to_le_bytes());
        assert_eq!(arch.moved(&branch, to, LinkAddr(last)), None, "{fix}: adrp means another page elsewhere");
    }
}
