// SPDX-License-Identifier: GPL-2.0-or-later
//! What GNU ld 2.47 takes out of code, as `objdump` showed it of linked programs, and what is read off it: each sequence with its
//! relocations and what was left. The same against the linker itself is `tests/tests/cross.rs`, where there is one.

use super::{instructions, loongarch64, missing};
use ulp_arch::{CodeReloc, LinkAddr, Shortened};

const RELAX: u32 = 100;
const ALIGN: u32 = 102;

/// Where the code stands in the linked file.
const PLACE: LinkAddr = LinkAddr(0x1_0940);

struct Row {
    what: &'static str,
    object: &'static str,
    /// Place, type and symbol; each but alignments is followed by R_LARCH_RELAX.
    relocs: &'static [(usize, u32, usize)],
    linked: &'static str,
    /// What the relocations are then.
    types: &'static [Option<u32>],
}

const ROWS: &[Row] = &[
    Row {
        what: "address",
        object: "nop\n pcalau12i $t0,0\n addi.d $t0,$t0,0\n alsl.d $t0,$t2,$t0,3",
        relocs: &[(4, 71, 1), (8, 72, 1)],
        linked: "nop\n pcaddi $t0,32195\n alsl.d $t0,$t2,$t0,3",
        types: &[Some(103), None],
    },
    Row {
        what: "address out of reach",
        object: "pcalau12i $t0,0\n addi.d $t0,$t0,0\n ret",
        relocs: &[(0, 71, 1), (4, 72, 1)],
        linked: "pcalau12i $t0,77\n addi.d $t0,$t0,-8\n ret",
        types: &[Some(71), Some(72)],
    },
    Row {
        what: "slot",
        object: "pcalau12i $t0,0\n ld.d $t0,$t0,0\n ret",
        relocs: &[(0, 75, 1), (4, 76, 1)],
        linked: "pcaddi $t0,32146\n ret",
        types: &[Some(103), None],
    },
    Row {
        what: "slot of something far",
        object: "pcalau12i $t0,0\n ld.d $t0,$t0,0\n ret",
        relocs: &[(0, 75, 1), (4, 76, 1)],
        linked: "pcalau12i $t0,600\n addi.d $t0,$t0,40\n ret",
        types: &[Some(71), Some(72)],
    },
    Row {
        what: "slot of another file",
        object: "pcalau12i $t0,0\n ld.d $t0,$t0,0\n ret",
        relocs: &[(0, 75, 1), (4, 76, 1)],
        linked: "pcalau12i $t0,31\n ld.d $t0,$t0,40\n ret",
        types: &[Some(75), Some(76)],
    },
    Row {
        what: "call",
        object: "pcaddu18i $ra,0\n jirl $ra,$ra,0\n move $s1,$a0",
        relocs: &[(0, 110, 1)],
        linked: "bl -152\n move $s1,$a0",
        types: &[Some(66)],
    },
    Row {
        what: "tail call",
        object: "addi.w $a0,$a0,1\n pcaddu18i $t0,0\n jirl $zero,$t0,0",
        relocs: &[(4, 110, 1)],
        linked: "addi.w $a0,$a0,1\n b 12",
        types: &[Some(66)],
    },
    Row {
        what: "far call",
        object: "pcaddu18i $ra,0\n jirl $ra,$ra,0\n move $s1,$a0",
        relocs: &[(0, 110, 1)],
        linked: "pcaddu18i $ra,900\n jirl $ra,$ra,48\n move $s1,$a0",
        types: &[Some(110)],
    },
    Row {
        what: "local-exec",
        object: "lu12i.w $t4,0\n add.d $t4,$t4,$tp\n mul.w $t6,$t6,$a0\n ld.w $t7,$t4,0\n st.w $t7,$t4,0",
        relocs: &[(0, 121, 1), (4, 122, 1), (12, 123, 1), (16, 123, 1)],
        linked: "mul.w $t6,$t6,$a0\n ld.w $t7,$tp,16\n st.w $t7,$tp,16",
        types: &[None, None, Some(123), Some(123)],
    },
    Row {
        what: "local-exec of two variables, one of them far",
        object: "lu12i.w $t4,0\n lu12i.w $t0,0\n add.d $t4,$t4,$tp\n add.d $t5,$t0,$tp\n addi.d $t5,$t5,0\n ld.w $a0,$t4,0",
        relocs: &[(0, 121, 1), (4, 121, 2), (8, 122, 1), (12, 122, 2), (16, 123, 2), (20, 123, 1)],
        linked: "lu12i.w $t0,2\n add.d $t5,$t0,$tp\n addi.d $t5,$t5,-8\n ld.w $a0,$tp,8",
        types: &[None, Some(121), None, Some(122), Some(123), Some(123)],
    },
    Row {
        what: "initial-exec of the program's own",
        object: "pcalau12i $t1,0\n ld.d $t1,$t1,0\n ldx.w $t0,$t1,$tp",
        relocs: &[(0, 87, 1), (4, 88, 1)],
        linked: "ori $t1,$zero,4\n ldx.w $t0,$t1,$tp",
        types: &[None, Some(84)],
    },
    Row {
        what: "initial-exec of the program's own, far from the pointer",
        object: "pcalau12i $t1,0\n ld.d $t1,$t1,0\n ldx.w $t0,$t1,$tp",
        relocs: &[(0, 87, 1), (4, 88, 1)],
        linked: "lu12i.w $t1,3\n ori $t1,$t1,4\n ldx.w $t0,$t1,$tp",
        types: &[Some(83), Some(84)],
    },
    Row {
        what: "initial-exec of another file",
        object: "pcalau12i $t1,0\n ld.d $t1,$t1,0\n ldx.w $t0,$t1,$tp",
        relocs: &[(0, 87, 1), (4, 88, 1)],
        linked: "pcalau12i $t1,31\n ld.d $t1,$t1,96\n ldx.w $t0,$t1,$tp",
        types: &[Some(87), Some(88)],
    },
    Row {
        what: "general-dynamic",
        object: "pcalau12i $a0,0\n addi.d $a0,$a0,0\n pcaddu18i $ra,0\n jirl $ra,$ra,0\n ldptr.w $s1,$a0,0",
        relocs: &[(0, 97, 1), (4, 76, 1), (8, 110, 2)],
        linked: "pcaddi $a0,32147\n bl -712\n ldptr.w $s1,$a0,0",
        types: &[Some(125), None, Some(66)],
    },
    Row {
        what: "descriptor, of the program's own",
        object: "pcalau12i $a0,0\n addi.d $a0,$a0,0\n ld.d $ra,$a0,0\n jirl $ra,$ra,0\n ldx.w $t1,$a0,$tp",
        relocs: &[(0, 111, 1), (4, 112, 1), (8, 119, 1), (12, 120, 1)],
        linked: "ori $a0,$zero,4\n ldx.w $t1,$a0,$tp",
        types: &[None, Some(84), None, None],
    },
    Row {
        what: "descriptor, of another file",
        object: "pcalau12i $a0,0\n addi.d $a0,$a0,0\n ld.d $ra,$a0,0\n jirl $ra,$ra,0\n ldx.w $t1,$a0,$tp",
        relocs: &[(0, 111, 1), (4, 112, 1), (8, 119, 1), (12, 120, 1)],
        linked: "pcalau12i $a0,32\n ld.d $a0,$a0,-800\n ldx.w $t1,$a0,$tp",
        types: &[Some(87), Some(88), None, None],
    },
    Row {
        what: "descriptor, of a library",
        object: "pcalau12i $a0,0\n addi.d $a0,$a0,0\n ld.d $ra,$a0,0\n jirl $ra,$ra,0\n ldx.w $t1,$a0,$tp",
        relocs: &[(0, 111, 1), (4, 112, 1), (8, 119, 1), (12, 120, 1)],
        linked: "pcaddi $a0,32213\n ld.d $ra,$a0,0\n jirl $ra,$ra,0\n ldx.w $t1,$a0,$tp",
        types: &[Some(126), None, Some(119), Some(120)],
    },
    Row {
        what: "descriptor, by a linker that does not relax",
        object: "pcalau12i $a0,0\n addi.d $a0,$a0,0\n ld.d $ra,$a0,0\n jirl $ra,$ra,0\n ldx.w $t1,$a0,$tp",
        relocs: &[(0, 111, 1), (4, 112, 1), (8, 119, 1), (12, 120, 1)],
        linked: "lu12i.w $a0,0\n ori $a0,$a0,4\n nop\n nop\n ldx.w $t1,$a0,$tp",
        types: &[Some(83), Some(84), None, None],
    },
    Row {
        what: "alignment to 16 behind what became shorter",
        object: "pcaddu18i $ra,0\n jirl $ra,$ra,0\n nop\n nop\n nop\n ret",
        relocs: &[(0, 110, 1), (8, ALIGN, 0)],
        linked: "bl -152\n nop\n nop\n nop\n ret",
        types: &[Some(66), None],
    },
    Row {
        what: "alignment that needs nothing",
        object: "nop\n nop\n nop\n ret",
        relocs: &[(0, ALIGN, 0)],
        linked: "ret",
        types: &[None],
    },
];

fn relocs(row: &Row) -> (Vec<CodeReloc>, Vec<Option<u32>>) {
    let (mut all, mut types) = (Vec::new(), Vec::new());
    for ((offset, r_type, symbol), wanted) in row.relocs.iter().copied().zip(row.types) {
        // Alignment to 16 bytes.
        let addend = if r_type == ALIGN { 12 } else { 0 };
        all.push(CodeReloc { offset, r_type, symbol, addend });
        types.push(*wanted);
        if r_type != ALIGN {
            all.push(CodeReloc { offset, r_type: RELAX, symbol: 0, addend: 0 });
            types.push(None);
        }
    }
    (all, types)
}

fn shortened(object: &[u8], relocs: &[CodeReloc], linked: &[u8]) -> Option<Shortened> {
    loongarch64().relaxed(object, relocs, linked, PLACE)
}

#[test]
fn what_gnu_ld_takes_out_is_followed() {
    if missing() {
        return;
    }
    for row in ROWS {
        let what = row.what;
        let (object, linked) = (instructions(row.object, 0, &[]), instructions(row.linked, 0, &[]));
        let (relocs, types) = relocs(row);
        let found = shortened(&object, &relocs, &linked).unwrap_or_else(|| panic!("{what}: not followed"));
        assert_eq!((&found.types, found.code.len()), (&types, linked.len()), "{what}");
        assert_eq!(found.taken_out(), object.len() - linked.len(), "{what}");
        assert_eq!(found.moved(object.len() as u64), linked.len() as u64, "{what}: the end");
        assert_eq!(found.moved(0), 0, "{what}: the start");
        // Whatever else is another instruction is not followed.
        for at in (0..linked.len()).step_by(4) {
            let mut other = linked.clone();
            // Bits [31:25] belong to no field.
            other[at + 3] ^= 0xfe;
            assert_eq!(shortened(&object, &relocs, &other), None, "{what}: another instruction at {at}");
        }
        for other in [&linked[4..], &[&linked[..], &linked[linked.len() - 4..]].concat()] {
            assert_eq!(shortened(&object, &relocs, other), None, "{what}: another length");
        }
        // Without its mark nothing is shortened.
        let unmarked: Vec<CodeReloc> = relocs.iter().copied().filter(|r| r.r_type != RELAX).collect();
        let same = object.len() == linked.len() && found.types.iter().flatten().eq(unmarked.iter().map(|r| &r.r_type));
        let only_aligned = row.relocs.iter().all(|(_, r_type, _)| *r_type == ALIGN);
        let follows = shortened(&object, &unmarked, &linked).is_some();
        assert_eq!(follows, same || only_aligned, "{what}: without a mark");
    }
}

#[test]
fn offsets_move_up_by_what_is_gone_before_them() {
    if missing() {
        return;
    }
    let row = ROWS.iter().find(|row| row.what == "local-exec").expect("a row");
    let (object, linked) = (instructions(row.object, 0, &[]), instructions(row.linked, 0, &[]));
    let found = shortened(&object, &relocs(row).0, &linked).expect("followed");
    assert_eq!([0, 2, 4, 8, 12, 16, 20].map(|at| found.moved(at)), [0, 0, 0, 0, 4, 8, 12]);
}

#[test]
fn alignments_that_may_be_given_up() {
    if missing() {
        return;
    }
    // The section begins 0x40 behind a multiple of 256. To 32 bytes, at most 8 of them; to 16 likewise, from 4 on; and an alignment
    // that is none.
    for (object, at, addend, linked) in [
        ("ret\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n ret", 4, 8 << 8 | 5, Some("ret\n ret")),
        ("ret\n nop\n nop\n nop\n ret", 4, 12 << 8 | 4, Some("ret\n nop\n nop\n nop\n ret")),
        ("ret\n nop\n nop\n nop\n ret", 4, 8 << 8 | 4, Some("ret\n ret")),
        ("ret\n nop\n nop\n nop\n ret", 4, 8 << 8 | 1, None),
        ("ret\n nop\n move $a0,$a1\n nop\n ret", 4, 12 << 8 | 4, None),
    ] {
        let code = instructions(object, 0, &[]);
        let relocs = [CodeReloc { offset: at, r_type: ALIGN, symbol: 1, addend }];
        let linked = linked.map(|linked| instructions(linked, 0, &[]));
        let found = shortened(&code, &relocs, linked.as_deref().unwrap_or(&code));
        assert_eq!(found.map(|f| f.code), linked, "{object} {addend:#x}");
    }
}
