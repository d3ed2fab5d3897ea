// SPDX-License-Identifier: GPL-2.0-or-later
//! One compiled object as symbol-sized atoms: functions, data, and the anonymous pieces (strings, constants, jump tables)
//! between them. References point at atoms, never at sections, so that later stages need not know how the compiler laid
//! things out. Debug sections are read elsewhere (`types`).

mod elf;
mod frames;
mod read;
mod refs;
mod settle;
mod shorten;
mod split;

pub(crate) use elf::{Elf, Place, Reloc, Section, damaged};
pub(crate) use frames::encoded_size;
pub(crate) use shorten::may_be as may_be_shortened;
pub(crate) use split::is_mapping_symbol;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Index into [`Object::atoms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomId(pub usize);

/// One object file, taken apart.
#[derive(Clone, Debug)]
pub struct Object {
    pub path: PathBuf,
    /// `e_machine`.
    pub machine: u16,
    pub atoms: Vec<Atom>,
    /// Undefined symbols, by name; [`Target::Import`] points here.
    pub imports: Vec<Import>,
    /// Aliases: further names of the same place, with the atom they mean.
    pub aliases: Vec<(String, AtomId)>,
    /// By section: atoms that code may reach through the address of one of them, in the order of their offsets. The linker
    /// keeps their distances, and no two of one block mean what they should when they are apart.
    pub blocks: BTreeMap<usize, Vec<AtomId>>,
    /// The compilation unit's source file as DWARF or the file symbol names it.
    pub source: Option<String>,
}

/// What an atom holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtomKind {
    Function,
    /// Read-only data that never changes: `.rodata` and, in relocatable form, `.data.rel.ro`.
    ReadOnly,
    /// Initialised writable data.
    Data,
    /// Zero-initialised writable data, common symbols too.
    ZeroData,
    TlsData,
    TlsZero,
    /// Pointers in `.init_array`, `.fini_array`, `.ctors`, `.dtors`.
    Constructors,
}

/// How far a name is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Local,
    Global,
    Weak,
}

/// A symbol-sized piece of a section.
#[derive(Clone, Debug)]
pub struct Atom {
    /// Symbol name; anonymous atoms have a made-up one that begins with `.` (`.rodata.str1.1+0x10`).
    pub name: String,
    /// No symbol of its own: a string, a constant, a jump table; compared by content and cloned into a patch at will.
    pub anonymous: bool,
    pub kind: AtomKind,
    pub scope: Scope,
    /// `STV_HIDDEN` or `STV_INTERNAL`.
    pub hidden: bool,
    /// Member of a COMDAT group with this signature.
    pub comdat: Option<String>,
    /// Name of the section it stands in, and the offset there.
    pub section: String,
    pub section_index: usize,
    pub offset: u64,
    pub size: u64,
    pub align: u64,
    /// Unrelocated bytes, empty for zero data.
    pub bytes: Vec<u8>,
    pub refs: Vec<Ref>,
    /// The function of which this is the `.cold` or `.part` child.
    pub parent: Option<AtomId>,
    /// Functions only: its call frame information.
    pub frame: Option<Frame>,
    /// `STT_GNU_IFUNC`: the code is a resolver.
    pub ifunc: bool,
    /// What about it is not understood; a patch that needs this atom is refused with these words.
    pub problem: Option<String>,
}

/// One relocation inside an atom, in terms of atoms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// Offset in the atom.
    pub offset: u64,
    pub r_type: u32,
    pub target: Target,
    /// The point that is meant: bytes from the target's start. For a PC-relative field this has the distance from the
    /// field to the instruction's end already added back.
    pub target_offset: i64,
    /// What to add to `target_offset` to get the relocation's addend again (-4 for most PC-relative fields).
    pub adjust: i64,
    /// The field is the destination of a direct call or jump.
    pub branch: bool,
    /// There is no relocation: the assembler filled the field in.
    pub resolved: bool,
}

/// What a reference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Atom(AtomId),
    /// Index into [`Object::imports`].
    Import(usize),
}

/// An undefined symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub name: String,
    pub weak: bool,
    pub hidden: bool,
    pub tls: bool,
}

/// A function's frame description: enough to write `.eh_frame` anew for the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The CIE's bytes, from its length field on, unrelocated.
    pub cie: Vec<u8>,
    /// The FDE's bytes likewise; its CIE pointer and its initial location are to be filled in.
    pub fde: Vec<u8>,
    /// Where it begins in the function: some compilers leave out what they put in front of its first instruction.
    pub start: u64,
    /// The pointer to the personality routine in `cie`. With one, the CIE's code for exceptions looks at this function.
    pub personality: Option<Ref>,
    /// The pointer to the language-specific data area in `fde`: exceptions are handled here.
    pub lsda: Option<Ref>,
}

impl Object {
    /// The block that an atom belongs to, where there is one.
    pub fn block(&self, id: AtomId) -> Option<&[AtomId]> {
        self.blocks.get(&self.atoms.get(id.0)?.section_index).map(Vec::as_slice)
    }
}

impl Atom {
    /// The references of the code or data, then those of its frame description: what a copy of it needs.
    pub fn all_refs(&self) -> impl Iterator<Item = &Ref> {
        let of_frame = self.frame.iter().flat_map(|f| f.personality.iter().chain(&f.lsda));
        self.refs.iter().chain(of_frame)
    }
}
