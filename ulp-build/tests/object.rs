// SPDX-License-Identifier: GPL-2.0-or-later
//! Objects as compilers write them, and as a broken disk leaves them.

use std::path::Path;
use std::process::Command;
use ulp_build::model::Code;
use ulp_build::object::{Atom, AtomKind, Object, Scope, Target};

const SOURCE: &str = r#"
int puts(const char *); int rand(void); void abort(void);
static int count;
int tab[10];
static __thread int mine = 3;
int f(int x) {
    static int count;
    switch (x) {
    case 0: return puts("hello");
    case 1: return 33 + count++;
    case 2: return rand();
    case 3: return tab[x];
    case 4: return 44;
    case 5: return mine++;
    case 6: puts("foo");
    }
    return 3;
}
int g(int i) { return tab[i - 1] + ++count; }
double d(double x) { return x * 3.25; }
void h(int *p) { if (p[3]) { if (__builtin_expect(p[4], 0)) abort(); puts("hello"); } }
static const char *const names[] = {"one", "two", "three"};
const char *name(int i) { return names[i]; }
int alias(int) __attribute__((alias("g")));
"#;

fn compile(flags: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let source = dir.path().join("a.c");
    std::fs::write(&source, SOURCE).expect("the source can be written");
    let object = dir.path().join("a.o");
    let done = Command::new("gcc").args(flags).arg("-c").arg(&source).arg("-o").arg(&object).status();
    assert!(done.expect("gcc runs").success());
    std::fs::read(object).expect("gcc wrote an object")
}

fn atom<'a>(object: &'a Object, name: &str) -> &'a Atom {
    object.atoms.iter().find(|a| a.name == name).unwrap_or_else(|| panic!("{name} is missing: {:#?}", object.atoms))
}

/// Texts that an atom refers to, through the ends of its references.
fn strings(object: &Object, atom: &Atom) -> Vec<String> {
    let texts = atom.refs.iter().filter_map(|r| match r.target {
        Target::Atom(t) if object.atoms[t.0].anonymous && object.atoms[t.0].section.contains(".str") => {
            let bytes = &object.atoms[t.0].bytes[r.target_offset as usize..];
            Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
        }
        _ => None,
    });
    texts.collect()
}

#[test]
fn atoms_of_an_object() {
    for flags in [
        &["-O2", "-g", "-ffunction-sections", "-fdata-sections"][..],
        &["-O2"],
        &["-O2", "-fno-pic"],
        &["-O2", "-fPIC", "-gz"],
    ] {
        let object = Object::read(Path::new("a.o"), &compile(flags)).expect("a compiler's object can be read");
        for atom in &object.atoms {
            assert_eq!(atom.problem, None, "{flags:?}: {}", atom.name);
            assert!(atom.frame.is_some() || atom.kind != AtomKind::Function, "{flags:?}: {}", atom.name);
        }
        let f = atom(&object, "f");
        assert_eq!((f.kind, f.scope), (AtomKind::Function, Scope::Global));
        let mut texts = strings(&object, f);
        texts.sort();
        assert_eq!(texts, ["foo", "hello"], "{flags:?}");
        let table = f.refs.iter().find_map(|r| match r.target {
            Target::Atom(t) if object.atoms[t.0].section.starts_with(".rodata") && !strings(&object, f).is_empty() => {
                Some(&object.atoms[t.0]).filter(|t| !t.refs.is_empty())
            }
            _ => None,
        });
        for entry in &table.expect("f has a jump table").refs {
            let Target::Atom(to) = entry.target else { panic!("{flags:?}: a jump table entry leaves the object") };
            assert_eq!(object.atoms[to.0].name, "f", "{flags:?}");
            assert!((0..f.size as i64).contains(&entry.target_offset), "{flags:?}: {entry:?}");
        }
        let names = atom(&object, "names");
        assert_eq!(names.kind, AtomKind::ReadOnly);
        assert_eq!(strings(&object, names), ["one", "two", "three"], "{flags:?}");
        let d = atom(&object, "d");
        let Target::Atom(constant) = d.refs[0].target else { panic!("d multiplies by an import") };
        assert_eq!(object.atoms[constant.0].bytes, 3.25f64.to_le_bytes(), "{flags:?}");
        let cold = atom(&object, "h.cold");
        assert_eq!(cold.parent.map(|p| object.atoms[p.0].name.as_str()), Some("h"));
        assert_eq!(atom(&object, "mine").kind, AtomKind::TlsData);
        let name = object.aliases.iter().find(|(n, _)| n == "alias" || n == "g").expect("g has two names");
        assert!(object.atoms[name.1.0].kind == AtomKind::Function);
        let abort = cold.refs.iter().find(|r| matches!(r.target, Target::Import(_))).expect("abort is called");
        assert!(abort.branch && abort.target_offset == 0, "{flags:?}: {abort:?}");
    }
}

#[test]
fn damaged_objects_are_refused_without_a_panic() {
    let whole = compile(&["-O2", "-g0", "-ffunction-sections", "-fdata-sections"]);
    let path = Path::new("a.o");
    assert!(Object::read(path, &whole).is_ok());
    for len in 0..whole.len() {
        let refusal = Object::read(path, &whole[..len]).expect_err("a truncated object has lost its section headers");
        assert_eq!(refusal.code, Code::BadElf, "{len}: {refusal:?}");
    }
    let mut seed = 1u64;
    for _ in 0..20_000 {
        let mut damaged = whole.clone();
        for _ in 0..=seed % 3 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (seed >> 33) as usize % damaged.len();
            damaged[at] ^= 1 << (seed >> 60 & 7);
        }
        if let Err(refusal) = Object::read(path, &damaged) {
            assert!(matches!(refusal.code, Code::BadElf | Code::Arch), "{refusal:?}");
        }
    }
}

#[test]
fn objects_of_other_machines_are_refused() {
    let mut object = compile(&["-O2"]);
    object[18..20].copy_from_slice(&3u16.to_le_bytes()); // EM_386
    assert_eq!(Object::read(Path::new("a.o"), &object).map(|_| ()).map_err(|r| r.code), Err(Code::Arch));
}
