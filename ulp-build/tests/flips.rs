// SPDX-License-Identifier: GPL-2.0-or-later
//! Every single byte of an object that a program could notice is flipped, and no flip may pass as "same": bytes of loaded
//! sections inside a symbol, bytes without a symbol that something refers to, and every relocation. For each processor that
//! a compiler is there for.

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, Rela as _, SectionHeader as _, Sym as _};
use object::{Endianness, SectionIndex, SymbolIndex};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use ulp_build::diff::{Input, Outcome, diff_inputs};

const SOURCE: &str = r#"
extern int other(int); extern int more[]; extern void call(void (*)(int));
static const int table[] = { 3, 1, 4, 1, 5, 9, 2, 6 };
static int counter = 5; static int zero; int shared = 9; static const char *names[] = { "alpha", "beta" };
static int (*const steps[])(int);
static __attribute__((noinline)) int one(int n) { counter += n; return table[n & 7] + zero++; }
static __attribute__((noinline)) int two(int n) { static int mine = 3; mine ^= n; return mine + more[n & 1]; }
static int (*const steps[])(int) = { one, two, other };
const char *name(int n) { return n > 3 ? "many" : names[n & 1]; }
double half(double d) { return d * 0.75 + 1.25; }
int pick(int n) {
    switch (n) { case 0: return one(4); case 1: return two(n); case 2: return other(9); case 3: return 17;
    case 4: return n * 3; case 5: return shared++; case 6: return steps[n & 1](n); default: return -n; }
}
const char *word(int n) { switch (n) { case 0: return "zero"; case 1: return "one"; case 2: return "two"; case 3: return "three"; default: return "more"; } }
static void later(int n) { shared -= n; }
void arm(void) { call(later); }
"#;

/// What may be there to compile with.
const COMPILERS: [(&str, &[&str], u16); 4] = [
    ("gcc", &[], 62),
    ("aarch64-linux-gnu-gcc", &[], 183),
    ("clang-16", &["--target=aarch64-linux-gnu"], 183),
    ("clang-16", &["--target=loongarch64-linux-gnu"], 258),
];

const FLAGS: [&[&str]; 3] =
    [&["-O2", "-fPIC"], &["-O2", "-fno-pic", "-ffunction-sections", "-fdata-sections"], &["-O1", "-fno-pic"]];

fn compile(compiler: &str, options: &[&str]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().ok()?;
    std::fs::write(dir.path().join("a.c"), SOURCE).ok()?;
    let mut command = Command::new(compiler);
    let status = command.current_dir(dir.path()).args(options).args(["-w", "-c", "a.c", "-o", "a.o"]).status().ok()?;
    status.success().then(|| std::fs::read(dir.path().join("a.o")).ok())?
}

/// What has to be noticed: ranges of the file, each with a word for it.
fn noticeable(bytes: &[u8]) -> Vec<(Range<usize>, String)> {
    let header = FileHeader64::<Endianness>::parse(bytes).expect("an object");
    let endian = header.endian().expect("a byte order");
    let sections = header.sections(endian, bytes).expect("sections");
    let symbols = sections.symbols(endian, bytes, elf::SHT_SYMTAB).expect("symbols");
    let mut all = Vec::new();
    let loaded = |index: SectionIndex| {
        let section = sections.section(index).ok()?;
        let name = sections.section_name(endian, section).expect("a name");
        let code_or_data = section.sh_flags(endian).contains(elf::SHF_ALLOC)
            && section.sh_type(endian) != elf::SHT_NOBITS
            && !name.starts_with(b".eh_frame")
            && !name.starts_with(b".note");
        code_or_data.then(|| String::from_utf8_lossy(name).into_owned())
    };
    for (_, symbol) in symbols.enumerate() {
        let index = SectionIndex(usize::from(symbol.st_shndx(endian).0));
        let named = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_OBJECT);
        if let (true, Some(name)) = (named && index.0 < 0xff00, loaded(index)) {
            let start =
                (sections.section(index).expect("a section").sh_offset(endian) + symbol.st_value(endian)) as usize;
            all.push((start..start + symbol.st_size(endian) as usize, name));
        }
    }
    for (_, section) in sections.enumerate() {
        let Ok(Some((relocations, _))) = section.rela(endian, bytes) else { continue };
        let Some(name) = loaded(section.info_link(endian)) else { continue };
        let base = section.sh_offset(endian) as usize;
        for (i, r) in relocations.iter().enumerate() {
            // A mark for the linker that it may shorten the code means nothing to the program.
            if header.e_machine(endian).0 == 258 && r.r_type(endian, false).0 == 100 {
                continue;
            }
            all.push((base + i * 24..base + i * 24 + 24, format!("a relocation of {name}")));
            // What has no symbol of its own is noticed where something refers to it: a string, a constant, a table.
            let symbol = symbols.symbol(SymbolIndex(r.r_sym(endian, false) as usize)).expect("a symbol");
            let index = SectionIndex(usize::from(symbol.st_shndx(endian).0));
            if index.0 == 0 || index.0 >= 0xff00 {
                continue;
            }
            let target = sections.section(index).expect("a section");
            let read_only = !target.sh_flags(endian).contains(elf::SHF_EXECINSTR)
                && !target.sh_flags(endian).contains(elf::SHF_WRITE);
            if let (true, Some(name)) = (read_only, loaded(index)) {
                let bias = if name.contains("str") { 0 } else { 4 };
                let point = symbol.st_value(endian) as i64 + r.r_addend(endian).max(0) * i64::from(bias == 0);
                let start = (target.sh_offset(endian) as i64 + point) as usize;
                all.push((start..start + 1, format!("referred to in {name}")));
            }
        }
    }
    all
}

/// Offset, type, addend, section and value of a relocation.
type Meaning = (u64, u32, i64, u16, u64);

/// All relocations by what they mean: another symbol of the same place is no other meaning.
fn meanings(bytes: &[u8]) -> Option<Vec<Meaning>> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, bytes).ok()?;
    let symbols = sections.symbols(endian, bytes, elf::SHT_SYMTAB).ok()?;
    let mut all = Vec::new();
    for (_, section) in sections.enumerate() {
        let Ok(Some((relocations, _))) = section.rela(endian, bytes) else { continue };
        for r in relocations {
            let symbol = symbols.symbol(SymbolIndex(r.r_sym(endian, false) as usize)).ok()?;
            let place = symbol.st_shndx(endian).0;
            // One that is defined elsewhere is known by its name.
            let value = if place == 0 { u64::from(symbol.st_name(endian)) } else { symbol.st_value(endian) };
            let r_type = match r.r_type(endian, false).0 {
                // R_AARCH64_JUMP26 puts what CALL26 does where that one does; which it is, the instruction says.
                282 if header.e_machine(endian).0 == 183 => 283,
                other => other,
            };
            all.push((r.r_offset(endian), r_type, r.r_addend(endian), place, value));
        }
    }
    Some(all)
}

#[test]
fn no_flipped_byte_passes() {
    let mut machines = BTreeSet::new();
    for (compiler, target, machine) in COMPILERS {
        for flags in FLAGS {
            let options: Vec<&str> = target.iter().chain(flags).copied().collect();
            let Some(good) = compile(compiler, &options) else {
                println!("not tried: {compiler} {}: it is not there or cannot do this", options.join(" "));
                continue;
            };
            assert_eq!(u16::from_le_bytes([good[18], good[19]]), machine);
            machines.insert(machine);
            let path = Path::new("a.o");
            let same = diff_inputs(Input { path, bytes: &good }, Input { path, bytes: &good.clone() });
            assert_eq!(same.verdict, Outcome::Same);
            let places: Vec<(usize, String)> = noticeable(&good)
                .into_iter()
                .flat_map(|(range, what)| range.map(move |at| (at, what.clone())))
                .collect();
            let missed: Vec<String> = places
                .par_iter()
                .flat_map_iter(|(at, what)| {
                    let good = &good;
                    [0x01u8, 0x80].into_iter().filter_map(move |bit| {
                        let mut bad = good.clone();
                        bad[*at] ^= bit;
                        let report = diff_inputs(Input { path, bytes: good }, Input { path, bytes: &bad });
                        let harmless = what.starts_with("a relocation") && meanings(&bad) == meanings(good);
                        (report.verdict == Outcome::Same && !harmless).then(|| format!("{at:#x} ^ {bit:#x} in {what}"))
                    })
                })
                .collect();
            println!("{compiler} {}: {} bytes flipped twice, {} missed", options.join(" "), places.len(), missed.len());
            assert!(
                missed.is_empty(),
                "{compiler} {options:?}: {} missed:\n{}",
                missed.len(),
                missed[..missed.len().min(60)].join("\n")
            );
        }
    }
    assert!(machines.contains(&62), "no compiler at all");
    for (machine, name) in [(183, "aarch64"), (258, "loongarch64")] {
        if !machines.contains(&machine) {
            println!("SKIPPED {name}: no compiler for it is installed");
        }
    }
}
