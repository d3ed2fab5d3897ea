// SPDX-License-Identifier: GPL-2.0-or-later
//! What compilers of other machines make, laid out and relocated by us and by GNU ld for the same addresses: byte for byte the
//! same. What a patch reaches in its own way (its slots, its linkage table entries) ld is told to use as well.

use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use ulp_apply::link::{Found, Image, Layout, Run};
use ulp_arch::{Arch, Flow, Formula, LinkAddr, LoadBias, RemoteAddr, SlotKind};
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
/// Of the program's thread-local block; `counted` is its first variable.
const BLOCK: i64 = 16;

/// A machine, its tools, and how its compiler is to be called.
struct Machine {
    arch: &'static str,
    emulation: &'static str,
    options: &'static [&'static str],
}

const MACHINES: [Machine; 4] = [
    Machine { arch: "aarch64", emulation: "aarch64linux", options: &["-fPIE"] },
    Machine { arch: "aarch64", emulation: "aarch64linux", options: &["-fno-pie"] },
    Machine { arch: "aarch64", emulation: "aarch64linux", options: &["-fPIC", "-ftls-model=local-exec"] },
    Machine { arch: "aarch64", emulation: "aarch64linux", options: &["-fPIE", "-mcmodel=tiny"] },
];

fn run(program: &str, arguments: &[&str], dir: &Path) -> Option<()> {
    let out = Command::new(program).args(arguments).current_dir(dir).output().ok()?;
    assert!(out.status.success(), "{program} {arguments:?}\n{}", String::from_utf8_lossy(&out.stderr));
    Some(())
}

/// Where the undefined symbols are.
fn source(name: &str) -> Source {
    let import = |object| Source::Import { name: name.into(), version: None, object };
    match name {
        "far_function" => import(ObjectKind::Function),
        "far_data" => import(ObjectKind::Data),
        "near_function" => Source::Local { addr: LinkAddr(NEAR), size: 64 },
        "near_data" => Source::Local { addr: LinkAddr(NEAR + 64), size: 4 },
        "table_entry" => Source::Local { addr: LinkAddr(NEAR + 128), size: 80 },
        "counted" => Source::TlsLocalExec { offset: BLOCK },
        "own" => Source::TlsLocalExec { offset: BLOCK + 4 },
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
            let RelocationTarget::Symbol(symbol) = relocation.target() else { panic!("a symbol") };
            let symbol = file.symbol_by_index(symbol).expect("a symbol");
            // As ulp-build does it, by sections: the symbol's place goes into the addend.
            let mut addend = relocation.addend();
            let name = symbol.name().expect("a name");
            let index = match symbol.section_index().and_then(|s| by_index.get(&s.0)) {
                Some(&(_, index)) => {
                    addend += symbol.address() as i64;
                    index
                }
                None => {
                    let name = if symbol.is_undefined() { name } else { "own" };
                    symbols.iter().position(|s| s.name == name).unwrap_or_else(|| {
                        references.push(Reference { symbol: name.into(), source: source(name), found: None });
                        symbols.push(Symbol { name: name.into(), place: None, kind: SymbolKind::Untyped });
                        symbols.len() - 1
                    })
                }
            };
            assert!(arch.relocation(r_type.0).is_some(), "type {}", r_type.0);
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

/// Follows what ours made of `far_function` and of slots, and says where it put them.
fn own_ways(arch: &dyn Arch, package: &Package, image: &Image) -> (Option<u64>, BTreeMap<String, u64>) {
    let (code_at, code) = image.run(Run::Code);
    let (mut entry, mut slots) = (None, BTreeMap::new());
    for (index, section) in package.sections.iter().enumerate().filter(|(_, s)| s.kind == SectionKind::Code) {
        let start = image.symbols[&index].0;
        let from = (start - code_at.0) as usize;
        let bytes = &code[from..from + section.size as usize];
        for r in &section.relocations {
            let (row, at) = (arch.relocation(r.r_type).expect("known"), r.offset as usize);
            let name = &package.symbols[r.symbol].name;
            if row.formula == Formula::PltPcRelative && name == "far_function" {
                let insns = arch.decode(bytes);
                let insn = insns.iter().find(|i| i.start == at).expect("an instruction");
                let (Flow::Call { target, .. } | Flow::Jump { target, .. }) = insn.flow else { panic!("a branch") };
                let to = start.wrapping_add_signed(target.expect("direct"));
                assert_eq!(*entry.get_or_insert(to), to, "one entry for all");
                let plt = &code[(to - code_at.0) as usize..];
                let slot = arch.linkage_slot(plt, LinkAddr(to)).expect("an entry");
                assert_eq!(word(image, slot.0), FAR, "the slot of far_function");
            }
            if let Formula::Slot(SlotKind::Address, ulp_arch::SeenFrom::PlacePage) = row.formula {
                let lower = section
                    .relocations
                    .iter()
                    .find(|l| l.symbol == r.symbol && l.offset > r.offset && arch.relocation(l.r_type) != Some(row));
                let lower = lower.expect("a partner");
                let page = arch.page_taken(&bytes[at..], LinkAddr(start + r.offset)).expect("a page");
                let field = arch.relocation(lower.r_type).expect("known").extract(&bytes[lower.offset as usize..]);
                slots.insert(name.clone(), page.0 + (field.expect("bits") as u64 & 0xfff));
            }
        }
    }
    (entry, slots)
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
        arguments.extend(options);
        if run(&gcc, &arguments, dir).is_none() {
            assert!(std::env::var_os("CI").is_none(), "{gcc} is missing");
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
        if options.contains(&"-fno-pie") || options.contains(&"-mcmodel=tiny") {
            // Library data that are reached without a slot, and everything within 1 MiB.
            assert!(linked.is_err(), "{what}: far_data is out of reach");
            tried += 1;
            continue;
        }
        let image = linked.unwrap_or_else(|e| panic!("{what}: {e}"));
        let (entry, slots) = own_ways(arch, &package, &image);
        assert!(entry.is_some() && slots.contains_key("far_data"), "{what}: {slots:x?}");
        assert_eq!(word(&image, slots["far_data"]), FAR + 0x1000, "{what}");

        // ld puts every section where it is in the image, and its table of slots where ours are: behind one reserved word.
        let mut script = String::from("SECTIONS {\n");
        for (index, section) in package.sections.iter().enumerate() {
            let at = image.symbols[&index].0;
            writeln!(script, " {0} {at:#x} : {{ a.o({0}) }}", section.name).expect("written");
        }
        let lowest = slots.values().min().expect("a slot");
        writeln!(script, " .got {:#x} : {{ *(.got) }}\n .tbss 0x10000000 : {{ *(.tdata .tbss) }}\n .got.plt 0x20000000 : {{ *(.got.plt) }}", lowest - 8)
            .expect("written");
        script += " /DISCARD/ : { *(.eh_frame .comment .note*) }\n}\n";
        std::fs::write(dir.join("script"), script).expect("written");
        std::fs::write(
            dir.join("t.s"),
            ".section .tdata,\"awT\"\n.globl counted\n.type counted,%object\n.size counted,4\ncounted: .long 0\n",
        )
        .expect("written");
        run(&format!("{}-linux-gnu-as", arch.name()), &["t.s", "-o", "t.o"], dir).expect("as");
        let mut defined = vec![
            format!("--defsym=far_function={:#x}", entry.expect("an entry")),
            format!("--defsym=far_data={:#x}", FAR + 0x1000),
        ];
        for (name, at) in [("near_function", NEAR), ("near_data", NEAR + 64), ("table_entry", NEAR + 128)] {
            defined.push(format!("--defsym={name}={:#x}", BIAS + at));
        }
        let mut arguments = vec![
            "-m",
            emulation,
            "-static",
            "--no-check-sections",
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
        let mut compared = 0;
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
            let differs = (0..ours.len()).find(|i| ours[*i] != their[*i]);
            assert_eq!(differs, None, "{what}: {} differs\n{ours:02x?}\n{their:02x?}", section.name);
            compared += section.relocations.len();
        }
        println!("{what}: {compared} relocations, {} slots", slots.len());
        assert!(compared > 40, "{what}: {compared} relocations");
        tried += 1;
    }
    println!("{tried} ways to compile");
}
