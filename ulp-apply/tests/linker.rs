// SPDX-License-Identifier: GPL-2.0-or-later
//! What compilers of other machines make, laid out and relocated by us and by GNU ld for the same addresses: byte for byte the
//! same. What a patch reaches in its own way (its slots, its linkage table entries) ld is told to use as well.

use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use ulp_apply::link::{Found, Image, Layout, Run};
use ulp_arch::{Arch, Flow, Formula, LinkAddr, LoadBias, Pages, RemoteAddr, SeenFrom, SlotKind};
use ulp_format::*;

const SOURCE: &str = r#"
extern int near_data, far_data; extern long table_entry[];
int near_function(int); int far_function(int);
extern __thread int counted;
static int first = 1; static long second = 2; static char third[40]; int shared = 9;
static const int powers[] = { 1, 2, 4, 8 }; static const char *const words[] = { "zero", "one", "two" };
static __thread int own = 7;
const char *word(int n) { return words[n & 1]; }
int step(int n) { first += n; second ^= n; third[n & 31]++; return powers[n & 3] + shared++; }
int reach(int n) { return near_data + far_data + near_function(n) + far_function(n) + (int)table_entry[n]; }
int tail(int n) { return far_function(n + 1); }
int per_thread(int n) { counted += n; return counted + own++; }
double third_part(double d) { return d * 0.3333 + 1e100; }
int pick(int n) {
    switch (n) { case 0: return step(4); case 1: return near_data; case 2: return far_function(9); case 3: return 17;
    case 4: return n * 3; case 5: return shared++; case 6: return step(n) + reach(n); default: return -n; }
}
"#;

const BASE: u64 = 0x1234_5000;
const BIAS: u64 = 0x1000_0000;
const NEAR: u64 = 0x22_4018;
const FAR: u64 = 0x7f12_3456_7890;

/// A machine, its tools, and how its compiler is to be called.
struct Machine {
    arch: &'static str,
    emulation: &'static str,
    options: &'static [&'static str],
}

const fn aarch64(options: &'static [&'static str]) -> Machine {
    Machine { arch: "aarch64", emulation: "aarch64linux", options }
}

const fn loongarch64(options: &'static [&'static str]) -> Machine {
    Machine { arch: "loongarch64", emulation: "elf64loongarch", options }
}

const MACHINES: [Machine; 10] = [
    aarch64(&["-fPIE"]),
    aarch64(&["-fno-pie"]),
    aarch64(&["-fPIC", "-ftls-model=local-exec"]),
    aarch64(&["-fPIE", "-mcmodel=tiny"]),
    aarch64(&["-fpic", "-ftls-model=local-exec"]),
    // Code that linkers may shorten, and code that they may not.
    loongarch64(&["-fPIE"]),
    loongarch64(&["-fPIE", "-mno-relax"]),
    loongarch64(&["-fPIC", "-ftls-model=local-exec"]),
    loongarch64(&["-fPIE", "-mcmodel=medium", "-fno-jump-tables"]),
    loongarch64(&["-fPIE", "-mcmodel=extreme", "-mno-relax"]),
];

/// A patch is not shortened, and its alignment is the assembler's: ld would take out even what `--no-relax` should leave. And strings
/// are not merged with others.
const PLAIN: [&str; 5] =
    ["-fno-align-functions", "-fno-align-labels", "-fno-align-loops", "-fno-align-jumps", "-fno-merge-constants"];

fn run(program: &str, arguments: &[&str], dir: &Path) -> Option<()> {
    let out = Command::new(program).args(arguments).current_dir(dir).output().ok()?;
    assert!(out.status.success(), "{program} {arguments:?}\n{}", String::from_utf8_lossy(&out.stderr));
    Some(())
}

/// Where the undefined symbols are.
fn source(arch: &dyn Arch, name: &str) -> Source {
    // Where the program's thread-local block begins; `own` is its first variable.
    let block = arch.thread_block(8, 4).expect("a block");
    let import = |object| Source::Import { name: name.into(), version: None, object };
    match name {
        "far_function" => import(ObjectKind::Function),
        "far_data" => import(ObjectKind::Data),
        "near_function" => Source::Local { addr: LinkAddr(NEAR), size: 64 },
        "near_data" => Source::Local { addr: LinkAddr(NEAR + 64), size: 4 },
        "table_entry" => Source::Local { addr: LinkAddr(NEAR + 128), size: 80 },
        "_GLOBAL_OFFSET_TABLE_" => Source::OwnTable,
        "own" => Source::TlsLocalExec { offset: block },
        "counted" => Source::TlsLocalExec { offset: block + 4 },
        other => panic!("{other} is undefined"),
    }
}

/// The object as a package: each loaded section with a symbol of its own name.
fn package(arch: &dyn Arch, object: &[u8]) -> Package {
    let file = object::File::parse(object).expect("an object");
    let kind = |s: &object::Section<'_, '_>| match s.kind() {
        object::SectionKind::Text => Some(SectionKind::Code),
        object::SectionKind::ReadOnlyData | object::SectionKind::ReadOnlyString => Some(SectionKind::ReadOnly),
        object::SectionKind::ReadOnlyDataWithRel | object::SectionKind::Data => Some(SectionKind::Data),
        object::SectionKind::UninitializedData => Some(SectionKind::ZeroData),
        _ => None,
    };
    let (mut sections, mut symbols, mut references) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_index = BTreeMap::new();
    for section in file.sections().filter(|s| s.size() > 0 && s.name() != Ok(".eh_frame")) {
        let Some(kind) = kind(&section) else { continue };
        let name = section.name().expect("a name").to_owned();
        by_index.insert(section.index().0, (sections.len(), symbols.len()));
        let place = Some(Place { section: sections.len(), offset: 0, size: section.size() });
        symbols.push(Symbol { name: name.clone(), place, kind: SymbolKind::Untyped });
        let data = if kind == SectionKind::ZeroData { Vec::new() } else { section.data().expect("data").to_vec() };
        sections.push(Section { name, kind, align: section.align(), data, size: section.size(), relocations: vec![] });
    }
    for section in file.sections() {
        let Some(&(at, _)) = by_index.get(&section.index().0) else { continue };
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("an ELF relocation") };
            let formula = arch.relocation(r_type.0).expect("a known type").formula;
            if formula == Formula::Nothing {
                continue;
            }
            let RelocationTarget::Symbol(symbol) = relocation.target() else { panic!("a symbol") };
            let symbol = file.symbol_by_index(symbol).expect("a symbol");
            // As ulp-build does it, by sections: the symbol's place goes into the addend.
            let mut addend = relocation.addend();
            let name = symbol.name().expect("a name");
            let index = match symbol.section_index().and_then(|s| by_index.get(&s.0)) {
                // A slot has room for the symbol alone.
                Some(&(at, _)) if matches!(formula, Formula::Slot(..)) => {
                    let place = Some(Place { section: at, offset: symbol.address(), size: symbol.size() });
                    let known = symbols.iter().position(|s| s.name == name);
                    known.unwrap_or_else(|| {
                        symbols.push(Symbol { name: name.into(), place, kind: SymbolKind::Untyped });
                        symbols.len() - 1
                    })
                }
                Some(&(_, index)) => {
                    addend += symbol.address() as i64;
                    index
                }
                None => {
                    let name = if symbol.is_undefined() { name } else { "own" };
                    symbols.iter().position(|s| s.name == name).unwrap_or_else(|| {
                        references.push(Reference { symbol: name.into(), source: source(arch, name), found: None });
                        symbols.push(Symbol { name: name.into(), place: None, kind: SymbolKind::Untyped });
                        symbols.len() - 1
                    })
                }
            };
            sections[at].relocations.push(Relocation { offset, r_type: r_type.0, symbol: index, addend });
        }
    }
    let target = Target {
        file: "app".into(),
        build_id: "ab".into(),
        kind: Kind::Pie,
        identity: Identity::SameBuildId,
        functions: vec![],
        sections: sections.iter().map(|s| s.name.clone()).collect(),
        references,
    };
    let manifest = Manifest {
        format: FORMAT,
        name: "t".into(),
        description: String::new(),
        cves: vec![],
        tool: String::new(),
        compiler: String::new(),
        arch: arch.name().into(),
        accepted: vec![],
        warnings: vec![],
        escape: false,
        exceptions: false,
        atomic: true,
        replaces: vec![],
        requires: vec![],
        targets: vec![target],
    };
    Package { manifest, sections, symbols }
}

fn word(image: &Image, at: u64) -> u64 {
    let (start, data) = image.run(Run::Data);
    let from = usize::try_from(at - start.0).expect("in the data");
    u64::from_le_bytes(data[from..from + 8].try_into().expect("eight bytes"))
}

/// Seen from a page, for a lower part that is added as a signed number.
const ROUNDED: SeenFrom = SeenFrom::PlacePages(Pages::Rounded);

/// The slot that the instruction of `r` leads to, in `bytes`, which stand at `start`; perhaps with another one, which has the
/// lower part.
fn slot(arch: &dyn Arch, section: &Section, r: &Relocation, start: u64, bytes: &[u8]) -> u64 {
    let row = arch.relocation(r.r_type);
    if let Some((row, Formula::Slot(_, SeenFrom::Place))) = row.map(|row| (row, row.formula)) {
        let distance = row.extract(&bytes[r.offset as usize..]).expect("bits");
        return (start + r.offset).wrapping_add_signed(distance);
    }
    let other = |l: &&Relocation| l.symbol == r.symbol && l.offset > r.offset && arch.relocation(l.r_type) != row;
    let lower = section.relocations.iter().find(other).expect("a partner");
    let page = arch.page_taken(&bytes[r.offset as usize..], LinkAddr(start + r.offset)).expect("a page");
    let field = arch.relocation(lower.r_type).expect("known").extract(&bytes[lower.offset as usize..]);
    let low = field.expect("bits") & 0xfff;
    let rounded = matches!(row.map(|row| row.formula), Some(Formula::Slot(_, ROUNDED)));
    page.0.wrapping_add_signed(if rounded { (low ^ 0x800) - 0x800 } else { low })
}

/// Where ours has its linkage table entry for `far_function`; none where that is called through a slot only.
fn entry(arch: &dyn Arch, package: &Package, image: &Image) -> Option<u64> {
    let (code_at, code) = image.run(Run::Code);
    let mut entry = None;
    for (index, section) in package.sections.iter().enumerate().filter(|(_, s)| s.kind == SectionKind::Code) {
        let start = image.symbols[&index].0;
        let from = (start - code_at.0) as usize;
        let insns = arch.decode(&code[from..from + section.size as usize]);
        for r in section.relocations.iter().filter(|r| package.symbols[r.symbol].name == "far_function") {
            let insn = insns.iter().find(|i| i.start as u64 == r.offset).expect("an instruction");
            let (Flow::Call { target, .. } | Flow::Jump { target, .. }) = insn.flow else { continue };
            let to = start.wrapping_add_signed(target.expect("direct"));
            assert_eq!(*entry.get_or_insert(to), to, "one entry for all");
        }
    }
    let entry = entry?;
    let slot = arch.linkage_slot(&code[(entry - code_at.0) as usize..], LinkAddr(entry)).expect("an entry");
    assert_eq!(word(image, slot.0), FAR, "the slot of far_function");
    Some(entry)
}

#[test]
fn what_compilers_make_is_relocated_as_gnu_ld_does_it() {
    let mut tried = 0;
    for Machine { arch, emulation, options } in MACHINES {
        let (gcc, ld) = (format!("{arch}-linux-gnu-gcc"), format!("{arch}-linux-gnu-ld"));
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        std::fs::write(dir.join("a.c"), SOURCE).expect("written");
        let mut arguments = vec!["-w", "-O2", "-ffunction-sections", "-c", "a.c", "-o", "a.o"];
        arguments.extend(PLAIN.iter().chain(options));
        if run(&gcc, &arguments, dir).is_none() {
            // Debian 12 has none for loongarch64.
            assert!(arch == "loongarch64" || std::env::var_os("CI").is_none(), "{gcc} is missing");
            println!("SKIPPED: no {gcc}");
            continue;
        }
        let what = format!("{gcc} {options:?}");
        let arch = ulp_arch::by_name(arch).expect("known");
        let package = package(arch, &std::fs::read(dir.join("a.o")).expect("an object"));
        let layout = Layout::new(arch, &package, &package.manifest.targets[0], 0, 0, 4096).expect("a layout");
        let mut found = Found::default();
        for demand in layout.demands().expect("demands") {
            let far = if package.symbols[demand.symbol].name == "far_data" { FAR + 0x1000 } else { FAR };
            found.addresses.insert(demand.symbol, RemoteAddr(far));
        }
        let linked = layout.link(RemoteAddr(BASE), LoadBias(BIAS), &found);
        if options.contains(&"-fno-pie") {
            // Library data that are reached without a slot.
            assert!(linked.is_err(), "{what}: far_data is out of reach");
            tried += 1;
            continue;
        }
        let image = linked.unwrap_or_else(|e| panic!("{what}: {e}"));
        let entry = entry(arch, &package, &image);
        assert_eq!(entry.is_none(), options.contains(&"-mcmodel=extreme"), "{what}: far_function is called");
        let far_function = entry.unwrap_or(FAR);

        // ld puts every section where it is in the image; its table of slots lies behind.
        let mut script = String::from("SECTIONS {\n");
        for (index, section) in package.sections.iter().enumerate() {
            let at = image.symbols[&index].0;
            writeln!(script, " {0} {at:#x} : {{ a.o({0}) }}", section.name).expect("written");
        }
        script += " .got 0x12380000 : { *(.got) }\n .got.plt 0x12390000 : { *(.got.plt) }\n";
        script += " .tbss 0x10000000 : { *(.tdata .tbss) }\n /DISCARD/ : { *(.eh_frame .comment .note*) }\n}\n";
        std::fs::write(dir.join("script"), script).expect("written");
        std::fs::write(
            dir.join("t.s"),
            ".section .tdata,\"awT\"\n.globl counted\n.type counted,%object\n.size counted,4\ncounted: .long 0\n",
        )
        .expect("written");
        run(&format!("{}-linux-gnu-as", arch.name()), &["t.s", "-o", "t.o"], dir).expect("as");
        let mut defined =
            vec![format!("--defsym=far_function={far_function:#x}"), format!("--defsym=far_data={:#x}", FAR + 0x1000)];
        for (name, at) in [("near_function", NEAR), ("near_data", NEAR + 64), ("table_entry", NEAR + 128)] {
            defined.push(format!("--defsym={name}={:#x}", BIAS + at));
        }
        let mut arguments = vec![
            "-m",
            emulation,
            "-static",
            "--no-check-sections",
            "--no-relax",
            "-e",
            "0",
            "-T",
            "script",
            "-o",
            "linked",
            "t.o",
            "a.o",
        ];
        arguments.extend(defined.iter().map(String::as_str));
        run(&ld, &arguments, dir).expect("ld");
        let linked = std::fs::read(dir.join("linked")).expect("linked");
        let theirs = object::File::parse(&*linked).expect("an ELF file");
        let (mut compared, mut slots, mut table) = (0, 0, 0);
        for (index, section) in package.sections.iter().enumerate().filter(|(_, s)| s.kind != SectionKind::ZeroData) {
            let at = image.symbols[&index].0;
            let run = Run::ALL
                .map(|run| image.run(run))
                .into_iter()
                .find(|(start, bytes)| at.checked_sub(start.0).is_some_and(|n| n < bytes.len() as u64));
            let (start, bytes) = run.expect("in a run");
            let from = (at - start.0) as usize;
            let ours = &bytes[from..from + section.size as usize];
            let their = theirs.section_by_name(&section.name).expect("the section");
            assert_eq!(their.address(), at, "{what}: {}", section.name);
            let their = their.data().expect("data");
            let mut theirs_own = vec![0u8; ours.len()];
            for r in &section.relocations {
                let row = arch.relocation(r.r_type).expect("known");
                let at_field = r.offset as usize;
                if package.symbols[r.symbol].name == "_GLOBAL_OFFSET_TABLE_" {
                    // Each takes the page of its own table.
                    let taken = |bytes: &[u8]| arch.page_taken(&bytes[at_field..], LinkAddr(at + r.offset));
                    table = taken(ours).expect("a page").0;
                    let got = theirs.section_by_name(".got").expect("a table").address();
                    assert_eq!(taken(their), Some(LinkAddr(got & !0xfff)), "{what}: {}", section.name);
                    theirs_own.iter_mut().skip(at_field).zip(row.mask()).for_each(|(byte, bits)| *byte |= bits);
                    continue;
                }
                let Formula::Slot(kind, seen) = row.formula else { continue };
                // Their slots stand elsewhere, with the same in them; what a slot would tell them of a program's own
                // thread-local storage, they put into the instructions.
                let relaxed = kind == SlotKind::ThreadOffset;
                let mask = if relaxed { vec![0xff; 4] } else { row.mask() };
                let field = theirs_own.iter_mut().skip(r.offset as usize).zip(mask);
                field.for_each(|(byte, bits)| *byte |= bits);
                let paged = matches!(seen, SeenFrom::PlacePage | ROUNDED);
                let parts = section.relocations.iter().filter(|p| p.symbol == r.symbol);
                let mut parts =
                    parts.filter_map(|p| arch.immediate_part(p.r_type, &their[p.offset as usize..])).peekable();
                if paged && relaxed && parts.peek().is_some() {
                    let offset = parts.fold(0, |all, part| all | part);
                    assert_eq!(
                        word(&image, slot(arch, section, r, at, ours)),
                        offset as u64,
                        "{what}: {}",
                        section.name
                    );
                } else if paged || seen == SeenFrom::Place {
                    let (a, b) = (slot(arch, section, r, at, ours), slot(arch, section, r, at, their));
                    let table = theirs.section_by_name(".got").expect("a table");
                    let from = (b - table.address()) as usize;
                    let there = &table.data().expect("data")[from..from + 8];
                    assert_eq!(word(&image, a).to_le_bytes(), there, "{what}: a slot in {}", section.name);
                    slots += 1;
                } else if seen == SeenFrom::TablePage {
                    let distance = |bytes: &[u8]| row.extract(&bytes[at_field..]).expect("bits") as u64 & 0x7fff;
                    let got = theirs.section_by_name(".got").expect("a table");
                    let from = ((got.address() & !0xfff) + distance(their) - got.address()) as usize;
                    let there = &got.data().expect("data")[from..from + 8];
                    let ours = word(&image, table + distance(ours));
                    assert_eq!(ours.to_le_bytes(), there, "{what}: a slot in {}", section.name);
                    slots += 1;
                }
            }
            let differs = (0..ours.len()).find(|i| (ours[*i] ^ their[*i]) & !theirs_own[*i] != 0);
            assert_eq!(differs, None, "{what}: {} differs\n{ours:02x?}\n{their:02x?}", section.name);
            compared += section.relocations.len();
        }
        println!("{what}: {compared} relocations, {slots} slots");
        assert!(compared > 20 && slots > 0, "{what}: {compared} relocations, {slots} slots");
        tried += 1;
    }
    println!("{tried} ways to compile");
}
