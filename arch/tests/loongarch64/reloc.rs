// SPDX-License-Identifier: GPL-2.0-or-later
//! Relocation rows: what LLVM's linker makes of an object and what our rows make of it must be the same bytes.

use super::{assemble, loongarch64, missing, run, text_of};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use std::fs;
use std::path::Path;
use ulp_arch::{Field, Formula, Letter, Range, RelocError, RelocRow, SlotKind};

const TEXT: u64 = 0x1234_5000;
/// Where in `.text` the field stands, between bytes that must stay as they are.
const FIELD: u64 = 16;
const SYMBOL: u64 = 0x1334_5678;

/// An odd one, to see every bit; none where a slot is meant.
fn addend(row: &RelocRow) -> i64 {
    if matches!(row.formula, Formula::Slot(..)) { 0 } else { 3 }
}

fn types_in(object: &[u8]) -> Vec<u32> {
    let elf = object::File::parse(object).unwrap();
    let relocs = elf.sections().flat_map(|section| section.relocations().collect::<Vec<_>>());
    relocs.map(|(_, reloc)| r_type(&reloc)).collect()
}

fn r_type(reloc: &object::Relocation) -> u32 {
    let object::RelocationFlags::Elf { r_type } = reloc.flags() else { panic!("not elf") };
    r_type.0
}

/// One row through lld: the linked section, and what its formula gives there. `None`: lld refuses it. `at` is the symbol's
/// address, or the variable's distance from the thread pointer.
fn link(row: &RelocRow, at: u64, dir: &Path) -> Option<(Vec<u8>, i64)> {
    let text = format!("-Ttext={TEXT:#x}");
    let defined = format!("--defsym=sym={at:#x}");
    let mut args = vec!["--no-relax", "-static", "-e", "0", &text, "-o", "a", "a.o"];
    let thread = row.name.contains("_TLS_");
    if !thread {
        args.push(&defined);
    }
    run("ld.lld-19", &args, dir)?;
    let linked = fs::read(dir.join("a")).unwrap();
    let elf = object::File::parse(&*linked).unwrap();
    let got = || {
        let got = elf.section_by_name(".got").unwrap_or_else(|| panic!("{}: no table of slots", row.name));
        if thread && !row.name.contains("_IE") {
            assert_eq!(got.size(), 16, "{}: a pair of slots", row.name);
        } else {
            assert_eq!(got.data().unwrap(), at.to_le_bytes(), "{}: the slot", row.name);
        }
        got.address()
    };
    let letter = match row.formula.letter() {
        Letter::Symbol | Letter::Branch | Letter::ThreadOffset => at,
        Letter::Slot(_) => got(),
        Letter::None | Letter::ModuleOffset | Letter::Size => unreachable!("{}", row.name),
    };
    Some((text_of(&linked), row.formula.value(letter, addend(row), TEXT + FIELD, 0)))
}

fn source(row: &RelocRow, before: &[u8], thread: u64) -> String {
    let symbol = if row.name.contains("_TLS_") { "var" } else { "sym" };
    // lld makes a slot for a variable when an upper part wants it.
    let initial = row.name.contains("_TLS_IE");
    let slot = if initial { ".section .other,\"a\"\n .reloc .,R_LARCH_TLS_IE_PC_HI20,var\n .word 0\n" } else { "" };
    let bytes = before.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    format!(
        ".section .tbss,\"awT\",@nobits\n .skip {thread}\n .hidden var\n .globl var\n var: .skip 4\n\
         {slot}.text\n .fill {FIELD},1,0xaa\n .reloc .,{},{symbol}+{}\n .byte {bytes}\n .fill 32,1,0xaa\n",
        row.name,
        addend(row)
    )
}

/// Addresses with which the formula gives values at and around the limits of its range, and some in the middle.
fn addresses(row: &RelocRow) -> Vec<u64> {
    let place = TEXT + FIELD;
    let around = |bits: u8| {
        let (half, full) = (1i128 << (bits - 1), 1i128 << bits);
        [0, 0x12, 0x13_2460, half - 4, half - 1, half, -half, -half - 1, -half - 4, full - 1, full, -full, -1, -8]
            .to_vec()
    };
    let values = match row.range {
        Range::Signed(bits) | Range::Unsigned(bits) | Range::Either(bits) => around(bits),
        Range::Within(first, last) => {
            [0, 0x1f_fffc, 0x2_0000, -0x2_0004, first, first - 4, last, last + 1, last - 3].map(i128::from).to_vec()
        }
        Range::Any => around(63),
    };
    let values = values.into_iter().filter_map(|v| i64::try_from(v).ok());
    let base = match row.formula {
        Formula::PcRelative | Formula::PltPcRelative => place,
        // Page distances end where the rounded page is the last one.
        Formula::PcPages(_) => return edges(),
        _ => 0,
    };
    let address = |value: i64| base.wrapping_add_signed(value).wrapping_add_signed(-addend(row));
    values.map(address).chain([SYMBOL]).collect()
}

/// Addresses at the ends of what `pcalau12i` and a signed number of 12 bits reach, and where a carry goes through all of the
/// parts of 64 bits.
fn edges() -> Vec<u64> {
    let page = TEXT & !0xfff;
    let (first, behind) = (page.wrapping_sub((1 << 31) + 0x800), page + (1 << 31) - 0x800);
    let near = [page, page + 0x7ff, page + 0x800, page - 1, page + 0xfff, SYMBOL];
    let far = [first, first.wrapping_sub(1), behind - 1, behind];
    let carry = [0x7fff_ffff_f7ff, 0x7fff_ffff_f800, 0x0012_3480_0000_0800, 0xffff_ffff_8000_07ff, 0x18_1234_8fff_f812];
    near.into_iter().chain(far).chain(carry).map(|to| to.wrapping_add_signed(-3)).collect()
}

/// Whether lld cuts off what does not fit: the psABI names no check for these, and a patch must not lead elsewhere.
fn lld_truncates(row: &RelocRow) -> bool {
    row.range == Range::Signed(32) && matches!(row.field, Field::Bits(_)) || row.range == Range::Either(32)
}

#[test]
fn every_relocation_row_as_the_linker_does_it() {
    if missing() {
        return;
    }
    let mut rows = 0;
    for row in loongarch64().relocations() {
        let dir = tempfile::tempdir().unwrap();
        let uleb = matches!(row.field, Field::SumUleb128 { .. });
        let before: &[u8] = if uleb { &[0xaa, 0x85, 0xff, 0x2a] } else { &[0xaa; 8] };
        let thread = row.formula.letter() == Letter::ThreadOffset;
        let slots = matches!(row.formula, Formula::Slot(..));
        let at = if thread {
            vec![12, 0x7fc, 0x7fd, 0x800, 0x1234_5678, 0x7fff_f7f8, 0x7fff_fff8, 0x8000_0000, 0x12_3456_789a_bcde]
        } else if slots {
            vec![if row.name.contains("_TLS_") { 12 } else { SYMBOL }]
        } else {
            addresses(row)
        };
        let object = assemble(&source(row, before, 12), dir.path());
        let elf = object::File::parse(&*object).unwrap();
        let types: Vec<u32> = elf.section_by_name(".text").unwrap().relocations().map(|(_, r)| r_type(&r)).collect();
        assert_eq!(types, [row.r_type], "the number of {}", row.name);
        if row.field.size() == 0 || row.name.contains("DTPREL") || row.name.ends_with("24") {
            continue; // nothing is inserted; debugging information only; not known to lld
        }
        if ["R_LARCH_TLS_LD_HI20", "R_LARCH_TLS_GD_HI20"].contains(&row.name) {
            continue; // lld counts from the table's start, the psABI wants the address
        }
        let (mut same, mut refused) = (0, 0);
        for at in at {
            if thread {
                assemble(&source(row, before, at), dir.path());
            }
            let mut ours = text_of(&object);
            match link(row, at, dir.path()) {
                Some((theirs, value)) => match row.insert(&mut ours, FIELD as usize, value) {
                    Ok(()) => {
                        assert_eq!(ours, theirs, "{} of {at:#x}: {value:#x}", row.name);
                        same += 1;
                    }
                    Err(e) => {
                        assert!(lld_truncates(row), "lld accepts what we refuse: {at:#x}: {e}");
                        assert!(matches!(e, RelocError::OutOfRange { .. }), "{e}");
                        assert!(
                            value != i64::from(value as i32) && value != i64::from(value as u32) || value >> 31 == 1
                        );
                        refused += 1;
                    }
                },
                None => {
                    let formula = row.formula.value(at, addend(row), TEXT + FIELD, 0);
                    let error = row.insert(&mut ours, FIELD as usize, formula);
                    assert!(error.is_err(), "lld refuses {} of {at:#x}, we do not", row.name);
                    assert_eq!(ours, text_of(&object), "a refused value leaves no trace");
                    refused += 1;
                }
            }
        }
        assert!(same >= if slots { 1 } else { 4 }, "only {same} values of {} were linked", row.name);
        let limited = row.range != Range::Any && !slots;
        assert!(!limited || refused >= 1, "{}: nothing was refused", row.name);
        rows += 1;
    }
    assert!(rows == 64, "only {rows} rows were looked at");
}

#[test]
fn rows_are_found_by_number_and_names_are_unique() {
    let rows = loongarch64().relocations();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(loongarch64().relocation(row.r_type), Some(row), "{}", row.name);
        assert!(rows[..i].iter().all(|other| other.name != row.name), "{} is there twice", row.name);
    }
    for gap in [3, 22, 46, 59, 63, 101, 104, 127, 200] {
        assert_eq!(loongarch64().relocation(gap), None, "{gap}");
    }
}

/// Our rows over every section of `object` that is loaded, as lld with `--no-relax` links it. Slots are found by what they hold.
/// Answers how many fields there were.
fn same_as_lld(what: &str, object: &[u8], dir: &Path) -> usize {
    let object = object::File::parse(object).unwrap();
    // An output section for each section, so that each one's place is known.
    let (mut script, mut loaded) = ("SECTIONS {\n . = 0x10000000;\n .got : {*(.got)}\n".to_owned(), Vec::new());
    for section in object.sections().filter(|s| s.name() != Ok(".eh_frame")) {
        let object::SectionFlags::Elf { sh_flags, .. } = section.flags() else { panic!("not elf") };
        if sh_flags.0 & object::elf::SHF_ALLOC.0 == 0 || section.size() == 0 {
            continue;
        }
        let name = section.name().unwrap();
        script += &format!(" {name} : {{ *({name}) }}\n");
        loaded.push(section);
    }
    fs::write(dir.join("script"), script + " /DISCARD/ : { *(.eh_frame) }\n}\n").unwrap();
    // Without optimisation strings stay where they are.
    let args = ["--no-relax", "-O0", "-znorelro", "-static", "-e", "0", "-T", "script", "-o", "whole", "a.o"];
    run("ld.lld-19", &args, dir).unwrap_or_else(|| panic!("lld links {what}"));
    let linked = fs::read(dir.join("whole")).unwrap();
    let linked = object::File::parse(&*linked).unwrap();
    let home = |name: &str| linked.section_by_name(name).unwrap_or_else(|| panic!("{what}: {name} is not linked"));
    let threads = linked.sections().filter(|s| s.name().is_ok_and(|n| n.starts_with(".t") && !n.starts_with(".text")));
    let block = threads.map(|s| s.address()).min().unwrap_or(0);
    let slot = |word: u64| {
        let got = home(".got");
        let words = got.data().unwrap().chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap()));
        got.address() + 8 * words.enumerate().find(|(_, w)| *w == word).expect("a slot holds it").0 as u64
    };
    let mut fields = 0;
    for section in loaded {
        let name = section.name().unwrap();
        let mut bytes = section.data().unwrap().to_vec();
        let relocations: Vec<_> = section.relocations().collect();
        for (offset, reloc) in &relocations {
            let at = *offset as usize;
            let row = loongarch64().relocation_at(r_type(reloc), &bytes, at);
            let row = row.unwrap_or_else(|| panic!("{what}: no row for {}", r_type(reloc)));
            if row.formula == Formula::Nothing {
                continue;
            }
            let RelocationTarget::Symbol(index) = reloc.target() else { panic!("{what}: {} of nothing", row.name) };
            let symbol = object.symbol_by_index(index).unwrap();
            let target = object.section_by_index(symbol.section_index().unwrap()).unwrap();
            let address = home(target.name().unwrap()).address() + symbol.address();
            let letter = match row.formula.letter() {
                Letter::Symbol | Letter::Branch => address,
                Letter::Slot(SlotKind::Address) => slot(address),
                Letter::ThreadOffset => address - block,
                Letter::Slot(SlotKind::ThreadOffset) => slot(address - block),
                _ => panic!("{what}: {}", row.name),
            };
            let value = row.formula.value(letter, reloc.addend(), home(name).address() + offset, 0);
            let upper = loongarch64().widened_by(row.r_type);
            let wide = upper.is_some_and(|u| relocations.iter().any(|(o, r)| *o == offset + 8 && r_type(r) == u));
            let row = RelocRow { range: if wide { Range::Any } else { row.range }, ..*row };
            row.insert(&mut bytes, at, value).unwrap_or_else(|e| panic!("{what}: {name}+{at:#x}: {e}"));
            fields += 1;
        }
        assert_eq!(bytes, home(name).data().unwrap(), "{what}: {name}");
    }
    fields
}

const PROGRAM: &str = "
int data = 5, other[40] = {1}; static int hidden = 7, zero[900];
_Thread_local int own = 3; extern _Thread_local int theirs; _Thread_local int theirs = 4;
int *pointer = &other[3]; const char *const names[] = {\"one\", \"two\"};
int callee(int n) { return n + hidden++; }
int calls(int n) { return callee(n) + callee(n + 1) + data + zero[n]; }
int thread(int n) { return own++ + theirs + n; }
long taken(void) { return (long)&callee ^ (long)&other[7] ^ (long)&theirs ^ (long)&names[1]; }
int tail(int n) { return n ? callee(n - 1) : *pointer; }
int select(int n) { switch (n) { case 0: return data; case 1: return 17; case 2: return callee(4); case 3: return n * 3; case 4: return 99;
    case 5: return hidden; case 6: return -4; default: return zero[3]; } }
double half(double d) { return d * 0.75 + 1.25; }
";

/// Everything that clang makes with its switches for code models, positions and thread-local models is linked as lld links it.
#[test]
fn whole_objects_as_the_linker_does_it() {
    if missing() {
        return;
    }
    let mut seen = std::collections::BTreeSet::new();
    for level in ["-O0", "-O1", "-O2", "-O3"] {
        for position in ["-fno-pic", "-fpie", "-fpic", "-fPIC"] {
            for model in ["-mcmodel=normal", "-mcmodel=medium", "-mcmodel=extreme"] {
                for tls in ["initial-exec", "local-exec"] {
                    for plt in ["-fplt", "-fno-plt"] {
                        // Not to be had together; and what differs by position differs at two levels as at four.
                        let odd = ["-O1", "-O3"].contains(&level) && (position != "-fPIC" || plt == "-fplt");
                        if model == "-mcmodel=extreme" && plt == "-fplt" || odd {
                            continue;
                        }
                        let dir = tempfile::tempdir().unwrap();
                        fs::write(dir.path().join("a.c"), PROGRAM).unwrap();
                        let tls = format!("-ftls-model={tls}");
                        let options = ["--target=loongarch64-linux-gnu", level, position, model, &tls, plt];
                        let what = options.join(" ");
                        let mut args = options.to_vec();
                        args.extend(["-ffunction-sections", "-fdata-sections", "-mno-relax", "-c", "a.c", "-o", "a.o"]);
                        run("clang-19", &args, dir.path()).unwrap_or_else(|| panic!("clang {what}"));
                        let object = fs::read(dir.path().join("a.o")).unwrap();
                        let fields = same_as_lld(&what, &object, dir.path());
                        assert!(fields >= 40, "{what}: only {fields} fields");
                        seen.extend(types_in(&object));
                    }
                }
            }
        }
    }
    println!("types: {seen:?}");
    for r_type in [2, 66, 71, 72, 73, 74, 75, 76, 77, 78, 83, 84, 85, 86, 87, 88, 89, 90, 110] {
        assert!(seen.contains(&r_type), "{} was not among them", loongarch64().relocation(r_type).unwrap().name);
    }
}

const CXX: &str = "
struct A { virtual ~A(); virtual int f(int); int x = 3; }; A::~A() {} int A::f(int n) { if (n > 3) throw n; return n + x; }
template <class T> T sum(T t) { static T all = t; return all += t; } extern thread_local int theirs; static thread_local int own = 3;
int use(A &a, int n) { try { return a.f(n) + sum(n) + sum(2.5) + theirs + own++; } catch (int) { return -1; } }
";

/// All there is of thread-local models and dialects, tables of exceptions and debugging information: what comes up is known.
#[test]
fn every_relocation_that_the_compiler_emits_has_a_row() {
    if missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.c"), PROGRAM).unwrap();
    fs::write(dir.path().join("a.cc"), CXX).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for tls in ["global-dynamic", "local-dynamic", "initial-exec", "local-exec"] {
        for dialect in ["trad", "desc"] {
            for model in ["normal", "extreme"] {
                let flags = [tls, dialect, model];
                let names = ["-ftls-model=", "-mtls-dialect=", "-mcmodel="];
                let flags: Vec<String> =
                    names.into_iter().zip(flags).map(|(name, value)| format!("{name}{value}")).collect();
                for (file, level) in [("a.c", "-O0"), ("a.c", "-O2"), ("a.cc", "-O0"), ("a.cc", "-O2")] {
                    let mut args = vec!["--target=loongarch64-linux-gnu", "-fPIC", "-fno-plt", "-g", level];
                    args.extend(flags.iter().map(String::as_str));
                    args.extend(["-c", file, "-o", "a.o"]);
                    run("clang-19", &args, dir.path()).unwrap_or_else(|| panic!("clang {args:?}"));
                    seen.extend(types_in(&fs::read(dir.path().join("a.o")).unwrap()));
                }
            }
        }
    }
    let rows =
        seen.iter().map(|r_type| loongarch64().relocation(*r_type).unwrap_or_else(|| panic!("no row for {r_type}")));
    let names: Vec<&str> = rows.map(|row| row.name.trim_start_matches("R_LARCH_")).collect();
    for name in ["32_PCREL", "TLS_GD_PC_HI20", "TLS_LD_PC_HI20", "TLS_DESC_CALL", "TLS_IE64_PC_HI12", "TLS_LE_HI20"] {
        assert!(names.contains(&name), "{name} was not among {names:?}");
    }
}
