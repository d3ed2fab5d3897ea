// SPDX-License-Identifier: GPL-2.0-or-later
//! What a relocated field of a linked file means, read back from its bytes and from the loader's relocations. The same
//! question is put to the rebuilt and to the production file, and the two answers must be of one kind.

use crate::production::{Elf, SlotMeaning};
use ulp_arch::{Arch, Formula, LinkAddr, LinkedForm, RelocRow};
use ulp_format::Kind;

/// Bytes in front of a field in which a linker's shortcut shows.
const AROUND: u64 = 2;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The field leads to this address of the file.
    At(LinkAddr),
    /// The field leads to a slot that holds this address of the file.
    Through(LinkAddr),
    /// A symbol of another file, or one that another file may define: by its slot, linkage table entry or loader
    /// relocation. The number is what is added to it.
    Named(String, i64),
    /// A thread-local variable of this file, by its address in the thread-local segment.
    Thread(LinkAddr),
    /// Likewise, through a slot.
    ThroughThread(LinkAddr),
    /// Nothing to read: a marker for the linker.
    Nothing,
}

/// Reads the field of `row` at `place`; `None`: it cannot be told.
pub(super) fn read(arch: &dyn Arch, elf: &Elf, row: &RelocRow, addend: i64, place: LinkAddr) -> Option<Reading> {
    let size = row.field.size();
    let value = || -> Option<i64> {
        let bytes = elf.bytes(place, size as u64)?;
        match *bytes {
            [a, b, c, d] if row.formula == Formula::Absolute && !row.name.ends_with('S') => {
                Some(i64::from(u32::from_le_bytes([a, b, c, d])))
            }
            [a, b, c, d] => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
            [a, b, c, d, e, f, g, h] => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        }
    };
    // The symbol's own address: what the linker computed with, its addend and the place taken off again.
    let from_here = || Some(LinkAddr(place.0.wrapping_add_signed(value()?).wrapping_sub(addend as u64)));
    match row.formula {
        Formula::Nothing => Some(Reading::Nothing),
        Formula::Absolute if size == 8 => match (elf.relative.get(&place), elf.pointers.get(&place)) {
            (Some(addr), _) => Some(Reading::At(LinkAddr(addr.0.wrapping_sub(addend as u64)))),
            (None, Some((symbol, more))) => {
                let name = elf.dynamic.get(*symbol)?.name.clone();
                Some(Reading::Named(name, more.wrapping_sub(addend)))
            }
            // Only a file at a fixed address has its addresses in place.
            (None, None) if elf.kind == Kind::Executable => {
                Some(Reading::At(LinkAddr((value()? as u64).wrapping_sub(addend as u64))))
            }
            (None, None) => None,
        },
        Formula::Absolute if elf.kind == Kind::Executable => {
            let addr = LinkAddr((value()? as u64).wrapping_sub(addend as u64));
            Some(entry_of(arch, elf, addr).map_or(Reading::At(addr), |name| Reading::Named(name, 0)))
        }
        Formula::PcRelative | Formula::PltPcRelative => {
            let addr = from_here()?;
            Some(entry_of(arch, elf, addr).map_or(Reading::At(addr), |name| Reading::Named(name, 0)))
        }
        Formula::GotPcRelative => {
            let around = elf.bytes(LinkAddr(place.0.checked_sub(AROUND)?), AROUND + size as u64)?;
            match arch.linked_form(row.r_type, around, AROUND as usize) {
                LinkedForm::AsWritten => {
                    let slot = from_here()?;
                    if let Some(name) = name_of(elf, slot) {
                        return Some(Reading::Named(name, 0));
                    }
                    if let Some(addr) = elf.relative.get(&slot) {
                        return Some(Reading::Through(*addr));
                    }
                    let table = elf.section_of(slot).is_some_and(|s| s.name.starts_with(".got"));
                    if !table || elf.kind != Kind::Executable {
                        return None;
                    }
                    let word = elf.bytes(slot, 8)?.try_into().ok()?;
                    Some(Reading::Through(LinkAddr(u64::from_le_bytes(word))))
                }
                LinkedForm::Direct { before } => {
                    let start = LinkAddr(place.0 - before as u64);
                    let field = elf.bytes(start, 4)?.try_into().ok()?;
                    let addr = LinkAddr(start.plus(4).0.wrapping_add_signed(i64::from(i32::from_le_bytes(field))));
                    Some(entry_of(arch, elf, addr).map_or(Reading::At(addr), |name| Reading::Named(name, 0)))
                }
                LinkedForm::Immediate => Some(Reading::At(LinkAddr(value()? as u64))),
                LinkedForm::Elided => Some(Reading::Nothing),
                LinkedForm::Rewritten => None,
            }
        }
        Formula::TpOffset => elf.at_tp_offset(value()?.wrapping_sub(addend)).map(Reading::Thread),
        Formula::TpSlotPcRelative => {
            let slot = from_here()?;
            let meaning = elf.slots.iter().find(|s| s.addr == slot).map(|s| &s.meaning);
            match meaning {
                Some(SlotMeaning::TpOffset { symbol: Some(symbol), addend }) => {
                    Some(Reading::Named(elf.dynamic.get(*symbol)?.name.clone(), *addend))
                }
                Some(SlotMeaning::TpOffset { symbol: None, addend }) => {
                    let within = u64::try_from(*addend).ok()?;
                    Some(Reading::ThroughThread(elf.tls?.addr.plus(within)))
                }
                _ => None,
            }
        }
        // Of instructions that hold a part of an address each, none says the whole.
        Formula::PagePcRelative | Formula::PcPages(_) | Formula::PageOffset | Formula::Slot(..) => None,
        Formula::ModuleOffset | Formula::TpOffsetRounded | Formula::Difference => None,
        Formula::Absolute | Formula::Size | Formula::Unsupported => None,
    }
}

/// The symbol that a slot stands for.
fn name_of(elf: &Elf, slot: LinkAddr) -> Option<String> {
    let at = elf.slots.binary_search_by_key(&slot, |s| s.addr).ok()?;
    match elf.slots.get(at)?.meaning {
        SlotMeaning::Address { symbol } | SlotMeaning::Jump { symbol } => Some(elf.dynamic.get(symbol)?.name.clone()),
        // What a resolver chose is known by the resolver, whose place is another in another link: not followed.
        SlotMeaning::Chosen { .. } | SlotMeaning::Copy { .. } | SlotMeaning::TpOffset { .. } => None,
    }
}

/// The symbol of the linkage table entry at `addr`, when there is one: the first jump through a slot tells.
fn entry_of(arch: &dyn Arch, elf: &Elf, addr: LinkAddr) -> Option<String> {
    let section = elf.section_of(addr).filter(|s| s.name.starts_with(".plt"))?;
    let left = (section.addr.0 + section.size).saturating_sub(addr.0).min(16);
    let code = elf.bytes(addr, left)?;
    let mut at = 0;
    while let Some(insn) = arch.detail(code, at) {
        if let Some(operand) = insn.pc_relative.filter(|o| !o.taken) {
            return name_of(elf, LinkAddr(addr.0.wrapping_add_signed(operand.target)));
        }
        at += insn.len;
    }
    None
}
