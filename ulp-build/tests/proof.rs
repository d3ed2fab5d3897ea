// SPDX-License-Identifier: GPL-2.0-or-later
//! Another link of the same objects is told by its bytes alone. The judge is the symbol table that the production file had
//! before it was stripped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use ulp_build::linkmap::LinkMap;
use ulp_build::production::Elf;
use ulp_build::proof::Proof;

const A: &str = r#"
#include <stdio.h>
extern int shared_count; extern const char *const words[]; int twice(int); int b_value(void); void b_set(int);
static int hidden; static int counter = 5; static __thread int mine = 3; __thread int ours;
static const int table[] = { 3, 1, 4, 1, 5, 9, 2, 6 };
__attribute__((noinline)) static int helper(int n) { hidden += n; return hidden + table[n & 7]; }
__attribute__((noinline)) static int other(int n) { counter += n; mine += n; ours++; return counter + mine; }
__attribute__((noinline)) const char *word(int n) { return words[n & 3]; }
int work(int n) {
    switch (n) {
    case 0: return helper(1); case 1: return other(2); case 2: return twice(3); case 3: b_set(n); return b_value();
    case 4: return 77; case 5: puts("five"); return shared_count++; default: return helper(n) * other(n);
    }
}
"#;
const B: &str = r#"
int shared_count = 9; static int hidden; static int value = 4; static long unused_gap[5];
static __thread int b_mine = 2;
__attribute__((noinline)) static int helper(int n) { hidden ^= n; return hidden * 3; }
static const char *first = "first";
const char *const words[] = { "zero", "one", "two", "three" };
int twice(int n) { return n * 2 + helper(n) + b_mine++; }
int b_value(void) { return value + (int)unused_gap[1] + first[0]; }
void b_set(int n) { value = n; unused_gap[n & 3] = n; first = words[n & 1]; }
"#;
const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int work(int); const char *word(int); static int (*const steps[])(int) = { work };
int run(int n) { printf("%s %d\n", word(n), steps[0](n)); return n; }
#ifndef LIBRARY
int main(int argc, char **argv) { return run(argc > 1 ? atoi(argv[1]) : 0) > 100; }
#endif
"#;

/// Three objects, and two links of them.
struct Pair {
    dir: tempfile::TempDir,
    rebuilt: Elf,
    production: Elf,
    /// The production file's own symbols.
    truth: Elf,
    proof: Proof,
}

fn run(dir: &Path, command: &str) {
    let status = Command::new("sh").arg("-ec").arg(command).current_dir(dir).status().expect("a shell");
    assert!(status.success(), "{command}");
}

impl Pair {
    /// `changed` are the sources of production that are not those of the rebuilt file.
    fn new(cflags: &str, ldflags: &str, changed: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for side in ["ours", "theirs"] {
            std::fs::create_dir(at(side)).expect("a directory");
            for (name, text) in [("a", A), ("b", B), ("c", C)] {
                let text = match changed.iter().find(|(n, _)| *n == name) {
                    Some((_, text)) if side == "theirs" => text,
                    _ => text,
                };
                std::fs::write(at(&format!("{side}/{name}.c")), text).expect("a source");
            }
            let order = if side == "ours" { "a.o b.o c.o" } else { "c.o b.o a.o" };
            run(
                &at(side),
                &format!(
                    "gcc -O2 {cflags} -c a.c b.c c.c && gcc {ldflags} -Wl,--build-id -Wl,-Map=map {order} -o app && strip -o bare app"
                ),
            );
        }
        let read = |name: &str| Elf::read(&at(name)).expect("an ELF file");
        let (rebuilt, production, truth) = (read("ours/app"), read("theirs/bare"), read("theirs/app"));
        let map = LinkMap::parse(&std::fs::read_to_string(at("ours/map")).expect("a map")).expect("a link map");
        let objects: BTreeMap<String, PathBuf> =
            ["a.o", "b.o", "c.o"].map(|name| (name.to_owned(), at(&format!("ours/{name}")))).into();
        let arch = ulp_arch::by_machine(rebuilt.machine).expect("a known machine");
        let proof = Proof::of(arch, &rebuilt, &production, &map, &objects);
        Self { dir, rebuilt, production, truth, proof }
    }

    /// Names of the test's own symbols with the address that was proved, each checked against the truth.
    fn proved(&self) -> BTreeSet<String> {
        let (symbols, _) = self.proof.symbols(&self.rebuilt, &self.production);
        let mut names = BTreeSet::new();
        for symbol in &symbols {
            let mut same = self.truth.named(&symbol.name).filter(|s| s.addr == symbol.addr && s.kind == symbol.kind);
            assert!(
                same.next().is_some(),
                "{} is not at {} in {}",
                symbol.name,
                symbol.addr,
                self.dir.path().display()
            );
            names.insert(symbol.name.clone());
        }
        // Statics of one name must each be at its own place.
        let of = |elf: &Elf, name: &str| elf.named(name).map(|s| s.addr).collect::<Vec<_>>();
        for name in ["helper", "hidden"] {
            let ours: Vec<_> = of(&self.rebuilt, name);
            let moved: Vec<_> = ours.iter().filter_map(|a| self.proof.place(*a, false).ok()).collect();
            let want: Vec<_> = of(&self.truth, name).into_iter().rev().collect();
            if moved.len() == 2 {
                assert_eq!(moved, want, "{name}");
            }
        }
        names
    }
}

const ALL: [&str; 17] = [
    "b_mine",
    "b_set",
    "b_value",
    "counter",
    "first",
    "helper",
    "hidden",
    "mine",
    "other",
    "ours",
    "run",
    "shared_count",
    "steps",
    "table",
    "twice",
    "value",
    "words",
];

#[test]
fn another_order_of_the_link() {
    let rows = [
        ("position-independent", "-fPIE", "-pie"),
        ("fixed address", "-fno-pie", "-no-pie"),
        ("bound at start", "-fPIE", "-pie -Wl,-z,now -Wl,-z,relro"),
        ("own sections", "-fPIE -ffunction-sections -fdata-sections", "-pie"),
        ("landing pads", "-fPIE -fcf-protection=full", "-pie"),
        ("unoptimised", "-O0 -fPIE", "-pie"),
        ("size", "-Os -fno-pie", "-no-pie"),
        ("calls for thread-local variables", "-fPIC", "-pie"),
        ("such calls through slots", "-fPIC -fno-plt", "-pie"),
        ("such calls, each variable by itself", "-fPIC -ftls-model=global-dynamic", "-pie"),
        ("thread-local descriptors", "-fPIC -mtls-dialect=gnu2", "-pie"),
    ];
    for (what, cflags, ldflags) in rows {
        let pair = Pair::new(cflags, ldflags, &[]);
        let share = pair.proof.share();
        let proved = pair.proved();
        assert_eq!(share.proved, share.functions, "{what}");
        for name in ALL {
            // Constants may have no name in the program.
            let there = pair.rebuilt.named(name).next().is_some();
            // What no code refers to cannot be found, and no patch can need it.
            let unused = name == "steps" && cflags.contains("-O0");
            assert!(!there || unused || proved.contains(name), "{what}: {name} is not proved");
        }
    }
}

#[test]
fn a_shared_library() {
    for way in ["-ftls-model=initial-exec", "", "-fno-plt", "-ftls-model=global-dynamic", "-mtls-dialect=gnu2"] {
        let pair = Pair::new(&format!("-fPIC -DLIBRARY {way}"), "-shared", &[]);
        let proved = pair.proved();
        let (b_thread, all) = (["mine", "b_mine"], pair.proof.share());
        assert_eq!(all.proved, all.functions, "{way}");
        let names = ["b_set", "b_value", "helper", "hidden", "run", "twice", "value", "work", "word", "other"];
        for name in names.into_iter().chain(b_thread) {
            let why = pair.proof.symbols(&pair.rebuilt, &pair.production).1;
            assert!(proved.contains(name), "{way}: {name}: {:?}", why.get(name));
        }
    }
}

/// What differs, in which unit, its text in production, what must not be proved for it, and what must.
type Row<'a> = (&'a str, &'a str, String, &'a [&'a str], &'a [&'a str]);

/// Production was built from other sources. What is the same in both is proved, and nothing else.
#[test]
fn what_differs_is_not_proved() {
    // The same instructions, and a variable that begins with another value: read back through every way there is.
    let other = A.replace("int mine = 3", "int mine = 4");
    for way in ["-fPIC", "-fPIC -mtls-dialect=gnu2", "-fPIC -ftls-model=global-dynamic"] {
        for ldflags in ["-pie", "-shared"] {
            let library = if ldflags == "-shared" { "-DLIBRARY" } else { "" };
            let pair = Pair::new(&format!("{way} {library}"), ldflags, &[("a", &other)]);
            pair.proved();
            let (_, unproved) = pair.proof.symbols(&pair.rebuilt, &pair.production);
            assert!(unproved.contains_key("other"), "{way} {ldflags}: other is proved");
            assert!(!unproved.contains_key("twice"), "{way} {ldflags}: {:?}", unproved.get("twice"));
        }
    }
    let rows: [Row<'_>; 6] = [
        (
            "other code, same size",
            "b",
            B.replace("n * 2 +", "n * 2 -"),
            &["twice"],
            &["b_value", "b_set", "other", "value"],
        ),
        (
            "other constant of code",
            "b",
            B.replace("hidden * 3", "hidden * 7"),
            &["helper"],
            &["b_value", "b_set", "value"],
        ),
        ("other table", "a", A.replace("3, 1, 4, 1", "3, 1, 4, 2"), &["helper"], &["twice", "b_value", "value"]),
        ("other string", "a", A.replace("\"five\"", "\"cinq\""), &["work"], &["other", "counter", "b_value"]),
        ("other callee", "a", A.replace("return twice(3)", "return helper(3)"), &["work"], &["twice", "b_value"]),
        (
            "other word in a table",
            "b",
            B.replace("\"two\"", "\"TWO\""),
            &["word"],
            &["twice", "b_value", "other", "counter"],
        ),
    ];
    for (what, unit, text, lost, kept) in rows {
        let pair = Pair::new("-fPIE", "-pie", &[(unit, &text)]);
        pair.proved();
        let (_, unproved) = pair.proof.symbols(&pair.rebuilt, &pair.production);
        for name in lost {
            assert!(unproved.contains_key(*name), "{what}: {name} is proved");
        }
        for name in kept {
            assert!(!unproved.contains_key(*name), "{what}: {name} is not proved: {:?}", unproved.get(*name));
        }
    }
}

/// Two variables change places within one object: no byte of code differs, and every address must follow.
#[test]
fn variables_that_changed_places() {
    let swapped = B.replace("static int hidden; static int value = 4;", "static int value = 4; static int hidden;");
    let swapped = swapped
        .replace("int shared_count = 9; ", "")
        .replace("static const char *first", "int shared_count = 9; static const char *first");
    let pair = Pair::new("-fPIE", "-pie", &[("b", &swapped)]);
    pair.proved();
    let more = A.replace(
        "static int hidden; static int counter = 5;",
        "static int more = 6; static int hidden; static int counter = 5;",
    );
    let more = more.replace("return counter + mine;", "return counter + mine + more++ - more--;");
    let pair = Pair::new("-fPIE", "-pie", &[("a", &more)]);
    pair.proved();
}

/// Other sources altogether.
#[test]
fn another_program() {
    let other = "#include <stdio.h>\n#include <stdlib.h>\nint work(int n) { return n; } const char *word(int n) { return n ? \"a\" : \"b\"; } __thread int ours;";
    let b = "int twice(int n) { return n * 5; } int b_value(void) { return 3; } int shared_count; void b_set(int n) { shared_count = n; }";
    let pair = Pair::new("-fPIE", "-pie", &[("a", other), ("b", b)]);
    let proved = pair.proved();
    assert!(!proved.contains("work") && !proved.contains("twice") && !proved.contains("hidden"), "{proved:?}");
}
