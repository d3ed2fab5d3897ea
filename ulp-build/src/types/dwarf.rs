// SPDX-License-Identifier: GPL-2.0-or-later
//! Reads `.debug_info` of a relocatable object into a flat list of entries. Debug sections of an object are full of relocations:
//! they are carried out here as if every loaded section lay alone in a range of 4 GiB of its own, so that an address says which
//! section it is in.

use crate::object::{Elf, Place, Section};
use gimli::{AttributeValue, DwarfSections, EndianSlice, LittleEndian, Operation, constants as dw};
use object::elf;
use std::borrow::Cow;
use std::collections::HashMap;
use ulp_arch::Formula;

/// One debugging information entry, with the attributes that describe types and variables.
#[derive(Clone, Debug)]
pub(super) struct Die {
    pub tag: gimli::DwTag,
    /// Index of the enclosing entry.
    pub parent: Option<usize>,
    pub children: Vec<usize>,
    pub name: Option<String>,
    pub linkage_name: Option<String>,
    pub size: Option<u64>,
    pub bit_size: Option<u64>,
    /// `DW_AT_data_member_location` in bytes.
    pub at: Option<i128>,
    pub bit_at: Option<u64>,
    /// Bit offset as DWARF 3 counts it, from the most significant end.
    pub old_bit_at: Option<u64>,
    pub encoding: Option<u64>,
    pub count: Option<u64>,
    pub upper: Option<i128>,
    pub value: Option<i128>,
    pub slot: Option<i128>,
    pub declaration: bool,
    /// Section and offset of a variable with a fixed place.
    pub place: Option<(usize, u64)>,
    pub ty: Option<TypeRef>,
    /// `DW_AT_abstract_origin` or `DW_AT_specification`.
    pub origin: Option<usize>,
}

/// A reference to a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TypeRef {
    Die(usize),
    /// A type unit's signature: a digest of the type itself.
    Signature(u64),
}

/// Bits of an address below the section number.
const SECTION_SHIFT: u32 = 32;

type R<'a> = EndianSlice<'a, LittleEndian>;

pub(super) fn read(elf: &Elf<'_>) -> Result<Vec<Die>, String> {
    let sections = DwarfSections::load(|id| -> Result<Cow<'_, [u8]>, String> {
        match elf.sections.iter().find(|s| s.name == id.name()) {
            Some(section) => relocated(elf, section),
            None => Ok(Cow::Borrowed(&[])),
        }
    })?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let mut list = Vec::new();
    let why = |e: gimli::Error| e.to_string();
    let mut units = dwarf.units();
    let mut by_offset = HashMap::new();
    // Types and origins may lie ahead: offsets now, indices at the end.
    let mut links: Vec<(Option<Link>, Option<usize>)> = Vec::new();
    while let Some(header) = units.next().map_err(why)? {
        let unit = dwarf.unit(header).map_err(why)?;
        let base = unit.header.offset().0;
        let mut cursor = unit.entries();
        let mut open: Vec<(isize, usize)> = Vec::new();
        while let Some(entry) = cursor.next_dfs().map_err(why)? {
            while open.last().is_some_and(|(depth, _)| *depth >= entry.depth()) {
                open.pop();
            }
            let index = list.len();
            let parent = open.last().map(|(_, parent)| *parent);
            let (die, ty, origin) = one(&dwarf, &unit, entry, parent, base)?;
            by_offset.insert(base + entry.offset().0, index);
            open.push((entry.depth(), index));
            list.push(die);
            links.push((ty, origin));
            if let Some(parent) = parent {
                list[parent].children.push(index);
            }
        }
    }
    for (die, (ty, origin)) in list.iter_mut().zip(links) {
        let find = |offset: usize| by_offset.get(&offset).copied().ok_or("an entry refers to one that is not there");
        die.origin = origin.map(find).transpose()?;
        die.ty = match ty {
            None => None,
            Some(Link::Offset(offset)) => Some(TypeRef::Die(find(offset)?)),
            Some(Link::Signature(signature)) => Some(TypeRef::Signature(signature)),
        };
    }
    Ok(list)
}

enum Link {
    Offset(usize),
    Signature(u64),
}

fn one(
    dwarf: &gimli::Dwarf<R<'_>>,
    unit: &gimli::Unit<R<'_>>,
    entry: &gimli::DebuggingInformationEntry<R<'_>>,
    parent: Option<usize>,
    base: usize,
) -> Result<(Die, Option<Link>, Option<usize>), String> {
    let text = |name| -> Result<Option<String>, String> {
        let Some(value) = entry.attr_value(name) else { return Ok(None) };
        let text = dwarf.attr_string(unit, value).map_err(|e| e.to_string())?;
        Ok(Some(text.to_string_lossy().into_owned()))
    };
    let unsigned = |name| entry.attr_value(name).and_then(|v| v.udata_value());
    let signed = |name| {
        entry.attr_value(name).and_then(|v| match v {
            AttributeValue::Udata(v) => Some(i128::from(v)),
            AttributeValue::Data8(v) => Some(i128::from(v)),
            v => v.sdata_value().map(i128::from).or_else(|| v.udata_value().map(i128::from)),
        })
    };
    let link = |name| -> Result<Option<Link>, String> {
        Ok(match entry.attr_value(name) {
            None => None,
            Some(AttributeValue::UnitRef(offset)) => Some(Link::Offset(base + offset.0)),
            Some(AttributeValue::DebugInfoRef(offset)) => Some(Link::Offset(offset.0)),
            Some(AttributeValue::DebugTypesRef(signature)) => Some(Link::Signature(signature.0)),
            Some(other) => return Err(format!("a reference has the unknown form {other:?}")),
        })
    };
    let origin = match link(dw::DW_AT_abstract_origin)?.or(link(dw::DW_AT_specification)?) {
        Some(Link::Offset(offset)) => Some(offset),
        _ => None,
    };
    // A compilation unit itself refers to nothing, but type units have a signature where others have a type.
    let ty = link(dw::DW_AT_type)?;
    let slot = entry.attr_value(dw::DW_AT_vtable_elem_location).map(|v| match v {
        AttributeValue::Exprloc(e) => match e.operations(unit.encoding()).next() {
            Ok(Some(Operation::UnsignedConstant { value })) => i128::from(value),
            _ => -1,
        },
        _ => -1,
    });
    let die = Die {
        tag: entry.tag(),
        parent,
        children: Vec::new(),
        name: text(dw::DW_AT_name)?,
        linkage_name: text(dw::DW_AT_linkage_name)?,
        size: unsigned(dw::DW_AT_byte_size),
        bit_size: unsigned(dw::DW_AT_bit_size),
        at: signed(dw::DW_AT_data_member_location),
        bit_at: unsigned(dw::DW_AT_data_bit_offset),
        old_bit_at: unsigned(dw::DW_AT_bit_offset),
        encoding: entry.attr_value(dw::DW_AT_encoding).and_then(|v| match v {
            AttributeValue::Encoding(e) => Some(u64::from(e.0)),
            _ => None,
        }),
        count: unsigned(dw::DW_AT_count),
        upper: signed(dw::DW_AT_upper_bound),
        value: signed(dw::DW_AT_const_value),
        slot,
        declaration: matches!(entry.attr_value(dw::DW_AT_declaration), Some(AttributeValue::Flag(true))),
        place: place(unit, entry),
        ty: None,
        origin: None,
    };
    Ok((die, ty, origin))
}

/// The fixed place of a variable: `DW_OP_addr`, or an offset among thread-local data.
fn place(unit: &gimli::Unit<R<'_>>, entry: &gimli::DebuggingInformationEntry<R<'_>>) -> Option<(usize, u64)> {
    let AttributeValue::Exprloc(expression) = entry.attr_value(dw::DW_AT_location)? else { return None };
    let address = match expression.operations(unit.encoding()).next().ok()?? {
        Operation::Address { address } => address,
        Operation::UnsignedConstant { value } if value >> SECTION_SHIFT != 0 => value,
        _ => return None,
    };
    Some((usize::try_from(address >> SECTION_SHIFT).ok()?, address & ((1 << SECTION_SHIFT) - 1)))
}

/// The bytes of a debug section, unpacked and relocated.
fn relocated<'a>(elf: &'a Elf<'_>, section: &'a Section<'_>) -> Result<Cow<'a, [u8]>, String> {
    let arch = ulp_arch::by_machine(elf.machine).ok_or("the machine is not known")?;
    let mut bytes = unpacked(section)?;
    for reloc in &section.relocs {
        let row = arch.relocation(reloc.r_type).ok_or("a relocation is not known")?;
        let symbol = &elf.symbols[reloc.symbol];
        let base = match symbol.place {
            Place::Section(index) if elf.sections[index].has(elf::SHF_ALLOC) => (index as u64) << SECTION_SHIFT,
            // Common symbols have no section: each gets a number behind the sections.
            Place::Common => ((elf.sections.len() + reloc.symbol) as u64) << SECTION_SHIFT,
            _ => 0,
        };
        let start = if symbol.place == Place::Common { 0 } else { symbol.value };
        let value = base.wrapping_add(start).wrapping_add(reloc.addend as u64);
        let size = row.field.size();
        // Besides addresses there are offsets into other debug sections, and distances in the thread-local block.
        let wanted = row.formula == Formula::Absolute || row.name.contains("DTPOFF");
        let at = usize::try_from(reloc.offset).map_err(|_| "a relocation leads nowhere")?;
        // gcc writes an offset in the thread-local block as a 4-byte field and 4 zeroes, one number of 8 bytes in all.
        let padded = row.name.contains("DTPOFF32")
            && at.checked_add(8).and_then(|end| bytes.get(at + 4..end)).is_some_and(|high| high == [0; 4]);
        let size = if padded { 8 } else { size };
        let end = at.checked_add(size).filter(|end| *end <= bytes.len()).ok_or("a relocation leads nowhere")?;
        if wanted {
            bytes.to_mut()[at..end].copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }
    Ok(bytes)
}

fn unpacked<'a>(section: &'a Section<'_>) -> Result<Cow<'a, [u8]>, String> {
    let Some((format, size)) = section.compressed else { return Ok(Cow::Borrowed(&section.bytes)) };
    let format = match format {
        elf::ELFCOMPRESS_ZLIB => object::CompressionFormat::Zlib,
        elf::ELFCOMPRESS_ZSTD => object::CompressionFormat::Zstandard,
        other => return Err(format!("compression {} is not known", other.0)),
    };
    let header = size_of::<elf::CompressionHeader64<object::Endianness>>();
    let data = section.bytes.get(header..).ok_or("a compressed section is cut short")?;
    // Neither format packs better than this, so a larger claim is damage and not worth the memory.
    if size / 40_000 > data.len() as u64 {
        return Err("a compressed section claims an absurd size".into());
    }
    let packed = object::CompressedData { format, data, uncompressed_size: size };
    packed.decompress().map_err(|e| e.to_string().to_lowercase())
}
