// SPDX-License-Identifier: GPL-2.0-or-later
//! Debug information of a stranger: the input is cut into the debug sections of an object whose code is in order, and that of its
//! twin differs in one byte of code, so that the types of both are compared.
#![no_main]

use libfuzzer_sys::fuzz_target;
use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use std::path::Path;
use ulp_build::diff::{Compiled, Input, compare};
use ulp_build::model::Language;

const SECTIONS: [&str; 8] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_str",
    ".debug_line_str",
    ".debug_str_offsets",
    ".debug_addr",
    ".debug_types",
    ".debug_loclists",
];

/// An object with one function, and with `data` cut into debug sections: each begins with its length in two bytes.
fn object(data: &[u8], code: &[u8]) -> Option<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.section_id(StandardSection::Text);
    let value = object.append_section_data(text, code, 16);
    object.add_symbol(Symbol {
        name: b"work".to_vec(),
        value,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(text),
        flags: SymbolFlags::None,
    });
    let mut rest = data;
    for name in SECTIONS {
        let Some((len, more)) = rest.split_first_chunk::<2>() else { break };
        let (part, more) = more.split_at(usize::from(u16::from_le_bytes(*len)).min(more.len()));
        let section = object.add_section(Vec::new(), name.as_bytes().to_vec(), SectionKind::Debug);
        object.append_section_data(section, part, 1);
        rest = more;
    }
    object.write().ok()
}

fuzz_target!(|data: &[u8]| {
    let (Some(a), Some(b)) = (object(data, &[0x90, 0x90, 0xc3]), object(data, &[0x90, 0xf8, 0xc3])) else { return };
    let path = Path::new("fuzz.o");
    let compiled = Compiled { language: Language::C, exceptions: false };
    let _ = compare(Some(Input { path, bytes: &a }), Some(Input { path, bytes: &b }), compiled);
});
