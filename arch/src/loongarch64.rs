// SPDX-License-Identifier: GPL-2.0-or-later
//! loongarch64: register slots and identity. Relocation rows, jumps and the stub come with this architecture's own release step;
//! until then every question about them is answered with "not supported", and no patch is made.

mod insn;
mod reloc;

use crate::{Arch, Call, Insn, JumpError, Regs, RelocRow, RemoteAddr, SlotRelocations, Stub};

// Words of `struct user_pt_regs` (arch/loongarch/include/uapi/asm/ptrace.h): r0..r31, orig_a0, csr_era, csr_badv, reserved.
const RESULT: usize = 4;
const SP: usize = 3;
const PC: usize = 33;
const TP: Option<usize> = Some(2);

#[derive(Debug)]
pub(crate) struct LoongArch64;

impl Arch for LoongArch64 {
    fn name(&self) -> &'static str {
        "loongarch64"
    }
    fn machine(&self) -> u16 {
        258
    }
    fn elf_flags(&self) -> u32 {
        0x43 // EF_LOONGARCH_ABI_DOUBLE_FLOAT | EF_LOONGARCH_OBJABI_V1
    }
    fn supported(&self) -> bool {
        false
    }

    fn section_flags(&self) -> &'static [&'static str] {
        &["-ffunction-sections"]
    }
    fn relocation(&self, r_type: u32) -> Option<&'static RelocRow> {
        reloc::RELOCATIONS.iter().find(|row| row.r_type == r_type)
    }
    fn relocation_at(&self, r_type: u32, code: &[u8], at: usize) -> Option<&'static RelocRow> {
        reloc::at(r_type, code, at)
    }
    fn widened_by(&self, r_type: u32) -> Option<u32> {
        reloc::widened_by(r_type)
    }
    fn relocations(&self) -> &'static [RelocRow] {
        reloc::RELOCATIONS
    }
    fn counts_from(&self, insn: &Insn) -> usize {
        insn.start
    }
    fn decode(&self, code: &[u8]) -> Vec<Insn> {
        insn::decode(code)
    }
    fn assembled_in(&self, code: &[u8], insn: &Insn, _field: usize) -> Option<u32> {
        insn::branch_type(code, insn.start)
    }
    fn returns(&self, code: &[u8]) -> bool {
        insn::returns(code)
    }
    fn runs_over_end(&self, code: &[u8]) -> bool {
        insn::runs_over_end(code)
    }

    fn landing_pad_len(&self, _code: &[u8]) -> usize {
        0
    }
    fn entry_jump_len(&self) -> usize {
        4
    }
    fn entry_jump(&self, _from: RemoteAddr, _to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        Err(JumpError::Unsupported)
    }
    fn reach(&self) -> u64 {
        1 << 27
    }
    fn slot_relocations(&self) -> SlotRelocations {
        // R_LARCH_64 (there is no GLOB_DAT), JUMP_SLOT, IRELATIVE
        SlotRelocations { data: 2, jump: 5, irelative: 12 }
    }
    fn plt_entry_len(&self) -> usize {
        16
    }
    fn plt_entry(&self, _at: RemoteAddr, _slot: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        Err(JumpError::Unsupported)
    }

    fn regs_len(&self) -> usize {
        45
    }
    fn pc(&self, regs: &Regs) -> u64 {
        regs.words[PC]
    }
    fn sp(&self, regs: &Regs) -> u64 {
        regs.words[SP]
    }
    fn thread_pointer(&self, regs: &Regs) -> Option<u64> {
        TP.map(|word| regs.words[word])
    }
    fn red_zone(&self) -> u64 {
        0
    }
    fn dwarf_slot(&self, reg: u16) -> Option<usize> {
        (reg < 32).then_some(usize::from(reg))
    }
    fn dwarf_sp(&self) -> u16 {
        SP as u16
    }
    fn dwarf_ra(&self) -> u16 {
        1
    }

    fn call_number(&self, call: Call) -> u64 {
        // include/uapi/asm-generic/unistd.h
        match call {
            Call::Munmap => 215,
            Call::Mmap => 222,
            Call::Mprotect => 226,
            Call::SignalAction => 134,
            Call::Restart => 128,
        }
    }
    fn stub_len(&self) -> usize {
        256
    }
    fn stub(&self, _saved: &Regs) -> Option<Stub> {
        None
    }
    fn call_regs(&self, saved: &Regs, _pc: RemoteAddr, _call: Call, _args: [u64; 6]) -> Regs {
        *saved
    }
    fn call_result(&self, regs: &Regs) -> i64 {
        regs.words[RESULT] as i64
    }
    fn in_restart_block(&self, _regs: &Regs) -> bool {
        true // unknown: the cautious answer
    }
    fn in_system_call(&self, _regs: &Regs) -> bool {
        true
    }
    fn cure_eintr(&self, _regs: &mut Regs) -> bool {
        false
    }
    fn begin_anew(&self, _regs: &mut Regs) {}
}
