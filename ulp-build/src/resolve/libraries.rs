// SPDX-License-Identifier: GPL-2.0-or-later
//! The libraries a program surely has in its process: those it needs, and those they need, found on the build machine as
//! the dynamic loader would. They say whether a symbol that the program never imported exists, and in which version.

use crate::production::{Elf, SymbolKind};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

/// A symbol that a library exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub version: Option<String>,
    pub kind: SymbolKind,
    pub library: String,
}

/// The needed libraries of one ELF file, breadth first as the loader searches them.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    loaded: Vec<(String, Elf)>,
    /// Needed and not found here.
    pub missing: Vec<String>,
}

impl Libraries {
    /// `linked`: the libraries of the link line, which are looked at first.
    pub fn of(elf: &Elf, file: &Path, linked: &[PathBuf]) -> Self {
        let mut libraries = Self::default();
        let mut seen = BTreeSet::new();
        let mut queue: VecDeque<(String, Vec<PathBuf>)> = VecDeque::new();
        let needs = |elf: &Elf, path: &Path| -> Vec<(String, Vec<PathBuf>)> {
            let origin = path.parent().unwrap_or(Path::new(".")).to_string_lossy().into_owned();
            let runpath = |p: &String| PathBuf::from(p.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin));
            let dirs: Vec<PathBuf> = elf.runpath.iter().map(runpath).collect();
            elf.needed.iter().map(|name| (name.clone(), dirs.clone())).collect()
        };
        queue.extend(needs(elf, file));
        while let Some((name, dirs)) = queue.pop_front() {
            if !seen.insert(name.clone()) {
                continue;
            }
            match find(&name, &dirs, linked, elf.machine) {
                Some((path, library)) => {
                    queue.extend(needs(&library, &path));
                    libraries.loaded.push((name, library));
                }
                None => libraries.missing.push(name),
            }
        }
        libraries
    }

    /// The first library that exports `name`, with the version that a new reference gets.
    pub fn export(&self, name: &str) -> Option<Export> {
        self.loaded.iter().find_map(|(library, elf)| {
            let symbol = elf.dynamic.iter().find(|s| s.name == name && s.defined && s.default_version)?;
            Some(Export { version: symbol.version.clone(), kind: symbol.kind, library: library.clone() })
        })
    }

    /// The other names of what `export` finds.
    pub fn aliases<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let home = self.loaded.iter().find_map(|(_, elf)| {
            let symbol = elf.dynamic.iter().find(|s| s.name == name && s.defined && s.default_version)?;
            Some((elf, symbol.addr))
        });
        home.into_iter().flat_map(move |(elf, addr)| {
            let same = elf.dynamic.iter().filter(move |s| s.defined && s.addr == addr && s.name != name);
            same.map(|s| s.name.as_str())
        })
    }
}

fn find(name: &str, runpath: &[PathBuf], linked: &[PathBuf], machine: u16) -> Option<(PathBuf, Elf)> {
    let by_soname = |path: &PathBuf| {
        let elf = Elf::read(path).ok().filter(|e| e.machine == machine)?;
        (elf.soname.as_deref() == Some(name)).then_some((path.clone(), elf))
    };
    let near = linked.iter().filter_map(|path| path.parent()).map(Path::to_owned);
    let dirs = runpath.iter().cloned().chain(system_dirs()).chain(near);
    let by_name = |dir: PathBuf| {
        let path = dir.join(name);
        Elf::read(&path).ok().filter(|e| e.machine == machine).map(|elf| (path, elf))
    };
    linked.iter().find_map(by_soname).or_else(|| dirs.into_iter().find_map(by_name))
}

/// Where the loader looks without being told, and what `/etc/ld.so.conf` adds.
fn system_dirs() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    let mut files = vec![PathBuf::from("/etc/ld.so.conf")];
    if let Ok(more) = std::fs::read_dir("/etc/ld.so.conf.d") {
        let mut more: Vec<PathBuf> = more.filter_map(|e| Some(e.ok()?.path())).collect();
        more.sort();
        files.extend(more);
    }
    for file in files {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        dirs.extend(text.lines().map(str::trim).filter(|l| l.starts_with('/')).map(PathBuf::from));
    }
    dirs.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    dirs
}
