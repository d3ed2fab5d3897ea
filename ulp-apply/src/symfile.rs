// SPDX-License-Identifier: GPL-2.0-or-later
//! Names for debuggers and profilers: the records of a process, or of a core dump of one, become an ELF file that gdb's
//! `add-symbol-file` takes, or a map that perf takes. A record names the functions that were replaced; call frame
//! information says where the others begin and end, and the package itself, where it is given, how they are called.
//!
//! New code is called `NAME@PATCH`, as versions of a symbol are. Old code keeps the symbol `NAME`, so a name of its own says which
//! of the two is meant, which matters: a breakpoint in old code can stand in the middle of the entry jump. gdb takes such
//! a name wherever it takes one, also finds it by `NAME` alone, and C++ names by what they mean.

use crate::error::{Class, Error, Result};
use crate::frames;
use crate::link::{Layout, Run};
use crate::memory::SMALLEST_PAGE;
use crate::memory::{self, Memory};
use crate::registry::{Access, Entry, State, TargetRecord};
use crate::snapshot::PackageFile;
use object::write::StringId;
use object::write::elf::{FileHeader, SectionHeader, SectionIndex, Sym, Writer};
use object::{Endianness, elf};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use ulp_arch::{Arch, RemoteAddr};

/// What a debugger needs to know of all patches in one address space.
#[derive(Debug, Default)]
pub struct Patches {
    pub names: Vec<String>,
    code: Vec<Code>,
    /// One `.debug_frame` for all code.
    frames: Vec<u8>,
    pub warnings: Vec<String>,
}

/// The code of one patch for one file, in one mapping.
#[derive(Debug)]
struct Code {
    patch: String,
    at: RemoteAddr,
    bytes: Vec<u8>,
    functions: Vec<Function>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Function {
    name: String,
    at: u64,
    size: u64,
}

impl Patches {
    /// Reads the code of `entries` from `memory`.
    pub fn read(
        memory: &dyn Memory,
        arch: &'static dyn Arch,
        entries: &[Entry],
        packages: &[PackageFile],
    ) -> Result<Self> {
        let mut patches = Self::default();
        // Memory that is being given back may be gone already, and nothing leads to it.
        let present = |e: &&Entry| e.state != State::Freeing;
        for entry in entries.iter().filter(present) {
            let record = &entry.record;
            let package = packages.iter().find(|p| p.digest == record.digest);
            patches.names.push(record.name.clone());
            for target in &record.targets {
                let named = package.map(|p| names_of(arch, p, target)).transpose()?.unwrap_or_default();
                patches.add(memory, &record.name, target, &named)?;
            }
            if let Some(area) = record.changed_area(memory)? {
                let what = format!("the {} bytes of {} at {} were changed since", area.len, record.name, area.start);
                patches.warnings.push(format!("{what}; names and frames may be wrong there"));
            }
        }
        if patches.code.is_empty() {
            return Err(Error::new(
                Class::NoProcess,
                "there is no patch",
                "see where there are some with ulp-apply list",
            ));
        }
        let unused = |p: &&PackageFile| !entries.iter().any(|e| e.record.digest == p.digest);
        match packages.iter().find(unused) {
            None => Ok(patches),
            Some(file) => Err(Error::refused(
                format!("{} is not what is applied there ({})", file.path.display(), patches.names.join(", ")),
                "give the very package that was applied, or none",
            )),
        }
    }

    fn add(&mut self, memory: &dyn Memory, patch: &str, target: &TargetRecord, named: &[Function]) -> Result<()> {
        let mut described = Vec::new();
        if let Some((at, len)) = target.frames {
            match frames::append(&memory::bytes(memory, at, len)?, at.0, &mut self.frames) {
                Some(ranges) => described = ranges,
                None => self.warnings.push(format!(
                    "the call frame information of {patch} for {} is not understood; gdb may not see the callers of its code",
                    target.file
                )),
            }
        }
        for area in target.areas.iter().filter(|a| a.access == Access::Code) {
            let bytes = memory::bytes(memory, area.start, area.len)?;
            let functions = functions(patch, target, area.range(), &described, named, &bytes);
            self.code.push(Code { patch: patch.to_owned(), at: area.start, bytes, functions });
        }
        Ok(())
    }

    /// How many functions are named.
    pub fn functions(&self) -> usize {
        self.code.iter().map(|c| c.functions.len()).sum()
    }

    /// The map that perf reads: start, size, name, in lines.
    pub fn perf_map(&self) -> String {
        let mut text = String::new();
        let mut functions: Vec<_> = self.code.iter().flat_map(|c| &c.functions).collect();
        functions.sort_by_key(|f| f.at);
        for f in functions {
            let _ = writeln!(text, "{:x} {:x} {}", f.at, f.size, f.name);
        }
        text
    }

    /// The ELF file: the code at its addresses, a symbol for each function, the call frame information.
    pub fn elf(&self, arch: &dyn Arch) -> Result<Vec<u8>> {
        let failed = |e: object::write::Error| {
            Error::failed(format!("cannot make the symbol file: {e}"), "report this as a bug")
        };
        let names: Vec<String> = self.code.iter().map(|c| format!(".text.{}", c.patch)).collect();
        let mut file = Vec::new();
        let mut out = Writer::new(Endianness::Little, true, &mut file);

        // First everything gets its room, in file order, then it is written in the same order.
        out.reserve_file_header();
        let mut sections: Vec<(StringId, SectionIndex, u64)> = Vec::new();
        for (code, name) in self.code.iter().zip(&names) {
            let index = out.reserve_section_index();
            sections.push((out.add_section_name(name.as_bytes()), index, out.reserve(code.bytes.len() as u64, 16)));
        }
        let frames = (!self.frames.is_empty()).then(|| {
            out.reserve_section_index();
            (out.add_section_name(b".debug_frame"), out.reserve(self.frames.len() as u64, 8))
        });
        out.reserve_null_symbol_index();
        let mut symbols = Vec::new();
        for (code, (_, index, _)) in self.code.iter().zip(&sections) {
            for f in &code.functions {
                symbols.push((f, *index, out.add_string(f.name.as_bytes())));
                out.reserve_symbol_index(Some(*index));
            }
        }
        out.reserve_symtab_section_index();
        out.reserve_symtab();
        out.reserve_strtab_section_index();
        out.reserve_strtab().map_err(failed)?;
        out.reserve_shstrtab_section_index();
        out.reserve_shstrtab().map_err(failed)?;
        out.reserve_section_headers();

        // Linked, not relocatable: a debugger takes the sections' addresses as they are.
        out.write_file_header(&FileHeader {
            e_type: elf::ET_EXEC,
            e_machine: elf::Machine(arch.machine()),
            e_flags: elf::FileFlags(arch.elf_flags()),
            ..FileHeader::default()
        })
        .map_err(failed)?;
        for (code, (.., offset)) in self.code.iter().zip(&sections) {
            out.pad_until(*offset);
            out.write(&code.bytes);
        }
        if let Some((_, offset)) = frames {
            out.pad_until(offset);
            out.write(&self.frames);
        }
        out.write_null_symbol();
        for (f, index, name) in symbols {
            let st_name = out.string_offset(Some(name));
            out.write_symbol(&Sym {
                section: Some(index.0),
                st_name,
                st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, elf::STT_FUNC),
                st_other: elf::SymbolOther(0),
                st_shndx: elf::SHN_UNDEF,
                st_value: f.at,
                st_size: f.size,
            });
        }
        out.write_strtab();
        out.write_shstrtab();

        out.write_null_section_header();
        for (code, (name, _, sh_offset)) in self.code.iter().zip(&sections) {
            let sh_name = out.section_name_offset(Some(*name));
            out.write_section_header(&SectionHeader {
                sh_name,
                sh_type: elf::SHT_PROGBITS,
                sh_flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR,
                sh_addr: code.at.0,
                sh_offset: *sh_offset,
                sh_size: code.bytes.len() as u64,
                sh_addralign: 16,
                ..SectionHeader::default()
            });
        }
        if let Some((name, sh_offset)) = frames {
            let sh_name = out.section_name_offset(Some(name));
            out.write_section_header(&SectionHeader {
                sh_name,
                sh_type: elf::SHT_PROGBITS,
                sh_offset,
                sh_size: self.frames.len() as u64,
                sh_addralign: 8,
                ..SectionHeader::default()
            });
        }
        out.write_symtab_section_header(1);
        out.write_strtab_section_header();
        out.write_shstrtab_section_header();
        Ok(file)
    }
}

/// No hop and what aligns the function behind it takes more.
const HOP_ROOM: u64 = 64;

/// The names that the package itself has for the code of `target`.
fn names_of(arch: &'static dyn Arch, file: &PackageFile, target: &TargetRecord) -> Result<Vec<Function>> {
    let other = || {
        Error::refused(
            format!("{} is not laid out in {} as it would be now", file.path.display(), target.file),
            "it was applied by another release of ulp-apply; use that one, or give no package",
        )
    };
    let manifest = file.package.manifest.targets.iter().find(|t| t.build_id == target.build_id).ok_or_else(other)?;
    // Places are counted from the start of the code, which begins with a page: any page size will do.
    let layout = Layout::new(arch, &file.package, manifest, 0, 0, SMALLEST_PAGE)?;
    let Some(code) = target.areas.iter().find(|a| a.access == Access::Code) else { return Ok(Vec::new()) };
    let place = |(name, at, size): (&str, u64, u64)| Function { name: name.into(), at: code.start.plus(at).0, size };
    let named: Vec<Function> = layout.functions().map(place).collect();
    // The record says where the replaced functions are, or the hops to them: all others are believed with them.
    let (run, _) = layout.run(Run::Code);
    let hop = |name: &str| {
        let at = layout.hop(file.package.symbol(name)?.0)?;
        Some(code.start.plus(at.checked_sub(run)?))
    };
    let agrees = target.functions.iter().all(|f| {
        let new = manifest.functions.iter().find(|m| target.bias.remote(m.entry) == f.entry).map(|m| &m.new_symbol);
        let is_there = |new: &String| match hop(new) {
            Some(hop) => hop == f.new,
            None => named.iter().any(|n| n.name == *new && n.at == f.new.0),
        };
        new.is_some_and(is_there)
    });
    if agrees { Ok(named) } else { Err(other()) }
}

/// The functions of one mapping of code: those that the record names, their gates, those of the package, those that call
/// frame information knows only by their place, and what is left between them.
fn functions(
    patch: &str,
    target: &TargetRecord,
    code: Range<u64>,
    described: &[Range<u64>],
    named: &[Function],
    bytes: &[u8],
) -> Vec<Function> {
    // By address: a name, where there is one, and an end, where it is known. What comes later knows better.
    let mut known: BTreeMap<u64, (Option<String>, Option<u64>)> = BTreeMap::new();
    let starts: BTreeSet<u64> = described.iter().map(|r| r.start).chain(named.iter().map(|f| f.at)).collect();
    for f in &target.functions {
        // No function begins at a hop, but a little behind it the one that it leads to.
        let near = f.new.0.saturating_add(1)..=f.new.0.saturating_add(HOP_ROOM);
        let is_new = |at: &u64| target.functions.iter().any(|f| f.new.0 == *at);
        match starts.range(near).next().filter(|at| !starts.contains(&f.new.0) && !is_new(at)) {
            Some(function) => {
                known.insert(f.new.0, (Some(format!("{}.hop", f.name)), None));
                known.insert(*function, (Some(f.name.clone()), None));
            }
            None => {
                known.insert(f.new.0, (Some(f.name.clone()), None));
            }
        }
        if let Some(gate) = &f.gate {
            known.insert(gate.at.0, (Some(format!("{}.gate", f.name)), gate.at.0.checked_add(gate.len)));
        }
    }
    for range in described.iter().filter(|r| r.start < r.end) {
        known.entry(range.start).or_default().1 = Some(range.end);
    }
    for f in named {
        let at = known.entry(f.at).or_default();
        at.0.get_or_insert_with(|| f.name.clone());
        at.1 = at.1.or(f.at.checked_add(f.size));
    }
    known.retain(|at, _| code.contains(at));
    let starts: Vec<u64> = known.keys().copied().skip(1).chain([code.end]).collect();
    let mut functions = Vec::new();
    let mut free = code.start;
    let mut unnamed = 0;
    for ((at, (name, end)), next) in known.into_iter().zip(starts) {
        functions.extend(rest(patch, free..at, code.start, bytes));
        let end = end.unwrap_or(next).min(next);
        let name = name.unwrap_or_else(|| {
            unnamed += 1;
            format!("unnamed.{unnamed}")
        });
        functions.push(Function { name: format!("{name}@{patch}"), at, size: end - at });
        free = end;
    }
    functions.extend(rest(patch, free..code.end, code.start, bytes));
    functions
}

/// What is neither function nor padding: linkage entries, and code without call frame information.
fn rest(patch: &str, range: Range<u64>, start: u64, bytes: &[u8]) -> Option<Function> {
    let place = |at: u64| usize::try_from(at - start).ok();
    let between = bytes.get(place(range.start)?..place(range.end)?)?;
    let first = between.iter().position(|b| *b != 0)? as u64;
    let last = between.iter().rposition(|b| *b != 0)? as u64;
    Some(Function { name: format!("rest@{patch}"), at: range.start + first, size: last + 1 - first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::test::Pieces;
    use crate::registry::{Area, FunctionRecord, GateRecord};
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
    use ulp_arch::LoadBias;

    const CODE: u64 = 0x7000_1000;

    fn target() -> TargetRecord {
        let area = |start, access| Area { start: RemoteAddr(start), len: 0x1000, access, sha256: None, measured: 0 };
        let function = |name: &str, new, gate| FunctionRecord {
            name: name.into(),
            entry: RemoteAddr(0x1000),
            new: RemoteAddr(new),
            old: vec![1; 5],
            jump: vec![2; 5],
            gate,
        };
        let gate = GateRecord { at: RemoteAddr(CODE + 0x100), len: 0x20, jump: vec![3; 5] };
        TargetRecord {
            file: "app".into(),
            build_id: "ab".into(),
            bias: LoadBias(0),
            functions: vec![function("f", CODE, None), function("g", CODE + 0x40, Some(gate))],
            areas: vec![area(CODE - 0x1000, Access::Constants), area(CODE, Access::Code)],
            frames: None,
        }
    }

    #[test]
    fn every_function_ends_where_it_is_known_to_end() {
        let named = |name: &str, at, size| Function { name: name.into(), at: CODE + at, size };
        let frames = [CODE..CODE + 0x31, CODE + 0x40..CODE + 0x48, CODE + 0x50..CODE + 0x60, 8..9];
        type Row<'a> = (&'a str, u64, u64);
        let check = |described: &[Range<u64>], named: &[Function], code: &[(usize, usize)], expected: &[Row<'_>]| {
            let mut bytes = vec![0; 0x1000];
            code.iter().for_each(|(at, len)| bytes[*at..at + len].fill(0x90));
            let found = functions("fix", &target(), CODE..CODE + 0x1000, described, named, &bytes);
            let rows: Vec<Row<'_>> = found.iter().map(|f| (f.name.as_str(), f.at - CODE, f.size)).collect();
            assert_eq!(rows, expected);
        };
        let bare = [("f@fix", 0, 0x40), ("g@fix", 0x40, 0xc0), ("g.gate@fix", 0x100, 0x20)];
        check(&[], &[], &[], &bare);
        let f = ("f@fix", 0, 0x31);
        let (g, gate) = (("g@fix", 0x40, 8), ("g.gate@fix", 0x100, 0x20));
        check(
            &frames,
            &[],
            &[(0, 0x60)],
            &[f, ("rest@fix", 0x31, 15), g, ("rest@fix", 0x48, 8), ("unnamed.1@fix", 0x50, 16), gate],
        );
        let named = [named("new_f", 0, 0x31), named("helper", 0x50, 16), named("assembly", 0x80, 3)];
        let rows = [f, g, ("helper@fix", 0x50, 16), ("assembly@fix", 0x80, 3), ("rest@fix", 0xf0, 6), gate];
        check(&frames, &named, &[(0, 0x31), (0x50, 16), (0xf0, 6)], &rows);
        // What the record takes for f is a hop to it.
        let behind = [CODE + 0x18..CODE + 0x31, CODE + 0x40..CODE + 0x48];
        let rows = [("f.hop@fix", 0, 0x18), ("f@fix", 0x18, 0x19), g, gate];
        check(&behind, &[], &[(0, 0x31)], &rows);
    }

    #[test]
    fn the_file_has_the_code_at_its_address() {
        let mut memory = Pieces::default();
        memory.put(CODE, vec![0x90; 0x1000]);
        let mut patches = Patches::default();
        patches.add(&memory, "fix", &target(), &[]).expect("readable");
        assert_eq!(
            patches.perf_map(),
            "70001000 40 f@fix\n70001040 c0 g@fix\n70001100 20 g.gate@fix\n70001120 ee0 rest@fix\n"
        );
        for arch in ["x86_64", "aarch64", "loongarch64"] {
            let file = patches.elf(ulp_arch::by_name(arch).expect("known")).expect("an ELF file");
            let file = object::File::parse(&*file).expect("an ELF file");
            let code = file.section_by_name(".text.fix").expect("the code");
            assert_eq!((code.address(), code.data().expect("bytes").len()), (CODE, 0x1000), "{arch}");
            let g = file.symbols().find(|s| s.name() == Ok("g@fix")).expect("a symbol");
            assert_eq!((g.address(), g.size(), g.section_index()), (CODE + 0x40, 0xc0, Some(code.index())), "{arch}");
        }
    }
}
