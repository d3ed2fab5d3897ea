// SPDX-License-Identifier: GPL-2.0-or-later
//! Objects of other processors: what changed is found, and nothing else. A processor that no compiler is there for is said to be
//! left out.

use std::path::Path;
use std::process::Command;
use ulp_build::diff::{DiffReport, Input, diff_inputs};

const BEFORE: &str = r#"
extern int other(int);
static int first = 1, second = 2, third[40]; int shared = 9;
static const int table[] = { 3, 1, 4, 1, 5, 9, 2, 6 };
static __attribute__((noinline)) int one(int n) { first += n; second ^= n; third[n & 7]++; return table[n & 7] + first; }
static __attribute__((noinline)) int two(int n) { static int mine = 3; mine ^= n; return mine * 3 + second; }
const char *word(int n) { switch (n) { case 0: return "zero"; case 1: return "one"; case 2: return "two"; case 3: return "three"; default: return "more"; } }
int pick(int n) {
    switch (n) { case 0: return one(4); case 1: return two(n); case 2: return other(9); case 3: return 17;
    case 4: return n * 3; case 5: return shared++; case 6: return one(n) + two(n); default: return -n; }
}
double half(double d) { return d * 0.75 + 1.25; }
"#;

/// What changes, and the functions that change with it.
const CHANGES: [(&str, &str, &[&str]); 7] = [
    ("first += n;", "first += n * 2;", &["one"]),
    ("mine * 3", "mine * 5", &["two"]),
    ("\"two\"", "\"TWO\"", &["word"]),
    ("case 3: return 17;", "case 3: return 18;", &["pick"]),
    ("d * 0.75", "d * 0.625", &["half"]),
    ("5, 9, 2, 6", "5, 9, 2, 7", &["one"]),
    ("\nextern int other(int);", "\n\n\n/* moved down */\nextern int other(int);", &[]),
];

const COMPILERS: [(&str, &[&str]); 5] = [
    ("gcc", &[]),
    ("aarch64-linux-gnu-gcc", &[]),
    ("clang-16", &["--target=aarch64-linux-gnu"]),
    ("loongarch64-linux-gnu-gcc", &[]),
    ("clang-16", &["--target=loongarch64-linux-gnu"]),
];

fn compile(compiler: &str, options: &[&str], text: &str) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().ok()?;
    std::fs::write(dir.path().join("a.c"), text).ok()?;
    let mut command = Command::new(compiler);
    let status = command.current_dir(dir.path()).args(options).args(["-w", "-c", "a.c", "-o", "a.o"]).status().ok()?;
    status.success().then(|| std::fs::read(dir.path().join("a.o")).ok())?
}

fn diff(old: &[u8], new: &[u8]) -> DiffReport {
    let path = Path::new("a.o");
    diff_inputs(Input { path, bytes: old }, Input { path, bytes: new })
}

/// With a section per function exactly what changed; without, never less.
#[test]
fn changes_are_found() {
    for (compiler, target) in COMPILERS {
        for sections in [true, false] {
            let own: &[&str] = if sections { &["-ffunction-sections"] } else { &[] };
            let options: Vec<&str> = target.iter().chain(own).chain(&["-O2", "-g"]).copied().collect();
            let Some(old) = compile(compiler, &options, BEFORE) else {
                println!("SKIPPED {compiler} {}: it is not there or cannot do this", options.join(" "));
                continue;
            };
            for (from, to, want) in CHANGES {
                assert_eq!(BEFORE.matches(from).count(), 1, "{from}");
                let new = compile(compiler, &options, &BEFORE.replace(from, to)).expect("a variant compiles as well");
                let report = diff(&old, &new);
                // A named table that changed is told beside the functions that read it.
                let mut found: Vec<&str> =
                    report.changed.iter().map(String::as_str).filter(|n| *n != "table").collect();
                // gcc 16 makes a table of the switch, in one block with the constants of `one`: who reads either counts as changed.
                if compiler.starts_with("loongarch64") && (from.contains("case 3") || from.contains("5, 9")) {
                    found.retain(|name| want.contains(name) || !["one", "pick"].contains(name));
                }
                let what = format!("{compiler} {}: {from} -> {to}: {report:?}", options.join(" "));
                match sections {
                    true => assert_eq!(found, want, "{what}"),
                    false => assert!(want.iter().all(|name| found.contains(name)), "{what}"),
                }
            }
            println!("{compiler} {}: {} changes found", options.join(" "), CHANGES.len());
        }
    }
}

/// Marks between code and data (`$x`, `$d`) are no functions and no data, and where they stand changes nothing.
#[test]
fn mapping_symbols_are_nothing() {
    let text = |pad: &str| {
        format!(
            "\t.text\n\t.globl f\n\t.type f, %function\nf:\n\tldr w0, 1f\n\tret\n1:\t.word 7\n\t.size f, .-f\n{pad}\t.globl g\n\t.type g, %function\ng:\tmov w0, 3\n\tret\n\t.size g, .-g\n"
        )
    };
    let assemble = |text: &str| {
        let dir = tempfile::tempdir().ok()?;
        std::fs::write(dir.path().join("a.s"), text).ok()?;
        let tools: [(&str, &[&str]); 2] =
            [("aarch64-linux-gnu-gcc", &[]), ("clang-16", &["--target=aarch64-linux-gnu"])];
        tools.iter().find_map(|(tool, options)| {
            let mut command = Command::new(tool);
            command.current_dir(dir.path()).args(*options).args(["-c", "a.s", "-o", "a.o"]);
            command.status().ok().filter(|s| s.success())?;
            std::fs::read(dir.path().join("a.o")).ok()
        })
    };
    let (Some(old), Some(new)) = (assemble(&text("")), assemble(&text("\t.word 9\n"))) else {
        println!("SKIPPED aarch64: no assembler for it is installed");
        return;
    };
    let report = diff(&old, &new);
    let named: Vec<_> = report.changed.iter().chain(&report.new).chain(&report.gone).collect();
    assert!(named.iter().all(|name| !name.starts_with('$')), "{named:?}");
    assert!(!report.changed.contains(&"g".to_owned()), "{report:?}");
}
