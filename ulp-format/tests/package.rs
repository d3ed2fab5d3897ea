// SPDX-License-Identifier: GPL-2.0-or-later
//! Packages through `write` and `read`: round trips, damage of every byte, broken rules, and binutils as a second reader.

use proptest::prelude::*;
use std::process::Command;
use ulp_arch::LinkAddr;
use ulp_format::*;

const R_X86_64_64: u32 = 1;
const R_X86_64_PC32: u32 = 2;
const R_X86_64_PLT32: u32 = 4;
const R_X86_64_GOTTPOFF: u32 = 22;
const R_X86_64_TPOFF32: u32 = 23;

fn function(name: &str, entry: u64) -> Function {
    Function {
        name: name.into(),
        source: Some("src/check.c".into()),
        entry: LinkAddr(entry),
        ranges: vec![
            OldRange { name: name.into(), start: LinkAddr(entry), size: 40, sha256: sha256_hex(b"old") },
            OldRange { name: format!("{name}.cold"), start: LinkAddr(0x900), size: 3, sha256: sha256_hex(b"cold") },
        ],
        landing: 4,
        room: 48,
        old_bytes: "f30f1efa554889e553".into(),
        loops_to_entry: false,
        probe_safe: true,
        never_returns: false,
        new_symbol: name.into(),
        gate: None,
    }
}

fn section(name: &str, kind: SectionKind, align: u64, data: &[u8]) -> Section {
    Section { name: name.into(), kind, align, data: data.into(), size: data.len() as u64, relocations: Vec::new() }
}

fn reference(symbol: &str, source: Source) -> Reference {
    Reference { symbol: symbol.into(), source, found: None }
}

/// A package with one of everything.
fn sample() -> Package {
    let manifest = Manifest {
        format: FORMAT,
        name: "server-fix-1".into(),
        description: "checks the length\nbefore it copies".into(),
        cves: vec!["CVE-2026-0001".into()],
        tool: "ulp-build 0.1.0".into(),
        compiler: "gcc (Debian 12.2.0-14) 12.2.0".into(),
        arch: "x86_64".into(),
        accepted: vec![Accepted { code: "E-LAYOUT".into(), symbol: Some("struct peer".into()) }],
        warnings: vec!["a static local is no longer used".into()],
        escape: true,
        exceptions: false,
        atomic: true,
        replaces: vec!["server-fix-0".into()],
        requires: vec![],
        targets: vec![Target {
            file: "server".into(),
            build_id: "8f3c51aa8f3c51aa8f3c51aa8f3c51aa8f3c51aa".into(),
            kind: Kind::Pie,
            identity: Identity::SameBuildId,
            functions: vec![function("check", 0x1200)],
            sections: [".text.check", ".rodata.check", ".data.count", ".bss.seen", ".eh_frame"]
                .map(String::from)
                .into(),
            references: vec![
                reference("limit", Source::TlsLocalExec { offset: -16 }),
                reference(
                    "memcpy",
                    Source::Slot {
                        slot: LinkAddr(0x4018),
                        lazy: true,
                        name: "memcpy".into(),
                        version: Some("GLIBC_2.14".into()),
                        object: ObjectKind::Function,
                    },
                ),
                reference("peers", Source::Local { addr: LinkAddr(0x4040), size: 256 }),
            ],
        }],
    };
    let mut text = section(".text.check", SectionKind::Code, 16, &[0x90; 32]);
    text.relocations = vec![
        Relocation { offset: 1, r_type: R_X86_64_PLT32, symbol: 3, addend: -4 },
        Relocation { offset: 8, r_type: R_X86_64_PC32, symbol: 1, addend: -4 },
        Relocation { offset: 16, r_type: R_X86_64_GOTTPOFF, symbol: 5, addend: -4 },
        Relocation { offset: 24, r_type: R_X86_64_TPOFF32, symbol: 5, addend: i64::MIN },
    ];
    let mut data = section(".data.count", SectionKind::Data, 8, &[0; 8]);
    data.relocations = vec![Relocation { offset: 0, r_type: R_X86_64_64, symbol: 4, addend: 8 }];
    let bss = Section { size: 100, ..section(".bss.seen", SectionKind::ZeroData, 4096, &[]) };
    let defined = |name: &str, kind, section, offset, size| Symbol {
        name: name.into(),
        kind,
        place: Some(Place { section, offset, size }),
    };
    let undefined = |name: &str, kind| Symbol { name: name.into(), kind, place: None };
    Package {
        manifest,
        sections: vec![
            text,
            section(".rodata.check", SectionKind::ReadOnly, 1, b"denied\0"),
            data,
            bss,
            section(".eh_frame", SectionKind::Frames, 8, &[0; 4]),
        ],
        symbols: vec![
            defined("check", SymbolKind::Function, 0, 0, 30),
            defined(".LC0", SymbolKind::Untyped, 1, 0, 7),
            defined("count", SymbolKind::Object, 2, 0, 8),
            undefined("memcpy", SymbolKind::Function),
            undefined("peers", SymbolKind::Object),
            undefined("limit", SymbolKind::Tls),
            defined("seen", SymbolKind::Object, 3, 96, 4),
        ],
    }
}

/// A second target, a library with one function in a section of its own.
fn add_target(p: &mut Package) {
    p.manifest.atomic = false;
    p.sections.push(section(".text.twin", SectionKind::Code, 1, &[0x90; 8]));
    p.symbols.push(Symbol {
        name: "twin".into(),
        place: Some(Place { section: 5, offset: 0, size: 8 }),
        kind: SymbolKind::Function,
    });
    p.manifest.targets.push(Target {
        file: "libtwin.so.1".into(),
        build_id: "00ff".into(),
        kind: Kind::SharedLibrary,
        identity: Identity::SameBytes,
        functions: vec![Function { new_symbol: "twin".into(), ..function("twin", 0x2000) }],
        sections: vec![".text.twin".into()],
        references: vec![],
    });
}

#[test]
fn several_targets_come_back() {
    let mut package = sample();
    add_target(&mut package);
    package.sections[5].relocations = vec![Relocation { offset: 0, r_type: R_X86_64_PC32, symbol: 7, addend: -4 }];
    assert_eq!(Package::read(&package.write().unwrap()).unwrap(), package);
}

#[test]
fn the_sample_comes_back_as_it_was() {
    let file = sample().write().unwrap();
    assert_eq!(Package::read(&file).unwrap(), sample());
    assert_eq!(sample().write().unwrap(), file, "the same package is the same bytes");
    assert_eq!(digest_hex(&file).unwrap().len(), 64);
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut file = sample().write().unwrap();
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(Package::read(&file).is_err(), "bit {bit} of byte {at:#x} was not missed");
            file[at] ^= 1 << bit;
        }
    }
    Package::read(&file).unwrap();
}

#[test]
fn every_truncation_and_every_appended_byte_is_refused() {
    let file = sample().write().unwrap();
    for len in 0..file.len() {
        assert!(Package::read(&file[..len]).is_err(), "{len} of {} bytes were enough", file.len());
    }
    for byte in 0..=255 {
        assert!(Package::read(&[&file[..], &[byte]].concat()).is_err(), "an appended {byte:#x} was not seen");
    }
}

#[test]
fn strangers_are_told_apart_from_damage() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    for (what, bytes) in [("nothing", &b""[..]), ("text", b"#!/bin/sh\n"), ("magic", b"\x7fELF"), ("a program", &own)] {
        let error = Package::read(bytes).unwrap_err();
        assert!(matches!(error, ReadError::NotAPackage(_)), "{what}: {error}");
    }
    let mut file = sample().write().unwrap();
    file[100] ^= 1;
    assert!(matches!(Package::read(&file).unwrap_err(), ReadError::Damaged(_)));
}

/// Makes the digest of a changed file true again: what somebody with bad intentions would do.
fn sign(changed: &mut [u8], digest: std::ops::Range<usize>) {
    use sha2::Digest as _;
    changed[digest.clone()].fill(0);
    let value = sha2::Sha256::digest(&*changed);
    changed[digest].copy_from_slice(&value);
}

fn digest_place(file: &[u8]) -> std::ops::Range<usize> {
    use object::{Object as _, ObjectSection as _};
    let elf = object::File::parse(file).unwrap();
    let (start, len) = elf.section_by_name(".ulp.digest").unwrap().file_range().unwrap();
    start as usize..(start + len) as usize
}

/// Replaces manifest text by text of the same length, under a true digest.
fn forge(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut forged = file.to_vec();
    let at = file.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    forged[at..at + to.len()].copy_from_slice(to.as_bytes());
    sign(&mut forged, digest_place(file));
    forged
}

#[test]
fn no_byte_under_a_true_digest_makes_the_reader_panic() {
    let file = sample().write().unwrap();
    let digest = digest_place(&file);
    let mut read = 0;
    for at in (0..file.len()).filter(|at| !digest.contains(at)) {
        for value in [0, 1, 0x7f, 0xff, file[at].wrapping_add(1), file[at] ^ 0x80] {
            let mut forged = file.clone();
            forged[at] = value;
            sign(&mut forged, digest.clone());
            // A letter of a description may change; what is read must still keep every rule.
            if let Ok(package) = Package::read(&forged) {
                package.write().unwrap_or_else(|e| panic!("byte {at:#x} = {value:#x}: {e}"));
                read += 1;
            }
        }
    }
    assert!(read > file.len() / 10, "forged text of a description reads well: {read}");
}

#[test]
fn elf_that_we_would_not_write_is_refused_under_a_true_digest() {
    use object::{Object as _, ObjectSection as _};
    let file = sample().write().unwrap();
    let elf = object::File::parse(&*file).unwrap();
    let at = |section: &str| elf.section_by_name(section).unwrap().file_range().unwrap().0 as usize;
    // Section headers stand at the end; one is 64 bytes, its type at 4, its flags at 8, what it is for at 44.
    let header = |section: &str| {
        let count = elf.sections().count() + 1;
        file.len() - 64 * (count - elf.section_by_name(section).unwrap().index().0)
    };
    for (word, place, value) in [
        ("not a relocatable", 16, 2),                                // e_type: ET_EXEC
        ("not a relocatable", 56, 1),                                // e_phnum
        ("architecture", 18, 183),                                   // e_machine: EM_AARCH64
        ("not global", at(".symtab") + 24 + 4, 0x02),                // st_info: STB_LOCAL, STT_FUNC
        ("not global", at(".symtab") + 24 + 5, 2),                   // st_other: STV_HIDDEN
        ("of no kind", at(".symtab") + 24 + 4, 0x13),                // st_info: STT_SECTION
        ("has a place", at(".symtab") + 24 * 4 + 8, 1),              // st_value of an undefined symbol
        ("in no loaded section", at(".symtab") + 24 + 6, 12),        // st_shndx: the manifest
        ("names no symbol", at(".rela.text.check") + 12, 0),         // r_info: the null symbol
        ("of no kind", header(".rodata.check") + 4, 7),              // sh_type: SHT_NOTE
        ("of no kind", header(".rodata.check") + 8, 7),              // sh_flags: writable and executable
        ("as a package has it", header(".rela.data.count") + 44, 1), // sh_info: .text.check
        ("as a package has it", header(".rela.data.count") + 40, 1), // sh_link: .text.check
    ] {
        let mut forged = file.clone();
        assert_ne!(forged[place], value);
        forged[place] = value;
        sign(&mut forged, digest_place(&file));
        let error = Package::read(&forged).expect_err(word).to_string();
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
    let mut forged = file.clone();
    let (text, data) = (header(".rela.text.check"), header(".rela.data.count"));
    forged.copy_within(text..text + 64, data);
    sign(&mut forged, digest_place(&file));
    let error = Package::read(&forged).unwrap_err().to_string();
    assert!(error.contains("is there twice"), "{error}");
}

#[test]
fn a_newer_format_is_recognised_when_its_digest_holds() {
    let file = sample().write().unwrap();
    // What else a newer manifest says is not looked at: `tool` is unknown to this reader under its new name.
    let newer = forge(&forge(&file, "\"format\": 1", "\"format\": 9"), "\"tool\"", "\"toil\"");
    assert!(matches!(Package::read(&newer).unwrap_err(), ReadError::Newer { found: 9 }));
    let unknown = forge(&file, "\"tool\"", "\"toil\"");
    assert!(matches!(Package::read(&unknown).unwrap_err(), ReadError::Damaged(_)));
    let zero = forge(&file, "\"format\": 1", "\"format\": 0");
    assert!(matches!(Package::read(&zero).unwrap_err(), ReadError::Damaged(_)));
    let renamed = forge(&file, "\"x86_64\"", "\"x86_65\"");
    assert!(matches!(Package::read(&renamed).unwrap_err(), ReadError::Damaged(_)));
    let other = forge(&file, "\"arch\": \"x86_64\",\n ", "\"arch\": \"aarch64\",\n");
    let error = Package::read(&other).unwrap_err().to_string();
    assert!(error.contains("not of the manifest's architecture"), "{error}");
}

/// A change to the sample, and a word of the sentence that must refuse it.
type Broken = (&'static str, fn(&mut Package));

const BROKEN: &[Broken] = &[
    ("format is 2", |p| p.manifest.format = 2),
    ("cannot be a patch's name", |p| p.manifest.name = String::new()),
    ("cannot be a patch's name", |p| p.manifest.name = "-rf".into()),
    ("cannot be a patch's name", |p| p.manifest.name = "a/b".into()),
    ("cannot be a patch's name", |p| p.manifest.name = "x".repeat(129)),
    ("architecture", |p| p.manifest.arch = "vax".into()),
    ("control characters", |p| p.manifest.description = "\x1b[2J".into()),
    ("control characters", |p| p.manifest.compiler = "a\nb".into()),
    ("replaced or required", |p| p.manifest.requires = vec!["server-fix-1".into()]),
    ("no target", |p| p.manifest.targets.clear()),
    ("too few gates", |p| p.manifest.targets[0].functions.push(function("check", 0x2000))),
    ("belongs to two targets", |p| {
        let mut twin = p.manifest.targets[0].clone();
        twin.build_id = "00".into();
        p.manifest.atomic = false;
        p.manifest.targets.push(twin);
    }),
    ("belongs to two targets", |p| {
        add_target(p);
        let reference = p.manifest.targets[0].references[2].clone();
        p.manifest.targets[1].references.push(reference);
    }),
    ("have the build-id", |p| {
        add_target(p);
        p.manifest.targets[1].build_id = p.manifest.targets[0].build_id.clone();
    }),
    ("belongs to another target", |p| {
        add_target(p);
        p.manifest.targets[1].functions[0].new_symbol = "check".into();
    }),
    ("of another target", |p| {
        add_target(p);
        p.sections[5].relocations = vec![Relocation { offset: 0, r_type: R_X86_64_PC32, symbol: 0, addend: -4 }];
    }),
    ("of another target", |p| {
        add_target(p);
        p.sections[5].relocations = vec![Relocation { offset: 0, r_type: R_X86_64_PC32, symbol: 4, addend: -4 }];
    }),
    ("belongs to no target", |p| drop(p.manifest.targets[0].sections.pop())),
    ("which is not there", |p| p.manifest.targets[0].sections[0] = ".text.other".into()),
    ("package's order", |p| p.manifest.targets[0].sections.swap(0, 1)),
    ("no build-id", |p| p.manifest.targets[0].build_id = "8F".into()),
    ("no build-id", |p| p.manifest.targets[0].build_id = String::new()),
    ("not a file name", |p| p.manifest.targets[0].file = "/usr/bin/server".into()),
    ("no function to replace", |p| p.manifest.targets[0].functions.clear()),
    ("reach into each other", |p| {
        p.manifest.atomic = false;
        p.manifest.targets[0].functions.push(function("check", 0x1210));
    }),
    ("is no function", |p| p.manifest.targets[0].functions[0].new_symbol = "count".into()),
    ("is no function", |p| p.manifest.targets[0].functions[0].new_symbol = "memcpy".into()),
    ("is no function", |p| p.manifest.targets[0].functions[0].new_symbol = "nobody".into()),
    ("begin at its entry", |p| p.manifest.targets[0].functions[0].ranges.reverse()),
    ("begin at its entry", |p| p.manifest.targets[0].functions[0].ranges.clear()),
    ("empty or wraps", |p| p.manifest.targets[0].functions[0].ranges[1].size = 0),
    ("empty or wraps", |p| p.manifest.targets[0].functions[0].ranges[1].size = u64::MAX),
    ("no sha-256", |p| p.manifest.targets[0].functions[0].ranges[0].sha256.truncate(62)),
    ("are not hex", |p| p.manifest.targets[0].functions[0].old_bytes = "f3 0f".into()),
    ("that an entry jump needs", |p| p.manifest.targets[0].functions[0].old_bytes.push_str("00")),
    ("landing pad", |p| p.manifest.targets[0].functions[0].landing = 0),
    ("no room", |p| p.manifest.targets[0].functions[0].room = 8),
    ("wraps", |p| p.manifest.targets[0].functions[0].room = u64::MAX),
    ("of hex", |p| p.manifest.targets[0].functions[0].gate = Some(Gate { displaced: "5g".into() })),
    ("of hex", |p| p.manifest.targets[0].functions[0].gate = Some(Gate { displaced: String::new() })),
    ("of hex", |p| p.manifest.targets[0].functions[0].gate = Some(Gate { displaced: "55".repeat(65) })),
    ("not those at its entry", |p| {
        p.manifest.targets[0].functions[0].gate = Some(Gate { displaced: "ffffffffff".into() });
    }),
    ("not sorted by symbol", |p| p.manifest.targets[0].references.reverse()),
    ("no undefined symbol", |p| p.manifest.targets[0].references[2].symbol = "pears".into()),
    ("comes from", |p| drop(p.manifest.targets[0].references.pop())),
    ("thread-local", |p| p.symbols[5].kind = SymbolKind::Object),
    ("not aligned", |p| {
        p.manifest.targets[0].references[0].source = Source::TlsSlot { slot: LinkAddr(0x4019), delta: 0 };
    }),
    ("does not fit", |p| p.sections[0].relocations[3].symbol = 4),
    ("does not fit", |p| p.sections[0].relocations[0].symbol = 5),
    ("new thread-local", |p| p.symbols[2].kind = SymbolKind::Tls),
    ("two sections", |p| p.sections[1].name = ".text.check".into()),
    ("can be called", |p| p.sections[1].name = ".ulp.more".into()),
    ("can be called", |p| p.sections[1].name = "text".into()),
    ("alignment", |p| p.sections[0].align = 3),
    ("alignment", |p| p.sections[0].align = 0),
    ("alignment", |p| p.sections[0].align = 8192),
    ("another kind", |p| p.sections[4].kind = SectionKind::ReadOnly),
    ("another kind", |p| p.sections[1].kind = SectionKind::Frames),
    ("size of its bytes", |p| p.sections[0].size = 31),
    ("although it is zero", |p| p.sections[3].data = vec![1]),
    ("larger than", |p| p.sections[3].size = 1 << 40),
    ("two symbols", |p| p.symbols[2].name = "check".into()),
    ("has no name", |p| p.symbols[2].name = String::new()),
    ("control characters", |p| p.symbols[2].name = "a\0b".into()),
    ("in no section", |p| p.symbols[2].place.as_mut().unwrap().section = 5),
    ("not inside section", |p| p.symbols[2].place.as_mut().unwrap().offset = 1),
    ("not inside section", |p| p.symbols[2].place.as_mut().unwrap().offset = u64::MAX),
    ("not in code", |p| p.symbols[2].kind = SymbolKind::Function),
    ("has no size", |p| p.symbols[0].place.as_mut().unwrap().size = 0),
    ("not sorted by offset", |p| p.sections[0].relocations.reverse()),
    ("is not known", |p| p.sections[0].relocations[0].r_type = 200),
    ("does not fit", |p| p.sections[0].relocations[0].r_type = 19), // R_X86_64_TLSGD: a variable that no call finds
    ("not inside its section", |p| p.sections[0].relocations[3].offset = 29),
    ("not inside its section", |p| p.sections[0].relocations[3].offset = u64::MAX),
    ("names no symbol", |p| p.sections[0].relocations[0].symbol = 7),
];

#[test]
fn each_broken_rule_is_named() {
    for (index, (word, change)) in BROKEN.iter().enumerate() {
        let mut package = sample();
        change(&mut package);
        let error = package.write().expect_err(&format!("case {index}, {word}")).to_string();
        assert!(error.contains(word), "case {index}: {error:?} does not say {word:?}");
    }
}

#[test]
fn names_of_patches() {
    for good in ["a", "fix-1", "CVE-2026-1234", "libz_1.2+dfsg~rc1:2", &"n".repeat(128)] {
        assert!(is_patch_name(good), "{good}");
    }
    for bad in ["", "-a", "a b", "a/b", "ä", "a\n", &"n".repeat(129)] {
        assert!(!is_patch_name(bad), "{bad}");
    }
}

/// Runs a reader of binutils on the sample. `None`: it is not installed.
fn binutils(tool: &str, flags: &[&str]) -> Option<String> {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("sample.ulp");
    std::fs::write(&file, sample().write().unwrap()).unwrap();
    let run = Command::new(tool).args(flags).arg(&file).output().ok()?;
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && errors.is_empty(), "{tool}: {errors}");
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(!text.contains("arning"), "{text}");
    Some(text)
}

#[test]
fn readelf_shows_sections_symbols_and_relocations() {
    let Some(text) = binutils("readelf", &["-aW"]) else { return eprintln!("readelf is not installed") };
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let row = |words: &[&str]| rows.iter().any(|row| words.iter().all(|word| row.contains(word)));
    for words in [
        &["Type:", "REL"][..],
        &["Machine:", "X86-64"],
        &["30", "FUNC", "GLOBAL", "check"],
        &["TLS", "UND", "limit"],
        &[".text.check", "PROGBITS", "AX", "16"],
        &[".bss.seen", "NOBITS", "WA", "4096"],
        &[".rela.text.check", "RELA"],
        &[".ulp.manifest", "PROGBITS"],
        &["R_X86_64_PLT32", "memcpy"],
    ] {
        assert!(row(words), "no line has {words:?}:\n{text}");
    }
}

#[test]
fn objdump_shows_the_code_of_a_function() {
    let Some(text) = binutils("objdump", &["-dr"]) else { return eprintln!("objdump is not installed") };
    assert!(text.contains("<check>:") && text.contains("R_X86_64_PLT32"), "{text}");
}

/// Everything arbitrary that the rules allow: sizes, counts, names, contents, sources.
fn arbitrary() -> impl Strategy<Value = Package> {
    let name = "[a-zA-Z_][a-zA-Z0-9_.$]{0,20}";
    let kind = prop_oneof![
        Just(SectionKind::Code),
        Just(SectionKind::ReadOnly),
        Just(SectionKind::Frames),
        Just(SectionKind::Data),
        Just(SectionKind::ZeroData)
    ];
    let body = prop::collection::vec(any::<u8>(), 1..64);
    let section =
        (name, kind, 0..=12u32, body, prop::collection::vec((any::<u16>(), any::<u16>(), any::<i64>()), 0..5));
    let reference = (name, any::<u64>(), any::<i64>(), 0..9u8);
    let text = "[^\\p{Cc}]{0,40}";
    (
        prop::collection::vec(section, 1..8),
        prop::collection::vec(reference, 0..8),
        (text, text, any::<bool>(), any::<u32>()),
    )
        .prop_map(|(sections, references, (description, tool, escape, entry))| {
            let mut p = sample();
            p.manifest.description = description;
            p.manifest.tool = tool;
            p.manifest.escape = escape;
            (p.sections, p.symbols) = (Vec::new(), Vec::new());
            let target = &mut p.manifest.targets[0];
            target.functions = vec![function("check", u64::from(entry))];
            target.references = Vec::new();
            target.sections = Vec::new();
            for (i, (name, value, delta, how)) in references.into_iter().enumerate() {
                let (symbol, slot) = (format!("{i:04}{name}"), LinkAddr(value & !7));
                let object = ObjectKind::Data;
                let source = match how {
                    0 => Source::Local { addr: LinkAddr(value), size: value / 2 },
                    1 => Source::Slot { slot, lazy: delta < 0, name, version: None, object },
                    2 => Source::Import { name, version: Some("V".into()), object },
                    3 => Source::TlsLocalExec { offset: delta },
                    4 => Source::TlsPair { slot },
                    5 => Source::TlsDescriptor { slot },
                    6 => Source::TlsOffset { offset: delta },
                    7 => Source::TlsSlot { slot, delta },
                    _ => Source::OwnTable,
                };
                let kind = if how < 3 || how == 8 { SymbolKind::Untyped } else { SymbolKind::Tls };
                p.symbols.push(Symbol { name: symbol.clone(), place: None, kind });
                target.references.push(Reference { symbol, source, found: None });
            }
            let usable =
                |i: &usize| p.symbols[*i].kind != SymbolKind::Tls && target.references[*i].source != Source::OwnTable;
            let plain: Vec<usize> = (0..p.symbols.len()).filter(usable).collect();
            for (i, (name, kind, align, mut data, relocations)) in sections.into_iter().enumerate() {
                let kind = if i == 0 { SectionKind::Code } else { kind };
                let size = data.len() as u64;
                let full = match kind {
                    SectionKind::Frames => format!(".eh_frame.{i}"),
                    _ => format!(".{i}{name}"),
                };
                let mut rows = Vec::new();
                if kind == SectionKind::ZeroData {
                    data.clear();
                } else if size >= 8 && !plain.is_empty() {
                    rows.extend(relocations.into_iter().map(|(offset, symbol, addend)| Relocation {
                        offset: u64::from(offset) % (size - 7),
                        r_type: [R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32][usize::from(symbol) % 3],
                        symbol: plain[usize::from(symbol) % plain.len()],
                        addend,
                    }));
                    rows.sort_by_key(|row| row.offset);
                }
                let symbol_kind = if kind == SectionKind::Code { SymbolKind::Function } else { SymbolKind::Object };
                p.symbols.push(Symbol {
                    name: if i == 0 { "check".into() } else { format!("{i:04}@{name}") },
                    place: Some(Place { section: i, offset: size - 1, size: 1 }),
                    kind: symbol_kind,
                });
                target.sections.push(full.clone());
                p.sections.push(Section { name: full, kind, align: 1 << align, data, size, relocations: rows });
            }
            p
        })
}

proptest! {
    #[test]
    fn what_was_written_is_read(package in arbitrary()) {
        let file = package.write().unwrap();
        prop_assert_eq!(&Package::read(&file).unwrap(), &package);
        prop_assert_eq!(package.write().unwrap(), file);
    }

    #[test]
    fn arbitrary_damage_is_refused(package in arbitrary(), at in any::<prop::sample::Index>(), bits in 1..=255u8) {
        let mut file = package.write().unwrap();
        let at = at.index(file.len());
        file[at] ^= bits;
        prop_assert!(Package::read(&file).is_err());
    }

    #[test]
    fn strangers_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let file = [b"\x7fELF\x02\x01\x01".as_slice(), &tail].concat();
        prop_assert!(Package::read(&file).is_err());
    }
}
