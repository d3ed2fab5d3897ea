// SPDX-License-Identifier: GPL-2.0-or-later
//! Call frame information for debuggers: the `.eh_frame` of one or several patches becomes one `.debug_frame`. A debugger
//! takes one table from a file, and the places that an `.eh_frame` describes are distances of 32 bits from itself: patches of a
//! program and of its libraries lie further apart. A `.debug_frame` has whole addresses. The rules themselves are copied.

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, EndianSlice, Format, LittleEndian, Reader as _,
    UnwindSection as _,
};
use std::collections::HashMap;
use std::ops::Range;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Marks a common entry of a `.debug_frame`.
const COMMON: u32 = u32::MAX;
const ALIGN: usize = 8;

/// Appends the entries of the `.eh_frame` with these bytes at `at` to `out`, and returns the code that they describe. `None`, and
/// nothing is appended: one of them cannot be understood.
pub fn append(bytes: &[u8], at: u64, out: &mut Vec<u8>) -> Option<Vec<Range<u64>>> {
    let before = out.len();
    let described = append_all(bytes, at, out);
    if described.is_none() {
        out.truncate(before);
    }
    described
}

fn append_all(bytes: &[u8], at: u64, out: &mut Vec<u8>) -> Option<Vec<Range<u64>>> {
    let section = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(at);
    let mut described = Vec::new();
    // Where common entries went, and whether they have an augmentation.
    let mut commons: HashMap<usize, (u32, bool)> = HashMap::new();
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().ok()? {
        match entry {
            CieOrFde::Cie(cie) => {
                let raw = raw(bytes, cie.offset(), cie.entry_len(), cie.encoding().format)?;
                usable(cie.instructions(&section, &bases))?;
                let place = u32::try_from(out.len()).ok()?;
                let augmented = common(raw, out)?;
                commons.insert(cie.offset(), (place, augmented));
            }
            CieOrFde::Fde(partial) => {
                let fde = partial.parse(EhFrame::cie_from_offset).ok()?;
                let cie = fde.cie();
                let (place, augmented) = *commons.get(&cie.offset())?;
                let mut rest = raw(bytes, fde.offset(), fde.entry_len(), cie.encoding().format)?;
                usable(fde.instructions(&section, &bases))?;
                // Behind the common entry's place: start, length, and, where the common entry says so, more data.
                let width = match cie.fde_address_encoding().map_or(0, |e| e.0 & 0x0f) {
                    0 | 4 | 12 => 8,
                    2 | 10 => 2,
                    3 | 11 => 4,
                    _ => return None,
                };
                rest.skip(4 + 2 * width).ok()?;
                if cie.augmentation().is_some() {
                    let len = rest.read_uleb128_u32().ok()?;
                    rest.skip(len as usize).ok()?;
                }
                let mut body = place.to_le_bytes().to_vec();
                body.extend(fde.initial_address().to_le_bytes());
                body.extend(fde.len().to_le_bytes());
                body.extend(augmented.then_some(0));
                body.extend(rest.slice());
                entry_of(body, out);
                let start = fde.initial_address();
                described.extend(start.checked_add(fde.len()).map(|end| start..end));
            }
        }
    }
    Some(described)
}

/// An entry's bytes behind its length.
fn raw(bytes: &[u8], offset: usize, len: usize, format: Format) -> Option<Bytes<'_>> {
    if format != Format::Dwarf32 {
        return None;
    }
    let mut entry = EndianSlice::new(bytes, LittleEndian);
    entry.skip(offset).ok()?;
    entry.skip(4).ok()?;
    entry.split(len).ok()
}

/// A rule can be copied unless it holds an address in the table's own encoding.
fn usable(mut rules: gimli::CallFrameInstructionIter<'_, Bytes<'_>>) -> Option<()> {
    while let Some(rule) = rules.next().ok()? {
        if matches!(rule, CallFrameInstruction::SetLoc { .. }) {
            return None;
        }
    }
    Some(())
}

/// Copies a common entry. Who catches exceptions, and how addresses are written, is left out; what remains (`S`, a
/// signal's frame; `B`, signed return addresses) has no data. Whether an augmentation remains.
fn common(mut raw: Bytes<'_>, out: &mut Vec<u8>) -> Option<bool> {
    raw.skip(4).ok()?;
    let version = raw.read_u8().ok()?;
    let mut letters = raw.read_null_terminated_slice().ok()?.slice().to_vec();
    // Alignments of code and data, and the register of the return address, are copied.
    let numbers = raw;
    raw.read_uleb128().ok()?;
    raw.read_sleb128().ok()?;
    if version == 1 {
        raw.skip(1).ok()?;
    } else {
        raw.read_uleb128().ok()?;
    }
    let numbers = numbers.slice().get(..numbers.len() - raw.len())?;
    match letters.first() {
        Some(b'z') => {
            let len = raw.read_uleb128_u32().ok()?;
            raw.skip(len as usize).ok()?;
        }
        Some(_) => return None,
        None => {}
    }
    letters.retain(|l| !b"LPR".contains(l));
    if letters == *b"z" {
        letters.clear();
    }
    let mut body = COMMON.to_le_bytes().to_vec();
    body.push(version);
    body.extend(&letters);
    body.push(0);
    body.extend(numbers);
    body.extend((!letters.is_empty()).then_some(0));
    body.extend(raw.slice());
    entry_of(body, out);
    Some(!letters.is_empty())
}

/// Length, then the body, filled up with `DW_CFA_nop`, which is zero.
fn entry_of(mut body: Vec<u8>, out: &mut Vec<u8>) {
    body.resize((body.len() + 4).next_multiple_of(ALIGN) - 4, 0);
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::{CfaRule, DebugFrame, Register, RegisterRule, UnwindContext};

    const AT: u64 = 0x7000_0000_1000;
    const CODE: u64 = 0x7000_0000_3000;

    /// A common entry with this augmentation and its data, and a function of 32 bytes that pushes a register at byte 1.
    fn table(letters: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // DW_CFA_def_cfa: r7 (rsp) ofs 8; DW_CFA_offset: r16 (rip) at cfa-8
        let mut body = [&[0, 0, 0, 0, 1], letters, &[0, 1, 0x78, 16]].concat();
        if letters.first() == Some(&b'z') {
            body.push(data.len() as u8);
        }
        entry_of([&body, data, &[0x0c, 7, 8, 0x90, 1]].concat(), &mut out);
        let here = AT + out.len() as u64 + 8;
        let mut body = (out.len() as u32 + 4).to_le_bytes().to_vec();
        body.extend((CODE.wrapping_sub(here) as u32).to_le_bytes());
        body.extend(32u32.to_le_bytes());
        body.push(0);
        // DW_CFA_advance_loc: 1; DW_CFA_def_cfa_offset: 16
        body.extend([0x41, 0x0e, 16]);
        entry_of(body, &mut out);
        out.extend([0; 4]);
        out
    }

    #[test]
    fn the_rules_are_the_same_at_whole_addresses() {
        for (letters, data, signal) in [("zR", &[0x1b][..], false), ("zRS", &[0x1b], true)] {
            let mut out = Vec::new();
            let twice = [(); 2].map(|()| append(&table(letters.as_bytes(), data), AT, &mut out).expect("understood"));
            let twice: Vec<_> = twice.iter().flatten().map(|r| (r.start, r.end)).collect();
            assert_eq!(twice, [(CODE, CODE + 32); 2]);
            let section = DebugFrame::new(&out, LittleEndian);
            let bases = BaseAddresses::default();
            let mut fdes = 0;
            let mut entries = section.entries(&bases);
            while let Some(entry) = entries.next().expect("an entry") {
                let CieOrFde::Fde(partial) = entry else { continue };
                let fde = partial.parse(DebugFrame::cie_from_offset).expect("whole");
                assert_eq!((fde.initial_address(), fde.len(), fde.is_signal_trampoline()), (CODE, 32, signal));
                for (pc, offset) in [(CODE, 8), (CODE + 1, 16)] {
                    let mut context = UnwindContext::new();
                    let row = fde.unwind_info_for_address(&section, &bases, &mut context, pc).expect("a row");
                    assert_eq!(*row.cfa(), CfaRule::RegisterAndOffset { register: Register(7), offset });
                    assert_eq!(row.register(Register(16)), Some(RegisterRule::Offset(-8)));
                }
                fdes += 1;
            }
            assert_eq!(fdes, 2);
        }
    }

    #[test]
    fn what_is_not_understood_leaves_nothing_behind() {
        let good = table(b"zR", &[0x1b]);
        let mut out = vec![1, 2, 3];
        assert_eq!(append(&table(b"eh", &[]), AT, &mut out), None);
        let set_loc: Vec<u8> = good.iter().map(|b| if *b == 0x41 { 0x01 } else { *b }).collect();
        assert_eq!(append(&set_loc, AT, &mut out), None);
        assert_eq!(out, [1, 2, 3]);
        // Cut and changed anywhere, it is an error or another table, and never a panic.
        for at in 0..good.len() {
            drop(append(&good[..at], AT, &mut Vec::new()));
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                drop(append(&bad, AT, &mut Vec::new()));
            }
        }
    }
}
