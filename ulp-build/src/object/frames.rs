// SPDX-License-Identifier: GPL-2.0-or-later
//! Takes `.eh_frame` apart: each function gets the bytes of its frame description entry and of the common entry that goes with it.
//! The layout is that of the LSB core specification, chapter 10.6; relocations say which function an entry describes.

use super::elf::{Elf, Reloc, Section};
use super::{AtomId, Frame, Ref, Target};

/// One frame description: the section offset's relocation that names the function, and the bytes.
pub(super) struct Found {
    /// The relocation of the initial location.
    pub function: Reloc,
    /// The relocations of the personality routine's and of the language-specific data's address, and where these fields
    /// are in the common entry and in the frame entry.
    pub personality: Option<(Reloc, u64)>,
    pub lsda: Option<(Reloc, u64)>,
    pub frame: Frame,
}

/// All frame descriptions of one `.eh_frame` section.
pub(super) fn entries(section: &Section<'_>) -> Result<Vec<Found>, String> {
    let bytes: &[u8] = &section.bytes;
    let mut found = Vec::new();
    let mut at = 0usize;
    while at < bytes.len() {
        let length = word(bytes, at)? as usize;
        if length == 0 {
            break; // the terminator, which only the last file of a link has
        }
        if length >= 0xffff_fff0 {
            return Err("a frame entry has an extended length".into());
        }
        let end = at.checked_add(4).and_then(|a| a.checked_add(length)).filter(|end| *end <= bytes.len());
        let end = end.ok_or("a frame entry is cut short")?;
        let pointer = word(bytes, at + 4)? as usize;
        if pointer != 0 {
            let cie_at = (at + 4).checked_sub(pointer).ok_or("a frame entry has no common entry")?;
            let cie = Cie::read(bytes, cie_at)?;
            let function = reloc_at(section, at + 8).ok_or("a frame entry names no function")?;
            // The augmentation data stand behind the initial location and the range, each `pointer_size` bytes.
            let augmentation = at + 8 + 2 * cie.pointer_size;
            let (data_len, data_at) = leb(bytes.get(..end).unwrap_or(bytes), augmentation)?;
            let lsda = if cie.has_lsda && data_len > 0 { reloc_at(section, data_at) } else { None };
            let personality = match cie.personality {
                Some(field) => Some(reloc_at(section, field).ok_or("a common entry names no personality routine")?),
                None => None,
            };
            let frame = Frame {
                cie: bytes.get(cie_at..cie.end).ok_or("a common entry is cut short")?.to_vec(),
                fde: bytes.get(at..end).ok_or("a frame entry is cut short")?.to_vec(),
                start: 0,
                personality: None,
                lsda: None,
            };
            let field = |reloc: Reloc, from: usize| (reloc, reloc.offset - from as u64);
            let (personality, lsda) = (personality.map(|r| field(r, cie_at)), lsda.map(|r| field(r, at)));
            found.push(Found { function, personality, lsda, frame });
        }
        at = end;
    }
    Ok(found)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, String> {
    let field = at.checked_add(4).and_then(|end| bytes.get(at..end)).ok_or("a frame entry is cut short")?;
    Ok(u32::from_le_bytes([field[0], field[1], field[2], field[3]]))
}

/// An unsigned LEB128 number and the offset behind it.
fn leb(bytes: &[u8], mut at: usize) -> Result<(u64, usize), String> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(at).ok_or("a number in a frame entry is cut short")?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value, at));
        }
    }
    Err("a number in a frame entry is too long".into())
}

fn reloc_at(section: &Section<'_>, at: usize) -> Option<Reloc> {
    let first = section.relocs.partition_point(|r| r.offset < at as u64);
    section.relocs.get(first).filter(|r| r.offset == at as u64).copied()
}

struct Cie {
    end: usize,
    /// Bytes of an encoded initial location.
    pointer_size: usize,
    has_lsda: bool,
    /// Where the personality routine's address is, in the section.
    personality: Option<usize>,
}

impl Cie {
    fn read(bytes: &[u8], at: usize) -> Result<Self, String> {
        let length = word(bytes, at)? as usize;
        if word(bytes, at + 4)? != 0 {
            return Err("a frame entry has no common entry".into());
        }
        let end = at.checked_add(4).and_then(|a| a.checked_add(length)).filter(|end| *end <= bytes.len());
        let mut cie = Self {
            end: end.ok_or("a common entry is cut short")?,
            pointer_size: 8,
            has_lsda: false,
            personality: None,
        };
        let name_at = at + 9; // length, id, version
        let rest = bytes.get(name_at..cie.end).ok_or("a common entry is cut short")?;
        let name_len = rest.iter().position(|b| *b == 0).ok_or("a common entry is cut short")?;
        let augmentation = &rest[..name_len];
        if augmentation.first() != Some(&b'z') {
            return Err("a common entry has no augmentation length".into());
        }
        let (_, next) = leb(bytes, name_at + name_len + 1)?; // code alignment
        let (_, next) = leb(bytes, next)?; // data alignment: signed, but just as long
        let (_, next) = leb(bytes, next)?; // return address column
        let (_, mut next) = leb(bytes, next)?; // augmentation length
        let byte = |at: usize| bytes.get(at).copied().ok_or("a common entry is cut short");
        for letter in &augmentation[1..] {
            match letter {
                b'R' => {
                    cie.pointer_size = size_of(byte(next)?)?;
                    next += 1;
                }
                b'L' => {
                    cie.has_lsda = true;
                    next += 1;
                }
                b'P' => {
                    cie.personality = Some(next + 1);
                    next += 1 + size_of(byte(next)?)?;
                }
                b'S' | b'B' => {}
                other => return Err(format!("a common entry has the unknown augmentation {}", char::from(*other))),
            }
        }
        Ok(cie)
    }
}

/// Bytes of a DW_EH_PE-encoded pointer.
pub(crate) fn encoded_size(encoding: u8) -> Option<usize> {
    match encoding & 0x0f {
        0x00 | 0x04 | 0x0c => Some(8),
        0x03 | 0x0b => Some(4),
        0x02 | 0x0a => Some(2),
        _ => None,
    }
}

fn size_of(encoding: u8) -> Result<usize, String> {
    encoded_size(encoding).ok_or_else(|| format!("a frame entry has the unknown pointer encoding {encoding:#x}"))
}

/// Attaches the frames of every `.eh_frame` section to their functions; `resolve` turns a relocation into what it means,
/// and an offset there.
pub(super) fn attach(
    elf: &Elf<'_>,
    mut resolve: impl FnMut(&Reloc) -> Option<(Target, i64)>,
    mut give: impl FnMut(AtomId, Frame) -> Result<(), String>,
) -> Result<(), String> {
    for section in elf.sections.iter().filter(|s| s.name == ".eh_frame") {
        for mut found in entries(section)? {
            let Some((Target::Atom(function), start)) = resolve(&found.function) else {
                return Err("a frame entry does not begin at a function".into());
            };
            found.frame.start = u64::try_from(start).map_err(|_| "a frame entry begins in front of a function")?;
            let mut reference = |field: Option<(Reloc, u64)>| match field {
                None => Ok(None),
                Some((reloc, offset)) => {
                    let (target, target_offset) = resolve(&reloc).ok_or("an exception table is missing")?;
                    let (r_type, adjust, branch, resolved) = (reloc.r_type, 0, false, false);
                    Ok(Some(Ref { offset, r_type, target, target_offset, adjust, branch, resolved }))
                }
            };
            found.frame.personality = reference(found.personality).map_err(|e: &str| e.to_owned())?;
            found.frame.lsda = reference(found.lsda).map_err(|e: &str| e.to_owned())?;
            give(function, found.frame)?;
        }
    }
    Ok(())
}
