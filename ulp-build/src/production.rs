// SPDX-License-Identifier: GPL-2.0-or-later
//! One linked ELF file as later stages ask about it: symbols, the dynamic symbol table with versions, the slots of its
//! global offset table, thread-local storage, and the bytes at an address. The rebuilt file has the symbols, the
//! production file the bytes; where both stand for the same program their dynamic sections must be equal.

use crate::linkmap::LinkMap;
use crate::object::is_mapping_symbol;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, Rela as _, SectionHeader as _, Sym as _};
use object::{Endianness, Object as _, ObjectSection as _, SymbolIndex};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use ulp_arch::{Arch, LinkAddr, SlotRelocations, ThreadSlots};
use ulp_format::Kind;

/// The symbol by which code means the start of its file's own thread-local storage.
pub const MODULE_BASE: &str = "_TLS_MODULE_BASE_";

/// The symbol by which code means its file's table of slots.
pub const TABLE: &str = "_GLOBAL_OFFSET_TABLE_";

/// A linked ELF file.
#[derive(Clone, Debug)]
pub struct Elf {
    pub kind: Kind,
    pub machine: u16,
    /// Lower-case hex.
    pub build_id: Option<String>,
    pub segments: Vec<Segment>,
    pub tls: Option<TlsSegment>,
    /// `.symtab`, in file order; the same names may occur often.
    pub symbols: Vec<Symbol>,
    by_name: BTreeMap<String, Vec<usize>>,
    by_addr: BTreeMap<LinkAddr, Vec<usize>>,
    /// `.dynsym`.
    pub dynamic: Vec<DynamicSymbol>,
    pub slots: Vec<Slot>,
    /// Words that the loader fills with an address of this very file: where they are, and the link address meant.
    pub relative: BTreeMap<LinkAddr, LinkAddr>,
    /// Words that the loader fills with the address of a symbol of [`Elf::dynamic`], plus an addend.
    pub pointers: BTreeMap<LinkAddr, (usize, i64)>,
    pub soname: Option<String>,
    pub needed: Vec<String>,
    /// Names a dynamic loader (`PT_INTERP`).
    pub interpreted: bool,
    pub runpath: Vec<String>,
    /// All slots are bound before the program runs.
    pub bind_now: bool,
    /// `-Bsymbolic`: a library's own definitions come first for itself.
    pub symbolic: bool,
    pub sections: Vec<Section>,
    data: Vec<u8>,
}

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub addr: LinkAddr,
    pub size: u64,
    file_offset: u64,
    file_size: u64,
    pub executable: bool,
    pub writable: bool,
}

/// `PT_TLS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSegment {
    pub addr: LinkAddr,
    pub size: u64,
    pub align: u64,
}

/// An output section that is loaded.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: String,
    pub addr: LinkAddr,
    pub size: u64,
    pub executable: bool,
    pub writable: bool,
}

/// A symbol of `.symtab` that has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    pub addr: LinkAddr,
    pub size: u64,
    pub local: bool,
    pub weak: bool,
    /// `STV_HIDDEN` or `STV_INTERNAL`; such globals become local in the link.
    pub hidden: bool,
    pub kind: SymbolKind,
}

/// What a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    Function,
    /// Its address is what a resolver function returns.
    Ifunc,
    Data,
    Tls,
    Other,
}

/// A symbol of `.dynsym`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicSymbol {
    pub name: String,
    pub version: Option<String>,
    /// `name@@version` and not `name@version`.
    pub default_version: bool,
    pub defined: bool,
    pub weak: bool,
    /// `STV_PROTECTED`.
    pub protected: bool,
    /// Link address. For an undefined function of an executable: its linkage table entry, which is the function's address
    /// for the whole process; 0 where there is none.
    pub addr: LinkAddr,
    pub size: u64,
    pub kind: SymbolKind,
}

/// Eight bytes that the dynamic loader fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub addr: LinkAddr,
    pub meaning: SlotMeaning,
}

/// What the loader puts into a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotMeaning {
    /// The address of a symbol, index into [`Elf::dynamic`].
    Address { symbol: usize },
    /// Likewise, but maybe only at the first call.
    Jump { symbol: usize },
    /// Data of a library was moved here, into the executable.
    Copy { symbol: usize },
    /// What the resolver function at this address chose, once and before the program runs.
    Chosen { resolver: LinkAddr },
    /// Distance from the thread pointer of a symbol, or of this offset in the file's own thread-local storage.
    TpOffset { symbol: Option<usize>, addend: i64 },
    /// Two words for `__tls_get_addr`: the module of a symbol, or this file's own, and the distance of the symbol (plus this), or
    /// this one, from the start of the module's block.
    ThreadPair { symbol: Option<usize>, addend: i64 },
    /// Two words of a descriptor, likewise.
    ThreadDescriptor { symbol: Option<usize>, addend: i64 },
}

/// Why a file is not understood.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    #[error("not a complete 64-bit ELF file: {0}")]
    Object(#[from] object::read::Error),
    #[error("it is an object file or a core dump, not a program or a library")]
    NotLinked,
}

type File<'d> = ElfFile64<'d, Endianness>;

impl Elf {
    pub fn read(path: &Path) -> Result<Self, ElfError> {
        Self::parse(std::fs::read(path)?)
    }

    pub fn parse(data: Vec<u8>) -> Result<Self, ElfError> {
        let file = File::parse(&*data)?;
        let endian = file.endian();
        let header = file.elf_header();
        let machine = header.e_machine(endian).0;
        let (segments, tls) = segments(&file);
        let mut elf = Self {
            kind: Kind::Executable,
            machine,
            build_id: file.build_id()?.map(ulp_format::hex::encode),
            segments,
            tls,
            symbols: symbols(&file)?,
            by_name: BTreeMap::new(),
            by_addr: BTreeMap::new(),
            dynamic: dynamic_symbols(&file)?,
            slots: Vec::new(),
            relative: BTreeMap::new(),
            pointers: BTreeMap::new(),
            soname: None,
            needed: Vec::new(),
            interpreted: false,
            runpath: Vec::new(),
            bind_now: false,
            symbolic: false,
            sections: sections(&file)?,
            data: Vec::new(),
        };
        let pie_flag = elf.read_dynamic(&file)?;
        elf.interpreted = file.elf_program_headers().iter().any(|p| p.p_type(endian) == elf::PT_INTERP);
        elf.kind = match header.e_type(endian) {
            elf::ET_EXEC => Kind::Executable,
            elf::ET_DYN if pie_flag || elf.interpreted && elf.soname.is_none() => Kind::Pie,
            elf::ET_DYN => Kind::SharedLibrary,
            _ => return Err(ElfError::NotLinked),
        };
        elf.slots = slots(&file, &elf.sections)?;
        let (places, offsets) = thread_words(&file, &mut elf.slots)?;
        let packed = pointers(&file, &mut elf)?;
        elf.index_symbols();
        elf.data = data;
        elf.thread_pairs(places, &offsets);
        for place in packed {
            // Packed relative relocations keep the address in the word itself.
            if let Some(word) = elf.bytes(place, 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes) {
                elf.relative.insert(place, LinkAddr(word));
            }
        }
        Ok(elf)
    }

    /// Puts first and second words for `__tls_get_addr` together, by place, symbol and addend.
    fn thread_pairs(&mut self, modules: Vec<(LinkAddr, usize)>, offsets: &BTreeMap<LinkAddr, (usize, i64)>) {
        for (addr, symbol) in modules {
            let second = addr.plus(8);
            let word = || Some(i64::from_le_bytes(self.bytes(second, 8)?.try_into().ok()?));
            let meaning = match (symbol, offsets.get(&second).copied()) {
                (0, None) => word().map(|addend| SlotMeaning::ThreadPair { symbol: None, addend }),
                (0, Some((0, addend))) => Some(SlotMeaning::ThreadPair { symbol: None, addend }),
                (_, Some((of, addend))) if of == symbol => {
                    Some(SlotMeaning::ThreadPair { symbol: Some(symbol), addend })
                }
                // Words of two variables.
                _ => None,
            };
            self.slots.extend(meaning.map(|meaning| Slot { addr, meaning }));
        }
        self.slots.sort_by_key(|s| s.addr);
    }

    /// Where in the file's own thread-local storage a slot's symbol and addend lead, if no other file's variable can be meant.
    pub fn own_thread_offset(&self, symbol: Option<usize>, addend: i64) -> Option<i64> {
        let Some(index) = symbol else { return Some(addend) };
        let symbol = self.dynamic.get(index).filter(|s| s.defined && !self.is_preemptible(&s.name))?;
        i64::try_from(symbol.addr.0).ok()?.checked_add(addend)
    }

    /// The same file with another symbol table.
    pub fn with_symbols(&self, symbols: Vec<Symbol>) -> Self {
        let mut elf = Self { symbols, by_name: BTreeMap::new(), by_addr: BTreeMap::new(), ..self.clone() };
        elf.index_symbols();
        elf
    }

    fn index_symbols(&mut self) {
        for (index, symbol) in self.symbols.iter().enumerate() {
            self.by_name.entry(symbol.name.clone()).or_default().push(index);
            if symbol.kind != SymbolKind::Tls {
                self.by_addr.entry(symbol.addr).or_default().push(index);
            }
        }
    }

    /// Reads what concerns us of `PT_DYNAMIC`; returns whether the file calls itself a position-independent executable.
    fn read_dynamic(&mut self, file: &File<'_>) -> Result<bool, ElfError> {
        let table = file.elf_dynamic_table()?;
        let text = |entry: object::read::elf::Dynamic| -> Result<String, ElfError> {
            Ok(String::from_utf8_lossy(table.string(entry)?).into_owned())
        };
        let mut pie = false;
        for entry in table.iter() {
            match entry.tag {
                elf::DT_NEEDED => self.needed.push(text(entry)?),
                elf::DT_SONAME => self.soname = Some(text(entry)?),
                elf::DT_RPATH | elf::DT_RUNPATH => {
                    self.runpath.extend(text(entry)?.split(':').filter(|p| !p.is_empty()).map(str::to_owned));
                }
                elf::DT_BIND_NOW => self.bind_now = true,
                elf::DT_SYMBOLIC => self.symbolic = true,
                elf::DT_FLAGS => {
                    self.bind_now |= entry.val & elf::DF_BIND_NOW.0 != 0;
                    self.symbolic |= entry.val & elf::DF_SYMBOLIC.0 != 0;
                }
                elf::DT_FLAGS_1 => {
                    self.bind_now |= entry.val & elf::DF_1_NOW.0 != 0;
                    pie |= entry.val & elf::DF_1_PIE.0 != 0;
                }
                _ => {}
            }
        }
        Ok(pie)
    }

    /// The bytes at an address as the file has them, `None` where it has none (`.bss`, or nothing at all).
    pub fn bytes(&self, addr: LinkAddr, size: u64) -> Option<&[u8]> {
        let segment = self.segments.iter().find(|s| s.addr <= addr && addr.0 - s.addr.0 < s.size)?;
        let within = addr.0 - segment.addr.0;
        let end = within.checked_add(size)?;
        if end > segment.file_size {
            return None;
        }
        let start = segment.file_offset.checked_add(within)?;
        self.data.get(usize::try_from(start).ok()?..usize::try_from(start.checked_add(size)?).ok()?)
    }

    /// Where a linker has moved instructions to, of those between `addr` and `addr + size`, which work around an erratum: the place of
    /// each, and where it stands now.
    pub fn moved(&self, addr: LinkAddr, size: u64) -> Vec<(LinkAddr, LinkAddr)> {
        let Some(arch) = self.arch().filter(|arch| arch.moved_len() > 0) else { return Vec::new() };
        let len = u64::try_from(arch.moved_len()).unwrap_or(0);
        let Some(code) = self.bytes(addr, size) else { return Vec::new() };
        let one = |(n, word): (u64, &[u8])| {
            let place = addr.plus(4 * n);
            // A function's last instruction leads to others' code, not back behind itself; and a function is no moved instruction.
            let last = self.begins_function(place.plus(4));
            let outside = |to: &LinkAddr| to.0 < addr.0 || to.0 - addr.0 >= size;
            let to = arch.moved_to(word, place).filter(|to| !last && outside(to) && !self.begins_function(*to))?;
            arch.moved(self.bytes(to, len)?, to, place).map(|_| (place, to))
        };
        (0..).zip(code.chunks(4)).filter_map(one).collect()
    }

    /// Whether its code was linked as a program's, whose thread-local variables are at fixed distances from the thread pointer. A
    /// library that can be run as well looks like a program but for the words with which it finds them.
    pub fn links_thread_block(&self) -> bool {
        let called =
            |m: &SlotMeaning| matches!(m, SlotMeaning::ThreadPair { .. } | SlotMeaning::ThreadDescriptor { .. });
        self.kind != Kind::SharedLibrary && !self.slots.iter().any(|slot| called(&slot.meaning))
    }

    /// Whether a function has this address, other than a linker's own piece of code, as GNU ld and lld name it.
    fn begins_function(&self, addr: LinkAddr) -> bool {
        let own = |name: &str| name.contains("843419") || name.contains("835769");
        self.at(addr).any(|s| s.kind == SymbolKind::Function && !own(&s.name))
    }

    /// The bytes at an address, with instructions that a linker has moved away back in their places. What they do is the same.
    pub fn code(&self, addr: LinkAddr, size: u64) -> Option<Cow<'_, [u8]>> {
        let bytes = self.bytes(addr, size)?;
        let moved = self.moved(addr, size);
        if moved.is_empty() {
            return Some(Cow::Borrowed(bytes));
        }
        let mut bytes = bytes.to_vec();
        for (place, to) in moved {
            let at = usize::try_from(place.0 - addr.0).ok()?;
            bytes.get_mut(at..at.checked_add(4)?)?.copy_from_slice(self.bytes(to, 4)?);
        }
        Some(Cow::Owned(bytes))
    }

    /// Where this file has a section of code that the linker may have shortened, as its `map` says, and what stands there.
    pub fn placed(
        &self,
        map: &LinkMap,
        object: &str,
        section: &str,
        sizes: &[u64],
        nth: usize,
    ) -> Option<(LinkAddr, &[u8])> {
        let at = map.shortened(object, section, sizes, nth)?;
        Some((at.addr, self.bytes(at.addr, at.size)?))
    }

    /// All symbols with this name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Symbol> {
        self.by_name.get(name).into_iter().flatten().filter_map(|i| self.symbols.get(*i))
    }

    /// All symbols that begin at `addr`, thread-local ones apart.
    pub fn at(&self, addr: LinkAddr) -> impl Iterator<Item = &Symbol> {
        self.by_addr.get(&addr).into_iter().flatten().filter_map(|i| self.symbols.get(*i))
    }

    /// The start of the first symbol behind `addr`.
    pub fn next_symbol(&self, addr: LinkAddr) -> Option<LinkAddr> {
        self.by_addr.range((Bound::Excluded(addr), Bound::Unbounded)).next().map(|(a, _)| *a)
    }

    /// The loaded section that holds `addr`.
    pub fn section_of(&self, addr: LinkAddr) -> Option<&Section> {
        self.sections.iter().find(|s| s.addr <= addr && addr.0 - s.addr.0 < s.size)
    }

    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The file's dynamic symbol of this name: its own definition, else the undefined one.
    pub fn dynamic_named(&self, name: &str) -> Option<(usize, &DynamicSymbol)> {
        let mut found = self.dynamic.iter().enumerate().filter(|(_, s)| s.name == name);
        let first = found.clone().find(|(_, s)| s.defined && s.default_version);
        first.or_else(|| found.next())
    }

    fn arch(&self) -> Option<&'static dyn Arch> {
        ulp_arch::by_machine(self.machine)
    }

    /// Distance of a thread-local address of this file from the thread pointer, in an executable.
    pub fn tp_offset(&self, addr: LinkAddr) -> Option<i64> {
        let tls = self.tls?;
        let block = self.arch()?.thread_block(tls.size, tls.align)?;
        let within = addr.0.checked_sub(tls.addr.0).filter(|w| *w <= tls.size)?;
        i64::try_from(within).ok()?.checked_add(block)
    }

    /// The thread-local address that lies at this distance from the thread pointer: [`Elf::tp_offset`] backwards.
    pub fn at_tp_offset(&self, offset: i64) -> Option<LinkAddr> {
        let tls = self.tls?;
        let block = self.arch()?.thread_block(tls.size, tls.align)?;
        let within = u64::try_from(offset.checked_sub(block)?).ok()?;
        Some(tls.addr.plus(within))
    }

    /// A program without a loader and without libraries: whatever it calls is inside.
    pub fn is_static(&self) -> bool {
        self.kind != Kind::SharedLibrary && !self.interpreted && self.needed.is_empty()
    }

    /// Whether another object of the process may define the symbol in this file's stead: only default-visible symbols
    /// which a shared library exports.
    pub fn is_preemptible(&self, name: &str) -> bool {
        self.kind == Kind::SharedLibrary
            && !self.symbolic
            && self.dynamic.iter().any(|s| s.name == name && s.defined && !s.protected)
    }

    /// Names a loaded section whose bytes differ from `other`'s, of those that tell how the file is bound to others.
    pub fn dynamic_difference(&self, other: &Self) -> Option<&str> {
        const BINDING: [&str; 10] = [
            ".dynsym",
            ".dynstr",
            ".gnu.version",
            ".gnu.version_r",
            ".rela.dyn",
            ".rela.plt",
            ".plt",
            ".plt.sec",
            ".plt.got",
            ".dynamic",
        ];
        let differs =
            |name: &&str| self.section(name).is_some_and(|s| self.bytes(s.addr, s.size) != other.bytes(s.addr, s.size));
        BINDING.into_iter().find(differs)
    }
}

fn segments(file: &File<'_>) -> (Vec<Segment>, Option<TlsSegment>) {
    let endian = file.endian();
    let (mut loads, mut tls) = (Vec::new(), None);
    for p in file.elf_program_headers() {
        match p.p_type(endian) {
            elf::PT_LOAD => loads.push(Segment {
                addr: LinkAddr(p.p_vaddr(endian)),
                size: p.p_memsz(endian),
                file_offset: p.p_offset(endian),
                file_size: p.p_filesz(endian),
                executable: p.p_flags(endian).0 & elf::PF_X.0 != 0,
                writable: p.p_flags(endian).0 & elf::PF_W.0 != 0,
            }),
            elf::PT_TLS => {
                tls = Some(TlsSegment {
                    addr: LinkAddr(p.p_vaddr(endian)),
                    size: p.p_memsz(endian),
                    align: p.p_align(endian),
                });
            }
            _ => {}
        }
    }
    (loads, tls)
}

fn sections(file: &File<'_>) -> Result<Vec<Section>, ElfError> {
    let endian = file.endian();
    let mut all = Vec::new();
    for section in file.sections() {
        let header = section.elf_section_header();
        let flags = header.sh_flags(endian).0;
        let has = |bit: u64| flags & bit != 0;
        if has(elf::SHF_ALLOC.0) {
            all.push(Section {
                name: String::from_utf8_lossy(section.name_bytes()?).into_owned(),
                addr: LinkAddr(header.sh_addr(endian)),
                // A `.tbss` takes no room among the others.
                size: if has(elf::SHF_TLS.0) && header.sh_type(endian) == elf::SHT_NOBITS {
                    0
                } else {
                    header.sh_size(endian)
                },
                executable: has(elf::SHF_EXECINSTR.0),
                writable: has(elf::SHF_WRITE.0),
            });
        }
    }
    Ok(all)
}

fn kind_of(st_type: elf::SymbolType) -> SymbolKind {
    match st_type {
        elf::STT_FUNC => SymbolKind::Function,
        elf::STT_GNU_IFUNC => SymbolKind::Ifunc,
        elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Data,
        elf::STT_TLS => SymbolKind::Tls,
        _ => SymbolKind::Other,
    }
}

fn symbols(file: &File<'_>) -> Result<Vec<Symbol>, ElfError> {
    let endian = file.endian();
    let table = file.elf_symbol_table();
    let mut all = Vec::new();
    for symbol in table.iter() {
        let named = symbol.st_name(endian) != 0;
        let special = matches!(symbol.st_type(), elf::STT_FILE | elf::STT_SECTION);
        if !named || special || symbol.is_undefined(endian) || symbol.is_absolute(endian) {
            continue;
        }
        let name = String::from_utf8_lossy(table.symbol_name(endian, symbol)?).into_owned();
        // Assemblers give every symbol of a thread-local section that section's type.
        let sizeless = symbol.st_type() == elf::STT_TLS && symbol.st_size(endian) == 0;
        let untyped = symbol.st_type() == elf::STT_NOTYPE || sizeless;
        if symbol.is_local() && untyped && is_mapping_symbol(&name) {
            continue;
        }
        let mut kind = kind_of(symbol.st_type());
        // A copied datum of a library is called `name@VERSION` here.
        let name = match name.split_once('@') {
            Some((plain, _)) => plain.to_owned(),
            None => name,
        };
        if kind == SymbolKind::Other && symbol.st_bind() == elf::STB_GNU_UNIQUE {
            kind = SymbolKind::Data;
        }
        all.push(Symbol {
            name,
            addr: LinkAddr(symbol.st_value(endian)),
            size: symbol.st_size(endian),
            local: symbol.is_local(),
            weak: symbol.st_bind() == elf::STB_WEAK,
            hidden: matches!(symbol.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL),
            kind,
        });
    }
    Ok(all)
}

fn dynamic_symbols(file: &File<'_>) -> Result<Vec<DynamicSymbol>, ElfError> {
    let endian = file.endian();
    let table = file.elf_dynamic_symbol_table();
    let versions = file.elf_section_table().versions(endian, file.data())?;
    let mut all = Vec::new();
    for (index, symbol) in table.iter().enumerate() {
        let (mut version, mut default_version) = (None, true);
        if let Some(versions) = &versions {
            let mark = versions.version_index(endian, SymbolIndex(index));
            default_version = !mark.is_hidden();
            version = versions.version(mark.index())?.map(|v| String::from_utf8_lossy(v.name()).into_owned());
        }
        let defined = !symbol.is_undefined(endian);
        all.push(DynamicSymbol {
            // Kept in step with the table, the null symbol too: relocations count from it.
            name: String::from_utf8_lossy(table.symbol_name(endian, symbol)?).into_owned(),
            version,
            default_version,
            defined: defined && index != 0 && !symbol.is_local(),
            weak: symbol.st_bind() == elf::STB_WEAK,
            protected: symbol.st_visibility() == elf::STV_PROTECTED,
            addr: LinkAddr(symbol.st_value(endian)),
            size: symbol.st_size(endian),
            kind: kind_of(symbol.st_type()),
        });
    }
    Ok(all)
}

fn loader_types(file: &File<'_>) -> Option<SlotRelocations> {
    let machine = file.elf_header().e_machine(file.endian()).0;
    ulp_arch::by_machine(machine).map(|arch| arch.slot_relocations())
}

/// Whether a place that the loader fills with an address is a slot of the global offset table. Where one type of relocation
/// serves for all data, the section tells.
fn is_slot(types: &SlotRelocations, sections: &[Section], addr: LinkAddr) -> bool {
    let table = |s: &Section| s.name.starts_with(".got") && addr.0.checked_sub(s.addr.0).is_some_and(|n| n < s.size);
    types.data != types.absolute || sections.iter().any(table)
}

/// The dynamic relocations that make slots. Relative and irrelative ones carry no symbol and are no one's slot by name.
fn slots(file: &File<'_>, sections: &[Section]) -> Result<Vec<Slot>, ElfError> {
    let endian = file.endian();
    let mut all = Vec::new();
    let Some(types) = loader_types(file) else { return Ok(all) };
    for header in file.elf_section_table().iter() {
        if header.sh_flags(endian).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        let Some((relocations, _)) = header.rela(endian, file.data())? else { continue };
        for r in relocations {
            let symbol = usize::try_from(r.r_sym(endian, false)).unwrap_or(0);
            let addend = r.r_addend(endian);
            let (r_type, addr) = (r.r_type(endian, false).0, LinkAddr(r.r_offset(endian)));
            let meaning = match symbol {
                _ if r_type == types.thread_offset => {
                    SlotMeaning::TpOffset { symbol: Some(symbol).filter(|s| *s != 0), addend }
                }
                0 if r_type == types.irelative => {
                    SlotMeaning::Chosen { resolver: LinkAddr(u64::try_from(addend).unwrap_or(0)) }
                }
                0 => continue,
                _ if r_type == types.jump => SlotMeaning::Jump { symbol },
                _ if r_type == types.copy => SlotMeaning::Copy { symbol },
                _ if r_type == types.data && is_slot(&types, sections, addr) => SlotMeaning::Address { symbol },
                _ => continue,
            };
            all.push(Slot { addr, meaning });
        }
    }
    all.sort_by_key(|s| s.addr);
    Ok(all)
}

/// Adds descriptors to the slots; returns the first words for `__tls_get_addr`, with their symbols, and the second ones.
#[allow(clippy::type_complexity)] // places and what stands there
fn thread_words(
    file: &File<'_>,
    slots: &mut Vec<Slot>,
) -> Result<(Vec<(LinkAddr, usize)>, BTreeMap<LinkAddr, (usize, i64)>), ElfError> {
    let endian = file.endian();
    let (mut modules, mut offsets) = (Vec::new(), BTreeMap::new());
    let types: Option<ThreadSlots> =
        ulp_arch::by_machine(file.elf_header().e_machine(endian).0).and_then(|arch| arch.thread_slots());
    let Some(types) = types else { return Ok((modules, offsets)) };
    for header in file.elf_section_table().iter() {
        if header.sh_flags(endian).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        let Some((relocations, _)) = header.rela(endian, file.data())? else { continue };
        for r in relocations {
            let symbol = usize::try_from(r.r_sym(endian, false)).unwrap_or(0);
            let (r_type, addr, addend) = (r.r_type(endian, false).0, LinkAddr(r.r_offset(endian)), r.r_addend(endian));
            if r_type == types.module {
                modules.push((addr, symbol));
            } else if r_type == types.offset {
                offsets.insert(addr, (symbol, addend));
            } else if r_type == types.descriptor {
                let symbol = Some(symbol).filter(|s| *s != 0);
                slots.push(Slot { addr, meaning: SlotMeaning::ThreadDescriptor { symbol, addend } });
            }
        }
    }
    Ok((modules, offsets))
}

/// Reads the loader's relocations that store addresses outside of the global offset table; returns the places of the
/// packed ones (`SHT_RELR`), whose values are in the words themselves.
fn pointers(file: &File<'_>, into: &mut Elf) -> Result<Vec<LinkAddr>, ElfError> {
    let endian = file.endian();
    let mut packed = Vec::new();
    let Some(types) = loader_types(file) else { return Ok(packed) };
    for header in file.elf_section_table().iter() {
        if header.sh_flags(endian).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        if let Some(relocations) = header.relr(endian, file.data())? {
            packed.extend(relocations.map(LinkAddr));
        }
        let Some((relocations, _)) = header.rela(endian, file.data())? else { continue };
        for r in relocations {
            let (place, addend) = (LinkAddr(r.r_offset(endian)), r.r_addend(endian));
            let r_type = r.r_type(endian, false).0;
            if r_type == types.relative {
                into.relative.insert(place, LinkAddr(addend as u64));
            } else if r_type == types.absolute && !(r_type == types.data && is_slot(&types, &into.sections, place)) {
                let symbol = usize::try_from(r.r_sym(endian, false)).unwrap_or(0);
                into.pointers.insert(place, (symbol, addend));
            }
        }
    }
    Ok(packed)
}
