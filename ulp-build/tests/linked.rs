// SPDX-License-Identifier: GPL-2.0-or-later
//! Real links, read back: every address the link map gives must be the one the linker's own symbol table gives, and
//! statics of one name must not be mixed up whatever the order of the objects.

use std::path::Path;
use std::process::Command;
use ulp_arch::LinkAddr;
use ulp_build::linkmap::{Fate, LinkMap};
use ulp_build::production::{Elf, SlotMeaning, SymbolKind};
use ulp_format::Kind;

const A: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static int counter = 3;
int common_one;
__thread int tls_zero;
__thread int tls_four = 4;
extern int other(int);
__attribute__((noinline)) static int helper(int x) { counter += x; return x + counter; }
__attribute__((noinline)) int work(int x) { if (x > 100) abort(); return helper(x) + common_one + tls_zero; }
int main(int argc, char **argv) { (void)argv; fprintf(stderr, "%d\n", work(argc) + other(argc) + tls_four); return 0; }
"#;
const B: &str = r#"
#include <stdio.h>
static int counter = 7;
__attribute__((noinline)) static int helper(int x) { counter += x * 3; puts("hi"); return x - counter; }
__attribute__((visibility("hidden"), noinline)) int quiet(int x) { return x ^ 5; }
__attribute__((weak)) int weak_one(void) { return 1; }
int other(int x) { return helper(x) + weak_one() + quiet(x); }
int unused(void) { return 3; }
"#;

fn run(dir: &Path, line: &str) {
    let status = Command::new("sh").args(["-c", line]).current_dir(dir).env("LC_ALL", "C").status().expect("sh runs");
    assert!(status.success(), "{line}");
}

struct Linked {
    _dir: tempfile::TempDir,
    map: LinkMap,
    elf: Elf,
}

/// Compiles A and B with `cflags`, links them with `link`.
fn link(cflags: &str, link: &str) -> Linked {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.c"), A).expect("a.c");
    std::fs::write(dir.path().join("b.c"), B).expect("b.c");
    run(dir.path(), &format!("gcc -O2 {cflags} -c a.c b.c"));
    run(dir.path(), &format!("{link} -Wl,-Map=app.map -o app"));
    let text = std::fs::read_to_string(dir.path().join("app.map")).expect("a map");
    let map = LinkMap::parse(&text).expect("GNU ld's map");
    let elf = Elf::read(&dir.path().join("app")).expect("an ELF file");
    Linked { _dir: dir, map, elf }
}

/// The address of the only section of that name in the object.
fn place(l: &Linked, object: &str, section: &str, size: u64) -> LinkAddr {
    match l.map.fate(object, section, &[size], 0) {
        Fate::Placed(extent) => extent.addr,
        other => panic!("{object} {section}: {other:?}"),
    }
}

fn only(l: &Linked, name: &str) -> (LinkAddr, SymbolKind) {
    let all: Vec<_> = l.elf.named(name).collect();
    assert_eq!(all.len(), 1, "{name}");
    (all[0].addr, all[0].kind)
}

#[test]
fn statics_of_one_name_in_both_link_orders() {
    for (order, kind) in [
        ("gcc a.o b.o", Kind::Pie),
        ("gcc b.o a.o", Kind::Pie),
        ("gcc -no-pie b.o a.o", Kind::Executable),
        ("gcc -Wl,--gc-sections b.o a.o", Kind::Pie),
    ] {
        let l = link("-ffunction-sections -fdata-sections", order);
        assert_eq!(l.elf.kind, kind, "{order}");
        let a = place(&l, "a.o", ".data.counter", 4);
        let b = place(&l, "b.o", ".data.counter", 4);
        let bytes = |addr| l.elf.bytes(addr, 4).map(<[u8]>::to_vec);
        assert_eq!(bytes(a), Some(vec![3, 0, 0, 0]), "{order}");
        assert_eq!(bytes(b), Some(vec![7, 0, 0, 0]), "{order}");
        let mut both: Vec<_> = l.elf.named("counter").map(|s| s.addr).collect();
        both.sort();
        let mut want = [a, b];
        want.sort();
        assert_eq!(both, want, "{order}");
        assert!(l.map.is_global(only(&l, "work").0) && !l.map.is_global(a), "{order}");
        // Hidden globals are local in the symbol table and global in the link.
        assert!(l.map.is_global(only(&l, "quiet").0), "{order}");
        let unused = l.map.fate("b.o", ".text.unused", &[6], 0);
        assert_eq!(unused == Fate::Dropped, order.contains("gc-sections"), "{order}");
    }
}

#[test]
fn archive_members_have_their_own_names() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.c"), A).expect("a.c");
    std::fs::write(dir.path().join("b.c"), B).expect("b.c");
    std::fs::write(dir.path().join("c.c"), "int never_linked(void) { return 1; }\n").expect("c.c");
    run(dir.path(), "gcc -O2 -ffunction-sections -c a.c b.c c.c && ar rc libb.a b.o c.o");
    run(dir.path(), "gcc a.o -L. -lb -Wl,-Map=app.map -o app");
    let map = LinkMap::parse(&std::fs::read_to_string(dir.path().join("app.map")).expect("a map")).expect("parses");
    assert!(map.has_object("./libb.a(b.o)"));
    assert!(!map.has_object("./libb.a(c.o)"));
}

#[test]
fn dynamic_symbols_slots_and_thread_pointer() {
    // Lazy: the jump slot may be unbound. The PIE has its own copy of stderr.
    let lazy = link("", "gcc -Wl,-z,lazy a.o b.o");
    let now = link("", "gcc -Wl,-z,now a.o b.o");
    assert!(!lazy.elf.bind_now && now.elf.bind_now);
    for l in [&lazy, &now] {
        let (index, puts) = l.elf.dynamic_named("puts").expect("imported");
        assert!(!puts.defined && puts.version.as_deref() == Some("GLIBC_2.2.5"), "{puts:?}");
        let slots: Vec<_> = l
            .elf
            .slots
            .iter()
            .filter(|s| matches!(s.meaning, SlotMeaning::Jump { symbol } | SlotMeaning::Address { symbol } if symbol == index))
            .collect();
        assert_eq!(slots.len(), 1);
        let (stderr, copied) = l.elf.dynamic_named("stderr").expect("copied");
        assert!(copied.defined);
        assert!(l.elf.slots.iter().any(|s| s.meaning == SlotMeaning::Copy { symbol: stderr } && s.addr == copied.addr));
        assert_eq!(only(l, "stderr").0, copied.addr);
        // tls_four comes before tls_zero: .tdata, then .tbss; the block ends at the thread pointer.
        assert_eq!(l.elf.tp_offset(only(l, "tls_four").0.plus(l.elf.tls.expect("PT_TLS").addr.0)), Some(-8));
        assert!(!l.elf.is_preemptible("work"));
        assert_eq!(l.elf.dynamic_difference(&l.elf), None);
    }
    assert!(lazy.elf.dynamic_difference(&now.elf).is_some());
}

#[test]
fn exports_of_a_library_can_be_preempted() {
    let l = link("-fPIC", "gcc -shared a.o b.o");
    assert_eq!(l.elf.kind, Kind::SharedLibrary);
    for (name, want) in [("work", true), ("weak_one", true), ("quiet", false), ("helper", false)] {
        assert_eq!(l.elf.is_preemptible(name), want, "{name}");
    }
    let bound = link("-fPIC", "gcc -shared -Wl,-Bsymbolic a.o b.o");
    assert!(!bound.elf.is_preemptible("work"));
}

#[test]
fn damaged_files_are_errors() {
    let l = link("", "gcc a.o b.o");
    let path = l._dir.path().join("app");
    let bytes = std::fs::read(path).expect("the program");
    for cut in (0..bytes.len()).step_by(97) {
        // A truncated file is an error or, when only what we do not read is missing, still the same file.
        if let Ok(elf) = Elf::parse(bytes[..cut].to_vec()) {
            assert_eq!(elf.machine, l.elf.machine);
        }
    }
    for at in (0..bytes.len()).step_by(31) {
        let mut bad = bytes.clone();
        bad[at] ^= 0xff;
        let _ = Elf::parse(bad).map(|elf| elf.bytes(LinkAddr(0x1000), u64::MAX).is_none());
    }
}
