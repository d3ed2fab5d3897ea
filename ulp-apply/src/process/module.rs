// SPDX-License-Identifier: GPL-2.0-or-later
//! The ELF files that a process has loaded, read from its memory: a path may name another file by now, or none. A
//! mapping that begins with an ELF header is a module only when its executable segments are mapped where that header
//! says; a file that is merely mapped for reading is none. Headers in memory are the target's word, so every number
//! in them is a suspect.

use super::error::Error;
use super::maps::{Mapping, Maps, Wish};
use super::{Process, RemoteAddr, sys};
use ulp_arch::{Arch, LinkAddr, LoadBias};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// More of these than any real file has.
const MAX_NOTE: u64 = 64 * 1024;
const MAX_DYNAMIC: u64 = 64 * 1024;

/// What a module is to its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The program.
    Main,
    /// A shared library, the dynamic loader among them.
    Library,
    /// The kernel's own code in every process; only needed for unwinding.
    Vdso,
}

/// A loaded segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub vaddr: LinkAddr,
    pub file_size: u64,
    pub mem_size: u64,
    pub offset: u64,
    pub read: bool,
    pub write: bool,
    pub exec: bool,
}

impl Segment {
    /// Link address one past its last byte.
    pub fn end(&self) -> LinkAddr {
        self.vaddr.plus(self.mem_size)
    }
}

/// The thread-local segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tls {
    pub vaddr: LinkAddr,
    pub file_size: u64,
    pub mem_size: u64,
    pub align: u64,
}

/// The entries of the dynamic section that find symbols and slots. Addresses are link addresses, whether or not the
/// loader has relocated the entries in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dynamic {
    pub symtab: Option<LinkAddr>,
    pub strtab: Option<(LinkAddr, u64)>,
    pub hash: Option<LinkAddr>,
    pub gnu_hash: Option<LinkAddr>,
    pub versym: Option<LinkAddr>,
    /// `DT_VERNEED`, `DT_VERNEEDNUM`.
    pub verneed: Option<(LinkAddr, u64)>,
    /// `DT_VERDEF`, `DT_VERDEFNUM`.
    pub verdef: Option<(LinkAddr, u64)>,
    /// `DT_JMPREL`, `DT_PLTRELSZ` in bytes.
    pub jmprel: Option<(LinkAddr, u64)>,
    /// `DT_RELA`, `DT_RELASZ` in bytes.
    pub rela: Option<(LinkAddr, u64)>,
    pub pltgot: Option<LinkAddr>,
    /// Offset of the object's own name in the string table.
    pub soname: Option<u64>,
    /// Offsets of the names of needed libraries in the string table, in order.
    pub needed: Vec<u64>,
    pub flags: u64,
    pub flags_1: u64,
    /// `DT_DEBUG`'s value: the loader's list of modules, in the program's dynamic section only.
    pub debug: Option<RemoteAddr>,
}

/// One loaded ELF file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Path as the kernel shows it, for people only; may name another file, or none.
    pub name: String,
    /// Whether the file has been deleted or replaced on disk.
    pub deleted: bool,
    pub role: Role,
    pub bias: LoadBias,
    /// First byte and one past the last byte of its segments.
    pub range: (RemoteAddr, RemoteAddr),
    /// `e_machine` and `e_type`.
    pub machine: u16,
    pub elf_type: u16,
    pub entry: LinkAddr,
    pub segments: Vec<Segment>,
    /// GNU build-id, lower-case hex.
    pub build_id: Option<String>,
    /// Where the dynamic section lies, and what it says.
    pub dynamic_section: Option<(LinkAddr, u64)>,
    pub dynamic: Option<Dynamic>,
    pub eh_frame_hdr: Option<(LinkAddr, u64)>,
    pub tls: Option<Tls>,
    /// The ELF header and program headers, byte for byte: what a recheck compares.
    pub headers: (RemoteAddr, Vec<u8>),
    /// The notes with the build-id likewise; empty where there is none.
    pub note: (RemoteAddr, Vec<u8>),
}

impl Module {
    /// The segment that holds a link address.
    pub fn segment(&self, addr: LinkAddr) -> Option<&Segment> {
        self.segments.iter().find(|s| addr.0.checked_sub(s.vaddr.0).is_some_and(|n| n < s.mem_size))
    }

    /// First byte and one past the last byte of its executable segments.
    pub fn code(&self) -> (RemoteAddr, RemoteAddr) {
        let code = || self.segments.iter().filter(|s| s.exec);
        let first = code().map(|s| s.vaddr).min().map_or(self.range.0, |at| self.bias.remote(at));
        let end = code().map(Segment::end).max().map_or(self.range.1, |at| self.bias.remote(at));
        (first, end)
    }

    /// Where an area of `size` bytes with code for it may lie.
    pub fn wish(&self, size: u64, arch: &dyn Arch, below: Option<RemoteAddr>) -> Wish {
        let (reach, code_reach) = (arch.data_reach(), arch.reach());
        Wish { near: self.range, code: self.code(), size, reach, code_reach, below }
    }

    /// Whether the process address lies in one of its executable segments.
    pub fn executes(&self, addr: RemoteAddr) -> bool {
        self.segment(self.bias.link(addr)).is_some_and(|s| s.exec)
    }

    /// Whether the module is still where it was: same headers, same build-id note. Cheap enough under a stop.
    pub fn is_unchanged(&self, process: &Process) -> Result<bool, Error> {
        let (at, expected) = &self.headers;
        if process.read_vec(*at, expected.len())? != *expected {
            return Ok(false);
        }
        // The note is short and near: its bytes say as much as parsing it again would.
        let (at, expected) = &self.note;
        Ok(process.read_vec(*at, expected.len())? == *expected)
    }
}

struct Program {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    file_size: u64,
    mem_size: u64,
    align: u64,
}

struct Headers {
    machine: u16,
    elf_type: u16,
    entry: u64,
    programs: Vec<Program>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// Length of ELF header and program headers together, from the first 64 bytes of a 64-bit little-endian ELF file.
fn headers_len(header: &[u8]) -> Option<usize> {
    // e_ident: magic, ELFCLASS64, ELFDATA2LSB, EV_CURRENT
    if header.get(..7)? != b"\x7fELF\x02\x01\x01" || u16_at(header, 54)? != 56 {
        return None;
    }
    let (offset, count) = (u64_at(header, 32)?, usize::from(u16_at(header, 56)?));
    let end = usize::try_from(offset).ok()?.checked_add(count.checked_mul(56)?)?;
    (offset >= 64 && count > 0 && count < 512 && end <= 1 << 16).then_some(end)
}

impl Headers {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = headers_len(bytes)?;
        let offset = usize::try_from(u64_at(bytes, 32)?).ok()?;
        let mut programs = Vec::new();
        for p in bytes.get(offset..end)?.chunks_exact(56) {
            programs.push(Program {
                kind: u32_at(p, 0)?,
                flags: u32_at(p, 4)?,
                offset: u64_at(p, 8)?,
                vaddr: u64_at(p, 16)?,
                file_size: u64_at(p, 32)?,
                mem_size: u64_at(p, 40)?,
                align: u64_at(p, 48)?,
            });
        }
        Some(Self { machine: u16_at(bytes, 18)?, elf_type: u16_at(bytes, 16)?, entry: u64_at(bytes, 24)?, programs })
    }

    fn first(&self, kind: u32) -> Option<&Program> {
        self.programs.iter().find(|p| p.kind == kind)
    }
}

/// Finds all modules.
pub(super) fn find(process: &Process, maps: &Maps, entry: u64, vdso: u64) -> Result<Vec<Module>, Error> {
    let mut modules = Vec::new();
    for mapping in maps.iter() {
        let is_vdso = vdso != 0 && mapping.start == vdso;
        if is_vdso || mapping.inode != 0 && mapping.offset == 0 && mapping.read {
            modules.extend(read(process, maps, mapping, entry, is_vdso));
        }
    }
    if modules.is_empty() { process.lost().map_or(Ok(modules), Err) } else { Ok(modules) }
}

/// Reads one module; `None` when the mapping holds none.
fn read(process: &Process, maps: &Maps, mapping: &Mapping, entry: u64, is_vdso: bool) -> Option<Module> {
    let at = RemoteAddr(mapping.start);
    let header = process.read_vec(at, 64).ok()?;
    let bytes = process.read_vec(at, headers_len(&header)?).ok()?;
    let headers = Headers::parse(&bytes)?;
    let loads: Vec<&Program> = headers.programs.iter().filter(|p| p.kind == PT_LOAD).collect();
    // The kernel maps whole pages, so the mapping of what begins in the file's first page begins with the file.
    let page = sys::page();
    let first = loads.iter().find(|p| p.offset < page)?;
    let bias = LoadBias(mapping.start.wrapping_sub(first.vaddr.wrapping_sub(first.offset)));
    let mut end = 0;
    let mut executable = false;
    for load in &loads {
        let start = bias.0.wrapping_add(load.vaddr);
        let stop = start.checked_add(load.mem_size)?;
        end = end.max(stop);
        if load.flags & PF_X == 0 || is_vdso {
            continue;
        }
        // Every byte of text must be executable; that it is this file's text shows at the first page (later pages may
        // have been remapped, to huge pages for instance).
        let text = maps.at(start)?;
        let same_file = (text.device == mapping.device && text.inode == mapping.inode)
            && text.offset.wrapping_add((start & !(page - 1)).wrapping_sub(text.start)) == load.offset & !(page - 1);
        let anonymous = text.inode == 0;
        if !(same_file || anonymous) || !maps.covers(start, stop, |m| m.exec) {
            return None;
        }
        executable |= same_file;
    }
    if !executable && !is_vdso {
        return None;
    }
    let holds = |a: u64| loads.iter().any(|l| a.wrapping_sub(bias.0.wrapping_add(l.vaddr)) < l.mem_size);
    let role = match (is_vdso, entry != 0 && holds(entry)) {
        (true, _) => Role::Vdso,
        (false, true) => Role::Main,
        (false, false) => Role::Library,
    };
    let name = mapping.name.strip_suffix(" (deleted)");
    let dynamic_section = headers.first(PT_DYNAMIC).map(|p| (LinkAddr(p.vaddr), p.mem_size));
    let place = |p: &Program| (LinkAddr(p.vaddr), p.mem_size);
    let range = (at, RemoteAddr(end));
    let (build_id, note) = build_id(process, bias, &headers.programs).unzip();
    Some(Module {
        name: name.unwrap_or(&mapping.name).to_owned(),
        deleted: name.is_some(),
        role,
        bias,
        range,
        machine: headers.machine,
        elf_type: headers.elf_type,
        entry: LinkAddr(headers.entry),
        segments: loads
            .iter()
            .map(|p| Segment {
                vaddr: LinkAddr(p.vaddr),
                file_size: p.file_size,
                mem_size: p.mem_size,
                offset: p.offset,
                read: p.flags & PF_R != 0,
                write: p.flags & PF_W != 0,
                exec: p.flags & PF_X != 0,
            })
            .collect(),
        build_id,
        note: note.unwrap_or((at, Vec::new())),
        dynamic: dynamic_section.and_then(|d| dynamic(process, bias, range, d)),
        dynamic_section,
        eh_frame_hdr: headers.first(PT_GNU_EH_FRAME).map(place),
        tls: headers.first(PT_TLS).map(|p| Tls {
            vaddr: LinkAddr(p.vaddr),
            file_size: p.file_size,
            mem_size: p.mem_size,
            align: p.align,
        }),
        headers: (at, bytes),
    })
}

/// The GNU build-id, with the bytes of the note segment that it stands in.
fn build_id(process: &Process, bias: LoadBias, programs: &[Program]) -> Option<(String, (RemoteAddr, Vec<u8>))> {
    programs.iter().filter(|p| p.kind == PT_NOTE && p.mem_size <= MAX_NOTE).find_map(|p| {
        let len = usize::try_from(p.mem_size).ok()?;
        let at = bias.remote(LinkAddr(p.vaddr));
        let bytes = process.read_vec(at, len).ok()?;
        let align = if p.align == 8 { 8 } else { 4 };
        Some((note_build_id(&bytes, align)?, (at, bytes)))
    })
}

fn note_build_id(notes: &[u8], align: usize) -> Option<String> {
    let mut at = 0usize;
    loop {
        let name_len = usize::try_from(u32_at(notes, at)?).ok()?;
        let desc_len = usize::try_from(u32_at(notes, at.checked_add(4)?)?).ok()?;
        let kind = u32_at(notes, at.checked_add(8)?)?;
        let name_at = at.checked_add(12)?;
        let desc_at = name_at.checked_add(name_len)?.checked_next_multiple_of(align)?;
        let desc = notes.get(desc_at..desc_at.checked_add(desc_len)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(name_at..name_at.checked_add(name_len)?)? == b"GNU\0" {
            return (!desc.is_empty()).then(|| desc.iter().map(|b| format!("{b:02x}")).collect());
        }
        at = desc_at.checked_add(desc_len)?.checked_next_multiple_of(align)?;
    }
}

/// Reads the dynamic section. The loader may have relocated the addresses in it (glibc does on most machines, musl
/// does not), so an address inside the module is taken as relocated, any other as a link address.
fn dynamic(
    process: &Process,
    bias: LoadBias,
    range: (RemoteAddr, RemoteAddr),
    section: (LinkAddr, u64),
) -> Option<Dynamic> {
    let len = usize::try_from(section.1.min(MAX_DYNAMIC)).ok()?;
    let bytes = process.read_vec(bias.remote(section.0), len).ok()?;
    let link = |value: u64| {
        let inside = range.0.0 <= value && value < range.1.0;
        if inside { bias.link(RemoteAddr(value)) } else { LinkAddr(value) }
    };
    let mut all = Vec::new();
    for entry in bytes.chunks_exact(16) {
        match (u64_at(entry, 0)?, u64_at(entry, 8)?) {
            (0, _) => break,
            pair => all.push(pair),
        }
    }
    let value = |tag: u64| all.iter().find(|(t, _)| *t == tag).map(|(_, v)| *v);
    let addr = |tag: u64| value(tag).map(link);
    let pair = |a: u64, b: u64| Some((addr(a)?, value(b)?));
    Some(Dynamic {
        symtab: addr(6),
        strtab: pair(5, 10),
        hash: addr(4),
        gnu_hash: addr(0x6fff_fef5),
        versym: addr(0x6fff_fff0),
        verneed: pair(0x6fff_fffe, 0x6fff_ffff),
        verdef: pair(0x6fff_fffc, 0x6fff_fffd),
        jmprel: pair(23, 2),
        rela: pair(7, 8),
        pltgot: addr(3),
        soname: value(14),
        needed: all.iter().filter(|(t, _)| *t == 1).map(|(_, v)| *v).collect(),
        flags: value(30).unwrap_or(0),
        flags_1: value(0x6fff_fffb).unwrap_or(0),
        debug: value(21).filter(|v| *v != 0).map(RemoteAddr),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_modules_are_found() {
        // Our own memory can be read without tracing anything.
        let own = i32::try_from(std::process::id()).expect("a pid");
        let process = Process::open(own).expect("ourselves");
        let maps = process.maps().expect("our maps");
        let modules = process.modules(&maps).expect("our modules");
        assert_eq!(modules.iter().filter(|m| m.role == Role::Main).count(), 1);
        assert_eq!(modules.iter().filter(|m| m.role == Role::Vdso).count(), 1);
        let here = RemoteAddr(our_own_modules_are_found as fn() as usize as u64);
        let main = modules.iter().find(|m| m.executes(here)).expect("the module of this function");
        assert_eq!(main.role, Role::Main);
        assert!(main.eh_frame_hdr.is_some() && main.is_unchanged(&process).expect("readable"));
        for library in modules.iter().filter(|m| m.role == Role::Library) {
            let dynamic = library.dynamic.as_ref().expect("a library has a dynamic section");
            let (at, len) = dynamic.strtab.expect("a string table");
            let strings = process.read_vec(library.bias.remote(at), usize::try_from(len).expect("small"));
            assert_eq!(strings.expect("readable").first(), Some(&0), "{}", library.name);
        }
    }

    #[test]
    fn notes_are_walked() {
        let note = |kind: u8, desc: &[u8]| {
            let mut n = vec![4, 0, 0, 0, desc.len() as u8, 0, 0, 0, kind, 0, 0, 0];
            n.extend(b"GNU\0");
            n.extend(desc);
            n
        };
        let both = [note(1, &[1, 2, 3, 4]), note(3, &[0xab, 0xcd, 0, 1])].concat();
        assert_eq!(note_build_id(&both, 4).as_deref(), Some("abcd0001"));
        assert_eq!(note_build_id(&both[..both.len() - 1], 4), None);
        assert_eq!(note_build_id(&note(3, &[]), 4), None);
        assert_eq!(note_build_id(&[0xff; 64], 4), None);
    }

    #[test]
    fn foreign_headers_are_refused() {
        assert_eq!(headers_len(b"\x7fELF\x01\x01\x01"), None);
        assert_eq!(headers_len(&[0; 64]), None);
        let mut header = [0u8; 64];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        header[54] = 56;
        header[56] = 2;
        header[32] = 64;
        assert_eq!(headers_len(&header), Some(64 + 112));
        header[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(headers_len(&header), None);
    }
}
