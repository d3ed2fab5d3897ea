// SPDX-License-Identifier: GPL-2.0-or-later
//! What GNU ld for aarch64 puts between the lines: veneers behind branches that do not reach, and instructions moved away for
//! erratum 843419. Production has them where the rebuilt file has none, and is proved all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use ulp_build::linkmap::LinkMap;
use ulp_build::production::Elf;
use ulp_build::proof::Proof;

const SOURCE: &str = "
.macro function name
.globl \\name
.type \\name,%function
\\name:
.endm
.text
function _start
 mov x19,#4660
 mov x20,#22136
 mov x21,#4321
 mov x22,#8765
 bl callee
 b f
.size _start,.-_start
function f
 mov x4,#999
 mov x5,#888
 mov x6,#777
 adrp x0,var
 ldr x1,[x2]
 ldr x3,[x0,:lo12:var]
 mov x7,#666
 add x3,x3,x1
 ret
.size f,.-f
.section .far,\"ax\"
function other
 mov x9,#1111
 mov x10,#2222
 mov x11,#3333
 ret
.size other,.-other
function callee
 mov x9,#1010
 mov x10,#2020
 mov x11,#3030
 mov x12,#4040
 ret
.size callee,.-callee
.data
 .skip 0x128
.globl var
.type var,%object
.size var,8
var: .xword 7
";

fn run(tool: &str, args: &[&str], dir: &Path) -> bool {
    let Ok(out) = Command::new(format!("aarch64-linux-gnu-{tool}")).args(args).current_dir(dir).output() else {
        assert!(std::env::var_os("CI").is_none(), "aarch64-linux-gnu-{tool} is missing");
        println!("SKIPPED: no aarch64-linux-gnu-{tool}");
        return false;
    };
    assert!(out.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    true
}

/// Links once as it comes, and once for production, from `theirs` and with its options; which functions are not proved.
fn unproved(theirs: &str, options: &[&str]) -> Option<(Elf, BTreeMap<String, String>)> {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let link = |name: &str, text: &str, options: &[&str]| {
        std::fs::write(dir.join(format!("{name}.s")), text).expect("written");
        let (source, object, map) = (format!("{name}.s"), format!("{name}.o"), format!("-Map={name}.map"));
        run("as", &["-o", &object, &source], dir) && run("ld", &[&["-o", name, &object, &map], options].concat(), dir)
    };
    // The erratum needs its adrp at the end of a page: 12 bytes into f, which stands 24 bytes into the text.
    let ours = link("ours", SOURCE, &["-Ttext=0x400000", "--section-start=.far=0x500000", "-Tdata=0x600000"]);
    if !ours || !link("theirs", theirs, options) {
        return None;
    }
    let read = |name: &str| Elf::read(&dir.join(name)).expect("an ELF file");
    let (rebuilt, production) = (read("ours"), read("theirs"));
    let map = LinkMap::parse(&std::fs::read_to_string(dir.join("ours.map")).expect("a map")).expect("a map");
    let objects: BTreeMap<String, PathBuf> = [("ours.o".to_owned(), dir.join("ours.o"))].into();
    let arch = ulp_arch::by_name("aarch64").expect("known");
    let proof = Proof::of(arch, &rebuilt, &production, &map, &objects);
    let (symbols, unproved) = proof.symbols(&rebuilt, &production);
    for symbol in symbols {
        let same = production.named(&symbol.name).any(|s| s.addr == symbol.addr);
        assert!(same, "{} is not at {}", symbol.name, symbol.addr);
    }
    Some((production, unproved))
}

const FAR: &str = "--section-start=.far=0x20000000";
const ERRATUM: [&str; 4] = ["-Ttext=0x400fd4", FAR, "-Tdata=0x10000000", "--fix-cortex-a53-843419=full"];

#[test]
fn what_the_linker_puts_between_is_seen_through() {
    let Some((production, unproved)) = unproved(SOURCE, &ERRATUM) else { return };
    let f = production.named("f").next().expect("f").addr;
    assert_eq!(production.moved(f, 40).len(), 1, "an instruction was moved");
    for name in ["_start", "f", "callee", "other", "var"] {
        assert!(!unproved.contains_key(name), "{name}: {:?}", unproved.get(name));
    }
}

#[test]
fn what_stands_behind_it_counts() {
    let other_callee = SOURCE.replace("bl callee", "bl other");
    let other_load = SOURCE.replace("ldr x3,[x0,:lo12:var]", "ldr x8,[x0,:lo12:var]");
    let other_value = SOURCE.replace("var: .xword 7", "var: .xword 8");
    for (what, text, lost, kept) in [
        ("callee", &other_callee, "_start", "f"),
        ("load", &other_load, "f", "_start"),
        ("value", &other_value, "f", "other"),
    ] {
        let Some((_, unproved)) = unproved(text, &ERRATUM) else { return };
        assert!(unproved.contains_key(lost), "{what}: {lost} is proved");
        assert!(!unproved.contains_key(kept), "{what}: {kept} is not: {:?}", unproved.get(kept));
    }
}

/// A tree of the case folder, for a cross compiler.
fn tree(of: &str, to: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let case = root.join("cases/instruction-moved-for-erratum");
    std::fs::create_dir_all(to).expect("a directory");
    for name in ["ask.c", "ask.h"] {
        std::fs::copy(root.join("support").join(name), to.join(name)).expect("a copy");
    }
    std::fs::copy(case.join(of), to.join("main.c")).expect("a copy");
    let make = "app: main.o ask.o\n\taarch64-linux-gnu-gcc -o $@ main.o ask.o -Wl,--fix-cortex-a53-843419=adrp -pthread\n\
                %.o: %.c ask.h\n\taarch64-linux-gnu-gcc -O2 -g -fno-ipa-ra -c -o $@ $<\nclean:\n\trm -f app *.o\n";
    std::fs::write(to.join("Makefile"), make).expect("written");
}

#[test]
fn who_stands_at_a_moved_instruction_is_in_the_old_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    if !run("gcc", &["--version"], dir) {
        return;
    }
    tree("before.c", &dir.join("orig"));
    tree("after.c", &dir.join("fix"));
    let out = Command::new(env!("CARGO_BIN_EXE_ulp-build"))
        .args(["--orig", "orig", "--fix", "fix", "-o", "fix.ulp"])
        .current_dir(dir)
        .output()
        .expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let package = ulp_format::Package::read(&std::fs::read(dir.join("fix.ulp")).expect("a package")).expect("whole");
    let ranges = &package.manifest.targets[0].functions[0].ranges;
    let [body, moved] = &ranges[..] else { panic!("{ranges:?}") };
    assert_eq!((body.name.as_str(), moved.name.as_str(), moved.size), ("step", "step.moved.1000", 8));
    assert!(moved.start.0 >= body.start.0 + body.size, "{ranges:?}");
}
