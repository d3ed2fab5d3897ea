// SPDX-License-Identifier: GPL-2.0-or-later
//! Damage for packages, from a number alone, so that every failure can be made again. Raw damage is what disks and networks do;
//! forged damage is what somebody does who knows the format: a field, a value of the manifest, a byte between them, under a
//! digest that holds. The layout is read here with no code of the reader under test.

use anyhow::{Context, Result};
use object::elf::{FileHeader64, SHT_RELA, SHT_SYMTAB};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{LittleEndian, read::elf::SectionTable};
use serde_json::Value;
use sha2::Digest as _;
use std::ops::Range;

const LE: LittleEndian = LittleEndian;
const DIGEST: usize = 32;

/// The SplitMix64 sequence: small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.word() % (end.max(1) as u64)).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

/// How many mutations a test makes: the short number, or the long one with `ULP_LONG=1`.
pub fn how_many(short: usize, long: usize) -> usize {
    if std::env::var_os("ULP_LONG").is_some_and(|v| v == "1") { long } else { short }
}

/// A number of `len` bytes in the file.
#[derive(Clone, Debug)]
struct Field {
    what: String,
    at: usize,
    len: usize,
}

/// A whole package, and where its parts are.
#[derive(Clone, Debug)]
pub struct Specimen {
    pub bytes: Vec<u8>,
    fields: Vec<Field>,
    manifest: Value,
    /// The section header that says where the manifest is.
    manifest_header: usize,
}

/// A forged package, and what was done to it.
#[derive(Clone, Debug)]
pub struct Forged {
    pub bytes: Vec<u8>,
    pub done: Vec<String>,
}

impl Specimen {
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        let header = FileHeader64::<LittleEndian>::parse(&*bytes)?;
        let sections = header.sections(LE, &*bytes)?;
        let table = usize::try_from(header.e_shoff.get(LE))?;
        // e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
        let mut fields = columns("file header", 16, &[2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2]);
        let mut manifest = None;
        for (index, section) in sections.enumerate() {
            let at = table + 64 * index.0;
            let name = String::from_utf8_lossy(sections.section_name(LE, section)?).into_owned();
            // sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info, sh_addralign, sh_entsize
            fields.extend(columns(&format!("header of {name}"), at, &[4, 4, 8, 8, 8, 8, 4, 4, 8, 8]));
            if name == ".ulp.manifest" {
                manifest = Some((serde_json::from_slice(section.data(LE, &*bytes)?)?, at));
            }
            fields.extend(rows(&name, section));
        }
        let (manifest, manifest_header) = manifest.context("the package has a manifest")?;
        Ok(Self { fields, manifest, manifest_header, bytes })
    }

    /// Damage that leaves the digest as it was; never the package itself.
    pub fn damaged(&self, random: &mut Random) -> Vec<u8> {
        loop {
            let mut bytes = self.bytes.clone();
            for _ in 0..1 + random.below(3) {
                damage(&mut bytes, random);
            }
            if bytes != self.bytes {
                return bytes;
            }
        }
    }

    /// Damage under a digest that holds, where there is still a place for one; never the package itself.
    pub fn forged(&self, random: &mut Random) -> Forged {
        loop {
            let mut forged = Forged { bytes: self.bytes.clone(), done: Vec::new() };
            for _ in 0..1 + random.below(2) {
                match random.below(8) {
                    0..=3 => self.forge_manifest(&mut forged, random),
                    4..=6 => self.forge_field(&mut forged, random),
                    _ => {
                        damage(&mut forged.bytes, random);
                        forged.done.push("bytes".into());
                    }
                }
            }
            seal(&mut forged.bytes);
            if forged.bytes != self.bytes {
                return forged;
            }
        }
    }

    fn forge_field(&self, forged: &mut Forged, random: &mut Random) {
        let (Some(field), Some(other)) = (random.pick(&self.fields), random.pick(&self.fields)) else { return };
        let number = |field: &Field| {
            let mut word = [0; 8];
            let bytes = self.bytes.get(field.at..field.at + field.len).unwrap_or_default();
            word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        };
        let value = boundary(random, number(field), number(other), self.bytes.len() as u64);
        if let Some(place) = forged.bytes.get_mut(field.at..field.at + field.len) {
            place.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
            forged.done.push(format!("{} = {value:#x}", field.what));
        }
    }

    /// Changes one value of the manifest, puts the new text at the end of the file, and makes the header point there.
    fn forge_manifest(&self, forged: &mut Forged, random: &mut Random) {
        let mut manifest = self.manifest.clone();
        let donor = nth(&mut manifest.clone(), random).1.clone();
        let (path, value) = nth(&mut manifest, random);
        let what = change(value, donor, random);
        let mut text = serde_json::to_string(&manifest).unwrap_or_default();
        if random.below(200) == 0 {
            // Deeper than any stack: a parser that calls itself must give up before.
            let deep = 100_000;
            text = text.replacen("[]", &format!("{}{}", "[".repeat(deep), "]".repeat(deep)), 1);
        }
        let (offset, size) = (forged.bytes.len() as u64, text.len() as u64);
        forged.bytes.extend(text.as_bytes());
        let place = self.manifest_header + 24..self.manifest_header + 40;
        if let Some(place) = forged.bytes.get_mut(place) {
            let words = [offset.to_le_bytes(), size.to_le_bytes()].concat();
            place.copy_from_slice(&words);
        }
        forged.done.push(format!("manifest{path} {what}"));
    }
}

fn columns(what: &str, start: usize, lengths: &[usize]) -> Vec<Field> {
    let mut at = start;
    let field = |&len: &usize| {
        at += len;
        Field { what: format!("{what}, {} bytes at {:#x}", len, at - len), at: at - len, len }
    };
    lengths.iter().map(field).collect()
}

/// The fields of a table's rows: symbols and relocations.
fn rows(name: &str, section: &object::elf::SectionHeader64<LittleEndian>) -> Vec<Field> {
    let kind = section.sh_type(LE);
    let (row, lengths): (usize, &[usize]) = if kind == SHT_SYMTAB {
        (24, &[4, 1, 1, 2, 8, 8]) // st_name, st_info, st_other, st_shndx, st_value, st_size
    } else if kind == SHT_RELA {
        (24, &[8, 4, 4, 8]) // r_offset, type, symbol, r_addend
    } else {
        return Vec::new();
    };
    let start = usize::try_from(section.sh_offset(LE)).unwrap_or(0);
    let count = usize::try_from(section.sh_size(LE)).unwrap_or(0) / row;
    (0..count).flat_map(|i| columns(&format!("{name} row {i}"), start + row * i, lengths)).collect()
}

/// Values at which checks break: the ends of ranges, their neighbours, and what stands elsewhere.
fn boundary(random: &mut Random, own: u64, other: u64, file: u64) -> u64 {
    let bit = 1u64 << random.below(64);
    match random.below(14) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::MAX - random.word() % 4096,
        4 => i64::MAX as u64,
        5 => other,
        6 => file.wrapping_add(random.word() % 64).wrapping_sub(32),
        7 => bit,
        8 => bit.wrapping_sub(1),
        9 => own ^ bit,
        10 => own.wrapping_add(1 + random.word() % 16),
        11 => own.wrapping_sub(1 + random.word() % 16),
        12 => own.wrapping_add(4096),
        _ => random.word(),
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let (at, len) = (random.below(bytes.len()), 1 + random.below(16));
    match random.below(9) {
        0..=2 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << random.below(8)),
        3 => bytes.get_mut(at).into_iter().for_each(|byte| *byte = random.word() as u8),
        4 => {
            let word = boundary(random, 0, at as u64, bytes.len() as u64).to_le_bytes();
            bytes.iter_mut().skip(at & !7).zip(word).for_each(|(to, from)| *to = from);
        }
        5 => bytes.truncate(at),
        6 => drop(bytes.splice(at..at, (0..len).map(|i| i as u8))),
        7 => drop(bytes.drain(at..(at + len).min(bytes.len()))),
        _ => {
            let from = random.below(bytes.len());
            let copy: Vec<u8> = bytes.iter().skip(from).take(len * 8).copied().collect();
            bytes.iter_mut().skip(at).zip(copy).for_each(|(to, from)| *to = from);
        }
    }
}

/// A value somewhere in the tree, every one as likely, and its path.
fn nth<'v>(root: &'v mut Value, random: &mut Random) -> (String, &'v mut Value) {
    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(all) => all.iter().map(count).sum(),
            Value::Object(all) => all.values().map(count).sum(),
            _ => 0,
        }
    }
    fn find<'v>(value: &'v mut Value, path: String, left: &mut usize) -> Option<(String, &'v mut Value)> {
        if *left == 0 {
            return Some((path, value));
        }
        *left -= 1;
        match value {
            Value::Array(all) => {
                all.iter_mut().enumerate().find_map(|(i, inner)| find(inner, format!("{path}/{i}"), left))
            }
            Value::Object(all) => all.iter_mut().find_map(|(key, inner)| find(inner, format!("{path}/{key}"), left)),
            _ => None,
        }
    }
    // The root is left alone: what stands in its place is hardly a manifest.
    let mut left = 1 + random.below(count(root) - 1);
    find(root, String::new(), &mut left).expect("there are as many values as were counted")
}

/// Changes one value, and says how.
fn change(value: &mut Value, donor: Value, random: &mut Random) -> String {
    if random.below(12) == 0 {
        *value = donor;
        return "is another value of the manifest".into();
    }
    match value {
        Value::Null => *value = Value::from(random.word()),
        Value::Bool(yes) => *yes = !*yes,
        Value::Number(number) => {
            let new = boundary(random, number.as_u64().unwrap_or(0), donor.as_u64().unwrap_or(64), 4096);
            *value = if random.below(6) == 0 { Value::from(new as i64) } else { Value::from(new) };
            return format!("= {value}");
        }
        Value::String(text) => {
            let at = (0..=random.below(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            match random.below(9) {
                0 => text.clear(),
                1 => text.truncate(at),
                2 => text.insert(at, char::from(b'0' + random.below(10) as u8)),
                3 => text.insert(at, ['\0', '\n', '\x1b', '/', 'é', '\u{202e}'][random.below(6)]),
                4 => *text = text.repeat(2),
                5 => *text = "a".repeat(100_000),
                6 => drop(text.pop()),
                // A digit of a digest, of old bytes, of a build-id.
                _ => {
                    let digit = char::from(b"0123456789abcdef"[random.below(16)]);
                    let end = text.char_indices().nth(1).map_or(text.len(), |(i, _)| i);
                    text.replace_range(..end, "");
                    text.insert(0, digit);
                    let turn = at.min(text.len());
                    if text.is_char_boundary(turn) && random.below(2) == 0 {
                        *text = format!("{}{}", &text[turn..], &text[..turn]);
                    }
                }
            }
            return format!("= {:.80?}", text);
        }
        Value::Array(all) => {
            let at = random.below(all.len());
            match random.below(6) {
                0 => all.clear(),
                1 if !all.is_empty() => drop(all.remove(at)),
                2 if !all.is_empty() => all.insert(at, all[at].clone()),
                3 => all.reverse(),
                4 if !all.is_empty() => all.extend(vec![all[at].clone(); 500]),
                _ => all.push(donor),
            }
        }
        Value::Object(all) => {
            let keys: Vec<String> = all.keys().cloned().collect();
            let Some(key) = random.pick(&keys) else { return "as it was".into() };
            match random.below(3) {
                0 => drop(all.remove(key)),
                1 => drop(all.insert("more".into(), donor)),
                _ => drop(all.insert(key.clone(), donor)),
            }
        }
    }
    "changed".into()
}

/// Makes the digest true again, where the file still says where it is.
pub fn seal(bytes: &mut [u8]) {
    let Some(place) = digest_place(bytes) else { return };
    let Some(room) = bytes.get_mut(place.clone()) else { return };
    room.fill(0);
    let value = sha2::Sha256::digest(&*bytes);
    if let Some(room) = bytes.get_mut(place) {
        room.copy_from_slice(&value);
    }
}

fn digest_place(bytes: &[u8]) -> Option<Range<usize>> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let sections: SectionTable<'_, FileHeader64<LittleEndian>> = header.sections(LE, bytes).ok()?;
    let (_, section) = sections.section_by_name(LE, b".ulp.digest")?;
    let start = usize::try_from(section.sh_offset(LE)).ok()?;
    (section.sh_size(LE) == DIGEST as u64).then_some(start..start.checked_add(DIGEST)?)
}
