// SPDX-License-Identifier: GPL-2.0-or-later
//! aarch64: instructions are aligned words of 4 bytes, and a branch or address counts from its own instruction. A64 has no jump
//! through memory and none with more than 28 bits of distance, but x16 and x17 belong to whoever stands between a call and its
//! callee. Facts: ELF, DWARF and Procedure Call Standard for the Arm 64-bit Architecture
//! (<https://github.com/ARM-software/abi-aa>: AAELF64, AADWARF64, AAPCS64), Arm Architecture Reference Manual (Arm ARM). No
//! patch is made until guests have shown that it runs.

mod address;
mod call;
mod gate;
mod insn;
mod jump;
mod relaxed;
mod relocations;
mod signal;
mod thread;
mod unwind;
mod veneer;

use crate::{
    AddressUse, Arch, Asleep, Call, Gate, Insn, InsnDetail, JumpError, LinkAddr, LinkedForm, Mark, Regs, RelocRow,
    RemoteAddr, SetWord, ShorterWay, SlotRelocations, Stub, ThreadForm, ThreadModel, ThreadSlots, Undisplaceable,
};

#[derive(Debug)]
pub(crate) struct Aarch64;

impl Arch for Aarch64 {
    fn name(&self) -> &'static str {
        "aarch64"
    }
    fn machine(&self) -> u16 {
        183
    }
    fn supported(&self) -> bool {
        true
    }
    fn can_apply(&self) -> bool {
        true
    }
    fn pages(&self) -> &'static [u64] {
        &[4096]
    }

    fn section_flags(&self) -> &'static [&'static str] {
        &["-ffunction-sections", "-fmerge-constants"]
    }
    fn slot_flags(&self) -> &'static [&'static str] {
        &["-fPIE"]
    }
    fn apart_flags(&self) -> &'static [&'static str] {
        &["-fdata-sections", "-fno-section-anchors"]
    }
    fn relocation(&self, r_type: u32) -> Option<&'static RelocRow> {
        relocations::RELOCATIONS.iter().find(|r| r.r_type == r_type)
    }
    fn relocations(&self) -> &'static [RelocRow] {
        relocations::RELOCATIONS
    }
    fn decode(&self, code: &[u8]) -> Vec<Insn> {
        insn::decode(code)
    }
    fn counts_from(&self, insn: &Insn) -> usize {
        insn.start
    }
    fn address_use(&self, code: &[u8], field: usize) -> AddressUse {
        address::follow(code, field)
    }
    fn detail(&self, code: &[u8], at: usize) -> Option<InsnDetail> {
        insn::detail(code, at)
    }
    fn assembled_in(&self, code: &[u8], insn: &Insn, _field: usize) -> Option<u32> {
        insn::assembled(insn::word_at(code, insn.start)?)
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

    fn thread_form(&self, r_type: u32, code: &[u8], field: usize, place: LinkAddr) -> ThreadForm {
        thread::form(r_type, code, field, place)
    }
    fn relax_thread_access(
        &self,
        r_type: u32,
        code: &mut [u8],
        field: usize,
        model: ThreadModel,
    ) -> Option<ShorterWay> {
        thread::shorten(r_type, code, field, model)
    }
    fn linked_mask(&self, row: &RelocRow) -> Vec<u8> {
        relaxed::mask(row)
    }
    fn page_taken(&self, code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
        relaxed::page_taken(code, place)
    }
    fn immediate_part(&self, r_type: u32, code: &[u8]) -> Option<i64> {
        relaxed::immediate_part(r_type, code)
    }
    fn veneer(&self, code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
        veneer::veneer(code, place)
    }
    fn moved_to(&self, code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
        veneer::branch(code, place)
    }
    fn moved_len(&self) -> usize {
        8
    }
    fn moved<'c>(&self, code: &'c [u8], at: LinkAddr, place: LinkAddr) -> Option<&'c [u8]> {
        veneer::moved(code, at, place)
    }
    fn linkage_slot(&self, code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
        relaxed::linkage_slot(code, place)
    }

    fn landing_pad_len(&self, code: &[u8]) -> usize {
        jump::landing_pad_len(code)
    }
    fn entry_jump_len(&self) -> usize {
        4
    }
    fn entry_jump(&self, from: RemoteAddr, to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        // b to
        Ok(jump::branch(from, to)?.to_le_bytes().to_vec())
    }
    fn reach(&self) -> u64 {
        1 << 27
    }
    fn slot_relocations(&self) -> SlotRelocations {
        // R_AARCH64_GLOB_DAT, JUMP_SLOT, IRELATIVE, ABS64, RELATIVE, COPY, TLS_TPREL64
        SlotRelocations {
            data: 1025,
            jump: 1026,
            irelative: 1032,
            absolute: 257,
            relative: 1027,
            copy: 1024,
            thread_offset: 1030,
        }
    }
    fn thread_slots(&self) -> Option<ThreadSlots> {
        // R_AARCH64_TLS_DTPMOD, TLS_DTPREL, TLSDESC
        Some(ThreadSlots { module: 1028, offset: 1029, descriptor: 1031 })
    }
    fn thread_block(&self, _size: u64, align: u64) -> Option<i64> {
        // AAELF64, "Thread Local Storage", variant I: the block stands behind two words at the thread pointer.
        i64::try_from(16u64.checked_next_multiple_of(align.max(1))?).ok()
    }
    fn pad_acts(&self, code: &[u8]) -> bool {
        jump::undo(code).is_some()
    }
    fn hop_len(&self) -> usize {
        jump::HOP_LEN
    }
    fn hop(&self, at: RemoteAddr, pad: &[u8], to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        Ok(jump::hop(at, pad, to))
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
    fn gate_len(&self, _displaced: &[u8]) -> usize {
        gate::GATE_LEN
    }
    fn gate(&self, gate: &Gate<'_>) -> Result<Vec<u8>, JumpError> {
        gate::gate(gate)
    }
    fn unwind_hook(&self, list: RemoteAddr) -> Option<Vec<u8>> {
        Some(unwind::hook(list.0, &[]))
    }
    fn unwind_hook_behind(&self, pad: &[u8], list: RemoteAddr) -> Option<Vec<u8>> {
        Some(unwind::hook(list.0, pad))
    }

    fn regs_len(&self) -> usize {
        call::WORDS
    }
    fn pc(&self, regs: &Regs) -> u64 {
        regs.words[call::PC]
    }
    fn sp(&self, regs: &Regs) -> u64 {
        regs.words[call::SP]
    }
    fn thread_pointer(&self, _regs: &Regs) -> Option<u64> {
        None
    }
    fn thread_pointer_in(&self) -> Option<SetWord> {
        Some(SetWord { set: 0x401, word: 0 }) // TPIDR_EL0, NT_ARM_TLS
    }
    fn red_zone(&self) -> u64 {
        0
    }
    fn dwarf_slot(&self, reg: u16) -> Option<usize> {
        // AADWARF64, "DWARF register names": x0 to x30, sp, pc.
        (reg <= 32).then_some(usize::from(reg))
    }
    fn dwarf_sp(&self) -> u16 {
        31
    }
    fn dwarf_ra(&self) -> u16 {
        30
    }
    fn returns_by_register(&self) -> bool {
        true
    }
    fn signature_in(&self) -> Option<SetWord> {
        Some(SetWord { set: 0x406, word: 1 }) // insn_mask of struct user_pac_mask, NT_ARM_PAC_MASK
    }
    fn code_address(&self, word: u64, mask: u64) -> u64 {
        // Bit 55 tells the kernel's addresses from a program's, signed or not (Arm ARM, "PAC field").
        if word >> 55 & 1 == 1 { word | mask } else { word & !mask }
    }

    fn signal_mark(&self) -> Mark {
        signal::MARK
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
        // include/uapi/asm-generic/unistd.h
        match call {
            Call::Munmap => 215,
            Call::Mmap => 222,
            Call::Mprotect => 226,
            Call::SignalAction => 134,
            Call::Restart => call::RESTART_SYSCALL,
        }
    }
    fn stub_len(&self) -> usize {
        call::STUB_LEN
    }
    fn stub(&self, _saved: &Regs) -> Option<Stub> {
        None // it depends on its place
    }
    fn stub_comes_from_anywhere(&self) -> bool {
        false
    }
    fn stub_at(&self, saved: &Regs, at: RemoteAddr) -> Option<Stub> {
        call::stub(saved, at)
    }
    fn stub_shapes(&self) -> Option<[Vec<u8>; 2]> {
        call::stub_shapes()
    }
    fn lost_by_calls(&self) -> &'static [(SetWord, Mark)] {
        &call::LOST
    }
    fn call_regs(&self, saved: &Regs, pc: RemoteAddr, call: Call, args: [u64; 6]) -> Regs {
        call::call_regs(saved, pc, self.call_number(call), args)
    }
    fn call_result(&self, regs: &Regs) -> i64 {
        regs.words[0] as i64
    }
    // The registers alone tell nothing about calls: no thread is known to be in one, and none is changed.
    fn in_restart_block(&self, _regs: &Regs) -> bool {
        false
    }
    fn in_system_call(&self, _regs: &Regs) -> bool {
        false
    }
    fn cure_eintr(&self, _regs: &mut Regs) -> bool {
        false
    }
    /// Nothing in the registers does it: the kernel sets x8 when the thread goes on. Who has to, lets the thread go on with
    /// PTRACE_SYSCALL and gives `restart_syscall` the number of the call again where it enters it (NT_ARM_SYSTEM_CALL), which
    /// is before filters see it; and x8 too, or the next stop would see `restart_syscall` there.
    fn begin_anew(&self, _regs: &mut Regs) {}

    fn needs_asleep(&self) -> bool {
        true
    }
    fn call_number_in(&self) -> Option<u32> {
        Some(0x404) // NT_ARM_SYSTEM_CALL
    }
    fn call_instruction(&self) -> &'static [u8] {
        &call::SVC_BYTES
    }
    fn may_be_cured(&self, regs: &Regs) -> Option<u64> {
        call::may_be_cured(regs)
    }
    fn may_be_resumed(&self, regs: &Regs) -> Option<u64> {
        call::may_be_resumed(regs)
    }
    fn set_call_number(&self, regs: &mut Regs, number: u64) {
        regs.words[call::NUMBER] = number;
    }
    fn resuming_ended(&self, regs: &Regs) -> Option<Regs> {
        call::resuming_ended(regs)
    }
    fn in_restart_block_of(&self, regs: &Regs, asleep: &Asleep) -> bool {
        call::has_restart_block(regs, asleep)
    }
    fn in_system_call_of(&self, regs: &Regs, asleep: &Asleep) -> bool {
        call::in_call(regs, asleep)
    }
    fn cure_eintr_of(&self, regs: &mut Regs, asleep: &Asleep) -> bool {
        call::cure(regs, asleep)
    }
    fn resumed(&self, saved: &Regs, asleep: &Asleep) -> Regs {
        call::resumed(saved, asleep)
    }
    fn interrupted(&self, saved: &Regs, asleep: &Asleep, restart: bool) -> Regs {
        call::interrupted(saved, asleep, restart)
    }
}
