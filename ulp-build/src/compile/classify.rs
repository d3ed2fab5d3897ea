// SPDX-License-Identifier: GPL-2.0-or-later
//! Sorts the files that a fix changes: read by compilers alone, able to change the build itself, or no part of it. In
//! doubt a file can change the build: building again costs time, a missed change would be a wrong patch.

use super::units::Compiled;
use crate::trees::{Change, Difference};
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// What is to be done about the changed files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Modified, and read by recorded compiles.
    pub recompiled: BTreeSet<PathBuf>,
    /// Able to change what is compiled, or how.
    pub build_again: Vec<PathBuf>,
    /// No part of the build.
    pub unread: Vec<PathBuf>,
}

const SOURCES: [&str; 20] = [
    "c", "cc", "cpp", "cxx", "c++", "C", "h", "hh", "hpp", "hxx", "h++", "H", "inc", "inl", "ipp", "tcc", "s", "S",
    "m", "mm",
];

const TEXTS: [&str; 18] = [
    "md", "txt", "rst", "adoc", "html", "1", "3", "5", "7", "8", "pod", "texi", "po", "pot", "png", "svg", "css",
    "patch",
];

const TEXT_NAMES: [&str; 15] = [
    "readme",
    "changelog",
    "changes",
    "news",
    "authors",
    "copying",
    "license",
    "todo",
    "thanks",
    "contributing",
    "release",
    "00-releasenotes",
    "bugs",
    "history",
    "maintainers",
];

const SIDE_FOLDERS: [&str; 11] =
    ["test", "tests", "testing", "t", "doc", "docs", "man", "examples", ".github", "fuzz", "bench"];

/// Sorts changed files. `read_otherwise` are those that a compiler read to make something else than an object. `full_reads` asks the compiler itself which files a unit reads, where its record is not complete.
pub fn classify(
    files: &[Difference],
    units: &[Compiled],
    read_otherwise: &BTreeSet<PathBuf>,
    orig: &Path,
    fix: &Path,
    full_reads: impl Fn(&Compiled) -> Result<Vec<PathBuf>>,
) -> Result<Classes> {
    let read: BTreeSet<&PathBuf> = units.iter().flat_map(|unit| &unit.reads).collect();
    let mut more = BTreeSet::new();
    if files.iter().any(|d| !read.contains(&d.path)) {
        for unit in units.iter().filter(|unit| unit.reads_partial) {
            more.extend(full_reads(unit)?);
        }
    }
    // A header that the record missed would leave its readers out: those fixes are built again as a whole.
    let missed = |path: &Path| more.contains(&orig.join(path));
    // A source that the build made may hold any other source's text, as amalgamations do; who read that is not known.
    let made = |path: &&PathBuf| {
        let configured = path.file_name().is_some_and(|n| n.to_string_lossy().contains("conf"));
        path.is_relative() && is_source(path) && !configured && !orig.join(path).exists()
    };
    let amalgamates = units.iter().flat_map(|unit| unit.reads.iter().chain([&unit.source])).any(|path| made(&path));
    let mut classes = Classes::default();
    for Difference { path, change } in files {
        let regular = orig.join(path).is_file() && !orig.join(path).is_symlink() && !fix.join(path).is_symlink();
        if read_otherwise.contains(path) {
            classes.build_again.push(path.clone());
        } else if *change == Change::Modified && regular && read.contains(path) && !can_change_build(path, orig) {
            classes.recompiled.insert(path.clone());
        } else if missed(path) || read.contains(path) {
            classes.build_again.push(path.clone());
        } else if is_beside(path) || (*change == Change::Modified && is_source(path) && !amalgamates) {
            classes.unread.push(path.clone());
        } else {
            classes.build_again.push(path.clone());
        }
    }
    Ok(classes)
}

fn suffix(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_source(path: &Path) -> bool {
    SOURCES.contains(&&*suffix(path))
}

/// Sources for which a `#line` directive has its meaning.
pub fn is_preprocessed(path: &Path) -> bool {
    is_source(path) && !matches!(&*suffix(path), "s" | "S" | "inc")
}

/// Scripts and the like that compilers happen to read as well.
fn can_change_build(path: &Path, orig: &Path) -> bool {
    !is_source(path) && std::fs::read(orig.join(path)).is_ok_and(|bytes| bytes.starts_with(b"#!"))
}

/// Documentation, tests and packaging notes.
fn is_beside(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let build_file = name.starts_with("makefile") || name == "cmakelists.txt" || name == "meson.build";
    let folders: Vec<String> = path
        .parent()
        .into_iter()
        .flat_map(Path::components)
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    if build_file {
        return false;
    }
    // Patches under debian/ are applied to the tree already, or dpkg-source applies them before the build compares.
    let packaging = path == Path::new("debian/changelog") || path.starts_with("debian/patches");
    packaging
        || TEXTS.contains(&&*suffix(path))
        || TEXT_NAMES.contains(&stem)
        || name.starts_with(".git")
        || folders.iter().any(|f| SIDE_FOLDERS.contains(&f.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_files() {
        let (orig, fix) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let modified =
            ["a.c", "b.c", "a.h", "b.h", "README.md", "Makefile", "gen.awk", "tests/t.c", "doc/CMakeLists.txt", "x.y"];
        for dir in [&orig, &fix] {
            for name in modified {
                let path = dir.path().join(name);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                std::fs::write(path, name).expect("a file");
            }
        }
        let unit = Compiled {
            source: "a.c".into(),
            object: "a.o".into(),
            language: crate::model::Language::C,
            preprocessor: None,
            compiler: None,
            assembler: serde_json::from_value(serde_json::json!({
                "tool": "as", "program": "/as", "args": [], "cwd": "/", "env": [], "started": 0, "parent": [1, 1],
                "success": true, "input": null, "output": null, "reads": [], "reads_partial": false, "digest": null,
                "inputs": [], "libraries": [], "relocatable": false,
            }))
            .expect("a call"),
            digest: String::new(),
            reads: [PathBuf::from("a.c"), PathBuf::from("a.h")].into(),
            reads_partial: false,
        };
        let mut files: Vec<Difference> =
            modified.iter().map(|p| Difference { path: p.into(), change: Change::Modified }).collect();
        files.push(Difference { path: "new.c".into(), change: Change::Added });
        files.push(Difference { path: "tests/new.c".into(), change: Change::Added });
        let got = classify(&files, &[unit], &["b.h".into()].into(), orig.path(), fix.path(), |_| Ok(Vec::new()))
            .expect("classes");
        let names = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(got.recompiled.into_iter().collect::<Vec<_>>(), names(&["a.c", "a.h"]));
        assert_eq!(got.build_again, names(&["b.h", "Makefile", "gen.awk", "doc/CMakeLists.txt", "x.y", "new.c"]));
        assert_eq!(got.unread, names(&["b.c", "README.md", "tests/t.c", "tests/new.c"]));
    }
}
