// SPDX-License-Identifier: GPL-2.0-or-later
//! The code in front of libgcc's `_Unwind_Find_FDE(pc, bases)`: it answers for the code of patches, from tables in memory,
//! and goes on into the function for everything else. It takes no lock, calls nothing and stores nothing but the answer.

use super::jump::undo;

/// `pc` is in x0 and `bases` in x1 (AAPCS64); only registers that a called function may change are used.
/// `undo` is in front of both returns. No address of a patch's code is left in a register: nobody would take it out again, and
/// who looks for threads in that code would find it.
fn words(list: u64, undo: Option<u32>) -> Vec<u32> {
    let quarter = |n: u32| ((list >> (16 * n)) as u32 & 0xffff) << 5;
    let more = undo.map_or(0, |_| 1u32);
    // b.cond and cbz have their distance in [23:5], in words.
    let forward = |words: u32| words << 5;
    let backward = |words: u32| (words.wrapping_neg() & 0x7_ffff) << 5;
    let mut code = vec![
        0xd280_0009 | quarter(0),             // movz x9,#list
        0xf2a0_0009 | quarter(1),             // movk x9,#list>>16,lsl #16
        0xf2c0_0009 | quarter(2),             // movk x9,#list>>32,lsl #32
        0xf2e0_0009 | quarter(3),             // movk x9,#list>>48,lsl #48
        0xf940_012a,                          // ldr x10,[x9]             number of rows
        0xb400_000a | forward(28 + 2 * more), // next: cbz x10,old
        0xd100_054a,                          // sub x10,x10,#1
        0x9100_8129,                          // add x9,x9,#32
        0xa940_312b,                          // ldp x11,x12,[x9]         start and end of the code
        0xeb0b_001f,                          // cmp x0,x11
        0x5400_0003 | backward(5),            // b.lo next
        0xeb0c_001f,                          // cmp x0,x12
        0x5400_0002 | backward(7),            // b.hs next
        0xa941_312b,                          // ldp x11,x12,[x9,#16]     its functions, how many
        0xb400_000c | forward(15 + more),     // find: cbz x12,none
        0xd100_058c,                          // sub x12,x12,#1
        0xa940_396d,                          // ldp x13,x14,[x11]        start and end of the function
        0xf940_096a,                          // ldr x10,[x11,#16]        its frame description
        0x9100_616b,                          // add x11,x11,#24
        0xeb0d_001f,                          // cmp x0,x13
        0x5400_0003 | backward(6),            // b.lo find
        0xeb0e_001f,                          // cmp x0,x14
        0x5400_0002 | backward(8),            // b.hs find
        0xa900_7c3f,                          // stp xzr,xzr,[x1]         bases->tbase, dbase
        0xf900_082d,                          // str x13,[x1,#16]         bases->func
        0xaa0a_03e0,                          // mov x0,x10
        0xaa1f_03ed,                          // mov x13,xzr
        0xaa1f_03ee,                          // mov x14,xzr
    ];
    code.extend(undo);
    code.extend([
        0xd65f_03c0, // ret
        0xaa1f_03e0, // none: mov x0,xzr
        0xaa1f_03ed, // mov x13,xzr
        0xaa1f_03ee, // mov x14,xzr
    ]);
    code.extend(undo);
    code.extend([
        0xd65f_03c0, // ret
        0xaa1f_03eb, // old: mov x11,xzr
        0xaa1f_03ec, // mov x12,xzr
    ]);
    code
}

/// The hook behind the landing pad `pad`, whose effect on the return address is taken back before a return.
pub(super) fn hook(list: u64, pad: &[u8]) -> Vec<u8> {
    words(list, undo(pad)).into_iter().flat_map(u32::to_le_bytes).collect()
}
