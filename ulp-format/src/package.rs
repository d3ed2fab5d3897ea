// SPDX-License-Identifier: GPL-2.0-or-later
//! The package in memory, its bytes, and the checks between the two.

use crate::Manifest;

/// A patch: its manifest, and the sections and symbols of the ELF relocatable that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// What it is for.
    pub manifest: Manifest,
    /// Loaded sections (`SHF_ALLOC`), in file order; names are unique.
    pub sections: Vec<Section>,
    /// Symbols: those defined in a section, and undefined ones, each of which is some target's [`crate::Reference`]. Names are unique.
    pub symbols: Vec<Symbol>,
}

/// One loaded section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name: `.text.f`, `.rodata.f`, `.data.x`, `.bss.y`, `.eh_frame`.
    pub name: String,
    /// What it holds, which decides its protection in the process.
    pub kind: SectionKind,
    /// Alignment in bytes, a power of two not above 4096.
    pub align: u64,
    /// The bytes, unrelocated; empty for [`SectionKind::ZeroData`].
    pub data: Vec<u8>,
    /// Size in memory; the length of `data` but for zero data.
    pub size: u64,
    /// Relocations, sorted by offset.
    pub relocations: Vec<Relocation>,
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Code: read and execute.
    Code,
    /// Constants: read.
    ReadOnly,
    /// Call frame information (`.eh_frame`): read, and known to the unwinder.
    Frames,
    /// Data: read and write.
    Data,
    /// Zeroes: read and write, no bytes in the file.
    ZeroData,
}

/// One relocation (`Elf64_Rela`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where, in bytes from the section's start.
    pub offset: u64,
    /// The psABI's number.
    pub r_type: u32,
    /// Index into [`Package::symbols`].
    pub symbol: usize,
    /// Addend.
    pub addend: i64,
}

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name, unique in the package.
    pub name: String,
    /// Where it is defined: index into [`Package::sections`], offset and size in bytes. `None`: undefined, a reference.
    pub place: Option<Place>,
    /// What it is, for the ELF symbol's type.
    pub kind: SymbolKind,
}

/// Where a symbol is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into [`Package::sections`].
    pub section: usize,
    /// Bytes from the section's start.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// ELF symbol types that a package has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// `STT_NOTYPE`
    Untyped,
    /// `STT_FUNC`
    Function,
    /// `STT_OBJECT`
    Object,
    /// `STT_TLS`, undefined only
    Tls,
}

impl Package {
    /// The section of this name, and its index.
    pub fn section(&self, name: &str) -> Option<(usize, &Section)> {
        self.sections.iter().enumerate().find(|(_, section)| section.name == name)
    }

    /// The symbol of this name, and its index.
    pub fn symbol(&self, name: &str) -> Option<(usize, &Symbol)> {
        self.symbols.iter().enumerate().find(|(_, symbol)| symbol.name == name)
    }
}

/// Why bytes are not a package.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not one of our files at all.
    #[error("not a .ulp package: {0}")]
    NotAPackage(String),
    /// One of ours, but damaged: the digest or a structure does not hold.
    #[error("the package is damaged: {0}")]
    Damaged(String),
    /// Made by a newer ulp-build.
    #[error("the package has format {found}, this program reads up to {}", crate::FORMAT)]
    Newer {
        /// The file's format version.
        found: u32,
    },
}

/// Why a package cannot be written: it breaks one of its own rules.
#[derive(Debug, thiserror::Error)]
#[error("the package is inconsistent: {0}")]
pub struct WriteError(pub String);
