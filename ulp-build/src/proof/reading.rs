// SPDX-License-Identifier: GPL-2.0-or-later
//! What a relocated field of a linked file means, read back from its bytes and from the loader's relocations. The same
//! question is put to the rebuilt and to the production file, and the two answers must be of one kind.

use super::pieces::BELOW_PAGE;
use crate::production::{Elf, SlotMeaning};
use std::borrow::Cow;
use ulp_arch::{Arch, Formula, Letter, LinkAddr, LinkedForm, Pages, Range, RelocRow, SeenFrom, SlotKind, ThreadForm};
use ulp_format::Kind;

/// Bytes in front of a field and behind it in which a linker's shortcut shows.
const AROUND: u64 = 16;

/// Seen from a page, for a lower part that is added as a signed number.
const ROUNDED: SeenFrom = SeenFrom::PlacePages(Pages::Rounded);

/// What the lower 12 bits of a value add to the part above them: a signed number where that was rounded.
fn below_page(upper: &RelocRow, low: u64) -> i64 {
    let rounded = matches!(upper.formula, Formula::PcPages(_) | Formula::Slot(_, ROUNDED) | Formula::TpOffsetRounded);
    let low = low as i64;
    if rounded { (low ^ 0x800) - 0x800 } else { low }
}

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

/// A field, and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'r> {
    pub row: &'r RelocRow,
    pub place: LinkAddr,
}

impl Part<'_> {
    /// The field; of an instruction that the linker has moved away, where it stands now.
    fn bytes<'e>(&self, elf: &'e Elf) -> Option<&'e [u8]> {
        let size = self.row.field.size() as u64;
        let moved = self.row.formula.letter() == Letter::Symbol && self.row.span().is_some_and(|bits| bits.end <= 12)
            || matches!(self.row.formula, Formula::Slot(_, SeenFrom::Zero | SeenFrom::TablePage));
        let to = if moved { elf.moved(self.place, size).first().map(|(_, to)| *to) } else { None };
        elf.bytes(to.unwrap_or(self.place), size)
    }

    /// The code around it, and where it begins in there.
    fn around<'e>(&self, elf: &'e Elf) -> (Cow<'e, [u8]>, usize) {
        let (mut start, mut end) = (self.place.0, self.place.plus(self.row.field.size() as u64).0);
        if let Some(section) = elf.section_of(self.place) {
            start = start.saturating_sub(AROUND).max(section.addr.0);
            end = (end + AROUND).min(section.addr.0 + section.size);
        }
        let code = elf.code(LinkAddr(start), end - start).unwrap_or_default();
        (code, usize::try_from(self.place.0 - start).unwrap_or(usize::MAX))
    }

    /// What the linker made of it.
    fn form(&self, arch: &dyn Arch, elf: &Elf) -> LinkedForm {
        let (code, at) = self.around(elf);
        arch.linked_form(self.row.r_type, &code, at)
    }

    /// Likewise, of one that takes part in finding a thread-local variable.
    fn thread_form(&self, arch: &dyn Arch, elf: &Elf) -> ThreadForm {
        let (code, at) = self.around(elf);
        arch.thread_form(self.row.r_type, &code, at, self.place)
    }

    fn extract(&self, elf: &Elf) -> Option<i64> {
        self.row.extract(self.bytes(elf)?)
    }

    /// The bits of a value below a page.
    fn low(&self, elf: &Elf) -> Option<u64> {
        Some(self.extract(elf)? as u64 & 0xfff)
    }

    /// The address that an instruction takes which holds all of it.
    fn taken(&self, arch: &dyn Arch, elf: &Elf) -> Option<LinkAddr> {
        let operand = arch.detail(self.bytes(elf)?, 0)?.pc_relative.filter(|o| o.taken)?;
        Some(LinkAddr(self.place.0.wrapping_add_signed(operand.target)))
    }
}

/// Reads a field; `partner` holds the other part of its value, where it holds one. `None`: it cannot be told.
pub(super) fn read(
    arch: &dyn Arch,
    elf: &Elf,
    here: Part<'_>,
    partner: Option<Part<'_>>,
    addend: i64,
) -> Option<Reading> {
    let Part { row, place } = here;
    let size = row.field.size();
    let value = || -> Option<i64> {
        match *here.bytes(elf)? {
            [a, b, c, d] if row.formula == Formula::Absolute && !row.name.ends_with('S') => {
                Some(i64::from(u32::from_le_bytes([a, b, c, d])))
            }
            ref bytes => row.extract(bytes),
        }
    };
    let symbol = |addr: LinkAddr| entry_of(arch, elf, addr).map_or(Reading::At(addr), |name| Reading::Named(name, 0));
    // The symbol's own address: what the linker computed with, its addend and the place taken off again.
    let from_here = || Some(LinkAddr(place.0.wrapping_add_signed(value()?).wrapping_sub(addend as u64)));
    // Upper part and lower part; not what is above 32 bits.
    let parts = || match row.span()?.start {
        BELOW_PAGE => Some((here, partner?)),
        start if start < BELOW_PAGE => Some((partner?, here)),
        _ => None,
    };
    let pair = || {
        let (upper, lower) = parts()?;
        let below = below_page(upper.row, lower.low(elf)?);
        Some(LinkAddr(arch.page_taken(upper.bytes(elf)?, upper.place)?.0.wrapping_add_signed(below)))
    };
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
        Formula::Absolute if elf.kind == Kind::Executable && row.span().is_none() => {
            Some(symbol(LinkAddr((value()? as u64).wrapping_sub(addend as u64))))
        }
        Formula::PcRelative | Formula::PltPcRelative if here.form(arch, elf) == LinkedForm::Elided => {
            Some(Reading::Nothing)
        }
        Formula::PltPcRelative => {
            let to = from_here()?;
            Some(symbol(behind_veneer(arch, elf, to).unwrap_or(to)))
        }
        Formula::PcRelative => Some(symbol(from_here()?)),
        // Counted from the page that other instructions take, which `takes_table` looks at.
        Formula::Slot(SlotKind::Address, SeenFrom::TablePage) => match here.form(arch, elf) {
            LinkedForm::AsWritten => through(elf, table_page(elf)?.plus(value()? as u64 & 0x7fff)),
            _ => None,
        },
        Formula::PagePcRelative | Formula::PageOffset | Formula::PcPages(Pages::Rounded) => {
            match here.form(arch, elf) {
                LinkedForm::Elided => Some(Reading::Nothing),
                LinkedForm::Direct { .. } => {
                    Some(symbol(LinkAddr(here.taken(arch, elf)?.0.wrapping_sub(addend as u64))))
                }
                LinkedForm::AsWritten => Some(symbol(LinkAddr(pair()?.0.wrapping_sub(addend as u64)))),
                LinkedForm::Immediate | LinkedForm::Rewritten => None,
            }
        }
        Formula::Slot(SlotKind::Address, SeenFrom::PlacePage | ROUNDED | SeenFrom::Zero) => {
            match here.form(arch, elf) {
                LinkedForm::Elided => Some(Reading::Nothing),
                LinkedForm::Direct { .. } => here.taken(arch, elf).or_else(pair).map(symbol),
                LinkedForm::AsWritten => through(elf, pair()?),
                LinkedForm::Immediate | LinkedForm::Rewritten => None,
            }
        }
        Formula::Slot(SlotKind::ThreadOffset, SeenFrom::PlacePage | ROUNDED | SeenFrom::Zero) => {
            match here.form(arch, elf) {
                LinkedForm::AsWritten => through_thread(elf, pair()?),
                LinkedForm::Immediate => {
                    let (upper, lower) = parts()?;
                    let part = |p: Part<'_>| arch.immediate_part(p.row.r_type, p.bytes(elf)?);
                    elf.at_tp_offset(part(upper)? | part(lower)?).map(Reading::Thread)
                }
                _ => None,
            }
        }
        Formula::GotPcRelative => match here.form(arch, elf) {
            LinkedForm::AsWritten => through(elf, from_here()?),
            LinkedForm::Direct { before } => {
                let start = LinkAddr(place.0 - before as u64);
                let field = elf.bytes(start, 4)?.try_into().ok()?;
                Some(symbol(LinkAddr(start.plus(4).0.wrapping_add_signed(i64::from(i32::from_le_bytes(field))))))
            }
            LinkedForm::Immediate => Some(Reading::At(LinkAddr(value()? as u64))),
            LinkedForm::Elided => Some(Reading::Nothing),
            LinkedForm::Rewritten => None,
        },
        Formula::TpOffset if here.form(arch, elf) == LinkedForm::Immediate => {
            let offset = arch.immediate_part(row.r_type, here.bytes(elf)?)?;
            elf.at_tp_offset(offset.wrapping_sub(addend)).map(Reading::Thread)
        }
        Formula::TpOffset | Formula::TpOffsetRounded if row.span().is_some() => {
            let whole = row.span()?.start == 0 && partner.is_none() && row.range != Range::Any;
            let offset = match whole {
                true => here.low(elf)? as i64,
                false => {
                    let (upper, lower) = parts()?;
                    (upper.extract(elf)? & 0xff_f000).wrapping_add(below_page(upper.row, lower.low(elf)?))
                }
            };
            elf.at_tp_offset(offset.wrapping_sub(addend)).map(Reading::Thread)
        }
        Formula::TpOffset => elf.at_tp_offset(value()?.wrapping_sub(addend)).map(Reading::Thread),
        Formula::TpSlotPcRelative => match here.thread_form(arch, elf) {
            ThreadForm::AsWritten => through_thread(elf, from_here()?),
            ThreadForm::Offset(offset) => elf.at_tp_offset(offset).map(Reading::Thread),
            _ => None,
        },
        Formula::ThreadSlotPcRelative(kind)
        | Formula::Slot(
            kind @ (SlotKind::ThreadIndex | SlotKind::ThreadModule | SlotKind::ThreadDescriptor),
            SeenFrom::PlacePage | SeenFrom::Zero,
        ) => match here.thread_form(arch, elf) {
            ThreadForm::AsWritten if row.span().is_some() => through_call(elf, kind, pair()?),
            ThreadForm::AsWritten => through_call(elf, kind, from_here()?),
            ThreadForm::Offset(offset) => elf.at_tp_offset(offset).map(Reading::Thread),
            ThreadForm::Slot(slot) => through_thread(elf, slot),
            ThreadForm::Gone => Some(Reading::Nothing),
            ThreadForm::Unknown => None,
        },
        // In the code of a program GNU ld counts from the thread pointer instead, as it makes the code do that has the start.
        Formula::ModuleOffset if size == 4 && row.span().is_none() && elf.links_thread_block() => {
            elf.at_tp_offset(value()?.wrapping_sub(addend)).map(Reading::Thread)
        }
        Formula::ModuleOffset if size == 4 && row.span().is_none() => {
            let within = u64::try_from(value()?.wrapping_sub(addend)).ok()?;
            Some(Reading::Thread(elf.tls?.addr.plus(within)))
        }
        // Counted in another way, or in more instructions than two.
        Formula::PcPages(Pages::Upper { .. }) | Formula::Slot(..) => None,
        Formula::ModuleOffset | Formula::TpOffsetRounded | Formula::Difference => None,
        Formula::Absolute | Formula::Size | Formula::Unsupported => None,
    }
}

/// The page on which the file's table of slots begins.
fn table_page(elf: &Elf) -> Option<LinkAddr> {
    Some(LinkAddr(elf.section(".got")?.addr.0 & !0xfff))
}

/// Whether the instruction takes just that page.
pub(super) fn takes_table(arch: &dyn Arch, elf: &Elf, here: Part<'_>) -> bool {
    let page = || arch.page_taken(here.bytes(elf)?, here.place);
    here.row.formula == Formula::PagePcRelative && page().is_some_and(|page| Some(page) == table_page(elf))
}

/// What is meant by the slot at `slot` of the global offset table.
fn through(elf: &Elf, slot: LinkAddr) -> Option<Reading> {
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

/// What the linker's veneer at `addr` leads to, where there is one: what the branch is for.
fn behind_veneer(arch: &dyn Arch, elf: &Elf, addr: LinkAddr) -> Option<LinkAddr> {
    /// The longest one.
    const LONGEST: u64 = 24;
    let section = elf.section_of(addr).filter(|s| s.executable)?;
    let left = (section.addr.0 + section.size).saturating_sub(addr.0).min(LONGEST);
    arch.veneer(elf.bytes(addr, left)?, addr)
}

/// What is meant by a slot with a distance from the thread pointer.
fn through_thread(elf: &Elf, slot: LinkAddr) -> Option<Reading> {
    match elf.slots.iter().find(|s| s.addr == slot).map(|s| &s.meaning) {
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

/// What is meant by the two words that a call takes.
fn through_call(elf: &Elf, kind: SlotKind, slot: LinkAddr) -> Option<Reading> {
    let (symbol, addend) = match (kind, &elf.slots.iter().find(|s| s.addr == slot)?.meaning) {
        // The whole of this file's storage.
        (SlotKind::ThreadModule, SlotMeaning::ThreadPair { symbol: None, addend: 0 }) => return Some(Reading::Nothing),
        (SlotKind::ThreadIndex, SlotMeaning::ThreadPair { symbol, addend })
        | (SlotKind::ThreadDescriptor, SlotMeaning::ThreadDescriptor { symbol, addend }) => (*symbol, *addend),
        _ => return None,
    };
    match symbol {
        Some(symbol) => Some(Reading::Named(elf.dynamic.get(symbol)?.name.clone(), addend)),
        None => Some(Reading::ThroughThread(elf.tls?.addr.plus(u64::try_from(addend).ok()?))),
    }
}

/// Whether it is the point from which a file's own thread-local variables are counted.
pub(super) fn is_module_base(elf: &Elf, reading: &Reading) -> bool {
    match reading {
        Reading::ThroughThread(addr) => elf.tls.is_some_and(|tls| tls.addr == *addr),
        Reading::Thread(addr) => elf.at_tp_offset(0) == Some(*addr),
        _ => false,
    }
}

/// The symbol that a slot stands for.
fn name_of(elf: &Elf, slot: LinkAddr) -> Option<String> {
    let at = elf.slots.binary_search_by_key(&slot, |s| s.addr).ok()?;
    match elf.slots.get(at)?.meaning {
        SlotMeaning::Address { symbol } | SlotMeaning::Jump { symbol } => Some(elf.dynamic.get(symbol)?.name.clone()),
        // What a resolver chose is known by the resolver, whose place is another in another link: not followed.
        _ => None,
    }
}

/// The symbol of the linkage table entry at `addr`, when there is one: the first jump through a slot tells.
fn entry_of(arch: &dyn Arch, elf: &Elf, addr: LinkAddr) -> Option<String> {
    let section = elf.section_of(addr).filter(|s| s.name.starts_with(".plt"))?;
    let left = (section.addr.0 + section.size).saturating_sub(addr.0).min(16);
    name_of(elf, arch.linkage_slot(elf.bytes(addr, left)?, addr)?)
}
