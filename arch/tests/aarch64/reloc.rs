// SPDX-License-Identifier: GPL-2.0-or-later
//! The relocation rows of aarch64 against the GNU linker and lld: whatever a row makes of a value must be what they make of
//! it, and what they refuse it must refuse.

use super::{aarch64, gnu, missing, run, text_of};
use object::{Object, ObjectSection, ObjectSymbol};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use ulp_arch::{Field, Formula, Range, RelocError, RelocRow, SlotKind};

const TEXT: u64 = 0x10_0041_0000;
/// Distance of the fields in `.text`.
const STEP: u64 = 16;
/// Where the first of them stands: not at the start of a page.
const FIRST: u64 = 0x40;
/// The two words in front of the thread-local blocks: the thread pointer leads to them (AAELF64's "TCB").
const TCB: i64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Linker {
    Gnu,
    Lld,
}

/// An instruction with the row's field in it, all bits of the field clear; for data, what data may be.
fn word(row: &RelocRow) -> u32 {
    let name = row.name;
    let hw = |low: u8| (u32::from(low) / 16) << 21;
    match row.field {
        Field::Bytes(_) => 0xaaaa_aaaa,
        Field::Pair { .. } | Field::Sum { .. } | Field::SumUleb128 { .. } => panic!("{name} is another processor's"),
        Field::MovWide { low } => 0xd280_0003 | hw(low), // movz x3,#0
        Field::Bits(parts) => match (parts[0].at, parts[0].width) {
            (5, 16) if name.ends_with("_NC") => 0xf280_0003 | hw(parts[0].low), // movk x3,#0
            (5, 16) => 0xd280_0003 | hw(parts[0].low),
            (29, _) if parts[0].low == 0 => 0x1000_0003,        // adr x3,.
            (29, _) => 0x9000_0003,                             // adrp x3,.
            (5, 14) => 0x3600_0003,                             // tbz w3,#0,.
            (5, 19) if name.contains("CONDBR") => 0x5400_0000,  // b.eq .
            (5, 19) => 0x5800_0003,                             // ldr x3,.
            (0, 26) if name.ends_with("CALL26") => 0x9400_0000, // bl .
            (0, 26) => 0x1400_0000,                             // b .
            (10, _) if name.contains("LDST8") => 0x3940_0083,   // ldrb w3,[x4]
            (10, _) if name.contains("LDST16") => 0x7940_0083,  // ldrh w3,[x4]
            (10, _) if name.contains("LDST32") => 0xb940_0083,  // ldr w3,[x4]
            (10, _) if name.contains("LDST128") => 0x3dc0_0083, // ldr q3,[x4]
            (10, _) if name.contains("LDST64") || name.contains("LD64") => 0xf940_0083, // ldr x3,[x4]
            (10, _) if name.contains("HI12") => 0x9140_0083,    // add x3,x4,#0,lsl #12
            (10, _) => 0x9100_0083,                             // add x3,x4,#0
            other => panic!("{name}: {other:?}"),
        },
    }
}

/// Values at and around the limits of the row's range and alignment, and some in the middle.
fn values(row: &RelocRow) -> Vec<i64> {
    let bits = match row.range {
        Range::Signed(bits) | Range::Unsigned(bits) | Range::Either(bits) => bits,
        Range::Any | Range::Within(..) => 64,
    };
    let (half, full) = (1i128 << (bits - 1), 1i128 << bits);
    let step = match row.formula {
        Formula::PagePcRelative => 0x1000,
        _ => i128::from(row.align),
    };
    let middle = 0x1234_5678_9abc_def0 & (half - 1) & !0xfff | 0xcd0 & (half - 1);
    let middle = if step == 0x1000 { middle & !0xfff } else { middle };
    let mut all =
        vec![0, step, -step, middle, -middle, half - step, half, -half, -half - step, full - step, full, -full];
    if row.align > 1 {
        all.extend([step / 2, middle + 1, half - step / 2]);
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().filter_map(|v| i64::try_from(v).ok()).collect()
}

/// Whether a row's value is ours to choose, through a symbol's address or an addend.
fn free(row: &RelocRow) -> bool {
    use Formula::{Absolute, ModuleOffset, PageOffset, PagePcRelative, PcRelative, PltPcRelative, TpOffset};
    matches!(row.formula, Absolute | PageOffset | PcRelative | PltPcRelative | PagePcRelative | TpOffset | ModuleOffset)
}

fn place(index: usize) -> u64 {
    TEXT + FIRST + STEP * index as u64
}

/// An object with the row's relocation once for each value, and how it is to be linked; what the linkers make of it.
struct Trial {
    dir: tempfile::TempDir,
    object: Vec<u8>,
    symbols: Vec<String>,
}

impl Trial {
    fn new(row: &RelocRow, values: &[i64]) -> Self {
        let mut source = String::from(".section .tbss,\"awT\",@nobits\n .globl var\n");
        if row.formula == Formula::TpOffset || row.formula == Formula::ModuleOffset {
            source += " .hidden var\n";
        }
        source += " .type var,@object\n .size var,8\n var: .skip 16\n.text\n .globl sym\n base:\n";
        writeln!(source, " .fill {FIRST},1,0xaa").unwrap();
        let mut symbols = Vec::new();
        for (i, &value) in values.iter().enumerate() {
            let symbol = match row.formula {
                Formula::Absolute | Formula::PageOffset => Some(value),
                Formula::PcRelative | Formula::PltPcRelative => Some(value.wrapping_add(place(i) as i64)),
                // Some way into the page that is meant.
                Formula::PagePcRelative => Some(value.wrapping_add(place(i) as i64 & !0xfff).wrapping_add(0x9a8)),
                _ => None,
            };
            let target = match (symbol, row.formula) {
                (Some(address), _) => {
                    let address = address.wrapping_sub(3) as u64;
                    if row.name.ends_with("PLT32") {
                        // lld has no linkage table entries for absolute symbols.
                        let offset = address.wrapping_sub(TEXT) as i64;
                        writeln!(source, " .globl sym{i}\n .set sym{i},base+{offset}").unwrap();
                    } else {
                        symbols.push(format!("--defsym=sym{i}={address:#x}"));
                    }
                    format!("sym{i}+3")
                }
                (None, Formula::TpOffset) => format!("var+{}", value.wrapping_sub(TCB)),
                (None, Formula::ModuleOffset) => format!("var+{value}"),
                (None, Formula::Slot(SlotKind::Address, _)) => "sym".to_owned(),
                _ => "var".to_owned(),
            };
            // Fields of up to 8 bytes, and none is at the end of the text.
            let word = word(row);
            writeln!(source, " .reloc .,{},{target}\n .long {word:#x}\n .fill 12,1,0xaa", row.name).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.s"), &source).unwrap();
        // The names that GNU as does not know, LLVM's does.
        let gnu = run(&gnu("as"), &["-o", "a.o", "a.s"], dir.path());
        if gnu.is_err() {
            let args = ["--target=aarch64-linux-gnu", "-c", "-o", "a.o", "a.s"];
            run("clang-16", &args, dir.path()).unwrap_or_else(|e| panic!("{e}\n{source}"));
        }
        let object = std::fs::read(dir.path().join("a.o")).unwrap();
        Self { dir, object, symbols }
    }

    fn link(&self, row: &RelocRow, linker: Linker) -> Result<Vec<u8>, String> {
        let text = format!("-Ttext={TEXT:#x}");
        let mut args = vec!["--no-relax", "-e", "0", &text, "-o", "a", "a.o"];
        args.extend(self.symbols.iter().map(String::as_str));
        if matches!(row.formula, Formula::Slot(..) | Formula::ModuleOffset) {
            args.push("-shared"); // in a program the linker would know better than to go through a slot
        }
        match linker {
            Linker::Gnu => run(&gnu("ld"), &args, self.dir.path())?,
            Linker::Lld => {
                args.extend(["-m", "aarch64linux", "--threads=1"]);
                run("ld.lld-16", &args, self.dir.path())?;
            }
        }
        Ok(std::fs::read(self.dir.path().join("a")).unwrap())
    }
}

/// The value of a slot's row in a linked file: what the psABI's letters are there.
fn slot_value(row: &RelocRow, linked: &[u8]) -> i64 {
    let Formula::Slot(kind, seen) = row.formula else { panic!("{} has no slot", row.name) };
    let elf = object::File::parse(linked).unwrap();
    // R_AARCH64_GLOB_DAT, TLS_TPREL, TLS_DTPMOD, TLSDESC
    let wanted = match kind {
        SlotKind::Address => 1025,
        SlotKind::ThreadOffset => 1030,
        SlotKind::ThreadIndex | SlotKind::ThreadModule => 1028,
        SlotKind::ThreadDescriptor => 1031,
    };
    let mut slots = elf.dynamic_relocations().unwrap().filter(|(_, r)| match r.flags() {
        object::RelocationFlags::Elf { r_type } => r_type.0 == wanted,
        _ => false,
    });
    let (slot, _) = slots.next().unwrap_or_else(|| panic!("{}: no slot", row.name));
    assert!(slots.next().is_none(), "{}: one slot for all", row.name);
    let got = elf.section_by_name(".got").unwrap().address();
    let known = elf.symbols().find(|s| s.name() == Ok("_GLOBAL_OFFSET_TABLE_")).map(|s| s.address());
    assert!(known.is_none_or(|known| known == got), "the table's symbol");
    seen.distance(slot, place(0), got)
}

/// What a linker accepts although the psABI says that it should not.
fn lenient(row: &RelocRow, linker: Linker, error: RelocError) -> bool {
    match (linker, error) {
        // The low bits of a distance in words are dropped.
        (_, RelocError::Misaligned { .. }) => matches!(row.r_type, 279 | 280 | 282 | 283),
        // TLSLE_MOVW_TPREL_G2, G1 and G0 are cut to their field.
        (Linker::Gnu, RelocError::OutOfRange { .. }) => matches!(row.r_type, 544 | 545 | 547),
        _ => false,
    }
}

/// What a linker refuses, or does another way, although the psABI has it otherwise.
fn peculiar(row: &RelocRow, linker: Linker, value: i64) -> bool {
    match linker {
        Linker::Gnu => match row.r_type {
            258 => value < 0,                         // ABS32 is unsigned
            259 => value < 0,                         // ABS16 too
            261 => value > i64::from(i32::MAX),       // PREL32 is signed
            262 => value > i64::from(i16::MAX),       // PREL16 too
            544 => true, // TLSLE_MOVW_TPREL_G2's addend is taken for one in units of the field
            523 | 524 | 526 | 545 | 547 => value < 0, // offsets of thread-local variables are unsigned
            _ => false,
        },
        Linker::Lld => match row.r_type {
            293 => value < 0, // MOVW_PREL_G3 stays a movz: the rest of its group sets all other bits
            314 => value > i64::from(i32::MAX) - 4, // PLT32 is looked at without its addend
            _ => false,
        },
    }
}

#[test]
fn every_row_as_the_linkers_do_it() {
    if missing(&[&gnu("as"), &gnu("ld"), "ld.lld-16", "clang-16"]) {
        return;
    }
    let mut judged: BTreeMap<Linker, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for row in aarch64().relocations() {
        if matches!(row.formula, Formula::Nothing | Formula::Unsupported) {
            continue;
        }
        let all = if free(row) { values(row) } else { vec![0] };
        let fits = |value: &i64| {
            let mut room = vec![0; 16];
            row.insert(&mut room, 0, *value)
        };
        let (good, bad): (Vec<i64>, Vec<i64>) = all.into_iter().partition(|v| fits(v).is_ok());
        let trial = Trial::new(row, &good);
        let elf = object::File::parse(&*trial.object).unwrap();
        let (_, reloc) = elf.section_by_name(".text").unwrap().relocations().next().unwrap();
        let object::RelocationFlags::Elf { r_type } = reloc.flags() else { panic!("not elf") };
        assert_eq!(r_type.0, row.r_type, "the number of {}", row.name);
        let mut judges = 0;
        for linker in [Linker::Gnu, Linker::Lld] {
            let good: Vec<i64> = good.iter().copied().filter(|v| !peculiar(row, linker, *v)).collect();
            if good.is_empty() {
                continue;
            }
            let trial = Trial::new(row, &good);
            let linked = match trial.link(row, linker) {
                Ok(linked) => linked,
                Err(e)
                    if ["unsupported reloc", "nknown reloc", "unrecognized reloc"].iter().any(|no| e.contains(no)) =>
                {
                    println!("{linker:?} does not know {}: {e}", row.name);
                    continue;
                }
                Err(e) => {
                    failures.push(format!("{linker:?} refuses {} of {good:x?}: {e}", row.name));
                    continue;
                }
            };
            let theirs = text_of(&linked);
            let mut ours = text_of(&trial.object);
            for (i, &value) in good.iter().enumerate() {
                let value = if free(row) { value } else { slot_value(row, &linked) };
                let at = (place(i) - TEXT) as usize;
                if let Err(e) = row.insert(&mut ours, at, value) {
                    failures.push(format!("{linker:?} {e}"));
                }
                if ours[at - 4..at + 12] != theirs[at - 4..at + 12] {
                    let pair = (&ours[at..at + 8], &theirs[at..at + 8]);
                    failures.push(format!("{linker:?} {} of {value:#x}: {pair:x?}", row.name));
                }
            }
            judges += 1;
            *judged.entry(linker).or_default() += 1;
            for &value in &bad {
                let error = fits(&value).unwrap_err();
                let trial = Trial::new(row, &[value]);
                if let Ok(linked) = trial.link(row, linker) {
                    // A veneer, in reach, that does what the branch cannot.
                    let veneer =
                        row.formula == Formula::PltPcRelative && text_of(&linked).len() > text_of(&trial.object).len();
                    if !veneer && !lenient(row, linker, error) {
                        failures.push(format!("{linker:?} accepts what we refuse: {error}"));
                    }
                }
            }
        }
        if judges == 0 {
            failures.push(format!("no linker knows {}", row.name));
        }
    }
    println!("{judged:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(judged[&Linker::Gnu] >= 95 && judged[&Linker::Lld] >= 55, "too few rows were looked at: {judged:?}");
}

/// What compilers make relocations of: calls, data near and far, tables, thread-local variables of every kind, exceptions.
const SOURCE: &str = r#"
extern "C" { int printf(const char *, ...); void *malloc(unsigned long); void out(void *); }
extern int far_data[]; extern long other(long); __attribute__((weak)) extern int maybe(int);
typedef float Four __attribute__((vector_size(16))); Four four; void twice() { four *= 2; }
#ifndef NO_TLS
extern __thread int far_tls; static __thread long own_tls = 3; __thread char wide_tls[16] = {1};
extern __thread short half_tls; __attribute__((visibility("hidden"))) extern __thread int hidden_tls; static __thread Four four_tls;
long tls(int n) { own_tls += n; out(&own_tls); out(wide_tls); return own_tls + far_tls + wide_tls[n & 15] + half_tls + hidden_tls; }
void tls_twice() { four_tls *= 2; }
#endif
static int counter; static const int table[8] = {1, 2, 3, 4, 5, 6, 7, 8}; int shared = 5; static short half; static char one;
static __int128 wide = 9; double real = 1.5; static long (*const steps[])(long) = {other};
struct Base { virtual ~Base() {} virtual long f(long n) { return n + shared; } };
struct Derived : Base { long f(long n) override { return other(n) * 3 + far_data[n]; } };
long virtual_call(Base *b, long n) { return b->f(n); }
long thrower(long n) { if (n > 3) throw n; return other(n); }
long catcher(long n) { try { return thrower(n) + 1; } catch (long m) { return m; } }
const char *pick(int n) { switch (n) { case 0: return "zero"; case 1: return "one"; case 2: return "two";
    case 3: return "three"; case 4: return "four"; case 5: return "five"; default: return "more"; } }
long data(int n) { counter += table[n & 7]; half++; one ^= 1; wide += n; real *= 2; return shared + counter + half + one; }
long code(int n) { return steps[n & 0](n) + (maybe ? maybe(n) : 0) + (long)&other + (long)&far_data[9]; }
long tail(long n) { return other(n + 1); }
Base *make() { return new Derived; }
"#;

#[test]
fn every_relocation_that_compilers_emit_has_a_row() {
    if missing(&[&gnu("g++"), "clang-16"]) {
        return;
    }
    let gnu = gnu("g++");
    let compilers: [(&str, &[&str]); 2] = [(&gnu, &[]), ("clang-16", &["--target=aarch64-linux-gnu", "-x", "c++"])];
    const MODELS: [&[&str]; 18] = [
        &["-fno-pic"],
        &["-fno-pic", "-mcmodel=tiny"],
        &["-fno-pic", "-mcmodel=large"],
        &["-fno-pic", "-mcmodel=large", "-DNO_TLS"],
        &["-fPIE"],
        &["-fpic"],
        &["-fPIC"],
        &["-fPIC", "-fno-plt"],
        &["-fpic", "-fno-plt"],
        &["-fPIC", "-mtls-dialect=trad"],
        &["-fpic", "-mcmodel=tiny"],
        &["-fpic", "-mcmodel=tiny", "-mtls-dialect=trad"],
        &["-fPIC", "-ftls-model=initial-exec"],
        &["-fPIC", "-ftls-model=local-dynamic"],
        &["-fno-pic", "-mtls-size=12"],
        &["-fno-pic", "-mtls-size=32"],
        &["-fno-pic", "-mtls-size=48", "-mcmodel=large"],
        &["-fPIC", "-mbranch-protection=standard", "-ffunction-sections", "-fdata-sections"],
    ];
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.cc"), SOURCE).unwrap();
    let (mut met, mut compiled) = (BTreeMap::<u32, String>::new(), 0);
    for (compiler, target) in compilers {
        let usual = [["-fPIC"], ["-fno-pic"]].map(|m| ["-O1", "-O3"].map(|o| (m.to_vec(), o))).concat();
        let all = MODELS.iter().flat_map(|m| ["-O0", "-O2"].map(|o| (m.to_vec(), o)));
        for (model, level) in all.chain(usual) {
            let args = [target, &*model, &[level, "-g", "-w", "-c", "a.cc", "-o", "b.o"]].concat();
            if compiler.starts_with("clang") && args.contains(&"-mcmodel=large") && !args.contains(&"-DNO_TLS") {
                continue; // it fails, with a report of a crash
            }
            // Not every compiler knows every model.
            if let Err(e) = run(compiler, &args, dir.path()) {
                let why = ["unsupported", "unknown", "unrecognized", "sorry", "invalid"];
                assert!(why.iter().any(|w| e.contains(w)), "{compiler} {args:?}: {e}");
                continue;
            }
            compiled += 1;
            let file = std::fs::read(dir.path().join("b.o")).unwrap();
            let elf = object::File::parse(&*file).unwrap();
            for (_, relocation) in elf.sections().flat_map(|s| s.relocations().collect::<Vec<_>>()) {
                let object::RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("not elf") };
                met.entry(r_type.0).or_insert_with(|| format!("{compiler} {}", args.join(" ")));
            }
        }
    }
    for (r_type, by) in &met {
        let row = aarch64().relocation(*r_type).unwrap_or_else(|| panic!("{r_type} of {by} is not known"));
        assert_ne!(row.formula, Formula::Unsupported, "{} of {by}", row.name);
        println!("{}", row.name);
    }
    assert!(compiled >= 70 && met.len() >= 38, "{compiled} times compiled, {} types of relocations", met.len());
}
