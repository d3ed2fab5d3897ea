// SPDX-License-Identifier: GPL-2.0-or-later
//! The code in front of libgcc's `_Unwind_Find_FDE(pc, bases)`: it answers for the code of patches, from tables in memory,
//! and goes on into the function for everything else. It takes no lock, calls nothing and stores nothing but the answer.

/// `pc` is in rdi and `bases` in rsi (psABI 3.2.3); only registers that a called function may change are used.
const HOOK: [u8; 0x5a] = [
    0x48, 0xba, 0, 0, 0, 0, 0, 0, 0, 0, //    movabs $list,%rdx
    0x48, 0x8b, 0x0a, //                      mov (%rdx),%rcx       number of rows
    // next:
    0x48, 0x83, 0xe9, 0x01, //                sub $1,%rcx
    0x72, 0x47, //                            jc old
    0x48, 0x83, 0xc2, 0x20, //                add $32,%rdx
    0x48, 0x3b, 0x3a, //                      cmp (%rdx),%rdi       start of the code
    0x72, 0xf1, //                            jb next
    0x48, 0x3b, 0x7a, 0x08, //                cmp 8(%rdx),%rdi      its end
    0x73, 0xeb, //                            jae next
    0x48, 0x8b, 0x4a, 0x10, //                mov 16(%rdx),%rcx     its functions
    0x48, 0x8b, 0x52, 0x18, //                mov 24(%rdx),%rdx     how many
    // find:
    0x48, 0x83, 0xea, 0x01, //                sub $1,%rdx
    0x72, 0x27, //                            jc none
    0x4c, 0x8b, 0x01, //                      mov (%rcx),%r8        start of the function
    0x4c, 0x8b, 0x49, 0x08, //                mov 8(%rcx),%r9       its end
    0x48, 0x8b, 0x41, 0x10, //                mov 16(%rcx),%rax     its frame description
    0x48, 0x83, 0xc1, 0x18, //                add $24,%rcx
    0x4c, 0x39, 0xc7, //                      cmp %r8,%rdi
    0x72, 0xe6, //                            jb find
    0x4c, 0x39, 0xcf, //                      cmp %r9,%rdi
    0x73, 0xe1, //                            jae find
    0x31, 0xc9, //                            xor %ecx,%ecx
    0x48, 0x89, 0x0e, //                      mov %rcx,(%rsi)       bases->tbase
    0x48, 0x89, 0x4e, 0x08, //                mov %rcx,8(%rsi)      bases->dbase
    0x4c, 0x89, 0x46, 0x10, //                mov %r8,16(%rsi)      bases->func
    0xc3, //                                  ret
    // none:
    0x31, 0xc0, //                            xor %eax,%eax
    0xc3, //                                  ret
          // old:
];

pub(super) fn hook(list: u64) -> Vec<u8> {
    let mut code = HOOK.to_vec();
    if let Some(field) = code.get_mut(2..10) {
        field.copy_from_slice(&list.to_le_bytes());
    }
    code
}
