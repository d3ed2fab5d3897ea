// SPDX-License-Identifier: GPL-2.0-or-later
//! What code does with an address that it takes: the registers that may hold it are followed along every path until they are
//! overwritten. What is not understood counts as handed on.

use crate::AddressUse;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use std::collections::BTreeMap;

/// One bit for each general register.
type Holders = u16;

fn bit(register: Register) -> Holders {
    let full = register.full_register();
    if full.is_gpr64() { 1 << full.number() } else { 0 }
}

/// The registers that carry arguments, and `rax`, which carries a result (and, at a call, the number of vector arguments only).
fn arguments() -> Holders {
    use Register::{R8, R9, RCX, RDI, RDX, RSI};
    [RDI, RSI, RDX, RCX, R8, R9].into_iter().map(bit).sum()
}

/// The registers that a call does not preserve.
fn clobbered() -> Holders {
    arguments() | bit(Register::RAX) | bit(Register::R10) | bit(Register::R11)
}

/// What one instruction does with the registers that hold the address.
struct Step {
    found: AddressUse,
    holders: Holders,
    /// Whether the next instruction may follow, and where else it may lead.
    falls: bool,
    jump: Option<usize>,
}

/// The fate of the address that the field at `field` of `code` means.
pub(super) fn follow(code: &[u8], field: usize) -> AddressUse {
    let insns = decode(code);
    let Some((start, first)) = insns.range(..=field).next_back().filter(|(s, i)| field < **s + i.len()) else {
        return AddressUse::Handed;
    };
    let (mut found, holders) = taken(first);
    let mut seen: BTreeMap<usize, Holders> = BTreeMap::new();
    let mut todo = vec![(start + first.len(), holders)];
    let mut info = InstructionInfoFactory::new();
    while let Some((at, holders)) = todo.pop() {
        let before = seen.entry(at).or_default();
        if holders & !*before == 0 {
            continue;
        }
        *before |= holders;
        let Some(insn) = insns.get(&at) else {
            found = found.max(AddressUse::Handed);
            continue;
        };
        let step = step(insn, *before, &mut info);
        found = found.max(step.found);
        todo.extend(step.falls.then(|| (at + insn.len(), step.holders)));
        todo.extend(step.jump.map(|to| (to, step.holders)));
    }
    found
}

fn decode(code: &[u8]) -> BTreeMap<usize, Instruction> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut insns = BTreeMap::new();
    while decoder.can_decode() {
        let at = decoder.position();
        let insn = decoder.decode();
        if insn.is_invalid() {
            break;
        }
        insns.insert(at, insn);
    }
    insns
}

/// What the instruction that names the address does with it.
fn taken(insn: &Instruction) -> (AddressUse, Holders) {
    match insn.mnemonic() {
        Mnemonic::Lea => (AddressUse::Read, bit(insn.op0_register())),
        Mnemonic::Cmp | Mnemonic::Test => (AddressUse::Read, 0),
        // Memory at the address is read; or the address is an immediate operand.
        _ if !immediate(insn) => (AddressUse::Read, 0),
        Mnemonic::Mov if insn.op0_kind() == OpKind::Register => (AddressUse::Read, bit(insn.op0_register())),
        Mnemonic::Add if insn.op0_kind() == OpKind::Register => (AddressUse::Read, bit(insn.op0_register())),
        Mnemonic::Mov => (stored(insn), 0),
        _ => (AddressUse::Handed, 0),
    }
}

fn immediate(insn: &Instruction) -> bool {
    use OpKind::{Immediate32, Immediate32to64, Immediate64};
    insn.op_kinds().any(|kind| matches!(kind, Immediate32 | Immediate32to64 | Immediate64))
}

/// A store to the stack may be a spill, or an argument; any other is where somebody finds it later.
fn stored(insn: &Instruction) -> AddressUse {
    match insn.memory_base().full_register() {
        Register::RSP | Register::RBP => AddressUse::Handed,
        _ => AddressUse::Stored,
    }
}

fn step(insn: &Instruction, holders: Holders, info: &mut InstructionInfoFactory) -> Step {
    let held = |register: Register| bit(register) & holders != 0;
    let based = bit(insn.memory_base()) | bit(insn.memory_index());
    let flow = insn.flow_control();
    let mut step = Step { found: AddressUse::Read, holders, falls: true, jump: None };
    // A register that a call goes through is the base of a table; the first argument may be the table's object itself.
    let passed = holders & arguments() & !(based & !bit(Register::RDI));
    let hands = |registers: Holders| if registers == 0 { AddressUse::Read } else { AddressUse::Handed };
    match flow {
        FlowControl::Call | FlowControl::IndirectCall => {
            let called = insn.op0_kind() == OpKind::Register && held(insn.op0_register());
            step.found = if called { AddressUse::Handed } else { hands(passed) };
            step.holders &= !clobbered();
            return step;
        }
        FlowControl::Return => {
            step.found = hands(holders & bit(Register::RAX));
            step.falls = false;
            return step;
        }
        FlowControl::IndirectBranch => {
            // A tail call, or a switch whose labels are not followed.
            let switch = insn.op0_kind() == OpKind::Register;
            step.found = hands(if switch { holders } else { passed });
            step.falls = false;
            return step;
        }
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
            step.falls = flow == FlowControl::ConditionalBranch;
            // A field that waits for its relocation leads to the next instruction: it leaves the function.
            match insn.near_branch_target() {
                to if to == insn.next_ip() => step.found = hands(passed),
                to => step.jump = usize::try_from(to).ok(),
            }
            return step;
        }
        FlowControl::Next => {}
        _ => {
            step.found = AddressUse::Handed;
            step.falls = false;
            return step;
        }
    }
    let info = info.info(insn);
    let writes = |access: OpAccess| {
        matches!(access, OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite)
    };
    let used = info.used_registers();
    let overwritten = used
        .iter()
        .filter(|u| u.access() == OpAccess::Write && u.register().size() >= 4)
        .map(|u| bit(u.register()))
        .fold(0, |all, one| all | one);
    // The address as a value, not as a way to memory: which register operands of the instruction hold it.
    let value = |n: u32| insn.op_kind(n) == OpKind::Register && held(insn.op_register(n));
    let to_register = insn.op_count() > 0 && insn.op0_kind() == OpKind::Register;
    let operands = (0..insn.op_count()).any(value);
    step.holders &= !overwritten;
    let reads_value = (0..insn.op_count()).any(|n| value(n) && info.op_access(n) != OpAccess::Write);
    match insn.mnemonic() {
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Nop => {}
        Mnemonic::Lea if based & holders != 0 => step.holders |= bit(insn.op0_register()),
        Mnemonic::Push if operands => step.found = AddressUse::Handed,
        Mnemonic::Mov if value(1) && !to_register => step.found = stored(insn),
        _ if !reads_value => {}
        // Of general registers whatever is made from the address may still be the address.
        _ if to_register
            && bit(insn.op0_register()) != 0
            && writes(info.op_access(0))
            && info.op_access(1) == OpAccess::Read =>
        {
            step.holders |= bit(insn.op0_register());
        }
        Mnemonic::Inc | Mnemonic::Dec if to_register => {}
        _ => step.found = AddressUse::Handed,
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `lea 0(%rip),%rax` with its field at 3, and then `rest`.
    fn lea_rax(rest: &[u8]) -> AddressUse {
        let mut code = vec![0x48, 0x8d, 0x05, 0, 0, 0, 0];
        code.extend(rest);
        follow(&code, 3)
    }

    #[test]
    fn fates() {
        for (what, rest, want) in [
            ("mov (%rax,%rdi,4),%eax; ret", &[0x8b, 0x04, 0xb8, 0xc3][..], AddressUse::Read),
            ("jmp *(%rax,%rdx,8)", &[0xff, 0x24, 0xd0], AddressUse::Read),
            ("ret", &[0xc3], AddressUse::Handed),
            ("mov %rax,(%rdi); ret", &[0x48, 0x89, 0x07, 0x31, 0xc0, 0xc3], AddressUse::Stored),
            (
                "mov %rax,-8(%rsp); xor %eax,%eax; ret",
                &[0x48, 0x89, 0x44, 0x24, 0xf8, 0x31, 0xc0, 0xc3],
                AddressUse::Handed,
            ),
            ("mov %rax,%rdi; call", &[0x48, 0x89, 0xc7, 0xe8, 0, 0, 0, 0, 0xc3], AddressUse::Handed),
            ("mov %rax,%rdi; jmp, to be relocated", &[0x48, 0x89, 0xc7, 0xe9, 0, 0, 0, 0], AddressUse::Handed),
            (
                "add $8,%rax; mov %rax,(%rdi); xor %eax,%eax; ret",
                &[0x48, 0x83, 0xc0, 8, 0x48, 0x89, 0x07, 0x31, 0xc0, 0xc3],
                AddressUse::Stored,
            ),
            (
                "movq %rax,%xmm0; xor %eax,%eax; ret",
                &[0x66, 0x48, 0x0f, 0x6e, 0xc0, 0x31, 0xc0, 0xc3],
                AddressUse::Handed,
            ),
            ("cut short", &[], AddressUse::Handed),
        ] {
            assert_eq!(lea_rax(rest), want, "{what}");
        }
        // movq $0,(%rdi) with the address as its immediate operand: 48 c7 07 imm32
        assert_eq!(follow(&[0x48, 0xc7, 0x07, 0, 0, 0, 0, 0xc3], 3), AddressUse::Stored);
        // mov 0(,%rdi,4),%eax: 8b 04 bd disp32
        assert_eq!(follow(&[0x8b, 0x04, 0xbd, 0, 0, 0, 0, 0xc3], 3), AddressUse::Read);
    }
}
