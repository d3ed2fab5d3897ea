// SPDX-License-Identifier: GPL-2.0-or-later
//! Reads the debugging information of an object into plain trees: the few attributes that say how data is laid out.

use crate::model::{Code, Refusal};
use gimli::{AttributeValue, EndianSlice, LittleEndian, Reader as _, SectionId};
use object::{Object as _, ObjectSection as _};
use std::borrow::Cow;
use std::collections::HashMap;

/// The entries of one unit, parents before children.
pub struct Tree {
    pub nodes: Vec<Node>,
}

/// One entry, as far as layouts are concerned. Indices are into [`Tree::nodes`].
pub struct Node {
    pub tag: gimli::DwTag,
    pub parent: Option<usize>,
    pub children: Vec<usize>,
    pub name: Option<String>,
    pub type_of: Option<usize>,
    /// `DW_AT_specification` or `DW_AT_abstract_origin`: the entry that has the name.
    pub specification: Option<usize>,
    pub size: Option<u64>,
    pub alignment: Option<u64>,
    /// Bytes from the start of the structure.
    pub offset: Option<u64>,
    pub bit_size: Option<u64>,
    pub bit_offset: Option<i64>,
    /// An enumerator's value.
    pub value: Option<i64>,
    pub count: Option<u64>,
    pub upper_bound: Option<u64>,
    pub declaration: bool,
    pub external: bool,
    /// A variable whose place is an address or a thread-local offset, not a register or a frame slot.
    pub fixed_place: bool,
}

/// Relocations of one debug section, applied while it is read.
#[derive(Debug, Default)]
struct Relocations(object::read::RelocationMap);

impl gimli::read::Relocate for &Relocations {
    fn relocate_address(&self, offset: usize, value: u64) -> gimli::Result<u64> {
        Ok(self.0.relocate(offset as u64, value))
    }

    fn relocate_offset(&self, offset: usize, value: usize) -> gimli::Result<usize> {
        <usize as gimli::ReaderOffset>::from_u64(self.0.relocate(offset as u64, value as u64))
    }
}

type Reader<'a> = gimli::RelocateReader<EndianSlice<'a, LittleEndian>, &'a Relocations>;

/// The trees of all units of an object. Without debugging information nobody can vouch for layouts: a refusal.
pub fn trees(bytes: &[u8]) -> Result<Vec<Tree>, Refusal> {
    let file = object::File::parse(bytes).map_err(|e| damaged(&e))?;
    let machine = bytes.get(18..20).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    if file.section_by_name(".debug_info").is_none() {
        return Err(Refusal {
            code: Code::Unsupported,
            symbol: None,
            message: "the object has no debugging information, so that types cannot be compared".to_owned(),
            advice: "let the compiler write DWARF (-g)".to_owned(),
        });
    }
    let load = |id: SectionId| -> Result<(Cow<'_, [u8]>, Relocations), Refusal> {
        let mut relocations = Relocations::default();
        let Some(section) = file.section_by_name(id.name()) else { return Ok((Cow::Borrowed(&[]), relocations)) };
        for (offset, relocation) in section.relocations() {
            // A thread-local variable's place is an offset in its module's block; no layout depends on it.
            if !is_tls_offset(machine, &relocation) {
                relocations.0.add(&file, offset, relocation).map_err(|e| damaged(&e))?;
            }
        }
        let data = section.uncompressed_data().map_err(|e| damaged(&e))?;
        Ok((data, relocations))
    };
    let sections = gimli::DwarfSections::load(load)?;
    let dwarf = sections.borrow(|(data, relocations)| Reader::new(EndianSlice::new(data, LittleEndian), relocations));
    let mut trees = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(|e| damaged(&e))? {
        let unit = dwarf.unit(header).map_err(|e| damaged(&e))?;
        trees.push(tree(&dwarf, &unit)?);
    }
    Ok(trees)
}

fn tree(dwarf: &gimli::Dwarf<Reader<'_>>, unit: &gimli::Unit<Reader<'_>>) -> Result<Tree, Refusal> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut index_of = HashMap::new();
    // References by offset, resolved when every entry has its index.
    let mut links: Vec<(usize, bool, usize)> = Vec::new();
    // The open entries around the current one, with their depths.
    let mut open: Vec<(isize, usize)> = Vec::new();
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs().map_err(|e| damaged(&e))? {
        while open.last().is_some_and(|(depth, _)| *depth >= entry.depth()) {
            open.pop();
        }
        let index = nodes.len();
        let parent = open.last().map(|(_, i)| *i);
        index_of.insert(entry.offset().0, index);
        open.push((entry.depth(), index));
        if let Some(node) = parent.and_then(|i| nodes.get_mut(i)) {
            node.children.push(index);
        }
        for (is_type, at) in
            [(true, gimli::DW_AT_type), (false, gimli::DW_AT_specification), (false, gimli::DW_AT_abstract_origin)]
        {
            match entry.attr_value(at) {
                None => {}
                Some(AttributeValue::UnitRef(offset)) => links.push((index, is_type, offset.0)),
                Some(_) => {
                    return Err(Refusal {
                        code: Code::Unsupported,
                        symbol: None,
                        message: "the debugging information refers to another unit (type units or dwz)".to_owned(),
                        advice: "compile without -fdebug-types-section".to_owned(),
                    });
                }
            }
        }
        nodes.push(node(dwarf, unit, entry, parent)?);
    }
    for (index, is_type, offset) in links {
        let target = *index_of.get(&offset).ok_or_else(|| damaged(&"a reference leads nowhere"))?;
        let node = nodes.get_mut(index).ok_or_else(|| damaged(&"an entry is missing"))?;
        *(if is_type { &mut node.type_of } else { &mut node.specification }) = Some(target);
    }
    Ok(Tree { nodes })
}

fn node(
    dwarf: &gimli::Dwarf<Reader<'_>>,
    unit: &gimli::Unit<Reader<'_>>,
    entry: &gimli::DebuggingInformationEntry<Reader<'_>>,
    parent: Option<usize>,
) -> Result<Node, Refusal> {
    let name = match entry.attr_value(gimli::DW_AT_name) {
        None => None,
        Some(value) => {
            let text = dwarf.attr_string(unit, value).map_err(|e| damaged(&e))?;
            Some(text.to_string_lossy().map_err(|e| damaged(&e))?.into_owned())
        }
    };
    let number = |at| entry.attr_value(at).and_then(|v| v.udata_value());
    let signed = |at| entry.attr(at).and_then(|a| a.sdata_value().or_else(|| a.udata_value().map(|v| v as i64)));
    let flag = |at| matches!(entry.attr_value(at), Some(AttributeValue::Flag(true)));
    Ok(Node {
        tag: entry.tag(),
        parent,
        children: Vec::new(),
        name,
        type_of: None,
        specification: None,
        size: number(gimli::DW_AT_byte_size),
        alignment: number(gimli::DW_AT_alignment),
        offset: number(gimli::DW_AT_data_member_location),
        bit_size: number(gimli::DW_AT_bit_size),
        bit_offset: signed(gimli::DW_AT_data_bit_offset).or_else(|| signed(gimli::DW_AT_bit_offset)),
        value: signed(gimli::DW_AT_const_value),
        count: number(gimli::DW_AT_count),
        upper_bound: number(gimli::DW_AT_upper_bound),
        declaration: flag(gimli::DW_AT_declaration),
        external: flag(gimli::DW_AT_external),
        fixed_place: fixed_place(entry)?,
    })
}

fn is_tls_offset(machine: u16, relocation: &object::Relocation) -> bool {
    let object::RelocationFlags::Elf { r_type } = relocation.flags() else { return false };
    let row = ulp_arch::by_machine(machine).and_then(|arch| arch.relocation(r_type.0));
    row.is_some_and(|row| row.name.contains("DTPOFF") || row.name.contains("DTPREL"))
}

/// Whether the location is one address (`DW_OP_addr`) or one thread-local offset.
fn fixed_place(entry: &gimli::DebuggingInformationEntry<Reader<'_>>) -> Result<bool, Refusal> {
    let Some(AttributeValue::Exprloc(expression)) = entry.attr_value(gimli::DW_AT_location) else { return Ok(false) };
    let mut bytes = expression.0;
    if bytes.is_empty() {
        return Ok(false);
    }
    let first = gimli::DwOp(bytes.read_u8().map_err(|e| damaged(&e))?);
    // Thread-local variables: the offset as a constant, then DW_OP_GNU_push_tls_address or DW_OP_form_tls_address.
    Ok(matches!(first, gimli::DW_OP_addr | gimli::DW_OP_const4u | gimli::DW_OP_const8u | gimli::DW_OP_addrx))
}

fn damaged(error: &dyn std::fmt::Display) -> Refusal {
    Refusal {
        code: Code::BadElf,
        symbol: None,
        message: format!("the object's debugging information cannot be read: {error}"),
        advice: "rebuild the object".to_owned(),
    }
}
