// SPDX-License-Identifier: GPL-2.0-or-later
//! The code in front of libgcc's `_Unwind_Find_FDE(pc, bases)`: it answers for the code of patches, from tables in memory,
//! and goes on into the function for everything else. It takes no lock, calls nothing and stores nothing but the answer.

use super::jump::{bytes, constant};

/// `pc` is in a0 and `bases` in a1 (lapcs); only registers that a called function may change are used. In front of it the list's
/// address goes to t0.
const HOOK: [u32; 25] = [
    0x28c0_018d, //     ld.d $t1, $t0, 0         number of rows
    // next:
    0x4000_61a0, //     beqz $t1, old
    0x02ff_fdad, //     addi.d $t1, $t1, -1
    0x02c0_818c, //     addi.d $t0, $t0, 32
    0x28c0_018e, //     ld.d $t2, $t0, 0         start of the code
    0x6bff_f08e, //     bltu $a0, $t2, next
    0x28c0_218e, //     ld.d $t2, $t0, 8         its end
    0x6fff_e88e, //     bgeu $a0, $t2, next
    0x28c0_418d, //     ld.d $t1, $t0, 16        its functions
    0x28c0_618c, //     ld.d $t0, $t0, 24        how many
    // find:
    0x4000_3580, //     beqz $t0, none
    0x02ff_fd8c, //     addi.d $t0, $t0, -1
    0x28c0_01ae, //     ld.d $t2, $t1, 0         start of the function
    0x28c0_21af, //     ld.d $t3, $t1, 8         its end
    0x28c0_41b0, //     ld.d $t4, $t1, 16        its frame description
    0x02c0_61ad, //     addi.d $t1, $t1, 24
    0x6bff_e88e, //     bltu $a0, $t2, find
    0x6fff_e48f, //     bgeu $a0, $t3, find
    0x29c0_00a0, //     st.d $zero, $a1, 0       bases->tbase
    0x29c0_20a0, //     st.d $zero, $a1, 8       bases->dbase
    0x29c0_40ae, //     st.d $t2, $a1, 16        bases->func
    0x0015_0204, //     move $a0, $t4
    0x4c00_0020, //     ret
    // none:
    0x0015_0004, //     move $a0, $zero
    0x4c00_0020, //     ret
                 // old:
];

pub(super) fn hook(list: u64) -> Vec<u8> {
    const T0: u32 = 12;
    let mut words = constant(T0, list).to_vec();
    words.extend(HOOK);
    bytes(&words)
}
