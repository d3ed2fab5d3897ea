// SPDX-License-Identifier: GPL-2.0-or-later
//! Where instructions lead, from the assembler's bytes; and what linkers make of sequences they find a shorter way for.

use super::{instructions, loongarch64, missing};
use ulp_arch::{AddressUse, Flow, Insn, LinkedForm};

const AT: u64 = 0x1000_0000;

fn code(source: &str) -> Vec<u8> {
    instructions(source, AT, &[("far", AT + 0x10_2345_6780), ("near", AT + 0x12_3450)])
}

#[test]
fn instructions_and_where_they_lead() {
    use Flow::*;
    if missing() {
        return;
    }
    let jump = |target| Jump { field: Some(0), target: Some(target) };
    let call = |target| Call { field: Some(0), target: Some(target) };
    let (indirect_jump, indirect_call) = (Jump { field: None, target: None }, Call { field: None, target: None });
    // Source, length of the first instruction, where it leads, the relocation its distance would have.
    for (source, len, flow, r_type) in [
        ("b 0x7fffffc", 4, jump(0x7ff_fffc), Some(66)),
        ("b -0x8000000", 4, jump(-0x800_0000), Some(66)),
        ("bl 16", 4, call(16), Some(66)),
        ("bl near", 4, call(0x12_3450), Some(66)),
        ("beq $a0,$a1,0x1fffc", 4, jump(0x1_fffc), Some(64)),
        ("bne $a0,$a1,-0x20000", 4, jump(-0x2_0000), Some(64)),
        ("blt $a0,$a1,8", 4, jump(8), Some(64)),
        ("bge $a0,$a1,8", 4, jump(8), Some(64)),
        ("bltu $a0,$a1,8", 4, jump(8), Some(64)),
        ("bgeu $a0,$a1,0", 4, jump(0), Some(64)),
        ("beqz $a0,0x3ffffc", 4, jump(0x3f_fffc), Some(65)),
        ("bnez $a0,-0x400000", 4, jump(-0x40_0000), Some(65)),
        ("bceqz $fcc0,8", 4, jump(8), Some(65)),
        ("bcnez $fcc7,-8", 4, jump(-8), Some(65)),
        ("call36 far", 8, call(0x10_2345_6780), Some(110)),
        ("tail36 $t0,far", 8, jump(0x10_2345_6780), Some(110)),
        ("pcaddu18i $ra,-1\n jirl $ra,$ra,-4", 8, call(-0x4_0004), Some(110)),
        ("pcaddu18i $t0,1\n jirl $ra,$t1,0", 4, Next, Some(110)),
        ("ret", 4, Next, None),
        ("jr $ra", 4, Next, None),
        ("jirl $zero,$ra,4", 4, indirect_jump, None),
        ("jr $t0", 4, indirect_jump, None),
        ("jirl $ra,$t0,0", 4, indirect_call, None),
        ("jirl $t1,$t3,0", 4, indirect_call, None),
        ("addi.d $a0,$a0,4", 4, Next, None),
        ("pcaddi $a0,4", 4, Next, None),
        ("xvadd.b $xr0,$xr1,$xr2", 4, Next, None),
        ("vadd.b $vr0,$vr1,$vr2", 4, Next, None),
        ("amswap.w $a0,$a1,$a2", 4, Next, None),
        ("syscall 0", 4, Next, None),
        ("break 0", 4, Next, None),
        ("fmadd.d $fa0,$fa1,$fa2,$fa3", 4, Next, None),
        ("fsel $fa0,$fa1,$fa2,$fcc0", 4, Next, None),
        ("ll.w $a0,$a1,0", 4, Next, None),
        ("csrrd $a0,0", 4, Next, None),
    ] {
        let code = code(source);
        let insns = loongarch64().decode(&code);
        assert_eq!(insns.first(), Some(&Insn { start: 0, end: len, flow }), "{source}");
        assert_eq!(insns.last().unwrap().end, code.len(), "{source}");
        let own = r_type.filter(|_| !matches!(flow, Next));
        assert_eq!(loongarch64().assembled_in(&code, &insns[0], 0).filter(|_| !matches!(flow, Next)), own, "{source}");
        assert_eq!(loongarch64().is_branch_field(&code, 0), own.is_some(), "{source}");
        assert_eq!(loongarch64().counts_from(&insns[0]), 0, "{source}");
    }
    for nothing in [&[0; 4][..], &[0xff; 4], &[0, 2, 0, 0x48], &[0, 0, 0], &[]] {
        assert_eq!(loongarch64().decode(nothing), [], "{nothing:x?}");
    }
}

#[test]
fn jumps_through_slots_leave_the_function() {
    if missing() {
        return;
    }
    for (source, leaves) in [
        ("pcalau12i $t0,1\n ld.d $t0,$t0,16\n jr $t0", true),
        ("pcalau12i $t1,1\n ld.d $t0,$t1,16\n jr $t0", true),
        // A switch: an index is in its way.
        ("pcalau12i $t1,1\n addi.d $t1,$t1,16\n ldx.d $t0,$t1,$a0\n jr $t0", false),
        ("pcalau12i $t1,1\n add.d $t1,$t1,$a0\n ld.d $t0,$t1,16\n jr $t0", false),
        ("pcalau12i $t1,1\n ld.d $t0,$t2,16\n jr $t0", false),
        ("pcalau12i $t0,1\n ld.d $t0,$t0,16\n jr $t1", false),
        ("pcalau12i $t0,1\n ld.d $t0,$t0,16\n jirl $zero,$t0,4", false),
        ("ld.d $t0,$t0,16\n jr $t0", false),
    ] {
        let flow = loongarch64().decode(&code(source)).last().unwrap().flow;
        let want = if leaves { Flow::TailCall } else { Flow::Jump { field: None, target: None } };
        assert_eq!(flow, want, "{source}");
    }
}

#[test]
fn ways_out_and_back_to_the_entry() {
    if missing() {
        return;
    }
    // Source; whether it has a way out, runs over its end, may lead back to its entry.
    for (source, returns, runs_over, loops) in [
        ("addi.d $a0,$a0,1\n ret", true, false, false),
        ("addi.d $a0,$a0,1\n ret\n nop\n nop", true, false, false),
        ("addi.d $a0,$a0,1\n nop", false, true, false),
        ("1: addi.d $a0,$a0,-1\n bnez $a0,1b\n ret", true, false, true),
        ("nop\n1: addi.d $a0,$a0,-1\n bnez $a0,1b\n ret", true, false, false),
        ("1: addi.d $a0,$a0,-1\n b 1b", false, false, true),
        ("nop\n nop\n 1: nop\n b 1b", false, false, false),
        // As an object has it whose branches wait for the linker.
        ("nop\n 1: b 1b", true, false, true),
        ("nop\n 1: beqz $a0,1b\n ret", true, false, true),
        ("b near", true, false, false),
        ("beqz $a0,0x2000\n break 0", true, false, false),
        ("tail36 $t0,far", true, false, false),
        ("call36 far", false, true, false),
        ("bl near", false, true, false),
        ("bl near\n break 0", false, false, false),
        ("jr $t0", true, false, true),
        ("pcalau12i $t0,1\n ld.d $t0,$t0,16\n jr $t0", true, false, false),
        ("beqz $a0,-4\n ret", true, false, false),
        ("1: bl 1b\n ret", true, false, false),
        (".word 0", true, true, true),
        ("ret\n .byte 1", true, true, true),
    ] {
        let code = code(source);
        let found =
            (loongarch64().returns(&code), loongarch64().runs_over_end(&code), loongarch64().loops_to_entry(&code));
        assert_eq!(found, (returns, runs_over, loops), "{source}");
    }
}

/// lld 19 shortens nothing: the sequences are written as GNU ld 2.42 and lld 20 leave them.
#[test]
fn what_the_linker_makes_of_longer_ways() {
    use LinkedForm::{AsWritten, Direct, Rewritten};
    if missing() {
        return;
    }
    // A sequence and what becomes of it, with the type of the relocation at its start and what is told of either.
    for (what, r_type, long, short, form) in [
        ("call36", 110, "call36 near", "bl near", Rewritten),
        ("tail36", 110, "tail36 $t0,near", "b near", Rewritten),
        ("slot", 75, "pcalau12i $a0,5\n ld.d $a0,$a0,8", "pcaddi $a0,5", Rewritten),
        (
            "far slot",
            75,
            "pcalau12i $a0,5\n ld.d $a0,$a0,8",
            "pcalau12i $a0,6\n addi.d $a0,$a0,8",
            Direct { before: 0 },
        ),
        ("address", 71, "pcalau12i $a0,5\n addi.d $a0,$a0,8", "pcaddi $a0,5", Rewritten),
        ("general-dynamic", 97, "pcalau12i $a0,5\n addi.d $a0,$a0,8", "pcaddi $a0,5", Rewritten),
        ("local-dynamic", 95, "pcalau12i $a0,5\n addi.d $a0,$a0,8", "pcaddi $a0,5", Rewritten),
        ("descriptor", 111, "pcalau12i $a0,5\n addi.d $a0,$a0,8", "pcaddi $a0,5", Rewritten),
        ("initial-exec", 87, "pcalau12i $a0,5\n ld.d $a0,$a0,8", "lu12i.w $a0,0\n ori $a0,$a0,8", Rewritten),
        ("local-exec", 121, "lu12i.w $a0,0\n add.d $a0,$a0,$tp\n addi.d $a0,$a0,8", "addi.d $a0,$tp,8", Rewritten),
        (
            "address of 64 bits",
            75,
            "pcalau12i $a0,5\n addi.d $a1,$zero,8",
            "pcalau12i $a0,5\n addi.d $a1,$zero,8",
            AsWritten,
        ),
    ] {
        assert_eq!(loongarch64().linked_form(r_type, &code(long), 0), AsWritten, "{what}");
        assert_eq!(loongarch64().linked_form(r_type, &code(short), 0), form, "{what}, shortened");
    }
    let lower = |r_type, source: &str| loongarch64().linked_form(r_type, &code(source), 4);
    assert_eq!(lower(76, "pcalau12i $a0,5\n ld.d $a0,$a0,8"), AsWritten);
    assert_eq!(lower(76, "pcalau12i $a0,5\n addi.d $a1,$zero,8"), AsWritten);
    assert_eq!(lower(76, "pcalau12i $a0,5\n addi.d $a0,$a0,8"), Rewritten, "or the lower part of a pair's address");
    assert_eq!(lower(88, "pcalau12i $a0,5\n ld.d $a0,$a0,8"), AsWritten);
    assert_eq!(lower(88, "lu12i.w $a0,0\n ori $a0,$a0,8"), Rewritten);
    assert_eq!(lower(75, "nop\n pcalau12i $a0,5"), Rewritten, "what comes then is not seen");
    assert_eq!(lower(71, "nop"), Rewritten, "nothing is there");
    assert_eq!([119, 120, 122, 71].map(|t| loongarch64().relaxed_around(t)), [(0, 4), (0, 4), (0, 4), (0, 0)]);
}

#[test]
fn what_becomes_of_an_address() {
    use AddressUse::{Handed, Read, Stored};
    if missing() {
        return;
    }
    // What follows `pcalau12i $t0,1`, and what becomes of the page that it makes; the address is asked for at 0.
    for (what, rest, want) in [
        ("load", "ld.d $a0,$t0,8\n ret", Read),
        ("store there", "st.d $a0,$t0,8\n move $a0,$zero\n ret", Read),
        ("float", "fld.d $fa0,$t0,8\n ret", Read),
        ("table", "addi.d $t0,$t0,8\n alsl.d $a0,$a0,$t0,3\n ld.d $a0,$a0,0\n ret", Read),
        ("indexed", "addi.d $t0,$t0,8\n ldx.d $a0,$t0,$a1\n ret", Read),
        ("compared", "addi.d $t0,$t0,8\n beq $t0,$a0,8\n li.w $a0,1\n ret", Read),
        ("overwritten", "addi.d $t0,$t0,8\n li.w $t0,1\n st.d $t0,$a1,0\n ret", Read),
        ("overwritten by a load", "ld.d $t0,$t0,8\n st.d $t0,$a1,0\n ret", Read),
        ("clobbered by a call", "bl 0x100000\n st.d $t0,$a1,0\n ret", Read),
        ("result", "addi.d $a0,$t0,8\n ret", Handed),
        ("argument", "addi.d $a0,$t0,8\n bl 0x100000\n ret", Handed),
        ("argument of a far call", "addi.d $a3,$t0,8\n call36 far\n ret", Handed),
        ("called", "addi.d $t0,$t0,8\n jirl $ra,$t0,0\n ret", Handed),
        ("tail call", "addi.d $a0,$t0,8\n b 0", Handed),
        ("part elsewhere", "addi.d $t0,$t0,8\n beqz $a1,0\n move $a0,$zero\n ret", Handed),
        ("far tail call", "addi.d $t0,$t0,8\n move $a0,$zero\n pcaddu18i $t1,0\n jirl $zero,$t1,0", Read),
        ("switch", "addi.d $t0,$t0,8\n ldx.d $t1,$t0,$a0\n jr $t1", Handed),
        ("spilled", "addi.d $t0,$t0,8\n st.d $t0,$sp,8\n move $a0,$zero\n ret", Handed),
        ("kept over a call", "addi.d $s0,$t0,8\n bl 0x100000\n st.d $s0,$a1,0\n ret", Stored),
        ("stored", "addi.d $t0,$t0,8\n st.d $t0,$a1,0\n ret", Stored),
        ("stored by index", "addi.d $t0,$t0,8\n stx.d $t0,$a1,$a2\n ret", Stored),
        ("stored by pointer", "addi.d $t0,$t0,8\n stptr.d $t0,$a1,0\n ret", Stored),
        ("stored on one path", "addi.d $t0,$t0,8\n beqz $a0,8\n st.d $t0,$a1,0\n move $a0,$zero\n ret", Stored),
        ("derived", "addi.d $t0,$t0,8\n add.d $t1,$t0,$a0\n st.d $t1,$a1,0\n ret", Stored),
        ("64 bits", "addi.d $t1,$zero,8\n lu32i.d $t1,0\n lu52i.d $t1,$t1,0\n ldx.d $a0,$t0,$t1\n ret", Read),
        ("64 bits", "addi.d $t1,$zero,8\n lu32i.d $t1,0\n lu52i.d $t1,$t1,0\n add.d $a0,$t0,$t1\n ret", Handed),
        ("into a float register", "movgr2fr.d $fa0,$t0\n move $a0,$zero\n ret", Handed),
        ("exchanged", "addi.d $t0,$t0,8\n amswap.d $a0,$t0,$a1\n ret", Handed),
        ("store-conditional", "addi.d $t0,$t0,8\n sc.d $t0,$a1,0\n ret", Handed),
        ("a trap", "addi.d $t0,$t0,8\n break 0", Read),
        ("runs on", "addi.d $t0,$t0,8", Handed),
        ("in front of the start", "beqz $a0,-0x100\n move $a0,$zero\n ret", Handed),
    ] {
        let code = code(&format!("pcalau12i $t0,1\n {rest}"));
        assert_eq!(loongarch64().address_use(&code, 0), want, "{what}");
    }
    // The lower part's instruction: an addition makes the address, a load is all there is.
    let lower = code("pcalau12i $t0,1\n addi.d $a1,$t0,8\n st.d $a1,$a2,0\n ret");
    assert_eq!(loongarch64().address_use(&lower, 4), Stored);
    let lower = code("pcalau12i $t0,1\n ld.d $a1,$t0,8\n st.d $a1,$a2,0\n ret");
    assert_eq!(loongarch64().address_use(&lower, 4), Read);
    for (field, code) in [(2, &lower[..]), (16, &lower), (0, &[0; 4])] {
        assert_eq!(loongarch64().address_use(code, field), Handed, "nothing at {field}");
    }
    assert_eq!(loongarch64().address_use(&code("bl 0\n ret"), 0), Handed);
}

/// Of an access to a thread-local variable that has the whole distance, only the distance is the linker's: what it does, and with
/// which register, is the program's.
#[test]
fn an_access_with_the_distance_in_it_is_not_the_linkers() {
    let arch = loongarch64();
    for r_type in [84, 123] {
        let row = arch.relocation(r_type).expect("a row");
        assert_eq!(arch.immediate_mask(row), (0xfff_u32 << 10).to_le_bytes());
    }
    let load_of_slot = arch.relocation(88).expect("a row");
    assert_eq!(arch.immediate_mask(load_of_slot), [0xff; 4]);
}
