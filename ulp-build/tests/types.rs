// SPDX-License-Identifier: GPL-2.0-or-later
//! Type comparison on objects that gcc made.

use std::path::Path;
use std::process::Command;
use ulp_build::diff::{Compiled, Input, UnitDiff};
use ulp_build::model::{Code, Language};

fn object(source: &str, flags: &[&str]) -> Vec<u8> {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("unit.c");
    let out = room.path().join("unit.o");
    std::fs::write(&file, source).unwrap();
    let done = Command::new("gcc").args(["-O2", "-g", "-c", "-o"]).arg(&out).args(flags).arg(&file).status().unwrap();
    assert!(done.success());
    std::fs::read(out).unwrap()
}

fn compare(before: &[u8], after: &[u8]) -> UnitDiff {
    let input = |bytes| Some(Input { path: Path::new("unit.o"), bytes });
    ulp_build::diff::compare(input(before), input(after), Compiled { language: Language::C, exceptions: false })
}

fn report(before: &str, after: &str, flags: &[&str]) -> UnitDiff {
    compare(&object(before, flags), &object(after, flags))
}

const USE: &str = "int use(struct s *p); int f(struct s *p) { return use(p); }\n";

#[test]
fn layouts() {
    // (why, before, after, what the refusal is about; "" for none)
    let table: &[(&str, &str, &str, &str)] = &[
        ("same", "struct s { int a; };", "struct s { int a; };", ""),
        ("member added", "struct s { int a; };", "struct s { int a; int b; };", "struct s"),
        ("member gone", "struct s { int a; char b; };", "struct s { int a; };", "struct s"),
        ("members swapped", "struct s { int a; float b; };", "struct s { float b; int a; };", "struct s"),
        ("same size, other type", "struct s { int a; };", "struct s { float a; };", "struct s"),
        ("array bound", "struct s { char a[16]; };", "struct s { char a[24]; };", "struct s"),
        (
            "array bound in the padding",
            "struct s { long l; char a[3]; };",
            "struct s { long l; char a[4]; };",
            "struct s",
        ),
        ("bit field", "struct s { int a:3, b:5; };", "struct s { int a:4, b:5; };", "struct s"),
        ("anonymous member", "struct s { struct { int x; } a; };", "struct s { struct { long x; } a; };", "struct s"),
        (
            "typedef'd anonymous",
            "typedef struct { int x; } t; struct s { t *p; };",
            "typedef struct { long x; } t; struct s { t *p; };",
            "typedef t",
        ),
        (
            "behind a pointer",
            "struct q { int x; }; struct s { struct q *p; };",
            "struct q { int x, y; }; struct s { struct q *p; };",
            "struct q",
        ),
        (
            "union",
            "union u { int a; }; struct s { union u u; };",
            "union u { int a; long b; }; struct s { union u u; };",
            "union u",
        ),
        ("callback", "struct s { void (*f)(int); };", "struct s { void (*f)(int, int); };", "struct s"),
        ("typedef widened", "typedef int n; struct s { n a; };", "typedef long n; struct s { n a; };", "struct s"),
        ("renamed member", "struct s { int a; };", "struct s { int z; };", ""),
        ("const", "struct s { char *a; };", "struct s { const char *a; };", ""),
        (
            "new type",
            "struct s { int a; };",
            "struct s { int a; }; struct n { int b; }; int g(struct n *n) { return n->b; }",
            "",
        ),
        ("packed", "struct s { char a; int b; };", "struct __attribute__((packed)) s { char a; int b; };", "struct s"),
        (
            "enumerator appended",
            "enum e { A, B }; struct s { enum e e; };",
            "enum e { A, B, C }; struct s { enum e e; };",
            "",
        ),
        (
            "enumerator inserted",
            "enum e { A, B }; struct s { enum e e; };",
            "enum e { N, A, B }; struct s { enum e e; };",
            "enum e",
        ),
        (
            "enumerator gone",
            "enum e { A, B }; struct s { enum e e; };",
            "enum e { A }; struct s { enum e e; };",
            "enum e",
        ),
        (
            "variable",
            "struct s { int a; }; int v; int g(void) { return v; }",
            "struct s { int a; }; float v; int g(void) { return v; }",
            "v",
        ),
        (
            "static local",
            "struct s { int a; }; int g(void) { static int v; return v++; }",
            "struct s { int a; }; int g(void) { static float v; return v++; }",
            "v",
        ),
        (
            "local variable",
            "struct s { int a; }; int use(); int g(void) { int v = use(); return v; }",
            "struct s { int a; }; int use(); int g(void) { long v = use(); return v; }",
            "",
        ),
        (
            "thread-local",
            "struct s { int a; }; __thread int v; int g(void) { return v; }",
            "struct s { int a; }; __thread float v; int g(void) { return v; }",
            "v",
        ),
    ];
    for (why, before, after, wanted) in table {
        for flags in [&[][..], &["-gdwarf-4"], &["-gz"]] {
            let found = report(&format!("{before}\n{USE}"), &format!("{after}\n{USE}"), flags);
            let symbols: Vec<_> =
                found.refusals.iter().filter(|r| r.code == Code::Layout).filter_map(|r| r.symbol.as_deref()).collect();
            if wanted.is_empty() {
                assert!(symbols.is_empty(), "{why} {flags:?}: {:?}", found.refusals);
            } else {
                assert!(symbols.contains(wanted), "{why} {flags:?}: {:?}", found.refusals);
            }
        }
    }
}

#[test]
fn a_renamed_member_is_a_warning() {
    let found = report(&format!("struct s {{ int a; }};\n{USE}"), &format!("struct s {{ int z; }};\n{USE}"), &[]);
    assert_eq!(found.warnings, ["struct s: member a is called z now"]);
}

#[test]
fn no_debugging_information_is_refused() {
    let refusals = compare(&object("int x;", &["-g0"]), &object("int x, y;", &["-g0"])).refusals;
    assert_eq!(refusals.iter().map(|r| r.code).collect::<Vec<_>>(), [Code::Unsupported]);
}

#[test]
fn damage_is_an_error_and_no_panic() {
    let good = object(&format!("struct s {{ int a; struct s *next; }}; {USE}"), &[]);
    for len in (0..good.len()).step_by(37) {
        let _ = compare(&good[..len], &good);
    }
    for at in (0..good.len()).step_by(11) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        let _ = compare(&bad, &good);
    }
}
