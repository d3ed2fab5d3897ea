// SPDX-License-Identifier: GPL-2.0-or-later
//! From two sources to a package, without a build system: real compiles and links, and every address in the package
//! held against what the linker's symbol table says.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use ulp_build::diff::compare_units;
use ulp_build::model::{Built, Code, FixSource, Language, LinkedElf, Request, Unit};
use ulp_build::package::{Outcome, package};
use ulp_format::{Identity, Package, Source};

const A: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static int counter = 3;
extern int other(int);
__thread int tls_four = 4;
__attribute__((noinline)) static int helper(int x) { counter += x; return x + counter; }
__attribute__((noinline)) int work(int x) { if (x > 100) abort(); return helper(x) + tls_four; }
int main(int argc, char **argv) { (void)argv; fprintf(stderr, "%d\n", work(argc) + other(argc)); return 0; }
"#;
const B: &str = r#"
#include <stdio.h>
static int counter = 7;
__attribute__((noinline)) static int helper(int x) { counter += x * 3; puts("hi"); return x - counter; }
int other(int x) { return helper(x) + 1; }
"#;

struct Tree {
    dir: tempfile::TempDir,
    link: LinkedElf,
}

fn run(dir: &Path, line: &str) {
    let status = Command::new("sh").args(["-c", line]).current_dir(dir).env("LC_ALL", "C").status().expect("sh runs");
    assert!(status.success(), "{line}");
}

fn digest(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("an object");
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Tree {
    fn new(cflags: &str, link: &str, sources: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let mut inputs = BTreeMap::new();
        for (name, text) in sources {
            std::fs::write(at(&format!("{name}.c")), text).expect("a source");
            run(dir.path(), &format!("gcc -O2 {cflags} -c {name}.c -o {name}.o"));
            inputs.insert(format!("{name}.o"), digest(&at(&format!("{name}.o"))));
        }
        run(dir.path(), &format!("{link} -Wl,--build-id -Wl,-Map=app.map -o app && strip -o production app"));
        let link = LinkedElf {
            production: at("production"),
            debuginfo: None,
            rebuilt: at("app"),
            identity: Identity::SameBuildId,
            map: at("app.map"),
            inputs,
            partial: Vec::new(),
            objects: BTreeMap::new(),
            libraries: Vec::new(),
        };
        Self { dir, link }
    }

    /// Recompiles `name` from both texts as the compile stage does.
    fn unit(&self, cflags: &str, name: &str, old: &str, new: &str) -> Unit {
        let at = |file: String| self.dir.path().join(file);
        for (side, text) in [("orig", old), ("fix", new)] {
            std::fs::create_dir_all(at(side.into())).expect("a directory");
            std::fs::write(at(format!("{side}/{name}.c")), text).expect("a source");
            let flags = format!("-O2 {cflags} -g -ffunction-sections -fdata-sections");
            run(&at(side.into()), &format!("gcc {flags} -c {name}.c -o {name}.o"));
        }
        Unit {
            source: PathBuf::from(format!("{name}.c")),
            language: Language::C,
            exceptions: false,
            pristine: Some(at(format!("{name}.o"))),
            pristine_digest: Some(digest(&at(format!("{name}.o")))),
            orig: Some(at(format!("orig/{name}.o"))),
            fix: Some(at(format!("fix/{name}.o"))),
            fixed_link_names: Vec::new(),
        }
    }

    fn make(&self, units: Vec<Unit>) -> Outcome {
        let request = Request {
            orig: PathBuf::new(),
            fix: FixSource::Patches(Vec::new()),
            build: None,
            targets: Vec::new(),
            debuginfo: Vec::new(),
            build_path: None,
            in_place: false,
            name: "test".into(),
            description: String::new(),
            cves: Vec::new(),
            replaces: Vec::new(),
            requires: Vec::new(),
            accept: Vec::new(),
            explain: None,
            work: None,
            jobs: 1,
            output: PathBuf::new(),
        };
        let built = Built {
            links: vec![self.link.clone()],
            units,
            unread: Vec::new(),
            changed_files: Vec::new(),
            compiler: "gcc".into(),
            warnings: Vec::new(),
        };
        let diffs = compare_units(&built.units);
        package(&request, &built, &diffs).expect("an outcome")
    }

    /// Addresses that nm gives a name.
    fn nm(&self, name: &str) -> Vec<u64> {
        let out = Command::new("nm").arg(&self.link.rebuilt).output().expect("nm runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let words = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        words.filter(|w| w.len() == 3 && w[2] == name).map(|w| u64::from_str_radix(w[0], 16).expect("hex")).collect()
    }
}

fn made(outcome: Outcome) -> Package {
    match outcome {
        Outcome::Package(package, _) => {
            package.write().expect("a consistent package");
            *package
        }
        other => panic!("no package: {other:?}"),
    }
}

fn codes(outcome: Outcome) -> Vec<Code> {
    match outcome {
        Outcome::Refused(refusals) => refusals.iter().map(|r| r.code).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

fn source<'p>(package: &'p Package, symbol: &str) -> &'p Source {
    let found = package.manifest.targets[0].references.iter().find(|r| r.symbol == symbol);
    &found.unwrap_or_else(|| panic!("no reference {symbol} in {:#?}", package.manifest.targets[0].references)).source
}

const SOURCES: [(&str, &str); 2] = [("a", A), ("b", B)];

#[test]
fn a_changed_static_binds_its_own_file_in_both_link_orders() {
    for link in ["gcc a.o b.o", "gcc b.o a.o", "gcc -no-pie a.o b.o"] {
        let cflags = if link.contains("no-pie") { "-fno-pie" } else { "" };
        let tree = Tree::new(cflags, link, &SOURCES);
        let new = B.replace("x * 3", "x * 5");
        let package = made(tree.make(vec![tree.unit(cflags, "b", B, &new)]));
        let target = &package.manifest.targets[0];
        assert_eq!(target.functions.len(), 1, "{link}");
        let function = &target.functions[0];
        assert_eq!((function.name.as_str(), function.source.as_deref()), ("helper", Some("b.c")), "{link}");
        // b's counter begins as 7 and a's as 3.
        let elf = ulp_build::production::Elf::read(&tree.link.rebuilt).expect("the program");
        let value = |addr: u64| elf.bytes(ulp_arch::LinkAddr(addr), 4).map(|b| b[0]);
        let want = tree.nm("counter").into_iter().find(|a| value(*a) == Some(7)).expect("b's counter");
        assert!(matches!(source(&package, "counter"), Source::Local { addr, .. } if addr.0 == want), "{link}");
        assert!(matches!(source(&package, "puts"), Source::Slot { .. }), "{link}");
        assert!(tree.nm("helper").contains(&function.entry.0), "{link}");
    }
}

#[test]
fn thread_local_new_import_and_new_data() {
    let tree = Tree::new("", "gcc a.o b.o", &SOURCES);
    let new = A
        .replace(
            "#include <stdlib.h>",
            "#include <stdlib.h>\n#include <unistd.h>\nstatic int calls;\nstatic int limit = 9;",
        )
        .replace(
            "return helper(x) + tls_four;",
            "calls++; if (calls > limit) limit = getpid(); return helper(x) + tls_four * 2 + limit;",
        );
    let package = made(tree.make(vec![tree.unit("", "a", A, &new)]));
    assert!(matches!(source(&package, "tls_four"), Source::TlsLocalExec { offset: -4 }));
    match source(&package, "getpid") {
        Source::Import { name, version, .. } => {
            assert_eq!((name.as_str(), version.as_deref()), ("getpid", Some("GLIBC_2.2.5")))
        }
        other => panic!("{other:?}"),
    }
    assert!(package.sections.iter().any(|s| s.name == ".bss.calls"), "new zero data");
    assert!(package.sections.iter().any(|s| s.name == ".data.limit"), "new data");
    assert!(package.manifest.escape && package.manifest.atomic);
    let work = &package.manifest.targets[0].functions;
    assert_eq!(work.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["work"]);
    // The part of it for rare cases belongs to the old code.
    assert_eq!(work[0].ranges.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["work", "work.cold"]);
}

#[test]
fn nothing_defines_it_and_other_flags() {
    let tree = Tree::new("", "gcc a.o b.o", &SOURCES);
    let missing = format!("extern int nowhere(int);\n{}", B.replace("x * 3", "nowhere(x)"));
    assert_eq!(codes(tree.make(vec![tree.unit("", "b", B, &missing)])), [Code::Unresolved]);
    // Compiled with other flags than what was linked.
    let new = B.replace("x * 3", "x * 5");
    assert!(codes(tree.make(vec![tree.unit("-O0", "b", B, &new)])).contains(&Code::NotReproduced));
    assert!(matches!(tree.make(vec![tree.unit("", "b", B, B)]), Outcome::NoChange(_)));
}

#[test]
fn a_shared_library_keeps_its_linkage() {
    let tree = Tree::new("-fPIC", "gcc -shared a.o b.o", &SOURCES);
    let new = A.replace("helper(x) + tls_four", "helper(x + 1) + other(x)");
    let package = made(tree.make(vec![tree.unit("-fPIC", "a", A, &new)]));
    // `other` can be interposed: it is called through the library's own slot.
    assert!(matches!(source(&package, "other"), Source::Slot { .. }));
    assert!(matches!(source(&package, "helper"), Source::Local { .. }));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let tree = Tree::new("", "gcc a.o b.o", &SOURCES);
    let new = (A.replace("helper(x) + tls_four", "helper(x) - tls_four"), B.replace("x * 3", "x * 5"));
    let bytes = || {
        let units = vec![tree.unit("", "a", A, &new.0), tree.unit("", "b", B, &new.1)];
        let package = made(tree.make(units));
        let gates = package.manifest.targets[0].functions.iter().filter(|f| f.gate.is_some()).count();
        assert!(package.manifest.atomic && gates == 2, "{gates} gates for two functions");
        package.write().expect("bytes")
    };
    assert_eq!(bytes(), bytes());
}
