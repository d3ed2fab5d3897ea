// SPDX-License-Identifier: GPL-2.0-or-later
//! Programs under test, packages for them, and `ulp-apply` run on them. Everything is ended and removed when dropped.

use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use ulp_arch::{LinkAddr, host};
use ulp_format::{
    Function, Identity, Kind, Manifest, ObjectKind, OldRange, Package, Place, Reference, Relocation, Section,
    SectionKind, Source, Symbol, SymbolKind, sha256_hex,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Pie,
    Fixed,
    Stripped,
    Static,
    StaticStripped,
}

fn gcc(dir: &Path, source: &str, output: &str, flags: &[&str]) -> PathBuf {
    let input = dir.join(format!("{output}.c"));
    std::fs::write(&input, source).expect("source written");
    let path = dir.join(output);
    let status =
        Command::new("gcc").args(["-O2", "-Wall", "-Wno-unused"]).args(flags).arg(&input).arg("-o").arg(&path).status();
    assert!(status.expect("gcc runs").success(), "gcc {flags:?}");
    path
}

/// A program that was built.
pub struct Target {
    dir: tempfile::TempDir,
    path: PathBuf,
    build: Build,
    bytes: Vec<u8>,
}

impl Target {
    pub fn new(name: &str, source: &str, build: Build) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = match build {
            Build::Fixed => ["-no-pie", "-fno-pie"],
            Build::Static | Build::StaticStripped => ["-static-pie", "-fPIE"],
            Build::Pie | Build::Stripped => ["-pie", "-fPIE"],
        };
        let path = gcc(dir.path(), source, name, &[mode[0], mode[1], "-pthread", "-Wl,--build-id"]);
        let bytes = std::fs::read(&path).expect("the program");
        if matches!(build, Build::Stripped | Build::StaticStripped) {
            assert!(Command::new("strip").arg(&path).status().expect("strip runs").success());
        }
        Self { dir, path, build, bytes }
    }

    pub fn path(&self) -> String {
        self.path.to_str().expect("a name").to_owned()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn start(&self) -> Server {
        self.start_with(&[])
    }

    pub fn start_with(&self, arguments: &[&str]) -> Server {
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        let mut server = Server { child, out };
        assert_eq!(server.line(), "ready");
        server
    }
}

/// A running program; ended when dropped.
pub struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub fn send(&mut self, text: &str) {
        let written = writeln!(self.child.stdin.as_mut().expect("stdin"), "{text}");
        assert!(written.is_ok(), "the program ended: {:?}", self.child.wait());
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.out.read_line(&mut line).expect("the program answers");
        assert!(read > 0, "the program ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.line()
    }

    /// Ranges and protections of all mappings; text that was written to once is private for ever, so addresses are all
    /// that must be as before. The heap grows on its own account.
    pub fn maps(&self) -> Vec<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("maps");
        let shown = text.lines().filter(|l| !l.ends_with("[heap]") && !l.ends_with("[stack]"));
        shown.map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    /// How many mappings are new since `before` and look like a patch's: private, not writable.
    pub fn patch_areas(&self, before: &[String]) -> usize {
        self.maps().iter().filter(|l| !before.contains(l) && (l.ends_with("r-xp") || l.ends_with("r--p"))).count()
    }

    fn memory(&self) -> File {
        let path = format!("/proc/{}/mem", self.child.id());
        File::options().read(true).write(true).open(path).expect("its memory")
    }

    pub fn peek(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory().read_exact_at(&mut bytes, at).expect("readable");
        bytes
    }

    pub fn poke(&self, at: u64, bytes: &[u8]) {
        self.memory().write_all_at(bytes, at).expect("writable");
    }

    /// The first entry that a patch has changed, as `list` tells.
    pub fn entry_of(&self, patch: &str) -> u64 {
        let list = ulp_apply(&["list", "--pid", &self.pid(), "--json"]).code(0);
        let json: serde_json::Value = serde_json::from_str(&list.out).expect("JSON");
        let patches = json["processes"][0]["patches"].as_array().expect("patches");
        let patch = patches.iter().find(|p| p["name"] == patch).expect("the patch");
        let entry = patch["functions"][0]["entry"].as_str().expect("an entry");
        u64::from_str_radix(entry.trim_start_matches("0x"), 16).expect("an address")
    }
}

/// A package, put together by hand from a compiled replacement.
pub struct Patch {
    pub package: Package,
    path: PathBuf,
}

impl Patch {
    pub fn new(target: &Target, name: &str, fix: &str, functions: &[&str]) -> Self {
        let arch = host().expect("this machine is supported");
        let mode = if target.build == Build::Fixed { "-fno-pie" } else { "-fPIE" };
        let object = gcc(
            target.dir.path(),
            fix,
            &format!("{name}.o"),
            &["-c", "-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables", mode],
        );
        let bytes = std::fs::read(object).expect("the object");
        let elf = object::File::parse(&*bytes).expect("an object");
        let program = object::File::parse(&*target.bytes).expect("the program");
        let mut package = Package { manifest: manifest(name, arch.name()), sections: vec![], symbols: vec![] };

        let mut index = HashMap::new();
        for section in elf.sections() {
            let name = section.name().expect("a name");
            let kind = match name.split('.').nth(1) {
                Some("text") => SectionKind::Code,
                Some("rodata") => SectionKind::ReadOnly,
                Some("data") => SectionKind::Data,
                Some("bss") => SectionKind::ZeroData,
                _ => continue,
            };
            if section.size() == 0 {
                continue;
            }
            index.insert(section.index(), package.sections.len());
            let data = if kind == SectionKind::ZeroData { vec![] } else { section.data().expect("bytes").to_vec() };
            let (align, size) = (section.align().max(1), section.size());
            package.sections.push(Section { name: name.into(), kind, align, data, size, relocations: vec![] });
        }
        let mut symbols = HashMap::new();
        let mut references = Vec::new();
        for symbol in elf.symbols() {
            let text = symbol.name().expect("a name");
            let place = symbol.section_index().and_then(|s| index.get(&s).copied());
            let name = match (text, place) {
                ("", Some(section)) => format!("section.{section}"),
                ("", None) => continue,
                (text, _) => text.to_owned(),
            };
            if place.is_none() && !symbol.is_undefined() {
                continue;
            }
            let kind = match (symbol.kind(), place) {
                (object::SymbolKind::Text, _) => SymbolKind::Function,
                (object::SymbolKind::Data, Some(_)) => SymbolKind::Object,
                _ => SymbolKind::Untyped,
            };
            let name = if name.starts_with("section.") {
                package.sections[place.expect("a section")].name.clone()
            } else {
                name
            };
            symbols.insert(symbol.index(), package.symbols.len());
            let place = place.map(|section| Place { section, offset: symbol.address(), size: symbol.size() });
            if place.is_none() {
                references.push(Reference { symbol: name.clone(), source: source(&program, &name), found: None });
            }
            package.symbols.push(Symbol { name, place, kind });
        }
        for section in elf.sections() {
            let Some(&home) = index.get(&section.index()) else { continue };
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else { panic!("an odd relocation") };
                let RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("an odd relocation") };
                let symbol = *symbols.get(&symbol).expect("a symbol");
                let addend = relocation.addend();
                package.sections[home].relocations.push(Relocation { offset, r_type: r_type.0, symbol, addend });
            }
            package.sections[home].relocations.sort_by_key(|r| r.offset);
        }
        references.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        let build_id = program.build_id().expect("notes").expect("a build-id");
        let mut functions: Vec<Function> = functions.iter().map(|f| function(&program, f)).collect();
        functions.sort_by_key(|f| f.entry);
        package.manifest.targets.push(ulp_format::Target {
            file: target.path.file_name().and_then(|n| n.to_str()).expect("a name").into(),
            build_id: ulp_format::hex::encode(build_id),
            kind: if target.build == Build::Fixed { Kind::Executable } else { Kind::Pie },
            identity: Identity::SameBuildId,
            functions,
            sections: package.sections.iter().map(|s| s.name.clone()).collect(),
            references,
        });
        Self { package, path: target.dir.path().join(format!("{name}.ulp")) }
    }

    pub fn function(&mut self, name: &str) -> &mut Function {
        let functions = &mut self.package.manifest.targets[0].functions;
        functions.iter_mut().find(|f| f.name == name).expect("the function")
    }

    /// Writes the package; its path.
    pub fn write(&self) -> String {
        std::fs::write(&self.path, self.package.write().expect("consistent")).expect("written");
        self.path.to_str().expect("a name").to_owned()
    }
}

fn manifest(name: &str, arch: &str) -> Manifest {
    Manifest {
        format: ulp_format::FORMAT,
        name: name.into(),
        description: "a fix made by hand".into(),
        cves: vec!["CVE-2026-0001".into()],
        tool: "live test".into(),
        compiler: "gcc".into(),
        arch: arch.into(),
        accepted: vec![],
        warnings: vec![],
        escape: false,
        exceptions: false,
        atomic: true,
        replaces: vec![],
        requires: vec![],
        targets: vec![],
    }
}

/// In the program itself, or imported anew.
fn source(program: &object::File<'_>, name: &str) -> Source {
    let defined = program.symbols().find(|s| s.name() == Ok(name) && s.is_definition());
    match defined {
        Some(s) => Source::Local { addr: LinkAddr(s.address()), size: s.size() },
        None => Source::Import { name: name.into(), version: None, object: ObjectKind::Function },
    }
}

fn function(program: &object::File<'_>, name: &str) -> Function {
    let arch = host().expect("this machine is supported");
    let symbol = program.symbols().find(|s| s.name() == Ok(name) && s.is_definition()).expect("the function");
    let section = program.section_by_index(symbol.section_index().expect("a section")).expect("a section");
    let code = section.data_range(symbol.address(), symbol.size()).expect("bytes").expect("bytes");
    let landing = arch.landing_pad_len(code);
    let entry = LinkAddr(symbol.address());
    Function {
        name: name.into(),
        source: None,
        entry,
        ranges: vec![OldRange { name: name.into(), start: entry, size: symbol.size(), sha256: sha256_hex(code) }],
        landing: landing as u8,
        room: symbol.size(),
        old_bytes: ulp_format::hex::encode(&code[..landing + arch.entry_jump_len()]),
        loops_to_entry: false,
        probe_safe: landing > 0,
        never_returns: false,
        new_symbol: name.into(),
        gate: None,
    }
}

/// What a run of `ulp-apply` said.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, expected, "{self:?}");
        self
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ulp-apply"));
    command.args(args);
    command
}

fn ran(mut command: Command) -> Ran {
    let output = command.output().expect("ulp-apply runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

pub fn ulp_apply(args: &[&str]) -> Ran {
    ran(command(args))
}

/// As somebody who has no rights over the process: as it is when we are nobody special, as user `nobody` when we are root.
pub fn as_stranger(args: &[&str]) -> Ran {
    use std::os::unix::process::CommandExt as _;
    let root = nix::unistd::geteuid().is_root();
    if !root {
        return ulp_apply(args);
    }
    // The program and the package must be readable for that user.
    let shared = tempfile::tempdir().expect("a directory");
    let open = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    };
    open(shared.path());
    let copy = |from: &Path| {
        let to = shared.path().join(from.file_name().expect("a name"));
        std::fs::copy(from, &to).expect("copied");
        open(&to);
        to
    };
    let program = copy(Path::new(env!("CARGO_BIN_EXE_ulp-apply")));
    let package = copy(Path::new(args[0]));
    let mut command = Command::new(program);
    command.arg(package).args(&args[1..]).uid(65534).gid(65534);
    ran(command)
}
