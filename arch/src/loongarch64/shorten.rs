// SPDX-License-Identifier: GPL-2.0-or-later
//! Follows what GNU ld takes out of a section (psABI, "R_LARCH_RELAX", "R_LARCH_ALIGN" and the TLS transitions): instruction by
//! instruction of the object, what stands in the linked code tells whether the long or the short form was taken. Every other
//! byte must be the object's then, fields apart, and the lengths must agree; else nothing is said.

use super::insn::{self, BREAK, Kind, LEN, NOP, RA, ZERO, rd, rj};
use super::reloc;
use crate::{CodeReloc, Shortened};
use std::collections::BTreeMap;

const TP: u32 = 2;

const NONE: u32 = 0;
const B26: u32 = 66;
const PCALA_HI20: u32 = 71;
const PCALA_LO12: u32 = 72;
const GOT_PC_HI20: u32 = 75;
const GOT_PC_LO12: u32 = 76;
const TLS_LE_HI20: u32 = 83;
const TLS_LE_LO12: u32 = 84;
const TLS_LE64_LO20: u32 = 85;
const TLS_LE64_HI12: u32 = 86;
const TLS_IE_PC_HI20: u32 = 87;
const TLS_IE_PC_LO12: u32 = 88;
const TLS_LD_PC_HI20: u32 = 95;
const TLS_GD_PC_HI20: u32 = 97;
const RELAX: u32 = 100;
const ALIGN: u32 = 102;
const PCREL20_S2: u32 = 103;
const CALL36: u32 = 110;
const TLS_DESC_PC_HI20: u32 = 111;
const TLS_DESC_PC_LO12: u32 = 112;
const TLS_DESC_LD: u32 = 119;
const TLS_DESC_CALL: u32 = 120;
const TLS_LE_HI20_R: u32 = 121;
const TLS_LE_ADD_R: u32 = 122;
const TLS_LE_LO12_R: u32 = 123;
const TLS_LD_PCREL20_S2: u32 = 124;
const TLS_GD_PCREL20_S2: u32 = 125;
const TLS_DESC_PCREL20_S2: u32 = 126;

/// What became of `code`, which the linker put at `place` as `linked`. `relocs` are in the order of their offsets.
pub(super) fn follow(code: &[u8], relocs: &[CodeReloc], linked: &[u8], place: u64) -> Option<Shortened> {
    // A linker that does not relax (`--no-relax`) leaves all instructions, and still takes out what alignment does not need.
    [true, false].into_iter().find_map(|relaxes| {
        let mut walk = Walk { code, relocs, linked, place, relaxes, from: 0, out: Shortened::default() };
        walk.out.types =
            relocs.iter().map(|r| Some(r.r_type).filter(|t| !matches!(*t, NONE | RELAX | ALIGN))).collect();
        walk.whole()
    })
}

/// Likewise where a section has to be padded for alignment or has marks of code that may be shortened.
pub(super) fn marked(r_type: u32) -> bool {
    matches!(r_type, RELAX | ALIGN)
}

/// What has become of an instruction that reaches a thread-local variable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is what it was, or reads a slot in place of a descriptor.
    Kept,
    /// The variable's distance is computed, in as many instructions.
    LocalExec,
    /// One instruction has the whole distance.
    Short,
}

struct Walk<'a> {
    code: &'a [u8],
    relocs: &'a [CodeReloc],
    linked: &'a [u8],
    place: u64,
    relaxes: bool,
    /// Everything before this offset of the object's code is decided.
    from: usize,
    out: Shortened,
}

impl Walk<'_> {
    fn whole(mut self) -> Option<Shortened> {
        for index in 0..self.relocs.len() {
            let at = self.relocs[index].offset;
            if at < self.from {
                continue;
            }
            self.copy(at)?;
            self.one(index)?;
        }
        self.copy(self.code.len())?;
        self.settle_descriptors()?;
        (self.one_way_each() && self.agrees()).then_some(self.out)
    }

    /// Takes the object's code over up to `to`.
    fn copy(&mut self, to: usize) -> Option<()> {
        self.out.code.extend_from_slice(self.code.get(self.from..to)?);
        self.from = to;
        Some(())
    }

    /// Puts `word` in the place of the next instruction.
    fn put(&mut self, word: u32) {
        self.out.code.extend_from_slice(&word.to_le_bytes());
        self.from += LEN;
    }

    /// Leaves the next `len` bytes out.
    fn remove(&mut self, len: usize) {
        self.out.remove(self.from, len);
        self.from += len;
    }

    /// The linked word in the place of the next instruction, or so many instructions behind it; one that is none behind the end.
    fn linked_word(&self, behind: usize) -> u32 {
        insn::word(self.linked, self.out.code.len() + LEN * behind).unwrap_or(BREAK)
    }

    /// Whether the relocation allows the linker to shorten its instruction.
    fn allows(&self, index: usize) -> bool {
        let at = self.relocs[index].offset;
        self.relocs.get(index + 1).is_some_and(|next| next.r_type == RELAX && next.offset == at)
    }

    /// The relocation of the next instruction, when it is one of these types.
    fn behind(&self, index: usize, types: &[u32]) -> Option<usize> {
        let at = self.relocs[index].offset + LEN;
        let found = self.relocs.iter().enumerate().skip(index + 1).find(|(_, r)| r.offset >= at)?;
        (found.1.offset == at && types.contains(&found.1.r_type) && self.allows(found.0)).then_some(found.0)
    }

    fn becomes(&mut self, index: usize, r_type: u32) {
        self.out.types[index] = (r_type != NONE).then_some(r_type);
    }

    /// Decides about the instruction of one relocation; without a decision it is taken over.
    fn one(&mut self, index: usize) -> Option<()> {
        let CodeReloc { r_type, offset, .. } = self.relocs[index];
        if r_type == ALIGN {
            return self.align(index);
        }
        if !self.allows(index) {
            return Some(());
        }
        let (word, linked) = (insn::word(self.code, offset)?, self.linked_word(0));
        let same = |a: u32, b: u32| (rd(a), rj(a)) == (rd(b), rj(b));
        match r_type {
            PCALA_HI20 | GOT_PC_HI20 | TLS_LD_PC_HI20 | TLS_GD_PC_HI20 => self.pair(index),
            TLS_DESC_PC_HI20 if insn::is_lu12i(linked) && rd(linked) == rd(word) => {
                self.becomes(index, TLS_LE_HI20);
                self.put(linked);
            }
            TLS_DESC_PC_HI20 if self.out_of(linked, &[Kind::PcAlaU12I, Kind::PcAddI], rd(word)) => {
                self.becomes(index, NONE);
                self.remove(LEN);
            }
            TLS_DESC_PC_HI20 => self.pair(index),
            TLS_IE_PC_HI20 if insn::is_lu12i(linked) && rd(linked) == rd(word) => {
                self.becomes(index, TLS_LE_HI20);
                self.put(linked);
            }
            TLS_IE_PC_HI20 if self.out_of(linked, &[Kind::PcAlaU12I], rd(word)) => {
                self.becomes(index, NONE);
                self.remove(LEN);
            }
            TLS_IE_PC_LO12 | TLS_DESC_PC_LO12 if insn::is_ori(linked) && rd(linked) == rd(word) => {
                self.becomes(index, TLS_LE_LO12);
                self.put(linked);
            }
            TLS_DESC_PC_LO12 if insn::is_load(linked) && same(linked, word) => {
                self.becomes(index, TLS_IE_PC_LO12);
                self.put(linked);
            }
            TLS_LE_LO12 if insn::is_ori(linked) && rd(linked) == rd(word) && rj(linked) == ZERO => self.put(linked),
            TLS_LE_HI20 | TLS_LE_HI20_R | TLS_LE64_LO20 | TLS_LE64_HI12
                if self.relaxes && !insn::same_operation(word, linked) =>
            {
                self.becomes(index, NONE);
                self.remove(LEN);
            }
            TLS_LE_ADD_R | TLS_DESC_LD | TLS_DESC_CALL if linked != word => {
                self.becomes(index, NONE);
                if self.relaxes { self.remove(LEN) } else { self.put(NOP) }
            }
            // The operation and its destination stay, and the source becomes the thread pointer.
            TLS_LE_LO12_R if word >> 22 == linked >> 22 && rd(linked) == rd(word) && rj(linked) == TP => {
                self.put(linked);
            }
            CALL36 => self.call(index, linked)?,
            _ => {}
        }
        Some(())
    }

    /// Whether the linker has left an instruction out that would be of one of these kinds.
    fn out_of(&self, linked: u32, kinds: &[Kind], register: u32) -> bool {
        self.relaxes && !(kinds.contains(&insn::kind(linked)) && rd(linked) == register)
    }

    /// `pcalau12i rd; addi.d rd, rd` becomes `pcaddi rd`; the load of a slot becomes that addition before.
    fn pair(&mut self, index: usize) {
        let CodeReloc { r_type, offset, .. } = self.relocs[index];
        let Some(lower) = self.behind(index, &[PCALA_LO12, GOT_PC_LO12, TLS_DESC_PC_LO12]) else { return };
        let (Some(page), Some(low)) = (insn::word(self.code, offset), insn::word(self.code, offset + LEN)) else {
            return;
        };
        let (linked, next) = (self.linked_word(0), self.linked_word(1));
        if (rd(low), rj(low)) != (rd(page), rd(page)) || rd(linked) != rd(page) {
            return;
        }
        let slot = r_type == GOT_PC_HI20;
        match insn::kind(linked) {
            Kind::PcAddI if self.relaxes => {
                let short = match r_type {
                    TLS_LD_PC_HI20 => TLS_LD_PCREL20_S2,
                    TLS_GD_PC_HI20 => TLS_GD_PCREL20_S2,
                    TLS_DESC_PC_HI20 => TLS_DESC_PCREL20_S2,
                    _ => PCREL20_S2,
                };
                self.becomes(index, short);
                self.becomes(lower, NONE);
                self.put(linked);
                self.remove(LEN);
            }
            Kind::PcAlaU12I if slot && insn::is_addi(next) && (rd(next), rj(next)) == (rd(low), rj(low)) => {
                self.becomes(index, PCALA_HI20);
                self.becomes(lower, PCALA_LO12);
                self.put(linked);
                self.put(next);
            }
            _ => {}
        }
    }

    /// `pcaddu18i rX; jirl rd, rX` becomes `bl` or `b`.
    fn call(&mut self, index: usize, linked: u32) -> Option<()> {
        let jirl = insn::word(self.code, self.relocs[index].offset + LEN)?;
        let short = matches!(
            (insn::kind(linked), rd(jirl)),
            (Kind::Call { .. }, RA) | (Kind::Jump { condition: false, .. }, ZERO)
        );
        if short && self.relaxes {
            self.becomes(index, B26);
            self.put(linked);
            self.remove(LEN);
        }
        Some(())
    }

    /// What alignment needs at this place stays of the no-operations, or none of them where that is more than was allowed.
    fn align(&mut self, index: usize) -> Option<()> {
        let CodeReloc { symbol, addend, offset, .. } = self.relocs[index];
        let (align, most) = match symbol {
            0 => (u64::try_from(addend).ok()?.checked_add(LEN as u64)?, 0),
            _ => (1u64.checked_shl(u32::try_from(addend & 0xff).ok()?)?, u64::try_from(addend >> 8).ok()?),
        };
        if !align.is_power_of_two() || align < LEN as u64 {
            return None;
        }
        let padding = usize::try_from(align).ok()?.checked_sub(LEN)?;
        let nops = self.code.get(offset..offset.checked_add(padding)?)?;
        if nops.chunks(LEN).any(|word| word != NOP.to_le_bytes()) {
            return None;
        }
        let here = self.place.wrapping_add(self.out.code.len() as u64);
        let needed = here.wrapping_neg() & (align - 1);
        let needed = if most > 0 && needed > most { 0 } else { usize::try_from(needed).ok()? };
        let excess = padding.checked_sub(needed)?;
        self.copy(offset + needed)?;
        self.remove(excess);
        Some(())
    }

    /// The upper half of a descriptor's address has become that of a slot where the lower one has.
    fn settle_descriptors(&mut self) -> Option<()> {
        for index in 0..self.relocs.len() {
            if self.out.types[index] != Some(TLS_DESC_PC_HI20) {
                continue;
            }
            let of = |r: &CodeReloc| (r.symbol, r.addend);
            let lower = (index + 1..self.relocs.len()).find(|i| {
                self.relocs[*i].r_type == TLS_DESC_PC_LO12 && of(&self.relocs[*i]) == of(&self.relocs[index])
            });
            match lower.map(|i| self.out.types[i]) {
                Some(Some(TLS_IE_PC_LO12)) => self.becomes(index, TLS_IE_PC_HI20),
                Some(Some(TLS_DESC_PC_LO12)) => {}
                _ => return None,
            }
        }
        Some(())
    }

    /// Whether all instructions that reach a thread-local variable in one way have been changed in one way: a linker decides by the
    /// variable, and what would be read as half a change was another one.
    fn one_way_each(&self) -> bool {
        let mut ways: BTreeMap<(u8, usize, i64), Way> = BTreeMap::new();
        (0..self.relocs.len()).all(|index| {
            let r = self.relocs[index];
            let Some((model, way)) = self.way(index) else { return true };
            *ways.entry((model, r.symbol, r.addend)).or_insert(way) == way
        })
    }

    /// The model by which an instruction reaches a variable, and what has become of it.
    fn way(&self, index: usize) -> Option<(u8, Way)> {
        let CodeReloc { r_type, offset, .. } = self.relocs[index];
        let now = self.out.types[index];
        let at = usize::try_from(self.out.moved(offset as u64)).unwrap_or(usize::MAX);
        let based_on = |register| insn::word(&self.out.code, at).is_some_and(|word| rj(word) == register);
        Some(match (r_type, now) {
            (TLS_LE_HI20_R | TLS_LE_ADD_R, now) => (0, if now.is_none() { Way::Short } else { Way::Kept }),
            (TLS_LE_LO12_R, _) => (0, if based_on(TP) { Way::Short } else { Way::Kept }),
            (TLS_LE_HI20 | TLS_LE64_LO20 | TLS_LE64_HI12, now) => {
                (1, if now.is_none() { Way::Short } else { Way::Kept })
            }
            (TLS_LE_LO12, _) => (1, if based_on(ZERO) { Way::Short } else { Way::Kept }),
            (TLS_IE_PC_HI20 | TLS_IE_PC_LO12, _) => (2, self.way_of_slot(now, based_on(ZERO))),
            // The lower half of a `pcaddi` is gone as well.
            (TLS_DESC_PC_LO12, None) => return None,
            (TLS_DESC_PC_HI20 | TLS_DESC_PC_LO12, _) => (3, self.way_of_slot(now, based_on(ZERO))),
            (TLS_DESC_LD | TLS_DESC_CALL, now) => (4, if now.is_none() { Way::Short } else { Way::Kept }),
            _ => return None,
        })
    }

    fn way_of_slot(&self, now: Option<u32>, without_upper: bool) -> Way {
        match now {
            Some(TLS_LE_LO12) if without_upper => Way::Short,
            Some(TLS_LE_HI20 | TLS_LE_LO12) => Way::LocalExec,
            Some(_) => Way::Kept,
            None => Way::Short,
        }
    }

    /// Whether what is left is the linked code, but for the fields.
    fn agrees(&self) -> bool {
        let code = &self.out.code;
        let mut masked = vec![0u8; code.len()];
        for (r, r_type) in self.relocs.iter().zip(&self.out.types) {
            let Some(r_type) = *r_type else { continue };
            let at = usize::try_from(self.out.moved(r.offset as u64)).unwrap_or(usize::MAX);
            let Some(row) = reloc::at(r_type, code, at) else { return false };
            masked.iter_mut().skip(at).zip(row.mask()).for_each(|(m, bits)| *m |= bits);
        }
        code.len() == self.linked.len()
            && code.iter().zip(self.linked).zip(&masked).all(|((a, b), mask)| (a ^ b) & !mask == 0)
    }
}
