// SPDX-License-Identifier: GPL-2.0-or-later
//! What becomes of an address that code takes.

use super::{aarch64, assemble, gnu, missing};
use ulp_arch::AddressUse::{self, Handed, Read, Stored};

#[test]
fn fates_of_addresses() {
    if missing(&[&gnu("as"), &gnu("ld")]) {
        return;
    }
    for (rest, want) in [
        ("ldr w0,[x0,w1,sxtw #2]; ret", Read),
        ("add x0,x0,#8; ldr w0,[x0]; ret", Read),
        ("ldrh w0,[x0,w1,uxtw #1]; adr x1,.; add x0,x1,w0,sxth #2; br x0", Read),
        ("ldp x0,x1,[x0]; ret", Read),
        ("str wzr,[x0]; mov x0,#0; ret", Read),
        ("add x0,x0,#8; ret", Handed),
        ("ret", Handed),
        ("mov x19,x0; mov x0,#0; ret", Read),
        ("mov x19,x0; mov x0,#0; bl .; ldr w0,[x19]; ret", Read),
        ("mov x9,x0; mov x0,#0; bl .; mov x0,x9; ret", Read),
        ("mov x19,x0; mov x0,#0; bl .; mov x0,x19; ret", Handed),
        ("mov x1,x0; mov x0,#0; blr x9; mov x0,#0; ret", Handed),
        ("str x0,[x1]; mov x0,#0; ret", Stored),
        ("add x2,x0,#8; mov x0,#0; stp xzr,x2,[x1,#16]; ret", Stored),
        ("str x0,[x1,x2,lsl #3]; mov x0,#0; ret", Stored),
        ("stlr x0,[x1]; mov x0,#0; ret", Stored),
        ("swp x0,x2,[x1]; mov x0,#0; mov x2,#0; ret", Stored),
        ("str x0,[sp,#8]; mov x0,#0; ret", Handed),
        ("stur x0,[x29,#-8]; mov x0,#0; ret", Handed),
        ("cmp x0,x1; cset w0,eq; ret", Read),
        ("cbz x0,.+8; nop; mov x0,#0; ret", Read),
        ("ccmp x0,x1,#0,eq; mov x0,#0; ret", Read),
        ("csel x2,x0,x1,eq; mov x0,#0; str x2,[x3]; ret", Stored),
        ("dup v0.2d,x0; mov x0,#0; ret", Handed),
        ("fmov d0,x0; mov x0,#0; ret", Handed),
        ("fadd d0,d0,d0; mov x0,#0; ret", Read),
        ("msr tpidr_el0,x0; mov x0,#0; ret", Handed),
        ("svc #0; mov x0,#0; ret", Handed),
        ("b .+0x1000", Handed),
        ("mov x9,x0; mov x0,#0; b .+0x1000", Read),
        ("mov x1,x0; mov x0,#0; b .", Handed),
        ("tbz w1,#3,.+12; mov x0,#0; ret; str x0,[x2]; mov x0,#0; ret", Stored),
        ("brk #1", Read),
        ("mov x0,x0", Handed), // runs over the end
        ("nop; .inst 0", Handed),
        ("movk x0,#1,lsl #16; ret", Handed),
        ("prfm pldl1keep,[x0]; mov x0,#0; ret", Read),
    ] {
        for first in ["adrp x0,.", "adr x0,.", "movz x0,#0", "add x0,x0,#0"] {
            let code = assemble(&format!("nop; {first}; {rest}"), 0x1000);
            assert_eq!(aarch64().address_use(&code, 4), want, "{first}; {rest}");
        }
    }
    for (code, want) in [
        ("ldr w0,[x0,#8]; ret", Read),
        ("str w0,[x1,#8]; ret", Read),
        ("ldr q0,.; ret", Read),
        ("ldr x0,.; mov x0,#0; ret", Read),
        ("ldr x0,.; str x0,[x1]; mov x0,#0; ret", Stored),
        ("ldr x0,[x0,#8]; ldr w0,[x0]; ret", Read),
        ("ldr x0,[x0,#8]; ret", Handed),
        ("mov x0,x1; ret", Handed),
        (".inst 0", Handed),
    ] {
        assert_eq!(aarch64().address_use(&assemble(code, 0x1000), 0), want, "{code}");
    }
    assert_eq!(aarch64().address_use(&[], 0), AddressUse::Handed);
}
