// SPDX-License-Identifier: GPL-2.0-or-later
//! x86_64: variable-length instructions; a direct near jump or call has a signed 32-bit displacement from the end of
//! the instruction. Facts: System V ABI, AMD64 Architecture Processor Supplement (<https://gitlab.com/x86-psABIs/x86-64-ABI>),
//! chapters 3.2 (registers, red zone), 3.6 (DWARF numbers) and 4.4 (relocations); Intel SDM volume 2.

mod address;
mod gate;
mod signal;
mod thread;
mod unwind;

use crate::{
    AddressUse, Arch, Call, Field, Flow, Formula, Gate, Insn, InsnDetail, JumpError, LinkAddr, LinkedForm, Mark,
    PcRelative, Range, Regs, RelocRow, RemoteAddr, ShorterWay, SlotKind, SlotRelocations, Stub, ThreadForm,
    ThreadModel, ThreadSlots, Undisplaceable,
};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter as _, GasFormatter, Instruction, Mnemonic, OpKind};

#[derive(Debug)]
pub(crate) struct X86_64;

const fn row(r_type: u32, name: &'static str, formula: Formula, bytes: u8, range: Range) -> RelocRow {
    RelocRow { r_type, name, formula, field: Field::Bytes(bytes), range, align: 1 }
}

const fn thread(kind: SlotKind) -> Formula {
    Formula::ThreadSlotPcRelative(kind)
}

/// psABI table 4.9. Rows marked unsupported are known by name so that a refusal can name them.
static RELOCATIONS: &[RelocRow] = &[
    row(0, "R_X86_64_NONE", Formula::Nothing, 0, Range::Any),
    row(1, "R_X86_64_64", Formula::Absolute, 8, Range::Any),
    row(2, "R_X86_64_PC32", Formula::PcRelative, 4, Range::Signed(32)),
    row(3, "R_X86_64_GOT32", Formula::Unsupported, 4, Range::Signed(32)),
    row(4, "R_X86_64_PLT32", Formula::PltPcRelative, 4, Range::Signed(32)),
    row(9, "R_X86_64_GOTPCREL", Formula::GotPcRelative, 4, Range::Signed(32)),
    row(10, "R_X86_64_32", Formula::Absolute, 4, Range::Unsigned(32)),
    row(11, "R_X86_64_32S", Formula::Absolute, 4, Range::Signed(32)),
    row(12, "R_X86_64_16", Formula::Absolute, 2, Range::Either(16)),
    row(13, "R_X86_64_PC16", Formula::PcRelative, 2, Range::Signed(16)),
    row(14, "R_X86_64_8", Formula::Absolute, 1, Range::Either(8)),
    row(15, "R_X86_64_PC8", Formula::PcRelative, 1, Range::Signed(8)),
    row(17, "R_X86_64_DTPOFF64", Formula::Unsupported, 8, Range::Any),
    row(18, "R_X86_64_TPOFF64", Formula::TpOffset, 8, Range::Any),
    row(19, "R_X86_64_TLSGD", thread(SlotKind::ThreadIndex), 4, Range::Signed(32)),
    row(20, "R_X86_64_TLSLD", thread(SlotKind::ThreadModule), 4, Range::Signed(32)),
    row(21, "R_X86_64_DTPOFF32", Formula::ModuleOffset, 4, Range::Signed(32)),
    row(22, "R_X86_64_GOTTPOFF", Formula::TpSlotPcRelative, 4, Range::Signed(32)),
    row(23, "R_X86_64_TPOFF32", Formula::TpOffset, 4, Range::Signed(32)),
    row(24, "R_X86_64_PC64", Formula::PcRelative, 8, Range::Any),
    row(25, "R_X86_64_GOTOFF64", Formula::Unsupported, 8, Range::Any),
    row(26, "R_X86_64_GOTPC32", Formula::Unsupported, 4, Range::Signed(32)),
    row(27, "R_X86_64_GOT64", Formula::Unsupported, 8, Range::Any),
    row(28, "R_X86_64_GOTPCREL64", Formula::GotPcRelative, 8, Range::Any),
    row(29, "R_X86_64_GOTPC64", Formula::Unsupported, 8, Range::Any),
    row(31, "R_X86_64_PLTOFF64", Formula::Unsupported, 8, Range::Any),
    row(32, "R_X86_64_SIZE32", Formula::Size, 4, Range::Unsigned(32)),
    row(33, "R_X86_64_SIZE64", Formula::Size, 8, Range::Any),
    row(34, "R_X86_64_GOTPC32_TLSDESC", thread(SlotKind::ThreadDescriptor), 4, Range::Signed(32)),
    row(35, "R_X86_64_TLSDESC_CALL", Formula::Nothing, 0, Range::Any),
    row(41, "R_X86_64_GOTPCRELX", Formula::GotPcRelative, 4, Range::Signed(32)),
    row(42, "R_X86_64_REX_GOTPCRELX", Formula::GotPcRelative, 4, Range::Signed(32)),
];

/// `endbr64`: f3 0f 1e fa.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const JUMP_LEN: usize = 5;
const PLT_LEN: usize = 8;

// Words of `struct user_regs_struct` (arch/x86/include/uapi/asm/ptrace.h order, <sys/user.h>).
const R15: usize = 0;
const R14: usize = 1;
const R13: usize = 2;
const R12: usize = 3;
const RBP: usize = 4;
const RBX: usize = 5;
const R11: usize = 6;
const R10: usize = 7;
const R9: usize = 8;
const R8: usize = 9;
const RAX: usize = 10;
const RCX: usize = 11;
const RDX: usize = 12;
const RSI: usize = 13;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const RSP: usize = 19;
const FS_BASE: usize = 21;
const WORDS: usize = 27;

/// psABI figure 3.36: DWARF number to word.
const DWARF: [usize; 17] = [RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15, RIP];

const SYSCALL_LEN: u64 = 2;
const NR_RESTART_SYSCALL: u64 = 219;

// The kernel's own codes for "restart this call", which only tracers see (include/linux/errno.h).
const EINTR: i64 = 4;
const ERESTARTSYS: i64 = 512;
const ERESTARTNOINTR: i64 = 513;
const ERESTARTNOHAND: i64 = 514;
const ERESTART_RESTARTBLOCK: i64 = 516;

/// Calls which the kernel ends with EINTR at every ptrace stop although restarting them is harmless. Never `close` (the descriptor
/// is gone), `ioctl` (KVM_RUN means it), `connect`, or anything whose effect may have happened already.
const CURED: &[(u64, &str)] = &[
    (43, "accept"),
    (44, "sendto"),
    (45, "recvfrom"),
    (46, "sendmsg"),
    (47, "recvmsg"),
    (65, "semop"),
    (128, "rt_sigtimedwait"),
    (208, "io_getevents"),
    (220, "semtimedop"),
    (232, "epoll_wait"),
    (281, "epoll_pwait"),
    (288, "accept4"),
    (299, "recvmmsg"),
    (441, "epoll_pwait2"),
];

fn rel32(from: RemoteAddr, len: u64, to: RemoteAddr) -> Result<[u8; 4], JumpError> {
    let distance = to.0.wrapping_sub(from.0.wrapping_add(len)) as i64;
    i32::try_from(distance).map(i32::to_le_bytes).map_err(|_| JumpError::OutOfReach { from, to })
}

/// The state in which the thread goes on in user mode when no tracer is there to let the kernel restart its call.
fn user_level(saved: &Regs) -> Regs {
    let mut regs = *saved;
    if !X86_64.in_system_call(saved) {
        return regs;
    }
    let rewind = match (saved.words[RAX] as i64).wrapping_neg() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => Some(saved.words[ORIG_RAX]),
        ERESTART_RESTARTBLOCK => Some(NR_RESTART_SYSCALL),
        _ => {
            let mut cured = *saved;
            X86_64.cure_eintr(&mut cured).then_some(saved.words[ORIG_RAX])
        }
    };
    if let Some(number) = rewind {
        regs.words[RAX] = number;
        regs.words[RIP] = regs.words[RIP].wrapping_sub(SYSCALL_LEN);
    }
    regs
}

impl Arch for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }
    fn machine(&self) -> u16 {
        62 // EM_X86_64
    }
    fn supported(&self) -> bool {
        true
    }
    fn proven(&self) -> bool {
        true
    }
    fn pages(&self) -> &'static [u64] {
        &[4096]
    }

    fn section_flags(&self) -> &'static [&'static str] {
        &["-ffunction-sections", "-fdata-sections", "-fmerge-constants"]
    }
    fn slot_flags(&self) -> &'static [&'static str] {
        &["-mno-direct-extern-access"]
    }
    fn relocation(&self, r_type: u32) -> Option<&'static RelocRow> {
        RELOCATIONS.iter().find(|r| r.r_type == r_type)
    }
    fn relocations(&self) -> &'static [RelocRow] {
        RELOCATIONS
    }

    fn decode(&self, code: &[u8]) -> Vec<Insn> {
        let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        let mut insns = Vec::new();
        let mut insn = Instruction::default();
        while decoder.can_decode() {
            let start = decoder.position();
            decoder.decode_out(&mut insn);
            if insn.is_invalid() {
                break;
            }
            let direct = matches!(insn.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16);
            // A direct branch has its displacement where other instructions have an immediate.
            let field = direct.then(|| start + decoder.get_constant_offsets(&insn).immediate_offset());
            let target = direct.then(|| insn.near_branch_target() as i64);
            let flow = match insn.flow_control() {
                FlowControl::Call | FlowControl::IndirectCall => Flow::Call { field, target },
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => Flow::Jump { field, target },
                // jmp *slot(%rip), as -fno-plt makes it; a switch has its table's index in a register.
                FlowControl::IndirectBranch if insn.is_ip_rel_memory_operand() => Flow::TailCall,
                FlowControl::IndirectBranch => Flow::Jump { field: None, target: None },
                // xbegin's destination is where an aborted transaction goes on.
                FlowControl::XbeginXabortXend if direct => Flow::Jump { field, target },
                _ => Flow::Next,
            };
            insns.push(Insn { start, end: decoder.position(), flow });
        }
        insns
    }

    fn address_use(&self, code: &[u8], field: usize) -> AddressUse {
        address::follow(code, field)
    }

    fn detail(&self, code: &[u8], at: usize) -> Option<InsnDetail> {
        let mut decoder = Decoder::with_ip(64, code.get(at..)?, u64::try_from(at).ok()?, DecoderOptions::NONE);
        let insn = decoder.decode();
        if insn.is_invalid() {
            return None;
        }
        let fields = decoder.get_constant_offsets(&insn);
        let branch = (insn.is_jcc_short_or_near() || insn.is_jmp_short_or_near() || insn.is_call_near())
            .then(|| (insn.mnemonic() as u16, insn.near_branch_target() as i64));
        let pc_relative = (insn.is_ip_rel_memory_operand() && fields.has_displacement()).then(|| PcRelative {
            at: fields.displacement_offset(),
            len: fields.displacement_size(),
            target: insn.ip_rel_memory_address() as i64,
            taken: insn.mnemonic() == Mnemonic::Lea,
        });
        Some(InsnDetail { len: insn.len(), nop: insn.mnemonic() == Mnemonic::Nop, branch, pc_relative })
    }

    fn padding(&self, code: &[u8], at: usize) -> Option<usize> {
        // int3
        let trap = code.get(at) == Some(&0xcc);
        if trap { Some(1) } else { self.detail(code, at).filter(|insn| insn.nop).map(|insn| insn.len) }
    }
    fn relaxed_around(&self, r_type: u32) -> (usize, usize) {
        // psABI B.2, and the linker's TLS optimisations (chapter 11 of "ELF handling for thread-local storage").
        match r_type {
            // TLSGD: the whole sequence of lea and call __tls_get_addr becomes a load of %fs:0 and an add.
            19 => (4, 8),
            // TLSLD likewise.
            20 => (3, 6),
            // GOTTPOFF, REX_GOTPCRELX: the instruction in front of the field changes, REX prefix too.
            22 | 42 => (3, 0),
            // GOTPC32_TLSDESC likewise, and the call of the resolver behind it becomes a nop.
            34 => (3, 2),
            // TLSDESC_CALL: `call *(%rax)` becomes a two-byte nop.
            35 => (0, 2),
            // GOTPCRELX: `jmp *sym@GOTPCREL(%rip)` becomes `jmp sym; nop`.
            41 => (2, 0),
            _ => (0, 0),
        }
    }

    fn assembled(&self, bytes: usize) -> Option<u32> {
        // R_X86_64_PC32: a field of four bytes, with up to four of an immediate operand behind it.
        (4..=8).contains(&bytes).then_some(2)
    }

    fn disassemble(&self, code: &[u8]) -> Vec<(usize, String)> {
        let mut formatter = GasFormatter::new();
        let mut show = |insn: &Instruction| {
            let mut text = String::new();
            formatter.format(insn, &mut text);
            (insn.ip() as usize, text)
        };
        Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter().map(|insn| show(&insn)).collect()
    }

    fn returns(&self, code: &[u8]) -> bool {
        Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter().any(|insn| match insn.flow_control() {
            FlowControl::Return | FlowControl::IndirectBranch => true,
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                insn.near_branch_target() >= code.len() as u64
            }
            _ => insn.is_invalid(),
        })
    }

    fn runs_over_end(&self, code: &[u8]) -> bool {
        let mut last = None;
        for insn in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter().filter(|i| i.mnemonic() != Mnemonic::Nop)
        {
            last = Some(insn.flow_control());
            if insn.is_invalid() {
                return true;
            }
        }
        let leaves = [
            FlowControl::Return,
            FlowControl::UnconditionalBranch,
            FlowControl::IndirectBranch,
            FlowControl::Exception,
        ];
        !last.is_some_and(|flow| leaves.contains(&flow))
    }

    fn linked_form(&self, r_type: u32, code: &[u8], field: usize) -> LinkedForm {
        // psABI B.2: what becomes of GOTPCRELX (41) and REX_GOTPCRELX (42). Opcode and ModRM stand in front of the field.
        let front = field.checked_sub(2).and_then(|start| code.get(start..field));
        match (r_type, front) {
            // The call of __tls_get_addr in a sequence that got shorter: what stands there is no call and no load of a slot, which is
            // all that PLT32 and GOTPCRELX can be of.
            (4 | 41, _) if thread::call_is_gone(code, field) => LinkedForm::Elided,
            // lea sym(%rip), reg; addr32 call sym
            (41 | 42, Some([0x8d, _] | [0x67, 0xe8])) => LinkedForm::Direct { before: 0 },
            // jmp sym; nop
            (41, Some([0xe9, _])) => LinkedForm::Direct { before: 1 },
            // mov $sym, reg; an arithmetic operation with $sym; test $sym, reg
            (41 | 42, Some([0xc7 | 0x81 | 0xf7, modrm])) if modrm >> 6 == 3 => LinkedForm::Immediate,
            _ => LinkedForm::AsWritten,
        }
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

    fn landing_pad_len(&self, code: &[u8]) -> usize {
        if code.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 }
    }
    fn entry_jump_len(&self) -> usize {
        JUMP_LEN
    }
    fn entry_jump(&self, from: RemoteAddr, to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        // e9 rel32            jmp to
        let mut bytes = vec![0xe9];
        bytes.extend(rel32(from, JUMP_LEN as u64, to)?);
        Ok(bytes)
    }
    fn reach(&self) -> u64 {
        1 << 31
    }
    fn slot_relocations(&self) -> SlotRelocations {
        // R_X86_64_GLOB_DAT, JUMP_SLOT, IRELATIVE, 64, RELATIVE, COPY, TPOFF64
        SlotRelocations { data: 6, jump: 7, irelative: 37, absolute: 1, relative: 8, copy: 5, thread_offset: 18 }
    }
    fn thread_slots(&self) -> Option<ThreadSlots> {
        // R_X86_64_DTPMOD64, DTPOFF64, TLSDESC
        Some(ThreadSlots { module: 16, offset: 17, descriptor: 36 })
    }
    fn thread_block(&self, size: u64, align: u64) -> Option<i64> {
        // "ELF handling for thread-local storage", variant II: the block ends at the thread pointer.
        i64::try_from(size.checked_next_multiple_of(align.max(1))?).ok()?.checked_neg()
    }
    fn plt_entry_len(&self) -> usize {
        PLT_LEN
    }
    fn plt_entry(&self, at: RemoteAddr, slot: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        // ff 25 rel32         jmp *slot(%rip)
        // 66 90               xchg %ax,%ax
        let mut bytes = vec![0xff, 0x25];
        bytes.extend(rel32(at, 6, slot)?);
        bytes.extend([0x66, 0x90]);
        Ok(bytes)
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
        WORDS
    }
    fn pc(&self, regs: &Regs) -> u64 {
        regs.words[RIP]
    }
    fn sp(&self, regs: &Regs) -> u64 {
        regs.words[RSP]
    }
    fn thread_pointer(&self, regs: &Regs) -> Option<u64> {
        Some(regs.words[FS_BASE])
    }
    fn pointer_rotation(&self) -> u32 {
        // glibc's PTR_MANGLE: xor %fs:0x30,reg; rol $0x11,reg
        17
    }
    fn red_zone(&self) -> u64 {
        128
    }
    fn dwarf_slot(&self, reg: u16) -> Option<usize> {
        DWARF.get(usize::from(reg)).copied()
    }
    fn dwarf_sp(&self) -> u16 {
        7
    }
    fn dwarf_ra(&self) -> u16 {
        16
    }

    fn signal_mark(&self) -> Mark {
        signal::MARK
    }
    fn saved_by_signal(&self, dwarf: u16) -> Option<i64> {
        signal::saved(dwarf)
    }
    fn interrupted_at(&self) -> Option<i64> {
        signal::saved(16) // rip
    }
    fn signal_trampoline(&self, code: &[u8]) -> Option<u64> {
        signal::trampoline(code)
    }
    fn call_number(&self, call: Call) -> u64 {
        match call {
            Call::Mmap => 9,
            Call::Mprotect => 10,
            Call::Munmap => 11,
            Call::SignalAction => 13,
            Call::Restart => 219,
        }
    }
    fn stub_len(&self) -> usize {
        192
    }
    fn stub(&self, saved: &Regs) -> Option<Stub> {
        // 0f 05               syscall
        // REX 8b modrm rel32  mov pool_i(%rip),%reg       for each register that the call's set-up or the kernel changes
        // ff 25 rel32         jmp *pool_n(%rip)           where the thread was
        const POOL: usize = 96;
        // (word, REX prefix, ModRM of mov disp32(%rip),%reg)
        const LOADS: [(usize, u8, u8); 9] = [
            (RAX, 0x48, 0x05),
            (RCX, 0x48, 0x0d),
            (RDX, 0x48, 0x15),
            (RSI, 0x48, 0x35),
            (RDI, 0x48, 0x3d),
            (R8, 0x4c, 0x05),
            (R9, 0x4c, 0x0d),
            (R10, 0x4c, 0x15),
            (R11, 0x4c, 0x1d),
        ];
        let resume = user_level(saved);
        let mut bytes = vec![0x0f, 0x05];
        let mut pool = Vec::new();
        let displacement = |slot: usize, end: usize| ((POOL + 8 * slot - end) as u32).to_le_bytes();
        for (i, (word, rex, modrm)) in LOADS.into_iter().enumerate() {
            let end = bytes.len() + 7;
            bytes.extend([rex, 0x8b, modrm]);
            bytes.extend(displacement(i, end));
            pool.extend(resume.words[word].to_le_bytes());
        }
        let end = bytes.len() + 6;
        bytes.extend([0xff, 0x25]);
        bytes.extend(displacement(LOADS.len(), end));
        pool.extend(resume.words[RIP].to_le_bytes());
        bytes.resize(POOL, 0xcc); // int3, never reached
        bytes.extend(pool);
        Some(Stub { bytes })
    }
    fn call_regs(&self, saved: &Regs, pc: RemoteAddr, call: Call, args: [u64; 6]) -> Regs {
        let mut regs = *saved;
        regs.words[RIP] = pc.0;
        regs.words[ORIG_RAX] = u64::MAX; // not inside a call: nothing for the kernel to restart
        regs.words[RAX] = self.call_number(call);
        for (word, arg) in [RDI, RSI, RDX, R10, R8, R9].into_iter().zip(args) {
            regs.words[word] = arg;
        }
        regs
    }
    fn call_result(&self, regs: &Regs) -> i64 {
        regs.words[RAX] as i64
    }
    fn in_restart_block(&self, regs: &Regs) -> bool {
        self.in_system_call(regs) && regs.words[RAX] as i64 == -ERESTART_RESTARTBLOCK
    }
    fn in_system_call(&self, regs: &Regs) -> bool {
        // The kernel looks at the lower half alone (syscall_get_nr).
        regs.words[ORIG_RAX] as i32 >= 0
    }
    fn cure_eintr(&self, regs: &mut Regs) -> bool {
        let listed = CURED.iter().any(|(number, _)| *number == regs.words[ORIG_RAX]);
        let cured = listed && regs.words[RAX] as i64 == -EINTR;
        if cured {
            regs.words[RAX] = (-ERESTARTNOHAND) as u64;
        }
        cured
    }
    fn begin_anew(&self, regs: &mut Regs) {
        regs.words[RAX] = (-ERESTARTNOHAND) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each instruction of `code` is, from its bytes as an assembler's listing shows them.
    fn flows(code: &[u8]) -> Vec<(usize, usize, Flow)> {
        X86_64.decode(code).into_iter().map(|i| (i.start, i.end, i.flow)).collect()
    }

    #[test]
    fn instructions_and_where_they_lead() {
        use Flow::*;
        let jump = |field, target| Jump { field: Some(field), target: Some(target) };
        let call = |field, target| Call { field: Some(field), target: Some(target) };
        let (indirect_jump, indirect_call) = (Jump { field: None, target: None }, Call { field: None, target: None });
        for (text, bytes, flow) in [
            ("call", &[0xe8, 0, 0, 0, 0][..], call(1, 5)),
            ("jmp rel32", &[0xe9, 0xfb, 0xff, 0xff, 0xff], jump(1, 0)),
            ("jmp rel8", &[0xeb, 0xfe], jump(1, 0)),
            ("bnd jmp", &[0xf2, 0xe9, 1, 0, 0, 0], jump(2, 7)),
            ("jne rel32", &[0x0f, 0x85, 0, 1, 0, 0], jump(2, 0x106)),
            ("je rel8", &[0x74, 0x10], jump(1, 0x12)),
            ("jrcxz", &[0xe3, 0xfe], jump(1, 0)),
            ("loop", &[0xe2, 0xfe], jump(1, 0)),
            ("xbegin", &[0xc7, 0xf8, 0, 0, 0, 0], jump(2, 6)),
            ("jmp *slot(%rip)", &[0xff, 0x25, 0, 0, 0, 0], TailCall),
            ("jmp *%rax", &[0xff, 0xe0], indirect_jump),
            ("notrack jmp *%rax", &[0x3e, 0xff, 0xe0], indirect_jump),
            ("jmp *table(,%rax,8)", &[0xff, 0x24, 0xc5, 0, 0, 0, 0], indirect_jump),
            ("call *slot(%rip)", &[0xff, 0x15, 0, 0, 0, 0], indirect_call),
            ("ret", &[0xc3], Next),
            ("movl $imm,sym(%rip)", &[0xc7, 0x05, 0, 0, 0, 0, 0xe8, 0, 0, 0], Next),
        ] {
            assert_eq!(flows(bytes), [(0, bytes.len(), flow)], "{text}");
        }
    }

    #[test]
    fn a_byte_before_a_field_makes_no_call() {
        // c6 05 <rel32> e8    movb $0xe8,sym(%rip)
        // 48 c7 c0 <imm32>    mov $sym,%rax
        // 05 <imm32>          add $sym,%eax, behind the immediate e8 of: 3c e8  cmp $0xe8,%al
        // e8 <rel32>          call
        let code = [
            &[0xc6, 0x05, 0, 0, 0, 0, 0xe8][..],
            &[0x48, 0xc7, 0xc0, 0, 0, 0, 0],
            &[0x3c, 0xe8],
            &[0x05, 0, 0, 0, 0],
            &[0xe8, 0, 0, 0, 0],
        ]
        .concat();
        let fields: Vec<usize> = (0..code.len()).filter(|offset| X86_64.is_branch_field(&code, *offset)).collect();
        assert_eq!(fields, [22]);
        let insns = X86_64.decode(&code);
        let ends = [2, 10, 17, 22].map(|field| Insn::containing(&insns, field).map(|insn| insn.end));
        assert_eq!(ends, [Some(7), Some(14), Some(21), Some(26)]);
        assert_eq!(Insn::containing(&insns, code.len()), None);
    }

    #[test]
    fn loops_to_the_entry() {
        for (text, code, loops) in [
            ("jmp entry", &[0x90, 0xeb, 0xfd][..], true),
            ("jne entry, near", &[0x0f, 0x85, 0xfa, 0xff, 0xff, 0xff, 0xc3], true),
            ("loop entry", &[0xe2, 0xfe], true),
            ("jmp entry+1", &[0x90, 0x90, 0xeb, 0xfd], false),
            ("recursive call entry: its return address is on the stack", &[0xe8, 0xfb, 0xff, 0xff, 0xff, 0xc3], false),
            ("switch: its table may hold the entry", &[0xff, 0xe0], true),
            ("tail call through a slot", &[0xff, 0x25, 0, 0, 0, 0], false),
            ("no instruction", &[0x90, 0x06], true),
            ("cut short", &[0xe9, 0, 0], true),
            ("ret", &[0xc3], false),
        ] {
            assert_eq!(X86_64.loops_to_entry(code), loops, "{text}");
        }
    }
}

#[cfg(test)]
mod detail_tests {
    use super::*;

    #[test]
    fn tells_branches_addresses_and_padding() {
        // Bytes are the GNU assembler's.
        let lea = Some(PcRelative { at: 3, len: 4, target: 7 + 0x10, taken: true });
        let mov = Some(PcRelative { at: 3, len: 4, target: 7 - 7, taken: false });
        let store = Some(PcRelative { at: 2, len: 4, target: 10 + 0x10, taken: false });
        let jmp = Mnemonic::Jmp as u16;
        let rows: [(&str, &[u8], InsnDetail); 8] = [
            ("jmp short", &[0xeb, 0x02], InsnDetail { len: 2, nop: false, branch: Some((jmp, 4)), pc_relative: None }),
            (
                "jmp near",
                &[0xe9, 2, 0, 0, 0],
                InsnDetail { len: 5, nop: false, branch: Some((jmp, 7)), pc_relative: None },
            ),
            (
                "call",
                &[0xe8, 0xfb, 0xff, 0xff, 0xff],
                InsnDetail { len: 5, nop: false, branch: Some((Mnemonic::Call as u16, 0)), pc_relative: None },
            ),
            (
                "lea 0x10(%rip),%rdi",
                &[0x48, 0x8d, 0x3d, 0x10, 0, 0, 0],
                InsnDetail { len: 7, nop: false, branch: None, pc_relative: lea },
            ),
            (
                "mov -7(%rip),%rdi",
                &[0x48, 0x8b, 0x3d, 0xf9, 0xff, 0xff, 0xff],
                InsnDetail { len: 7, nop: false, branch: None, pc_relative: mov },
            ),
            (
                "movl $1,0x10(%rip)",
                &[0xc7, 0x05, 0x10, 0, 0, 0, 1, 0, 0, 0],
                InsnDetail { len: 10, nop: false, branch: None, pc_relative: store },
            ),
            (
                "nopw 0(%rax,%rax,1)",
                &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
                InsnDetail { len: 6, nop: true, branch: None, pc_relative: None },
            ),
            ("ret", &[0xc3], InsnDetail { len: 1, nop: false, branch: None, pc_relative: None }),
        ];
        for (name, bytes, want) in rows {
            assert_eq!(X86_64.detail(bytes, 0), Some(want), "{name}");
            assert_eq!(X86_64.detail(&bytes[..bytes.len() - 1], 0), None, "{name}, cut");
        }
        assert_eq!(X86_64.detail(&[0x06], 0), None, "no instruction");
        assert_eq!(X86_64.detail(&[0xc3], 2), None, "outside");
    }
}
