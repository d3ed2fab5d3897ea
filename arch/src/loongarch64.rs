// SPDX-License-Identifier: GPL-2.0-or-later
//! loongarch64: instructions of four bytes; `b` and `bl` reach 128 MiB, everything else takes two and a register. Facts: the
//! LoongArch psABI (<https://github.com/loongson/la-abi-specs>): laelf (relocations, code models), lapcs (registers), ladwarf
//! (DWARF numbers); LoongArch reference manual, volume 1; Linux, arch/loongarch. Linkers take instructions out of its code, which
//! `shorten` follows.

mod address;
mod call;
mod gate;
mod insn;
mod jump;
mod relaxed;
mod reloc;
mod shorten;
mod signal;
mod unwind;

use crate::{
    AddressUse, Arch, Call, CodeReloc, Gate, Insn, InsnDetail, JumpError, LinkAddr, LinkedForm, Mark, Regs, RelocRow,
    RemoteAddr, Shortened, SlotRelocations, Stub, Undisplaceable,
};

// Words of `struct user_pt_regs` (arch/loongarch/include/uapi/asm/ptrace.h): r0..r31, orig_a0, csr_era, csr_badv, reserved.
/// The slot of register 0, which needs none: the kernel's marker of a system call.
const MARKER: usize = 0;
const TP: usize = 2;
const SP: usize = 3;
/// a0
const RESULT: usize = 4;
const ORIG_A0: usize = 32;
const PC: usize = 33;

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
        true
    }
    fn can_apply(&self) -> bool {
        true
    }

    fn section_flags(&self) -> &'static [&'static str] {
        &["-ffunction-sections", "-fmerge-constants"]
    }
    fn apart_flags(&self) -> &'static [&'static str] {
        &["-fdata-sections", "-fno-section-anchors"]
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
    fn loops_to_entry(&self, code: &[u8]) -> bool {
        insn::loops_to_entry(code)
    }
    fn address_use(&self, code: &[u8], field: usize) -> AddressUse {
        address::follow(code, field)
    }
    fn detail(&self, code: &[u8], at: usize) -> Option<InsnDetail> {
        insn::detail(code, at)
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
    fn relaxed_around(&self, r_type: u32) -> (usize, usize) {
        relaxed::around(r_type)
    }
    fn linked_form(&self, r_type: u32, code: &[u8], field: usize) -> LinkedForm {
        relaxed::form(r_type, code, field)
    }
    fn immediate_mask(&self, row: &RelocRow) -> Vec<u8> {
        // TLS_LE_LO12 and TLS_LE_LO12_R stand in the access itself, of which only the operand is the linker's.
        if matches!(row.r_type, 84 | 123) { row.mask() } else { vec![0xff; row.field.size()] }
    }
    fn allows_relaxation(&self, r_type: u32) -> bool {
        shorten::marked(r_type)
    }
    fn relaxed(&self, code: &[u8], relocs: &[CodeReloc], linked: &[u8], place: LinkAddr) -> Option<Shortened> {
        shorten::follow(code, relocs, linked, place.0)
    }
    fn page_taken(&self, code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
        insn::page_taken(code, place)
    }
    fn immediate_part(&self, r_type: u32, code: &[u8]) -> Option<i64> {
        relaxed::immediate_part(r_type, code)
    }
    fn linkage_slot(&self, code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
        insn::linkage_slot(code, place)
    }

    fn landing_pad_len(&self, _code: &[u8]) -> usize {
        0
    }
    fn entry_jump_len(&self) -> usize {
        insn::LEN
    }
    fn entry_jump(&self, from: RemoteAddr, to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        jump::b(from, to).map(|word| jump::bytes(&[word]))
    }
    fn hop_len(&self) -> usize {
        jump::HOP_LEN
    }
    fn hop(&self, at: RemoteAddr, _pad: &[u8], to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        jump::hop(at, to)
    }
    fn reach(&self) -> u64 {
        1 << 27
    }
    fn slot_relocations(&self) -> SlotRelocations {
        // R_LARCH_64 (there is no GLOB_DAT), JUMP_SLOT, IRELATIVE, 64, RELATIVE, COPY, TLS_TPREL64
        SlotRelocations { data: 2, jump: 5, irelative: 12, absolute: 2, relative: 3, copy: 4, thread_offset: 11 }
    }
    fn thread_block(&self, _size: u64, _align: u64) -> Option<i64> {
        // psABI, "Thread-Local Storage": the block begins at the thread pointer.
        Some(0)
    }
    fn plt_entry_len(&self) -> usize {
        jump::PLT_LEN
    }
    fn plt_entry(&self, at: RemoteAddr, slot: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        jump::plt_entry(at, slot)
    }

    fn displaceable(&self, code: &[u8], at: usize) -> Result<usize, Undisplaceable> {
        gate::displaceable(code, at)
    }
    fn gate_len(&self, displaced: &[u8]) -> usize {
        gate::gate_len(displaced)
    }
    fn gate(&self, gate: &Gate<'_>) -> Result<Vec<u8>, JumpError> {
        gate::gate(gate)
    }
    fn unwind_hook(&self, list: RemoteAddr) -> Option<Vec<u8>> {
        Some(unwind::hook(list.0))
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
        Some(regs.words[TP])
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
    fn returns_by_register(&self) -> bool {
        true
    }

    fn signal_mark(&self) -> Mark {
        signal::MARK
    }
    fn may_be_context(&self, at: u64, word: &dyn Fn(i64) -> Option<u64>) -> bool {
        signal::may_be_context(at, word)
    }
    fn saved_by_signal(&self, dwarf: u16) -> Option<i64> {
        signal::saved(dwarf)
    }
    fn interrupted_at(&self) -> Option<i64> {
        Some(signal::PC)
    }
    fn signal_trampoline(&self, code: &[u8]) -> Option<u64> {
        signal::trampoline(code)
    }

    fn call_number(&self, call: Call) -> u64 {
        call::number(call)
    }
    fn stub_len(&self) -> usize {
        call::STUB_LEN
    }
    fn stub(&self, saved: &Regs) -> Option<Stub> {
        Some(call::stub(saved))
    }
    fn call_regs(&self, saved: &Regs, pc: RemoteAddr, call: Call, args: [u64; 6]) -> Regs {
        call::call_regs(saved, pc, call, args)
    }
    fn call_result(&self, regs: &Regs) -> i64 {
        regs.words[RESULT] as i64
    }
    fn in_restart_block(&self, regs: &Regs) -> bool {
        call::in_restart_block(regs)
    }
    fn in_system_call(&self, regs: &Regs) -> bool {
        call::in_system_call(regs)
    }
    fn cure_eintr(&self, regs: &mut Regs) -> bool {
        call::cure_eintr(regs)
    }
    fn begin_anew(&self, regs: &mut Regs) {
        call::begin_anew(regs);
    }
}
